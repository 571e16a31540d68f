//! Starts claimed tasks in their order, as slots become free, and gives back what has not started when its scope stops.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::sleep;

use super::engine::Engine;
use super::execute::Attempt;
use super::scope::Scope;

/// Tasks that have waited this long for a slot are given back: another process may have one.
const PATIENCE: Duration = Duration::from_secs(1);

/// Runs until all senders are gone and nothing waits.
pub(super) async fn dispatch(
    engine: Arc<Engine>,
    scope: Arc<Scope>,
    mut attempts: mpsc::UnboundedReceiver<Attempt>,
) {
    while let Some(attempt) = attempts.recv().await {
        // The seed's literal rate says how many are taken at a poll, so they stay.
        let patience = if engine.config.poll_strict { Duration::MAX } else { PATIENCE };
        let slot = tokio::select! {
            biased;
            slot = engine.slots.clone().acquire_owned(), if !scope.stop.is_cancelled() => slot.ok(),
            () = scope.stop.cancelled() => None,
            _ = attempt.ticket.held.stopped() => None,
            () = sleep(patience.saturating_sub(attempt.ticket.claimed_at.elapsed())) => None,
        };
        let engine = engine.clone();
        // Its end is not awaited here: whoever winds the scope up waits until nothing is in hand.
        match slot {
            Some(slot) => attempt.start(engine, slot),
            None => attempt.release(engine),
        }
    }
}
