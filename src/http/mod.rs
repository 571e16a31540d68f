//! The doors: one router for all faces, who may call what, and how errors look.

pub mod auth;
mod error;
mod extract;
mod metrics;
mod processor;
mod request_id;
mod seats;
mod server;
mod taken;

use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::routing::{get, post};
use tower_http::catch_panic::CatchPanicLayer;

use crate::config::HttpConfig;
use crate::worker::WorkerHandle;
use auth::Doorkeeper;
use error::panicked;
use metrics::DepthCache;
use processor::DatabaseCheck;

pub use server::Server;

/// The largest body that is read, in bytes.
const MAX_BODY: usize = 2 * 1024 * 1024;

/// What request handlers share.
#[derive(Clone)]
struct State {
    worker: WorkerHandle,
    database_check: DatabaseCheck,
    depth: DepthCache,
}

/// All routes. Which of them needs what is said in [`auth`].
pub fn router(worker: WorkerHandle, config: &HttpConfig) -> Router {
    let doorkeeper = Arc::new(Doorkeeper::new(config));
    let routes = health().merge(processor()).route("/metrics", get(metrics::show));
    let guarded = refusing(routes)
        .layer(from_fn_with_state(doorkeeper, auth::check))
        .layer(DefaultBodyLimit::max(MAX_BODY));
    finish(guarded, worker)
}

/// The routes of a process that only works: probes.
pub fn worker_router(worker: WorkerHandle) -> Router {
    finish(refusing(health()), worker)
}

/// These routes, and a refusal of all else.
fn refusing(routes: Router<State>) -> Router<State> {
    routes.method_not_allowed_fallback(error::method_not_allowed).fallback(error::not_found)
}

/// What no answer goes without, and what all routes share.
fn finish(routes: Router<State>, worker: WorkerHandle) -> Router {
    routes.layer(CatchPanicLayer::custom(panicked)).layer(from_fn(request_id::identify)).with_state(State {
        worker,
        database_check: DatabaseCheck::default(),
        depth: DepthCache::default(),
    })
}

fn health() -> Router<State> {
    Router::new()
        .route("/health", get(processor::health))
        .route("/health/live", get(processor::live))
        .route("/health/ready", get(processor::ready))
}

fn processor() -> Router<State> {
    Router::new()
        .route("/process-task", post(processor::process_task))
        .route("/trigger-poll", post(processor::trigger_poll))
}
