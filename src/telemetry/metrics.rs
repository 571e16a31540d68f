//! The metrics of this process, in one registry that is passed around and never global.

use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

/// From a task's due time to the start of its handler, and the run time of a handler, in seconds.
const SECONDS: [f64; 16] =
    [0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0];

/// Which task type.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct TypeLabel {
    /// A registered `task_type`: text from outside never becomes a label of its own.
    pub task_type: String,
}

/// How an attempt at which task type ended.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct EndingLabel {
    /// A registered `task_type`.
    pub task_type: String,
    /// The verb: complete, retry, fail, snooze, release, cancel.
    pub ending: &'static str,
}

/// How many tasks of which type are in which status.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct DepthLabel {
    /// The `task_type` as it stands in the table.
    pub task_type: String,
    /// `pending` or `processing`, or `unroutable` for pending tasks of a type that no handler here knows.
    pub status: String,
}

/// Which of the pool's parts.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct LaneLabel {
    /// See `db::Lane`.
    pub lane: LaneName,
}

/// The parts of the pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum LaneName {
    /// Renewals of leases.
    Renewal,
    /// Claims and endings.
    Work,
    /// Everything else.
    Shared,
}

/// Everything this process counts.
pub struct Metrics {
    registry: Registry,
    /// Tasks claimed.
    pub claims: Counter,
    /// Attempts ended.
    pub endings: Family<EndingLabel, Counter>,
    /// From due to the start of the handler.
    pub due_to_start: Family<TypeLabel, Histogram>,
    /// From the start of the handler to its answer.
    pub run_time: Family<TypeLabel, Histogram>,
    /// Attempts whose lease ran out or was taken before they ended.
    pub leases_lost: Counter,
    /// Endings refused because another attempt owns the task.
    pub stale_endings: Counter,
    /// Tasks taken back from processes that died.
    pub rescues: Counter,
    /// Tasks given up after the third crash in a row.
    pub poisoned: Counter,
    /// Log rows that `agent_actions_log` refused.
    pub log_rows_lost: Counter,
    /// Handlers running now.
    pub running: Gauge,
    /// Tasks of the queue by type and status, as of the last look.
    pub depth: Family<DepthLabel, Gauge>,
    /// Age of the oldest due task by type and status, in seconds.
    pub oldest_age: Family<DepthLabel, Gauge<f64, AtomicU64>>,
    /// Open connections by part of the pool.
    pub connections: Family<LaneLabel, Gauge>,
    /// Connections in use by part of the pool.
    pub connections_busy: Family<LaneLabel, Gauge>,
}

impl Metrics {
    /// All at zero.
    #[must_use]
    pub fn new() -> Self {
        let histogram = || Histogram::new(SECONDS);
        let mut metrics = Self {
            registry: Registry::with_prefix("task_processor"),
            claims: Counter::default(),
            endings: Family::default(),
            due_to_start: Family::new_with_constructor(histogram),
            run_time: Family::new_with_constructor(histogram),
            leases_lost: Counter::default(),
            stale_endings: Counter::default(),
            rescues: Counter::default(),
            poisoned: Counter::default(),
            log_rows_lost: Counter::default(),
            running: Gauge::default(),
            depth: Family::default(),
            oldest_age: Family::default(),
            connections: Family::default(),
            connections_busy: Family::default(),
        };
        metrics.register_work();
        metrics.register_state();
        metrics
    }

    fn register_work(&mut self) {
        let registry = &mut self.registry;
        registry.register("claims", "Tasks claimed", self.claims.clone());
        registry.register("endings", "Attempts ended, by verb", self.endings.clone());
        registry.register_with_unit(
            "due_to_start",
            "From a task's due time to the start of its handler",
            Unit::Seconds,
            self.due_to_start.clone(),
        );
        registry.register_with_unit("run_time", "Run time of handlers", Unit::Seconds, self.run_time.clone());
        registry.register("leases_lost", "Attempts that outlived their lease", self.leases_lost.clone());
        registry.register("stale_endings", "Endings refused as stale", self.stale_endings.clone());
        registry.register("rescues", "Tasks taken back from dead processes", self.rescues.clone());
        registry.register("poisoned", "Tasks given up after three crashes", self.poisoned.clone());
        registry.register("log_rows_lost", "Rows refused by agent_actions_log", self.log_rows_lost.clone());
    }

    fn register_state(&mut self) {
        let registry = &mut self.registry;
        registry.register("running", "Handlers running now", self.running.clone());
        registry.register("depth", "Unfinished tasks by type and status, capped", self.depth.clone());
        registry.register_with_unit(
            "oldest_age",
            "Age of the oldest due or running task by type and status",
            Unit::Seconds,
            self.oldest_age.clone(),
        );
        registry.register("connections", "Open database connections", self.connections.clone());
        registry.register("connections_busy", "Database connections in use", self.connections_busy.clone());
    }

    /// All metrics in the `OpenMetrics` text format.
    #[must_use]
    pub fn encode(&self) -> String {
        let mut text = String::new();
        encode(&mut text, &self.registry).expect("writing to a String cannot fail");
        text
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}
