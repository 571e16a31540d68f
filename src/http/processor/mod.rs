//! The task processor's own face: seed 004.

mod health;
mod process_task;
mod request;
mod trigger_poll;

use std::time::Duration;

use chrono::{DateTime, SecondsFormat, Utc};

use crate::config::PollMode;
use crate::worker::WorkerHandle;

pub(super) use health::{DatabaseCheck, health, live, ready};
pub(super) use process_task::process_task;
pub(super) use trigger_poll::trigger_poll;

/// How long a request in request mode works that names no time: within the default deadline of Cloud Scheduler.
const DEFAULT_WAIT: Duration = Duration::from_secs(150);

/// How long to work inside the request, if at all.
fn wait_of(worker: &WorkerHandle, asked: Option<Duration>) -> Option<Duration> {
    let request_mode = worker.config().poll_mode == PollMode::Request;
    asked.or_else(|| request_mode.then_some(DEFAULT_WAIT))
}

/// Runs work that a request waits for. Where a loop works in the background anyway a caller that hangs up changes
/// nothing; in request mode nothing may go on after the caller has left, since nothing would keep it going.
async fn inside<T: Send + 'static>(
    worker: &WorkerHandle,
    work: impl Future<Output = T> + Send + 'static,
) -> T {
    if worker.config().poll_mode == PollMode::Request {
        return work.await;
    }
    match tokio::spawn(work).await {
        Ok(done) => done,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

/// As JavaScript's `toISOString` writes it.
fn iso(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::Millis, true)
}

/// Roughly when: the database's answer was a span, and only people read this.
fn iso_in(delay: Option<Duration>) -> Option<String> {
    let delay = chrono::TimeDelta::from_std(delay?).ok()?;
    Utc::now().checked_add_signed(delay).map(iso)
}
