//! Turns what the listening connection hears into wake-ups and cancellations.

use std::sync::Arc;

use tokio::sync::mpsc;
use uuid::Uuid;

use super::engine::Engine;
use crate::db::Heard;
use crate::queue::CANCEL_CHANNEL;

/// Runs until the listener is gone.
pub(super) async fn run(engine: Arc<Engine>, mut heard: mpsc::Receiver<Heard>) {
    while let Some(heard) = heard.recv().await {
        match heard {
            // Anybody may notify. Whether the task is to be cancelled is said by its row, which the renewal reads.
            Heard::Notice { channel, payload } if channel == CANCEL_CHANNEL => {
                if Uuid::parse_str(&payload).is_ok_and(|task| engine.leases.holds(task)) {
                    engine.renew_now.notify_one();
                }
            }
            // A new task; or the connection is back, and anything may have happened meanwhile.
            _ if engine.config.poll_strict => {}
            Heard::Notice { .. } | Heard::Connected => engine.wake.notify_one(),
        }
    }
}
