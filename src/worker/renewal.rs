//! Keeps leases alive, from a thread of its own with a connection of its own: no handler can starve it.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::engine::Engine;
use crate::db::DbError;

/// What a renewal achieved.
enum Extended {
    /// Every lease that is still ours.
    All,
    /// Not those whose rows somebody else holds at this moment.
    Some,
}

/// Starts the thread. It ends when the engine's work is over.
pub(super) fn start(engine: Arc<Engine>) -> std::io::Result<JoinHandle<()>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    std::thread::Builder::new().name("renewal".to_owned()).spawn(move || {
        runtime.block_on(async {
            tokio::select! {
                () = run(&engine) => {}
                () = engine.over.cancelled() => {}
            }
        });
    })
}

async fn run(engine: &Engine) {
    let third = engine.queue.lease() / 3;
    let tick = third.min(Duration::from_secs(1));
    let mut renew_at = Instant::now() + third;
    let mut settle_at = None;
    // A claim whose reply was lost is settled this long after: see `release_unknown_update.sql`.
    let settle_after = engine.queue.answer_good_for().mul_f64(1.1);
    loop {
        let all = tokio::select! {
            () = sleep(tick) => false,
            () = engine.renew_now.notified() => true,
        };
        watch(engine);
        if all || Instant::now() >= renew_at {
            match renew(engine, all).await {
                Ok(Extended::All) => renew_at = Instant::now() + third,
                // At the next tick again: what counts is the time left of the leases.
                Ok(Extended::Some) => {}
                Err(error) => tracing::warn!(%error, held = engine.leases.len(), "cannot renew leases"),
            }
        }
        if let Some(lost_at) = engine.leases.claim_lost_at() {
            let due = *settle_at.get_or_insert(lost_at + settle_after);
            if Instant::now() >= due {
                settle_at = Some(settle(engine, lost_at).await.unwrap_or_else(|error| {
                    tracing::warn!(%error, "cannot look for claims whose reply was lost");
                    Instant::now() + tick
                }));
            }
        } else {
            settle_at = None;
        }
    }
}

/// Extends the leases that need it, or all. Nothing held: the database is not bothered.
async fn renew(engine: &Engine, all: bool) -> Result<Extended, DbError> {
    let lease = engine.queue.lease();
    let sent = Instant::now();
    // A lease with more than two thirds left can wait: most tasks end before their first renewal.
    let mut leases = engine.leases.ending_before(if all { sent + lease * 2 } else { sent + lease * 2 / 3 });
    if leases.is_empty() {
        return Ok(Extended::All);
    }
    let renewed = engine.queue.renew(&mut leases).await?;
    let lost = engine.leases.renewed(&leases, &renewed, engine.lease_end(sent));
    if lost > 0 {
        engine.metrics.leases_lost.inc_by(lost as u64);
        tracing::warn!(lost, "leases were lost to other processes");
    }
    release_unknown(engine).await?;
    Ok(if renewed.locked.is_empty() { Extended::All } else { Extended::Some })
}

/// Looks for what a claim brought whose reply was lost at `lost_at`. Answers when to look again: the server may carry
/// the claim out late, so a lease's time must pass before the matter is settled.
async fn settle(engine: &Engine, lost_at: Instant) -> Result<Instant, DbError> {
    release_unknown(engine).await?;
    if lost_at.elapsed() > engine.queue.lease() {
        engine.leases.claim_settled(lost_at);
    }
    Ok(Instant::now() + engine.queue.lease() / 3)
}

async fn release_unknown(engine: &Engine) -> Result<(), DbError> {
    let time = engine.queue.database_time().await?;
    let known = engine.leases.tokens();
    let released = engine.queue.release_unknown(&time, &known).await?;
    if released > 0 {
        tracing::warn!(released, "gave back tasks that were claimed without our learning of it");
        engine.look_soon();
    }
    Ok(())
}

/// Code that will not stop keeps its slot and its lease for as long as the process lives, so it must not live on.
fn watch(engine: &Engine) {
    if !engine.shutdown.has_begun()
        && let Some(task_id) = engine.leases.stuck()
    {
        tracing::error!(%task_id, "a handler blocks its thread and will not stop; this process has to end");
        engine.shutdown.begin_stuck();
    }
}
