//! The loop: claims while there is room, and otherwise waits for room, a wake-up, the next due time or the interval.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};

use super::GOODBYE_WITHIN;
use super::appetite::Appetite;
use super::drift::Drift;
use super::engine::Engine;
use super::execute::Attempt;
use super::horizon::{Found, Horizon, Look};
use super::next::Next;
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
    /// Nothing was due a moment ago, so little is now.
    expects_few: bool,
    /// The last claim has found tasks.
    is_busy: bool,
    drift: Drift,
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
            expects_few: false,
            is_busy: false,
            drift: Drift::default(),
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
            self.expects_few = matches!(next, Next::Idle(_)) && !engine.config.poll_strict;
            if self.until == Until::Dry && matches!(next, Next::Idle(_)) && self.scope.in_hand() == 0 {
                if self.horizon.was_complete() {
                    break;
                }
                self.horizon.forget();
                continue;
            }
            // A wake-up since the last one is remembered: a task added while the table was looked at is not missed.
            let waits = matches!(next, Next::Idle(_) | Next::Contended(_));
            let may_be_woken = self.until == Until::Stopped && waits;
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
                self.drift.waited(longest, began.elapsed());
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
        if asked && let Some(idle) = Next::idle_until(self.next_due(None).await?) {
            return Ok(idle);
        }
        let suspects_are_due = self.suspects.must_be_looked_at(engine.config.polling_interval);
        if suspects_are_due && let Some(next) = self.make_room_for_suspect(self.is_busy).await? {
            return Ok(next);
        }
        // What the question has found may be of any age.
        let reach = self.horizon.reach().filter(|_| !asked);
        let Some((look, got, oldest)) = self.claim(size, reach).await? else {
            // Nobody knows whether others wait meanwhile.
            self.is_busy = true;
            return Ok(Next::Outside);
        };
        self.is_busy = got > 0;
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
            self.horizon.looked(look, &Found::Full(oldest));
            return Ok(Next::Again);
        }
        self.look_ahead(look, got).await
    }

    /// Claims at most `size` tasks and hands them on, unless a task runs alone: how many, and since when the oldest of
    /// them has been due.
    async fn claim(
        &mut self,
        size: usize,
        reach: Option<Duration>,
    ) -> Result<Option<(Look, usize, Duration)>, DbError> {
        let Self { engine, scope, expects_few, .. } = &*self;
        let Some(membership) = engine.company.try_join() else { return Ok(None) };
        let began = Instant::now();
        let claim = async {
            match expects_few {
                true => engine.queue.claim_few(&engine.types, size, reach).await,
                false => engine.queue.claim_within(&engine.types, size, reach).await,
            }
        };
        let attempts = engine.claim(scope, membership, claim).await?;
        let took = began.elapsed();
        let oldest = attempts.iter().map(|attempt| attempt.ticket.terms.waited).max().unwrap_or_default();
        Ok(Some((Look { reach, began, took }, self.dispatch(attempts), oldest)))
    }

    /// What to do after a claim that was not full: others may hold what is due.
    async fn look_ahead(&mut self, look: Look, got: usize) -> Result<Next, DbError> {
        let due = self.next_due(look.reach).await?;
        let more = due.ordinary == Some(Duration::ZERO);
        // Late, its answer may have been given back unread.
        let late = look.took >= self.engine.queue.answer_good_for();
        let found = match (late, more) {
            (true, _) => Found::Late,
            (false, true) => Found::Part(due.overdue),
            (false, false) => Found::All,
        };
        self.horizon.looked(look, &found);
        let suspect_is_due = due.suspect == Some(Duration::ZERO);
        if suspect_is_due && let Some(next) = self.make_room_for_suspect(more || got > 0).await? {
            return Ok(next);
        }
        if look.reach.is_some() && self.horizon.reach().is_none() {
            return Ok(Next::Again);
        }
        if let Some(idle) = Next::idle_until(due) {
            self.contended = CONTENDED.0;
            return Ok(idle);
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
    async fn make_room_for_suspect(&mut self, others_wait: bool) -> Result<Option<Next>, DbError> {
        Ok(match self.suspects.make_room(&self.engine, &self.scope, others_wait).await? {
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
}
