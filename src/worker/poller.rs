//! The loop: claims while there is room, and otherwise waits for room, a wake-up, the next due time or the interval.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};

use super::appetite::Appetite;
use super::engine::Engine;
use super::execute::Attempt;
use super::quiet::{Duty, Quiet, WINDOW};
use super::scope::Scope;
use crate::db::DbError;

/// Others hold what is due and will mostly have committed by then; if they have not, the wait doubles.
const CONTENDED: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(1));
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// What the loop waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    /// More may be due and there is room.
    Again,
    /// As many tasks are in hand as is sensible.
    Room,
    /// A moment: others are claiming, or the database has failed.
    Pause(Duration),
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
    appetite: Appetite,
    quiet: Quiet,
    backoff: Duration,
    contended: Duration,
    suspects_looked_at: Instant,
    slow_clock_told: bool,
}

impl Poller {
    /// Claims for `scope`, for the dispatcher behind `attempts`.
    pub(super) fn new(
        engine: Arc<Engine>,
        scope: Arc<Scope>,
        attempts: mpsc::UnboundedSender<Attempt>,
    ) -> Self {
        let appetite = Appetite::new(engine.config.concurrency, engine.config.max_tasks_per_poll);
        Self {
            engine,
            scope,
            attempts,
            appetite,
            quiet: Quiet::default(),
            backoff: BACKOFF.0,
            contended: CONTENDED.0,
            suspects_looked_at: Instant::now(),
            slow_clock_told: false,
        }
    }

    /// Claims until the scope is stopped or, for [`Until::Dry`], nothing is due and nothing in hand.
    pub(super) async fn run(mut self, until: Until) {
        let engine = self.engine.clone();
        let stop = self.scope.stop.clone();
        while !stop.is_cancelled() {
            engine.stats.stepped();
            // Not cut short: the reply to a claim must not be lost.
            let next = self.step().await;
            if until == Until::Dry && matches!(next, Next::Idle(_)) && self.scope.in_hand() == 0 {
                break;
            }
            // A wake-up since the last one is remembered: a task added while the table was looked at is not missed.
            tokio::select! {
                () = self.wait(next, until) => {}
                () = engine.wake.notified(), if until == Until::Stopped && matches!(next, Next::Idle(_)) => {}
                () = stop.cancelled() => break,
            }
        }
        if self.quiet.duty() != Duty::None {
            // Leaving: somebody else has to see to what was inserted quietly.
            let _ = engine.queue.announce().await;
        }
    }

    async fn wait(&mut self, next: Next, until: Until) {
        let (longest, idle) = match next {
            Next::Again => return,
            Next::Pause(pause) => return sleep(pause).await,
            Next::Idle(_) if until == Until::Dry => return self.scope.at_most(0).await,
            Next::Room => (self.engine.config.polling_interval, false),
            Next::Idle(delay) => (delay.min(self.engine.config.polling_interval), true),
        };
        let longest = match self.quiet.duty() {
            Duty::None => longest,
            Duty::LookWithin(soon) => longest.min(soon),
            Duty::Announce => {
                let _ = self.engine.queue.announce().await;
                return;
            }
        };
        if idle {
            let began = Instant::now();
            sleep(longest).await;
            self.check_clock(longest, began.elapsed());
        } else {
            tokio::select! {
                () = sleep(longest) => {}
                () = self.scope.at_most(self.appetite.room_at()) => {}
            }
        }
    }

    /// One look at the table, at most one claim.
    async fn step(&mut self) -> Next {
        let Some(size) = self.appetite.next_claim(self.scope.in_hand()) else { return Next::Room };
        self.appetite.claiming();
        match self.claim_and_look(size).await {
            Ok(next) => {
                self.backoff = BACKOFF.0;
                next
            }
            Err(error) => {
                tracing::warn!(%error, "cannot claim tasks, trying again");
                let pause = self.backoff;
                self.backoff = (self.backoff * 2).min(BACKOFF.1);
                Next::Pause(pause)
            }
        }
    }

    async fn claim_and_look(&mut self, size: usize) -> Result<Next, DbError> {
        let engine = self.engine.clone();
        if self.suspects_looked_at.elapsed() > engine.config.polling_interval {
            self.run_suspect().await?;
        }
        let company = tokio::select! {
            company = engine.join_others() => company,
            () = self.scope.stop.cancelled() => return Ok(Next::Again),
        };
        let claim = engine.queue.claim(&engine.types, size);
        let attempts = engine.claim(&self.scope, company, claim).await?;
        let got = attempts.len();
        for attempt in attempts {
            let _ = self.attempts.send(attempt);
        }
        self.appetite.claimed(size, got);
        if engine.config.poll_strict {
            return Ok(Next::Idle(engine.config.polling_interval));
        }
        if got == size {
            if self.quiet.full_claim() {
                engine.queue.keep_quiet(WINDOW).await?;
            }
            return Ok(Next::Again);
        }
        let due = engine.queue.next_due(&engine.types).await?;
        if due.suspect == Some(Duration::ZERO) && self.run_suspect().await? {
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
        Ok(Next::Pause(pause))
    }

    /// Runs one task with no other in this process, if there is one that has to: its process died under it twice.
    async fn run_suspect(&mut self) -> Result<bool, DbError> {
        self.suspects_looked_at = Instant::now();
        let engine = self.engine.clone();
        let due = engine.queue.next_due(&engine.types).await?;
        if due.suspect != Some(Duration::ZERO) {
            return Ok(false);
        }
        let alone = tokio::select! {
            alone = engine.be_alone() => alone,
            () = self.scope.stop.cancelled() => return Ok(false),
        };
        let claim = async { Ok(engine.queue.claim_alone(&engine.types).await?.into_iter().collect()) };
        let attempts = engine.claim(&self.scope, alone, claim).await?;
        let found = !attempts.is_empty();
        for attempt in attempts {
            let _ = self.attempts.send(attempt);
        }
        Ok(found)
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
