//! `POST /trigger-poll`: look at the table now.

use axum::Json;
use axum::extract::State as Extract;
use serde_json::{Value, json};

use super::{inside, iso_in, wait_of};
use crate::http::State;
use crate::http::error::ApiError;
use crate::http::extract::{AnyBody, Wait};
use crate::worker::Condition;

/// Wakes the loop and answers at once; with `?wait=`, works off what is due and tells what it did. Any body will do.
pub(in crate::http) async fn trigger_poll(
    Extract(state): Extract<State>,
    Wait(wait): Wait,
    AnyBody: AnyBody,
) -> Result<Json<Value>, ApiError> {
    let worker = state.worker;
    if worker.condition() == Condition::Draining {
        return Err(ApiError::unavailable("The process is stopping"));
    }
    let Some(wait) = wait_of(&worker, wait) else {
        worker.wake();
        return Ok(Json(json!({ "success": true, "message": "Polling triggered" })));
    };
    let handle = worker.clone();
    let drained = inside(&worker, async move { handle.drain(wait).await }).await?;
    let worked = drained.worked;
    Ok(Json(json!({
        "success": true,
        "message": if drained.remaining == 0 { "Queue drained" } else { "Time is up" },
        "processed": worked.processed,
        "succeeded": worked.succeeded,
        "failed": worked.failed,
        "released": worked.released,
        "remaining": drained.remaining,
        "nextDueAt": iso_in(drained.next_due),
    })))
}
