//! Housekeeping that every instance does and none leads: rescue, and sweeping where it was asked for.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;

use super::engine::Engine;
use super::sweeping;
use crate::db::Lane;
use crate::queue::Rescued;

/// Whether the database is there.
const PING_WITHIN: Duration = Duration::from_secs(5);
/// A lease that is about to expire is looked at just after.
const AFTER_EXPIRY: Duration = Duration::from_millis(50);

/// Looks for expired leases until the work is over, and sweeps in a task beside that: a large table of old tasks must not
/// keep anybody from being rescued.
pub(super) async fn run(engine: Arc<Engine>) {
    let sweeper = engine.clone();
    tokio::spawn(async move {
        tokio::select! {
            () = sweeping::run(&sweeper) => {}
            () = sweeper.over.cancelled() => {}
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

/// By a process that lives for one request or one run and has not been in touch with the database for long.
pub(super) async fn rescue_once(engine: &Engine) {
    while let Some(Rescued { next_expiry: Some(Duration::ZERO), tasks: 1.., .. }) =
        rescue_overdue(engine, engine.queue.lease()).await
    {}
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
