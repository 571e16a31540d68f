//! What all parts of the worker share.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock, Semaphore};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::execute::Attempt;
use super::finisher::Finisher;
use super::leases::Leases;
use super::prepare::Readiness;
use super::scope::Scope;
use super::stats::Stats;
use crate::config::{Retention, WorkerConfig};
use crate::db::{DbError, ListenerStatus};
use crate::handler::Registry;
use crate::queue::{Claimed, Queue};
use crate::services::Services;
use crate::shutdown::Shutdown;
use crate::telemetry::metrics::Metrics;

/// The reply to a claim counts only if it came within this time, by the monotonic clock: one that comes later, to a
/// process that was stopped say, may have been given back already (`queue::Queue::release_unknown`).
const CLAIM_GOOD_FOR: Duration = Duration::from_secs(5);

/// Who else may be in the process, held by the tasks of one claim until their verdicts are in.
#[derive(Clone)]
pub(super) enum Company {
    /// Other tasks of this kind.
    Others(#[expect(dead_code, reason = "held, not read")] Arc<OwnedRwLockReadGuard<()>>),
    /// Nobody.
    Nobody(#[expect(dead_code, reason = "held, not read")] Arc<OwnedRwLockWriteGuard<()>>),
}

/// One per process, behind an `Arc`.
pub(super) struct Engine {
    pub(super) queue: Queue,
    pub(super) registry: Registry,
    pub(super) services: Services,
    pub(super) config: WorkerConfig,
    pub(super) retention: Retention,
    pub(super) metrics: Arc<Metrics>,
    pub(super) shutdown: Shutdown,
    /// What this process can do.
    pub(super) types: Vec<String>,
    pub(super) leases: Leases,
    pub(super) finisher: Finisher,
    pub(super) stats: Stats,
    pub(super) readiness: Readiness,
    pub(super) listening: ListenerStatus,
    /// `CONCURRENCY` of them: running handlers, whoever claimed their tasks.
    pub(super) slots: Arc<Semaphore>,
    /// Shared by ordinary tasks; taken whole by one that must run alone. The lock is fair.
    pub(super) company: Arc<RwLock<()>>,
    /// Running tasks are given back: the grace period is over.
    pub(super) cut: CancellationToken,
    /// Something may be due.
    pub(super) wake: Notify,
    /// The reply to a claim was lost: the renewal thread should look sooner.
    pub(super) claim_lost: Notify,
    /// All work has ended; the background parts may end too.
    pub(super) over: CancellationToken,
}

impl Engine {
    /// Claims, and takes up what was claimed. The caller must not be dropped meanwhile: the reply would be lost.
    pub(super) async fn claim(
        &self,
        scope: &Arc<Scope>,
        company: Company,
        claim: impl Future<Output = Result<Vec<Claimed>, DbError>>,
    ) -> Result<Vec<Attempt>, DbError> {
        let sent = Instant::now();
        let result = claim.await;
        let late = sent.elapsed() > CLAIM_GOOD_FOR;
        match result {
            Ok(claimed) if late && !claimed.is_empty() => {
                tracing::warn!(tasks = claimed.len(), "a claim was answered too late, giving its tasks back");
                self.lost_claim();
                Ok(Vec::new())
            }
            Ok(claimed) => {
                Ok(claimed.into_iter().map(|claimed| self.take_up(claimed, sent, scope, &company)).collect())
            }
            Err(error) => {
                self.lost_claim();
                Err(error)
            }
        }
    }

    fn take_up(&self, claimed: Claimed, sent: Instant, scope: &Arc<Scope>, company: &Company) -> Attempt {
        let held = self.leases.hold(claimed.lease, self.lease_end(sent));
        Attempt { held, scope: scope.clone(), company: company.clone(), in_hand: scope.take(), claimed }
    }

    /// Until when a lease that was asked for at `sent` may be relied on: it began later, and ends before the
    /// database's does.
    pub(super) fn lease_end(&self, sent: Instant) -> Instant {
        sent + self.queue.lease()
    }

    /// A part in the company of ordinary tasks.
    pub(super) async fn join_others(&self) -> Company {
        Company::Others(Arc::new(self.company.clone().read_owned().await))
    }

    /// The same, unless a task runs alone or waits for that.
    pub(super) fn try_join_others(&self) -> Option<Company> {
        self.company.clone().try_read_owned().ok().map(|guard| Company::Others(Arc::new(guard)))
    }

    /// Waits until no task is left, and keeps others out.
    pub(super) async fn be_alone(&self) -> Company {
        Company::Nobody(Arc::new(self.company.clone().write_owned().await))
    }

    /// A scope that ends with the process, or sooner if its own tokens are cancelled.
    pub(super) fn scope(&self) -> Arc<Scope> {
        Scope::new(self.shutdown.begun().child_token(), self.cut.child_token())
    }

    fn lost_claim(&self) {
        self.leases.claim_lost();
        self.claim_lost.notify_one();
    }
}
