//! Housekeeping that every instance does and none leads: rescue, and pruning where it was asked for.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;

use super::engine::Engine;
use crate::db::{DbError, Lane};
use crate::queue::{Pruned, Rescued};

const PRUNE_EVERY: Duration = Duration::from_mins(10);
/// The first look comes at a random moment within this time.
const PRUNE_SPREAD: Duration = Duration::from_secs(2);
/// Whether the database is there.
const PING_WITHIN: Duration = Duration::from_secs(5);
/// A lease that is about to expire is looked at just after.
const AFTER_EXPIRY: Duration = Duration::from_millis(50);
/// Between two batches, so that pruning never competes with the queue.
const PRUNE_PAUSE: Duration = Duration::from_millis(50);

/// Looks for expired leases until the work is over, and in a task beside that prunes: a large table of old tasks must
/// not keep anybody from being rescued.
pub(super) async fn run(engine: Arc<Engine>) {
    let pruning = engine.clone();
    tokio::spawn(async move {
        tokio::select! {
            () = prune_always(&pruning) => {}
            () = pruning.over.cancelled() => {}
        }
    });
    loop {
        let wait = rescue(&engine).await;
        tokio::select! {
            () = sleep(wait) => {}
            () = engine.over.cancelled() => return,
        }
    }
}

async fn prune_always(engine: &Engine) {
    // Instances that start together need not look at the same old rows at the same time.
    let share = f64::from(uuid::Uuid::new_v4().as_fields().0) / f64::from(u32::MAX);
    sleep(PRUNE_SPREAD.mul_f64(share)).await;
    loop {
        prune(engine).await;
        sleep(PRUNE_EVERY).await;
    }
}

/// One look by a process that goes on. Answers how long the next one can wait.
async fn rescue(engine: &Engine) -> Duration {
    let lease = engine.queue.lease();
    let tick = (lease / 3).min(Duration::from_secs(10));
    // A database that was away is not a crash: its workers get the time of a lease to renew first.
    let unbroken = engine.queue.database().unbroken_for().unwrap_or_default();
    let missing = lease.saturating_sub(unbroken);
    if !missing.is_zero() {
        // Asked all the same: a break that nobody notices would not count.
        let _ = engine.queue.database().query(Lane::Shared, PING_WITHIN, "select 1", &[]).await;
        return missing.min(tick);
    }
    let rescued = rescue_overdue(engine, Duration::ZERO).await;
    rescued.and_then(|rescued| rescued.next_expiry).map_or(tick, |expiry| tick.min(expiry + AFTER_EXPIRY))
}

/// One look by a process that lives for one request or one run and has not been in touch with the database for long.
pub(super) async fn rescue_once(engine: &Engine) {
    rescue_overdue(engine, engine.queue.lease()).await;
}

async fn rescue_overdue(engine: &Engine, overdue: Duration) -> Option<Rescued> {
    let rescued = match engine.queue.rescue(overdue).await {
        Ok(rescued) => rescued,
        Err(error) => {
            tracing::warn!(%error, "cannot look for tasks of dead processes");
            return None;
        }
    };
    if rescued.tasks > 0 {
        tracing::warn!(
            tasks = rescued.tasks,
            poisoned = rescued.poisoned,
            "took back tasks of dead processes"
        );
    }
    if rescued.due {
        engine.look_soon();
        if let Err(error) = engine.queue.announce().await {
            tracing::debug!(%error, "others will find the rescued tasks at their next poll");
        }
    }
    Some(rescued)
}

async fn prune(engine: &Engine) {
    if let Some(age) = engine.retention.tasks {
        prune_all("tasks", || engine.queue.prune_tasks(age)).await;
    }
    if let Some(age) = engine.retention.log {
        prune_all("log rows", || engine.queue.prune_log(age)).await;
    }
}

async fn prune_all<F>(what: &str, mut step: impl FnMut() -> F)
where
    F: Future<Output = Result<Pruned, DbError>>,
{
    let mut rows = 0;
    loop {
        match step().await {
            Ok(pruned) => {
                rows += pruned.rows;
                if !pruned.more {
                    break;
                }
                sleep(PRUNE_PAUSE).await;
            }
            Err(error) => {
                tracing::warn!(%error, "cannot delete old {what}");
                break;
            }
        }
    }
    if rows > 0 {
        tracing::info!(rows, "deleted old {what}");
    }
}
