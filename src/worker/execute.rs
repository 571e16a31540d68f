//! One attempt, as a pipeline: start → run under limits → decide → write down → count.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::OwnedSemaphorePermit;
use tokio::task::JoinError;
use tokio::time::{Instant, sleep};

use super::company::Membership;
use super::engine::Engine;
use super::leases::{Held, STUCK_AFTER, Stop};
use super::scope::{InHand, Scope};
use crate::handler::{Answer, Outcome};
use crate::queue::{Claimed, Ending, Lease, Retry, RetryRule, Verb, Verdict, retry_or_fail};
use crate::telemetry::metrics::{EndingLabel, TypeLabel};

/// A claimed task with all that belongs to it until its verdict is in.
pub(super) struct Attempt {
    pub(super) claimed: Claimed,
    pub(super) held: Arc<Held>,
    pub(super) scope: Arc<Scope>,
    pub(super) membership: Membership,
    /// When the claim was sent.
    pub(super) claimed_at: Instant,
    pub(super) in_hand: InHand,
}

/// How the handler's code came to an end.
enum End {
    Answered(Outcome),
    Unreadable(String),
    Panicked(String),
    TimedOut,
    Stopped(Stop),
}

impl Attempt {
    /// Runs the handler and ends the attempt.
    pub(super) async fn run(self, engine: Arc<Engine>, slot: OwnedSemaphorePermit) {
        let label = TypeLabel { task_type: self.claimed.task_type.clone() };
        engine.metrics.due_to_start.get_or_create(&label).observe(self.claimed.waited.as_secs_f64());
        engine.metrics.running.inc();
        let began = Instant::now();
        let end = self.handle(&engine).await;
        let took = began.elapsed();
        engine.metrics.running.dec();
        engine.metrics.run_time.get_or_create(&label).observe(took.as_secs_f64());
        drop(slot);
        self.finish(&engine, end, Some(took)).await;
    }

    /// Gives the task back without having started it.
    pub(super) async fn release(self, engine: Arc<Engine>) {
        let stop = self.held.stopped_already().unwrap_or(Stop::Released);
        self.finish(&engine, End::Stopped(stop), None).await;
    }

    async fn handle(&self, engine: &Engine) -> End {
        let task = match &self.claimed.task {
            Ok(task) => task.clone(),
            Err(unreadable) => return End::Unreadable(unreadable.to_string()),
        };
        let Some(handler) = engine.registry.get(&task.task_type) else {
            return End::Stopped(Stop::Released);
        };
        if let Some(stop) = self.held.stopped_already() {
            return End::Stopped(stop);
        }
        self.held.started(self.claimed.timeout);
        let services = engine.services.fenced(self.held.fence.clone());
        // In a task of its own: code that blocks a thread, or panics while it is dropped, cannot take this one along.
        let mut code = tokio::spawn(handler.run(task, services));
        let cut_short = tokio::select! {
            biased;
            stop = self.held.stopped() => End::Stopped(stop),
            joined = &mut code => {
                self.held.gone();
                return End::of(joined);
            }
            () = self.scope.cut.cancelled() => {
                self.held.stop(Stop::Released);
                End::Stopped(Stop::Released)
            }
            () = sleep(self.claimed.timeout) => End::TimedOut,
        };
        // Nobody else may have the task before its code has really stopped: wait, for ever if need be.
        self.held.must_be_gone_in(STUCK_AFTER);
        code.abort();
        let joined = code.await;
        self.held.gone();
        match (joined, cut_short) {
            // It answered while it was being stopped. Unless the lease is gone that answer is as good as any.
            (Ok(outcome), End::TimedOut | End::Stopped(Stop::Cancelled | Stop::Released)) => {
                End::Answered(outcome)
            }
            (_, cut_short) => cut_short,
        }
    }

    async fn finish(self, engine: &Arc<Engine>, end: End, took: Option<Duration>) {
        let Self { claimed, held, scope, membership, in_hand, .. } = self;
        let (ending, error) = decide(&claimed, end);
        let ending = match took {
            Some(took) => ending.after(took),
            None => ending,
        };
        let verb = ending.verb();
        let verdict = engine.finisher.end(ending.with_oversize(claimed.oversize)).await;
        if verdict != Verdict::Refused {
            engine.leases.let_go(held.lease);
        }
        match verdict {
            Verdict::Accepted | Verdict::Already => {
                engine.stats.ended(verb);
                scope.ended(verb);
                if matches!(verb, Verb::Retry | Verb::Snooze | Verb::Release) {
                    // It is due again, perhaps before anything the loop knows of.
                    engine.look_soon();
                }
                let label = EndingLabel { task_type: claimed.task_type.clone(), ending: verb.name() };
                engine.metrics.endings.get_or_create(&label).inc();
            }
            Verdict::Stale => {
                engine.metrics.stale_endings.inc();
            }
            // Locked rows are the finisher's affair; it answers when it knows.
            Verdict::Refused | Verdict::Locked => {
                let engine = engine.clone();
                tokio::spawn(async move { engine.leases.abandon(&held).await });
            }
        }
        report(&claimed, verb.name(), verdict, took, error.as_deref());
        drop((membership, in_hand));
    }
}

impl End {
    fn of(joined: Result<Outcome, JoinError>) -> Self {
        match joined {
            Ok(outcome) => Self::Answered(outcome),
            Err(error) => Self::Panicked(match error.try_into_panic() {
                Ok(payload) => panic_message(payload.as_ref()),
                Err(_) => "the handler was dropped".to_owned(),
            }),
        }
    }
}

/// What to write down, and the error to report.
fn decide(claimed: &Claimed, end: End) -> (Ending, Option<String>) {
    let lease = claimed.lease;
    let (answer, usage) = match end {
        End::Answered(outcome) => (outcome.verdict, outcome.usage),
        End::Unreadable(error) => (Answer::Fail(error), None),
        End::Panicked(message) => (Answer::Retry(format!("the handler panicked: {message}")), None),
        End::TimedOut => {
            (Answer::Retry(format!("timed out after {} s", claimed.timeout.as_secs_f64())), None)
        }
        End::Stopped(Stop::Cancelled) => (Answer::Cancel("cancelled while running".to_owned()), None),
        End::Stopped(Stop::LeaseLost | Stop::Released) => return (Ending::release(lease), None),
    };
    let (ending, error) = match answer {
        Answer::Complete(data) => (Ending::complete(lease, data), None),
        Answer::Retry(error) => (failed(lease, claimed.retry, claimed.retry_count, &error), Some(error)),
        Answer::Fail(error) => (Ending::fail(lease, &error), Some(error)),
        Answer::Snooze(delay, reason) => (Ending::snooze(lease, delay, &reason), None),
        Answer::Cancel(reason) => (Ending::cancel(lease, &reason), None),
    };
    (ending.with_usage(usage.as_ref()), error)
}

fn failed(lease: Lease, rule: RetryRule, retry_count: u32, error: &str) -> Ending {
    match retry_or_fail(rule, retry_count) {
        Retry::After(delay) => Ending::retry(lease, error, delay),
        Retry::Never => Ending::fail(lease, error),
    }
}

/// One line per attempt; inputs and results are nobody's business here.
fn report(claimed: &Claimed, ending: &str, verdict: Verdict, took: Option<Duration>, error: Option<&str>) {
    let Claimed { lease, attempt, task_type, .. } = claimed;
    let (task_id, task_type) = (lease.id, task_type.as_str());
    let ms = took.map(|took| took.as_millis());
    match (verdict, error) {
        (Verdict::Stale, _) => {
            tracing::warn!(%task_id, task_type, attempt, ending, "late: another attempt owns the task, nothing written");
        }
        (_, Some(error)) => {
            tracing::warn!(%task_id, task_type, attempt, ending, ms, error, "task {ending}: {error}");
        }
        _ => tracing::info!(%task_id, task_type, attempt, ending, ms, "task {ending}"),
    }
}

fn panic_message(payload: &(dyn std::any::Any + Send)) -> String {
    payload
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| payload.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "a value that is no text".to_owned())
}
