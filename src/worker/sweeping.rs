//! Deletes what ended long ago, where that was asked for. None leads: of two processes that meet one gives up.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::engine::Engine;
use crate::db::DbError;
use crate::queue::{Prunable, Queue};

/// Between two sweeps, or as long as the last one took.
const EVERY: Duration = Duration::from_mins(10);
/// A step is followed by a rest of so many times its duration, so that deleting never competes with the queue.
const REST: u32 = 4;

/// Sweeps both tables again and again; never ends.
pub(super) async fn run(engine: &Engine) {
    loop {
        let began = Instant::now();
        if let Some(age) = engine.retention.tasks {
            sweep(&engine.queue, Prunable::Tasks, age).await;
        }
        if let Some(age) = engine.retention.log {
            sweep(&engine.queue, Prunable::LogRows, age).await;
        }
        sleep(EVERY.max(began.elapsed())).await;
    }
}

async fn sweep(queue: &Queue, what: Prunable, age: Duration) {
    let mut rows = 0;
    let steps = async {
        let mut sweep = queue.sweep(what, age).await?;
        while !sweep.is_over() {
            let began = Instant::now();
            rows += queue.prune(&mut sweep).await?;
            sleep(began.elapsed() * REST).await;
        }
        Ok::<_, DbError>(())
    };
    let result = steps.await;
    if rows > 0 {
        tracing::info!(rows, ?what, "deleted what was old");
    }
    if let Err(error) = result {
        tracing::warn!(%error, ?what, "cannot delete what is old");
    }
}
