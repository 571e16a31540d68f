//! `GET /metrics`, for Prometheus.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State as Extract;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::State;
use crate::db::Lane;
use crate::queue::read::Depth;
use crate::telemetry::metrics::{DepthLabel, LaneLabel, LaneName, Metrics};
use crate::worker::WorkerHandle;

/// Counting reads many rows: at most this often, however many scrape.
const COUNT_EVERY: Duration = Duration::from_secs(15);
/// Task types come from outside: beyond so many series the rest are left out.
const MAX_SERIES: usize = 500;
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// When the queue was last counted.
#[derive(Clone, Default)]
pub(super) struct DepthCache(Arc<Mutex<Option<Instant>>>);

pub(super) async fn show(Extract(state): Extract<State>) -> impl IntoResponse {
    let worker = &state.worker;
    let metrics = worker.metrics();
    let mut counted = state.depth.0.lock().await;
    if counted.is_none_or(|counted| counted.elapsed() > COUNT_EVERY) {
        *counted = Some(Instant::now());
        match worker.queue().depths().await {
            Ok(depths) => show_depths(metrics, worker, &depths),
            Err(error) => tracing::warn!(%error, "cannot count the queue for /metrics"),
        }
    }
    drop(counted);
    let lanes =
        [(Lane::Renewal, LaneName::Renewal), (Lane::Work, LaneName::Work), (Lane::Shared, LaneName::Shared)];
    for (lane, name) in lanes {
        let (open, busy) = worker.queue().database().usage(lane);
        let label = LaneLabel { lane: name };
        metrics.connections.get_or_create(&label).set(i64::try_from(open).unwrap_or(i64::MAX));
        metrics.connections_busy.get_or_create(&label).set(i64::try_from(busy).unwrap_or(i64::MAX));
    }
    ([(CONTENT_TYPE, OPEN_METRICS)], metrics.encode())
}

fn show_depths(metrics: &Metrics, worker: &WorkerHandle, depths: &[Depth]) {
    metrics.depth.clear();
    metrics.oldest_age.clear();
    for depth in depths.iter().take(MAX_SERIES) {
        let known = worker.task_types().contains(&depth.task_type);
        let status = if depth.status == "pending" && !known { "unroutable" } else { depth.status.as_str() };
        let label = DepthLabel { task_type: depth.task_type.clone(), status: status.to_owned() };
        metrics.depth.get_or_create(&label).set(depth.tasks);
        metrics.oldest_age.get_or_create(&label).set(depth.oldest_age_seconds);
    }
}
