//! `GET /health`, `/health/live`, `/health/ready`: open to everybody, cheap, without secrets.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State as Extract;
use axum::http::StatusCode;
use chrono::Utc;
use serde_json::{Value, json};
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::iso;
use crate::http::State;
use crate::worker::{Condition, Counts, WorkerHandle};

const CHECK_EVERY: Duration = Duration::from_secs(5);
const ANSWER_WITHIN: Duration = Duration::from_secs(2);
/// What `polling.maxTasksPerPoll` shows while the size adapts: the seed's default.
const DEFAULT_MAX_TASKS_PER_POLL: usize = 10;

/// Whether the database answered when it was last asked. Cached, so that probes of many regions make no storm.
#[derive(Clone, Default)]
pub(in crate::http) struct DatabaseCheck(Arc<Mutex<Option<(Instant, bool)>>>);

impl DatabaseCheck {
    async fn answers(&self, worker: &WorkerHandle) -> bool {
        let mut last = self.0.lock().await;
        if let Some((asked, answered)) = *last
            && asked.elapsed() < CHECK_EVERY
        {
            return answered;
        }
        // Not behind handlers: when they have all the shared connections, the database is no less well for it.
        let question = async {
            worker.queue().database().claim_session(ANSWER_WITHIN).await?.query("select 1", &[]).await
        };
        let answered = tokio::time::timeout(ANSWER_WITHIN, question).await.is_ok_and(|result| result.is_ok());
        *last = Some((Instant::now(), answered));
        answered
    }
}

/// The seed's JSON, with further keys. 503 only where a restart would help or is under way.
pub(in crate::http) async fn health(Extract(state): Extract<State>) -> (StatusCode, Json<Value>) {
    let worker = &state.worker;
    let (code, status, reason) = match worker.condition() {
        Condition::Healthy => (StatusCode::OK, "healthy", None),
        Condition::Degraded(reason) => (StatusCode::OK, "degraded", Some(reason)),
        Condition::Draining => (StatusCode::SERVICE_UNAVAILABLE, "draining", None),
        Condition::Stalled => (StatusCode::SERVICE_UNAVAILABLE, "stalled", None),
    };
    let config = worker.config();
    let body = json!({
        "status": status,
        "reason": reason,
        "service": "task-processor",
        "version": env!("CARGO_PKG_VERSION"),
        "timestamp": iso(Utc::now()),
        "stats": stats(worker.counts()),
        "polling": {
            "enabled": worker.is_polling(),
            "intervalMs": u64::try_from(config.polling_interval.as_millis()).unwrap_or(u64::MAX),
            "maxTasksPerPoll": config.max_tasks_per_poll.unwrap_or(DEFAULT_MAX_TASKS_PER_POLL),
            "listening": worker.is_listening(),
        },
        "inHand": worker.in_hand(),
    });
    (code, Json(body))
}

/// 200 as long as the process makes progress.
pub(in crate::http) async fn live(Extract(state): Extract<State>) -> (StatusCode, Json<Value>) {
    match state.worker.condition() {
        Condition::Stalled => (StatusCode::SERVICE_UNAVAILABLE, Json(json!({ "status": "stalled" }))),
        _ => (StatusCode::OK, Json(json!({ "status": "alive" }))),
    }
}

/// 200 when tasks can be worked on right now.
pub(in crate::http) async fn ready(Extract(state): Extract<State>) -> (StatusCode, Json<Value>) {
    let worker = &state.worker;
    // Asked first: where nothing works of its own accord, only this notices that the database is back.
    let answers = state.database_check.answers(worker).await;
    let reason = match worker.condition() {
        Condition::Draining => Some("the process is stopping".to_owned()),
        Condition::Stalled => Some("the polling loop is stuck".to_owned()),
        Condition::Degraded(reason) => Some(reason),
        Condition::Healthy if !answers => Some("the database does not answer".to_owned()),
        Condition::Healthy => None,
    };
    match reason {
        None => (StatusCode::OK, Json(json!({ "status": "ready" }))),
        Some(reason) => {
            (StatusCode::SERVICE_UNAVAILABLE, Json(json!({ "status": "not ready", "reason": reason })))
        }
    }
}

fn stats(counts: Counts) -> Value {
    let processed = counts.succeeded + counts.failed;
    json!({
        "tasksProcessed": processed,
        "tasksSucceeded": counts.succeeded,
        "tasksFailed": counts.failed,
        "successRate": success_rate(counts.succeeded, processed),
        "lastProcessedAt": counts.last_processed_at.map(iso),
    })
}

/// One decimal and a percent sign; "N/A" before the first task.
fn success_rate(succeeded: u64, processed: u64) -> String {
    if processed == 0 {
        return "N/A".to_owned();
    }
    let tenths = (u128::from(succeeded) * 2000 / u128::from(processed)).div_ceil(2);
    format!("{}.{}%", tenths / 10, tenths % 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_success_rate_has_one_decimal_and_none_before_the_first_task() {
        assert_eq!(success_rate(0, 0), "N/A");
        assert_eq!(success_rate(138, 142), "97.2%");
        assert_eq!(success_rate(1, 1), "100.0%");
        assert_eq!(success_rate(0, 3), "0.0%");
        assert_eq!(success_rate(2, 3), "66.7%");
    }
}
