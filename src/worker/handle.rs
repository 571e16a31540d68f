//! What the outside may do with the worker: wake it, have it run one task or all that is due, and ask how it is.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};
use uuid::Uuid;

use super::dispatch::dispatch;
use super::engine::Engine;
use super::maintenance;
use super::poller::{Poller, Until};
use super::scope::{Scope, Worked};
use super::stats::Counts;
use crate::config::{PollMode, WorkerConfig};
use crate::db::DbError;
use crate::queue::{NotClaimed, Queue};
use crate::telemetry::metrics::Metrics;

/// Releasing takes a round trip or two. Code that will not stop must not keep the caller waiting.
const RELEASE_WITHIN: Duration = Duration::from_secs(3);
/// Beyond this many tasks in hand, one that is wanted now is left to the loop instead of being claimed.
const MOST_IN_HAND: usize = 2_000;

/// A handle on the worker. Cheap to clone.
#[derive(Clone)]
pub struct WorkerHandle(pub(super) Arc<Engine>);

/// What a drain did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drained {
    /// The tasks it worked on.
    pub worked: Worked,
    /// Tasks that are still due, counted up to 1,000.
    pub remaining: u64,
    /// Until the next task is due.
    pub next_due: Option<Duration>,
}

/// How the worker is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Condition {
    /// All is well.
    Healthy,
    /// It lives, but the database or the schema does not let it work, or the log loses rows.
    Degraded(String),
    /// It is stopping.
    Draining,
    /// Its loop no longer comes round: only a restart helps.
    Stalled,
}

impl WorkerHandle {
    /// Makes the loop look at the table now.
    pub fn wake(&self) {
        self.0.wake.notify_one();
    }

    /// Takes the task `id` and runs it in the background, ahead of its time if `early`. Answers as soon as it is ours. One
    /// that cannot run beside the others now is left to the loop, if there is one.
    pub async fn process(&self, id: Uuid, early: bool) -> Result<Result<(), NotClaimed>, DbError> {
        let scope = self.0.scope();
        self.start_one(&scope, id, early).await
    }

    /// The same, inside the call: answers when the task has ended, or has been given back because `wait` was over.
    pub async fn process_within(
        &self,
        id: Uuid,
        early: bool,
        wait: Duration,
    ) -> Result<Result<Worked, NotClaimed>, DbError> {
        let guard = ScopeGuard::new(self.0.scope());
        let scope = &guard.0;
        if let Err(refused) = self.start_one(scope, id, early).await? {
            return Ok(Err(refused));
        }
        let _ = timeout(wait, scope.at_most(0)).await;
        self.wind_up(scope).await;
        Ok(Ok(scope.worked()))
    }

    /// Works off what is due, inside the call and within `wait`. What still runs then is given back.
    pub async fn drain(&self, wait: Duration) -> Result<Drained, DbError> {
        let engine = &self.0;
        if engine.config.poll_mode == PollMode::Request {
            maintenance::rescue_once(engine).await;
        }
        let guard = ScopeGuard::new(engine.scope());
        let scope = &guard.0;
        let began = Instant::now();
        let mut poller = tokio::spawn(start(engine, scope, Until::Dry).run());
        tokio::select! {
            _ = &mut poller => {}
            () = sleep(wait) => scope.stop.cancel(),
        }
        // First the poller, which may have a claim in flight, then what it has claimed.
        if !poller.is_finished() {
            let _ = timeout(RELEASE_WITHIN, poller).await;
        }
        // A poller that was stopped by a shutdown leaves before its tasks have ended: they have the grace period.
        let _ = timeout(wait.saturating_sub(began.elapsed()), scope.at_most(0)).await;
        self.wind_up(scope).await;
        let due = engine.queue.next_due(&engine.types).await?;
        let remaining = engine.queue.count_due(&engine.types).await?;
        Ok(Drained { worked: scope.worked(), remaining, next_due: due.soonest() })
    }

    /// How the worker is.
    #[must_use]
    pub fn condition(&self) -> Condition {
        let engine = &self.0;
        if engine.shutdown.has_begun() {
            return Condition::Draining;
        }
        let patience = (engine.config.polling_interval * 5).max(Duration::from_mins(3));
        if engine.stats.since_last_step().is_some_and(|since| engine.stats.is_polling() && since > patience) {
            return Condition::Stalled;
        }
        if let Err(missing) = engine.readiness.get() {
            return Condition::Degraded(missing);
        }
        if engine.queue.database().unbroken_for().is_none() {
            return Condition::Degraded("the database cannot be reached".to_owned());
        }
        if engine.queue.log_is_refused() {
            return Condition::Degraded("agent_actions_log refuses rows".to_owned());
        }
        Condition::Healthy
    }

    /// Attempts ended since the process started.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.0.stats.counts()
    }

    /// Whether a loop polls in the background.
    #[must_use]
    pub fn is_polling(&self) -> bool {
        self.0.stats.is_polling()
    }

    /// Whether new tasks announce themselves, or wait for the poll.
    #[must_use]
    pub fn is_listening(&self) -> bool {
        self.0.listening.is_listening()
    }

    /// Tasks claimed by this process and not yet ended.
    #[must_use]
    pub fn in_hand(&self) -> usize {
        self.0.leases.len()
    }

    /// How the worker is set.
    #[must_use]
    pub fn config(&self) -> &WorkerConfig {
        &self.0.config
    }

    /// The task types this process can do.
    #[must_use]
    pub fn task_types(&self) -> &[String] {
        &self.0.types
    }

    /// The queue it works on.
    #[must_use]
    pub fn queue(&self) -> &Queue {
        &self.0.queue
    }

    /// What it counts.
    #[must_use]
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.0.metrics
    }

    async fn start_one(
        &self,
        scope: &Arc<Scope>,
        id: Uuid,
        early: bool,
    ) -> Result<Result<(), NotClaimed>, DbError> {
        let engine = self.0.clone();
        let membership = match engine.company.try_join() {
            Some(membership) if engine.leases.len() < MOST_IN_HAND => membership,
            _ => return self.leave_to_the_loop(id, early).await,
        };
        let scope = scope.clone();
        // A caller that hangs up must not take the claim's reply along.
        let started = tokio::spawn(async move {
            let mut refused = None;
            let claim = async {
                let claimed = engine.queue.claim_one(&engine.types, id, early).await?;
                Ok(claimed.map_err(|reason| refused = Some(reason)).into_iter().collect())
            };
            let attempts = engine.claim(&scope, membership, claim).await?;
            if let Some(reason) = refused {
                return Ok(Err(reason));
            }
            let (sender, receiver) = mpsc::unbounded_channel();
            for attempt in attempts {
                let _ = sender.send(attempt);
            }
            tokio::spawn(dispatch(engine, scope, receiver));
            Ok(Ok(()))
        });
        match started.await {
            Ok(Ok(Err(NotClaimed::Suspect))) => self.leave_to_the_loop(id, early).await,
            Ok(answer) => answer,
            Err(_) => Ok(Err(NotClaimed::NotPending)),
        }
    }

    /// Not ours for the moment: it must run alone, another one does, or too many are in hand. The loop takes it in its
    /// turn; where there is none it is refused.
    async fn leave_to_the_loop(&self, id: Uuid, early: bool) -> Result<Result<(), NotClaimed>, DbError> {
        let engine = &self.0;
        match engine.queue.refusal(&engine.types, id, early).await? {
            None | Some(NotClaimed::Suspect) if engine.config.poll_mode == PollMode::Request => {
                Ok(Err(NotClaimed::Suspect))
            }
            None | Some(NotClaimed::Suspect) => {
                if early {
                    engine.queue.hasten(id).await?;
                }
                self.wake();
                Ok(Ok(()))
            }
            Some(reason) => Ok(Err(reason)),
        }
    }

    async fn wind_up(&self, scope: &Arc<Scope>) {
        scope.stop.cancel();
        scope.cut.cancel();
        let _ = timeout(RELEASE_WITHIN, scope.at_most(0)).await;
        if scope.worked().released > 0 {
            let _ = self.0.queue.announce().await;
        }
    }
}

/// Stops a scope when its caller is gone: in request mode nothing may outlive the request.
struct ScopeGuard(Arc<Scope>);

impl ScopeGuard {
    fn new(scope: Arc<Scope>) -> Self {
        Self(scope)
    }
}

impl Drop for ScopeGuard {
    fn drop(&mut self) {
        self.0.stop.cancel();
        self.0.cut.cancel();
    }
}

/// A poller for the scope, for so long, with its dispatcher running.
pub(super) fn start(engine: &Arc<Engine>, scope: &Arc<Scope>, until: Until) -> Poller {
    let (sender, receiver) = mpsc::unbounded_channel();
    tokio::spawn(dispatch(engine.clone(), scope.clone(), receiver));
    Poller::new(engine.clone(), scope.clone(), sender, until)
}
