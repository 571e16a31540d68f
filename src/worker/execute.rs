//! One attempt, as a pipeline: start → run under limits → decide → write down → count.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::OwnedSemaphorePermit;
use tokio::task::{JoinError, JoinHandle};
use tokio::time::{Instant, sleep};
use tracing::Instrument;

use super::company::Membership;
use super::engine::Engine;
use super::leases::{Held, STUCK_AFTER, Stop};
use super::scope::{InHand, Scope};
use crate::handler::{Answer, Outcome};
use crate::queue::{Ending, Lease, Retry, RetryRule, Task, Terms, Undecodable, Verb, Verdict, retry_or_fail};
use crate::telemetry::metrics::{EndingLabel, TypeLabel};

/// A claimed task that has not started.
pub(super) struct Attempt {
    pub(super) task: Result<Task, Undecodable>,
    pub(super) ticket: Box<Ticket>,
}

/// All that belongs to a claimed task until its verdict is in.
pub(super) struct Ticket {
    pub(super) terms: Terms,
    /// The trace that the task came with.
    pub(super) trace_context: Option<String>,
    pub(super) held: Arc<Held>,
    pub(super) scope: Arc<Scope>,
    pub(super) membership: Membership,
    /// When the claim was sent.
    pub(super) claimed_at: Instant,
    pub(super) in_hand: InHand,
}

/// An attempt whose ending is being written down.
pub(super) struct Ended {
    engine: Arc<Engine>,
    ticket: Box<Ticket>,
    verb: Verb,
    took: Option<Duration>,
    error: Option<String>,
}

/// How the handler's code came to an end.
enum End {
    /// After this time.
    Answered(Outcome, Duration),
    Unreadable(String),
    Panicked(String),
    TimedOut,
    Stopped(Stop),
}

/// The handler's code, in a task of its own: code that blocks a thread, or panics while it is dropped, cannot take
/// along who watches it.
type Code = JoinHandle<(Outcome, Duration)>;

impl Attempt {
    /// Starts the handler, and sees to it that the attempt is ended.
    pub(super) fn start(self, engine: Arc<Engine>, slot: OwnedSemaphorePermit) {
        let Self { task, ticket } = self;
        let label = TypeLabel { task_type: ticket.terms.task_type.clone() };
        engine.metrics.due_to_start.get_or_create(&label).observe(ticket.terms.waited.as_secs_f64());
        engine.metrics.running.inc();
        let began = Instant::now();
        // Before the task that watches it: mostly it has ended when that one first looks, and no timer was set for it.
        let code = ticket.run(&engine, task);
        tokio::spawn(async move {
            let end = match code {
                Ok(code) => ticket.watch(code).await,
                Err(end) => *end,
            };
            let took = match end {
                End::Answered(_, took) => took,
                _ => began.elapsed(),
            };
            engine.metrics.running.dec();
            engine.metrics.run_time.get_or_create(&label).observe(took.as_secs_f64());
            drop(slot);
            ticket.finish(engine, end, Some(took));
        });
    }

    /// Gives the task back without having started it.
    pub(super) fn release(self, engine: Arc<Engine>) {
        let stop = self.ticket.held.stopped_already().unwrap_or(Stop::Released);
        self.ticket.finish(engine, End::Stopped(stop), None);
    }
}

impl Ticket {
    fn run(&self, engine: &Engine, task: Result<Task, Undecodable>) -> Result<Code, Box<End>> {
        let task = task.map_err(|unreadable| Box::new(End::Unreadable(unreadable.to_string())))?;
        let handler =
            engine.registry.get(&task.task_type).ok_or_else(|| Box::new(End::Stopped(Stop::Released)))?;
        if let Some(stop) = self.held.stopped_already() {
            return Err(Box::new(End::Stopped(stop)));
        }
        // What the handler logs, its panic too, says whose it is.
        let span = tracing::info_span!(
            "attempt",
            task_id = %task.id,
            task_type = task.task_type,
            attempt = self.terms.attempt,
            traceparent = self.trace_context,
        );
        self.held.started(self.terms.timeout);
        let services = engine.services.fenced(self.held.fence.clone());
        let code = handler.run(task, services);
        let fence = self.held.fence.clone();
        let timed = async move {
            let began = Instant::now();
            let outcome = fence.within(code).await;
            (outcome, began.elapsed())
        };
        Ok(tokio::spawn(timed.instrument(span)))
    }

    async fn watch(&self, mut code: Code) -> End {
        let cut_short = tokio::select! {
            biased;
            joined = &mut code => return End::of(joined),
            stop = self.held.stopped() => End::Stopped(stop),
            () = self.scope.cut.cancelled() => {
                self.held.stop(Stop::Released);
                End::Stopped(Stop::Released)
            }
            () = sleep(self.terms.timeout) => End::TimedOut,
        };
        // Nobody else may have the task before its code has really stopped: wait, for ever if need be.
        self.held.must_be_gone_in(STUCK_AFTER);
        code.abort();
        match (code.await, cut_short) {
            // It answered while it was being stopped. Unless the lease is gone that answer is as good as any.
            (Ok((outcome, took)), End::TimedOut | End::Stopped(Stop::Cancelled | Stop::Released)) => {
                End::Answered(outcome, took)
            }
            (_, cut_short) => cut_short,
        }
    }

    fn finish(self: Box<Self>, engine: Arc<Engine>, end: End, took: Option<Duration>) {
        self.held.gone();
        let (ending, error) = decide(self.held.lease, &self.terms, end);
        let ending = match took {
            Some(took) => ending.after(took),
            None => ending,
        };
        let ending = ending.with_oversize(self.terms.oversize);
        let finisher = engine.finisher.clone();
        let verb = ending.verb();
        finisher.end(ending, Ended { engine, ticket: self, verb, took, error });
    }
}

impl Ended {
    /// Does what follows from the verdict.
    pub(super) fn settle(self, verdict: Verdict) {
        self.report(verdict);
        let Self { engine, ticket, verb, .. } = self;
        let Ticket { terms, held, scope, membership, in_hand, .. } = *ticket;
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
                let label = EndingLabel { task_type: terms.task_type, ending: verb.name() };
                engine.metrics.endings.get_or_create(&label).inc();
            }
            Verdict::Stale => {
                engine.metrics.stale_endings.inc();
            }
            // Locked rows are the finisher's affair; it answers when it knows.
            Verdict::Refused | Verdict::Locked => {
                // Before the membership is given up: whoever waits for that looks at what is held.
                held.abandon();
                tokio::spawn(async move { engine.leases.outlast(&held).await });
            }
        }
        drop((membership, in_hand));
    }

    /// One line per attempt; inputs and results are nobody's business here. What is given up is an error, what will be
    /// tried again is not.
    fn report(&self, verdict: Verdict) {
        let Terms { attempt, task_type, .. } = &self.ticket.terms;
        let (task_id, task_type) = (self.ticket.held.lease.id, task_type.as_str());
        let ending = self.verb.name();
        let traceparent = self.ticket.trace_context.as_deref();
        let ms = self.took.map(|took| took.as_millis());
        match (verdict, self.error.as_deref()) {
            (Verdict::Stale, _) => {
                tracing::warn!(%task_id, task_type, attempt, traceparent, ending, "late: another attempt owns the task, nothing written");
            }
            (_, Some(error)) if self.verb == Verb::Fail => {
                tracing::error!(%task_id, task_type, attempt, traceparent, ending, ms, error, "task {ending}: {error}");
            }
            (_, Some(error)) => {
                tracing::warn!(%task_id, task_type, attempt, traceparent, ending, ms, error, "task {ending}: {error}");
            }
            _ => tracing::info!(%task_id, task_type, attempt, traceparent, ending, ms, "task {ending}"),
        }
    }
}

impl End {
    fn of(joined: Result<(Outcome, Duration), JoinError>) -> Self {
        match joined {
            Ok((outcome, took)) => Self::Answered(outcome, took),
            Err(error) => Self::Panicked(match error.try_into_panic() {
                Ok(payload) => panic_message(payload.as_ref()),
                Err(_) => "the handler was dropped".to_owned(),
            }),
        }
    }
}

/// What to write down, and the error to report.
fn decide(lease: Lease, terms: &Terms, end: End) -> (Ending, Option<String>) {
    let (answer, usage) = match end {
        End::Answered(outcome, _) => (outcome.verdict, outcome.usage),
        End::Unreadable(error) => (Answer::Fail(error), None),
        End::Panicked(message) => (Answer::Retry(format!("the handler panicked: {message}")), None),
        End::TimedOut => (Answer::Retry(format!("timed out after {} s", terms.timeout.as_secs_f64())), None),
        End::Stopped(Stop::Cancelled) => (Answer::Cancel("cancelled while running".to_owned()), None),
        End::Stopped(Stop::LeaseLost | Stop::Released) => return (Ending::release(lease), None),
    };
    let (ending, error) = match answer {
        Answer::Complete(data) => (Ending::complete(lease, data), None),
        Answer::Retry(error) => (failed(lease, terms.retry, terms.retry_count, &error), Some(error)),
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

fn panic_message(payload: &(dyn std::any::Any + Send)) -> String {
    payload
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| payload.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "a value that is no text".to_owned())
}
