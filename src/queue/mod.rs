//! The durable queue: `agent_tasks` and `task_types`, and a closed set of verbs, each one SQL statement.
//!
//! enqueue · claim · renew · complete · retry · fail · snooze · release · rescue · cancel · redrive · reschedule ·
//! pause · resume · prune · inspect. The six endings are constructors of [`Ending`]. All SQL on these tables lives here.

mod announce;
mod cancel;
mod claim;
mod content;
mod end;
mod ending;
mod enqueue;
mod enqueue_batch;
mod enqueue_one;
mod prune;
pub mod read;
mod redrive;
mod renew;
mod rescue;
mod retry;
mod stubborn;
mod suspect;
mod task;
mod types;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio_postgres::Row;

use crate::config::WorkerConfig;
use crate::db::{Database, DbError, Param};
use crate::telemetry::metrics::Metrics;

pub use announce::{CANCEL_CHANNEL, WAKE_CHANNEL};
pub use cancel::Cancelled;
pub use claim::{NextDue, NotClaimed};
pub use ending::{Ending, Usage, Verb, Verdict};
pub use enqueue::{Enqueued, Invalid, NewTask, enqueue_in};
pub use enqueue_batch::MAX_BATCH;
pub use prune::{Prunable, Sweep};
pub use renew::Renewed;
pub use rescue::Rescued;
pub use retry::{Retry, RetryRule, retry_or_fail};
pub use suspect::RESERVED_FOR;
pub use task::{Claimed, Lease, Task, Terms, Undecodable};
pub use types::TaskType;

/// The queue as one process sees it. Cheap to clone.
#[derive(Clone)]
pub struct Queue {
    db: Database,
    worker: Arc<str>,
    rules: Rules,
    metrics: Arc<Metrics>,
    log_refused: Arc<AtomicBool>,
    stubborn: Arc<stubborn::Stubborn>,
    merger: Arc<enqueue_one::Merger>,
}

/// What holds for a task whose row and type say nothing else.
#[derive(Clone, Copy, Debug)]
struct Rules {
    lease: Duration,
    timeout: Duration,
    adopt_window: Duration,
    retry: RetryRule,
}

/// A verb that could not be carried out.
#[derive(Clone, Debug, thiserror::Error)]
pub enum QueueError {
    /// The caller's input is wrong, and where.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// The database failed.
    #[error(transparent)]
    Database(#[from] DbError),
}

impl From<tokio_postgres::Error> for QueueError {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Database(error.into())
    }
}

/// Deadlines of the client for an answer. The role's `statement_timeout` should be shorter.
mod deadline {
    use std::time::Duration;

    /// Claims, and everything a worker waits for. A claim answered later is thrown away (see `release_unknown`).
    pub(super) const CLAIM: Duration = Duration::from_secs(5);
    /// Endings: patient, since the alternative is to ask again.
    pub(super) const END: Duration = Duration::from_secs(15);
    /// A step of a sweep; what is too much for it is tried with less.
    pub(super) const PRUNE: Duration = Duration::from_secs(5);
    /// Requests of people and programs.
    pub(super) const REQUEST: Duration = Duration::from_secs(15);
}

impl Queue {
    /// The queue for a worker of the given name, which must be fresh for every start of a process.
    #[must_use]
    pub fn new(
        db: Database,
        worker: impl Into<Arc<str>>,
        config: &WorkerConfig,
        metrics: Arc<Metrics>,
    ) -> Self {
        let rules = Rules {
            lease: config.lease,
            timeout: config.task_timeout,
            adopt_window: config.adopt_window,
            retry: RetryRule { max_retries: config.max_retries, base: config.retry_base },
        };
        Self {
            db,
            worker: worker.into(),
            rules,
            metrics,
            log_refused: Arc::default(),
            stubborn: Arc::default(),
            merger: Arc::default(),
        }
    }

    /// The connections the queue uses.
    #[must_use]
    pub fn database(&self) -> &Database {
        &self.db
    }

    /// How long a claim or a renewal lasts.
    #[must_use]
    pub fn lease(&self) -> Duration {
        self.rules.lease
    }

    /// Whether `agent_actions_log` refused the last row it was offered.
    #[must_use]
    pub fn log_is_refused(&self) -> bool {
        self.log_refused.load(Ordering::Relaxed)
    }

    /// A question that the loop waits for: it goes past the handlers and the API.
    async fn query_at_once(&self, sql: &str, params: &[Param<'_>]) -> Result<Vec<Row>, DbError> {
        self.db.claim_session(deadline::CLAIM).await?.query(sql, params).await
    }

    fn log_lost(&self, rows: usize, error: &DbError) {
        if rows == 0 {
            return;
        }
        self.metrics.log_rows_lost.inc_by(rows as u64);
        if !self.log_refused.swap(true, Ordering::Relaxed) {
            tracing::error!(rows, %error, "agent_actions_log refuses rows; tasks end without their log row");
        }
    }

    fn log_kept(&self) {
        if self.log_refused.load(Ordering::Relaxed) && self.log_refused.swap(false, Ordering::Relaxed) {
            tracing::info!("agent_actions_log takes rows again");
        }
    }
}
