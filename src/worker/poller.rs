//! The loop: claims while there is room, and otherwise waits for room, a wake-up, the next due time or the interval.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};

use super::GOODBYE_WITHIN;
use super::appetite::Appetite;
use super::engine::Engine;
use super::execute::Attempt;
use super::horizon::{Found, Horizon};
use super::quiet::{Quiet, WINDOW};
use super::scope::Scope;
use super::suspects::{Room, Suspects};
use crate::db::DbError;
use crate::queue::NextDue;

/// Others hold what is due and will mostly have committed by then; if they have not, the wait doubles.
const CONTENDED: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(1));
/// While something has to end first: how often to see whether it has, and whether anything else has changed.
const LOOK_AROUND: Duration = Duration::from_millis(250);
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// What the loop waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    /// More may be due and there is room.
    Again,
    /// As many tasks are in hand as is sensible.
    Room,
    /// Others hold what is due, and will mostly have committed after this time.
    Contended(Duration),
    /// Nothing can be claimed at this moment, whatever is due: the database has failed.
    Blocked(Duration),
    /// A task has to run alone: nothing else may be in hand.
    Empty,
    /// A task runs alone, or will, and lets nobody in.
    Outside,
    /// Nothing is due for this long.
    Idle(Duration),
}

/// When a poller has done its work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Until {
    /// Its scope is stopped.
    Stopped,
    /// Or nothing is due any more.
    Dry,
}

/// Claims for one scope.
pub(super) struct Poller {
    engine: Arc<Engine>,
    scope: Arc<Scope>,
    attempts: mpsc::UnboundedSender<Attempt>,
    until: Until,
    appetite: Appetite,
    quiet: Quiet,
    horizon: Horizon,
    backoff: Duration,
    contended: Duration,
    suspects: Suspects,
    /// Nothing is known to be due, so the next step asks before it claims: the poll of an idle queue is one read.
    ask_first: bool,
    slow_clock_told: bool,
}

impl Poller {
    /// Claims for `scope`, for the dispatcher behind `attempts`, for so long.
    pub(super) fn new(
        engine: Arc<Engine>,
        scope: Arc<Scope>,
        attempts: mpsc::UnboundedSender<Attempt>,
        until: Until,
    ) -> Self {
        let (concurrency, size) = (engine.config.concurrency, engine.config.max_tasks_per_poll);
        let appetite = match engine.config.poll_strict {
            true => Appetite::strict(concurrency, size),
            false => Appetite::new(concurrency, size),
        };
        Self {
            engine,
            scope,
            attempts,
            until,
            appetite,
            quiet: Quiet::default(),
            horizon: Horizon::default(),
            backoff: BACKOFF.0,
            contended: CONTENDED.0,
            suspects: Suspects::new(),
            ask_first: false,
            slow_clock_told: false,
        }
    }

    /// Claims until the scope is stopped or, for [`Until::Dry`], nothing is due and nothing in hand.
    pub(super) async fn run(mut self) {
        let engine = self.engine.clone();
        let stop = self.scope.stop.clone();
        while !stop.is_cancelled() {
            engine.stats.stepped();
            // Not cut short: the reply to a claim must not be lost.
            let next = self.step().await;
            if self.until == Until::Dry && matches!(next, Next::Idle(_)) && self.scope.in_hand() == 0 {
                if self.horizon.was_complete() {
                    break;
                }
                self.horizon.forget();
                continue;
            }
            // A wake-up since the last one is remembered: a task added while the table was looked at is not missed.
            let may_be_woken = self.until == Until::Stopped && matches!(next, Next::Idle(_));
            tokio::select! {
                () = self.wait(next) => {}
                () = engine.wake.notified(), if may_be_woken => {
                    self.ask_first = false;
                }
                () = stop.cancelled() => break,
            }
        }
        self.leave().await;
    }

    /// Somebody else has to see to what was inserted quietly, and to a task that was kept for us.
    async fn leave(&mut self) {
        let goodbye = async {
            self.suspects.leave(&self.engine).await;
            if self.quiet.is_on() {
                let _ = self.engine.queue.stop_quiet().await;
            }
        };
        let _ = timeout(GOODBYE_WITHIN, goodbye).await;
    }

    async fn wait(&mut self, next: Next) {
        // Before the next look is owed, by the quiet or for what the last one has passed over.
        let owed = self.quiet.look_within().into_iter().chain(self.horizon.complete_in()).min();
        let owed = owed.unwrap_or(Duration::MAX);
        match next {
            Next::Again => {}
            Next::Contended(pause) => sleep(pause.min(owed)).await,
            Next::Blocked(pause) => sleep(pause).await,
            Next::Empty => {
                let _ = timeout(LOOK_AROUND, self.engine.company.empty()).await;
            }
            Next::Outside => {
                let _ = timeout(LOOK_AROUND, self.engine.company.open()).await;
            }
            Next::Room => {
                let _ = timeout(LOOK_AROUND, self.scope.at_most(self.appetite.room_at())).await;
            }
            Next::Idle(_) if self.until == Until::Dry => self.scope.at_most(0).await,
            Next::Idle(delay) => {
                let interval = self.engine.config.polling_interval;
                let longest = delay.min(interval).min(owed);
                self.ask_first = longest == interval && !self.engine.config.poll_strict;
                let began = Instant::now();
                sleep(longest).await;
                self.check_clock(longest, began.elapsed());
            }
        }
    }

    /// One look at the table, at most one claim.
    async fn step(&mut self) -> Next {
        if self.quiet.may_end() {
            let ended = self.engine.queue.end_quiet().await;
            self.quiet.ended(ended.unwrap_or(false));
        }
        // What was given back is no sign that more could be held, but of the contrary.
        let ended = self.scope.worked().processed;
        self.appetite.ended(ended, |time| self.engine.leases.held_longer_than(time));
        let Some(size) = self.appetite.next_claim(self.scope.in_hand()) else { return Next::Room };
        match self.claim_and_look(size).await {
            Ok(next) => {
                self.backoff = BACKOFF.0;
                next
            }
            Err(error) => {
                tracing::warn!(%error, "cannot claim tasks, trying again");
                let pause = self.backoff;
                self.backoff = (self.backoff * 2).min(BACKOFF.1);
                Next::Blocked(pause)
            }
        }
    }

    async fn claim_and_look(&mut self, size: usize) -> Result<Next, DbError> {
        let engine = self.engine.clone();
        let asked = std::mem::take(&mut self.ask_first);
        if asked {
            let due = self.next_due(None).await?;
            if due.soonest() != Some(Duration::ZERO) {
                return Ok(Next::Idle(due.soonest().unwrap_or(Duration::MAX)));
            }
        }
        if self.suspects.must_be_looked_at(engine.config.polling_interval)
            && let Some(next) = self.make_room_for_suspect().await?
        {
            return Ok(next);
        }
        let Some(membership) = engine.company.try_join() else { return Ok(Next::Outside) };
        // What the question has found may be of any age.
        let reach = self.horizon.reach().filter(|_| !asked);
        let began = Instant::now();
        let claim = engine.queue.claim_within(&engine.types, size, reach);
        let attempts = engine.claim(&self.scope, membership, claim).await?;
        let took = began.elapsed();
        let oldest = attempts.iter().map(|attempt| attempt.ticket.terms.waited).max();
        let got = self.dispatch(attempts);
        if engine.config.poll_strict {
            return Ok(Next::Idle(engine.config.polling_interval));
        }
        // A drain waits for its last tasks without looking around, and could not keep the promise.
        if self.until == Until::Stopped
            && self.quiet.found(got)
            && let Err(error) = engine.queue.keep_quiet(WINDOW, got == size).await
        {
            tracing::debug!(%error, "inserts go on announcing themselves");
        }
        if got == size {
            self.horizon.looked(reach, began, took, &Found::Full(oldest.unwrap_or_default()));
            return Ok(Next::Again);
        }
        let due = self.next_due(reach).await?;
        let more = due.ordinary == Some(Duration::ZERO);
        self.horizon.looked(reach, began, took, &if more { Found::Contended } else { Found::All });
        if due.suspect == Some(Duration::ZERO)
            && let Some(next) = self.make_room_for_suspect().await?
        {
            return Ok(next);
        }
        if reach.is_some() && self.horizon.reach().is_none() {
            return Ok(Next::Again);
        }
        if due.soonest() != Some(Duration::ZERO) {
            self.contended = CONTENDED.0;
            return Ok(Next::Idle(due.soonest().unwrap_or(Duration::MAX)));
        }
        if got > 0 {
            return Ok(Next::Again);
        }
        let pause = self.contended;
        self.contended = (pause * 2).min(CONTENDED.1);
        Ok(Next::Contended(pause))
    }

    /// When something is due, suspects included; of the rest, as far back as the look before has reached.
    async fn next_due(&mut self, reach: Option<Duration>) -> Result<NextDue, DbError> {
        let due = self.engine.queue.next_due_within(&self.engine.types, reach).await?;
        if due.suspect != Some(Duration::ZERO) {
            self.suspects.none_is_due();
        }
        Ok(due)
    }

    /// Sees to a task that must run with no other in its process, if there is one: its process died under it twice.
    async fn make_room_for_suspect(&mut self) -> Result<Option<Next>, DbError> {
        Ok(match self.suspects.make_room(&self.engine, &self.scope).await? {
            Room::Unneeded => None,
            Room::Awaited => Some(Next::Empty),
            Room::Made(attempts) => (self.dispatch(attempts) > 0).then_some(Next::Empty),
        })
    }

    fn dispatch(&self, attempts: Vec<Attempt>) -> usize {
        let count = attempts.len();
        for attempt in attempts {
            let _ = self.attempts.send(attempt);
        }
        count
    }

    /// Cloud Run stops the clock of an instance without requests unless it is told not to.
    fn check_clock(&mut self, planned: Duration, took: Duration) {
        if took > planned * 2 + Duration::from_secs(15) && !self.slow_clock_told {
            self.slow_clock_told = true;
            tracing::warn!(
                planned_s = planned.as_secs(),
                took_s = took.as_secs(),
                "the polling loop was held up: is the CPU throttled? On Cloud Run deploy with --no-cpu-throttling"
            );
        }
    }
}
