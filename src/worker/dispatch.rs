//! Starts claimed tasks in their order, as slots become free, and gives back what has not started when its scope stops.

use std::sync::Arc;

use tokio::sync::mpsc;

use super::engine::Engine;
use super::execute::Attempt;
use super::scope::Scope;

/// Runs until all senders are gone and nothing waits.
pub(super) async fn dispatch(
    engine: Arc<Engine>,
    scope: Arc<Scope>,
    mut attempts: mpsc::UnboundedReceiver<Attempt>,
) {
    while let Some(attempt) = attempts.recv().await {
        let slot = tokio::select! {
            biased;
            () = scope.stop.cancelled() => None,
            slot = engine.slots.clone().acquire_owned() => slot.ok(),
        };
        let engine = engine.clone();
        // Not awaited here: whoever winds the scope up waits until nothing is in hand.
        match slot {
            Some(slot) => tokio::spawn(attempt.run(engine, slot)),
            None => tokio::spawn(attempt.release(engine)),
        };
    }
}
