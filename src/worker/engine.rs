//! What all parts of the worker share.

use std::sync::Arc;

use tokio::sync::{Notify, Semaphore};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::company::{Company, Membership};
use super::execute::{Attempt, Ticket};
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
    /// Who is in the process, claims in flight included.
    pub(super) company: Arc<Company>,
    /// Running tasks are given back: the grace period is over.
    pub(super) cut: CancellationToken,
    /// Something may be due.
    pub(super) wake: Notify,
    /// A running task may have been cancelled: renew all leases now, the answer tells.
    pub(super) renew_now: Notify,
    /// All work has ended; the background parts may end too.
    pub(super) over: CancellationToken,
}

impl Engine {
    /// Claims, and takes up what was claimed. The caller must not be dropped meanwhile: the reply would be lost.
    pub(super) async fn claim(
        &self,
        scope: &Arc<Scope>,
        membership: Membership,
        claim: impl Future<Output = Result<Vec<Claimed>, DbError>>,
    ) -> Result<Vec<Attempt>, DbError> {
        let sent = Instant::now();
        let claimed = claim.await.inspect_err(|_| self.leases.claim_lost())?;
        let take_up = |claimed| self.take_up(claimed, sent, scope, &membership);
        let attempts: Vec<Attempt> = claimed.into_iter().map(take_up).collect();
        // The reply counts only if it came in time, by the monotonic clock: what one brought that comes later, to a process
        // that was stopped say, may have been given back already (`queue::Queue::release_unknown`). Looked at only now that
        // their tokens are known.
        if sent.elapsed() > self.queue.answer_good_for() && !attempts.is_empty() {
            tracing::warn!(tasks = attempts.len(), "a claim was answered too late, giving its tasks back");
            for attempt in &attempts {
                self.leases.let_go(attempt.ticket.held.lease);
            }
            self.leases.claim_lost();
            return Ok(Vec::new());
        }
        Ok(attempts)
    }

    fn take_up(
        &self,
        claimed: Claimed,
        sent: Instant,
        scope: &Arc<Scope>,
        membership: &Membership,
    ) -> Attempt {
        let Claimed { lease, terms, task } = claimed;
        let ticket = Ticket {
            terms,
            trace_context: task.as_ref().ok().and_then(|task| task.trace_context.clone()),
            held: self.leases.hold(lease, self.lease_end(sent)),
            scope: scope.clone(),
            membership: membership.clone(),
            in_hand: scope.take(),
            claimed_at: sent,
        };
        Attempt { task, ticket: Box::new(ticket) }
    }

    /// Until when a lease that was asked for at `sent` may be relied on: it began later, and ends before the
    /// database's does.
    pub(super) fn lease_end(&self, sent: Instant) -> Instant {
        sent + self.queue.lease()
    }

    /// Something of ours is due, or will be before anything the loop knows of. The literal rate looks when it looks.
    pub(super) fn look_soon(&self) {
        if !self.config.poll_strict {
            self.wake.notify_one();
        }
    }

    /// A scope that ends with the process, or sooner if its own tokens are cancelled.
    pub(super) fn scope(&self) -> Arc<Scope> {
        Scope::new(self.shutdown.begun().child_token(), self.cut.child_token())
    }
}
