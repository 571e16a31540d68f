//! `POST /process-task`: one task, now.

use std::time::Duration;

use axum::Json;
use axum::extract::State as Extract;
use axum::http::{HeaderMap, StatusCode};
use serde_json::{Value, json};
use uuid::Uuid;

use super::request::Request;
use super::{inside, wait_of};
use crate::http::State;
use crate::http::error::ApiError;
use crate::http::extract::{JsonBody, Wait};
use crate::queue::NotClaimed;
use crate::worker::{Condition, Worked, WorkerHandle};

/// Sent by Cloud Tasks, which repeats whatever was answered with 4xx.
const CLOUD_TASKS: &str = "x-cloudtasks-taskname";

/// Takes the task and answers at once; with `?wait=`, when it has ended.
pub(in crate::http) async fn process_task(
    Extract(state): Extract<State>,
    Wait(wait): Wait,
    headers: HeaderMap,
    JsonBody(body): JsonBody,
) -> Result<Json<Value>, ApiError> {
    let worker = state.worker;
    if worker.condition() == Condition::Draining {
        return Err(ApiError::unavailable("The process is stopping"));
    }
    let asked = Request::parse(&body);
    // Two megabytes of JSON are many times that in memory, and the request may wait for an hour.
    drop(body);
    let (id, early) = match asked {
        Request::Missing => return Err(ApiError::bad_request("Missing task_id in request body")),
        Request::Ignored(what) => return Ok(skipped(&what)),
        Request::Now(id) => (id, true),
        Request::Inserted(id) => (id, false),
    };
    let result = match id {
        Some(id) => process(&worker, id, early, wait_of(&worker, wait)).await?,
        None => Err(NotClaimed::NotPending),
    };
    match (result, id) {
        (Ok(worked), Some(id)) => Ok(Json(reply(id, worked))),
        (Err(reason), _) if !early || headers.contains_key(CLOUD_TASKS) => Ok(skipped(&refusal(reason).1)),
        (Err(reason), _) => {
            let (status, message) = refusal(reason);
            Err(ApiError::new(status, message))
        }
        (Ok(_), None) => unreachable!("without an id nothing is processed"),
    }
}

async fn process(
    worker: &WorkerHandle,
    id: Uuid,
    early: bool,
    wait: Option<Duration>,
) -> Result<Result<Option<Worked>, NotClaimed>, ApiError> {
    Ok(match wait {
        None => worker.process(id, early).await?.map(|()| None),
        Some(wait) => {
            let handle = worker.clone();
            let work = async move { handle.process_within(id, early, wait).await };
            inside(worker, work).await?.map(Some)
        }
    })
}

fn reply(id: Uuid, worked: Option<Worked>) -> Value {
    let mut body = json!({ "success": true, "taskId": id });
    if let Some(worked) = worked {
        body["processed"] = worked.processed.into();
        body["succeeded"] = worked.succeeded.into();
        body["failed"] = worked.failed.into();
        body["released"] = worked.released.into();
    }
    body
}

/// For callers that would repeat a request that was refused for good.
fn skipped(why: &str) -> Json<Value> {
    Json(json!({ "success": true, "skipped": why }))
}

fn refusal(reason: NotClaimed) -> (StatusCode, String) {
    match reason {
        NotClaimed::NotPending => (StatusCode::NOT_FOUND, "Task not found or not pending".to_owned()),
        NotClaimed::NotDue => (StatusCode::CONFLICT, "Task is not due yet".to_owned()),
        NotClaimed::Unroutable(kind) => {
            (StatusCode::UNPROCESSABLE_ENTITY, format!("No handler for task type: {kind}"))
        }
        NotClaimed::Paused(kind) => (StatusCode::CONFLICT, format!("Task type is paused: {kind}")),
        NotClaimed::Suspect => (StatusCode::CONFLICT, "Task cannot run beside the others now".to_owned()),
    }
}
