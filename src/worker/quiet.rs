//! Spares inserts their notification while this worker is busy anyway, and makes good for it afterwards.
//!
//! A NOTIFY serialises commits, so under load it costs the writers more than it tells us. While tasks come in fast the
//! database is asked to keep quiet for a moment (`Queue::keep_quiet`). The promise in return: until well after the quiet
//! has ended this worker looks again by itself, soon after a look that found something, ever more rarely after that,
//! and then it announces once for everybody, since another instance may have been idle all along. That is put off for
//! as long as a transaction is open that may have inserted quietly (`Queue::end_quiet`).

use std::time::Duration;

use tokio::time::Instant;

/// How long one request keeps inserts quiet.
pub(super) const WINDOW: Duration = Duration::from_millis(300);
const REFRESH_AFTER: Duration = Duration::from_millis(150);
/// So many tasks within this time are fast: looking for them costs less than being told of each.
const FAST: (usize, Duration) = (20, Duration::from_millis(100));
/// The next look after one that found something. Later ones come after half as much time as has passed without a find.
const FIRST_LOOK: Duration = Duration::from_millis(2);
/// But after this at the latest.
const RAREST_LOOK: Duration = Duration::from_millis(500);
/// So long after the request the quiet may end; twice as long after each try that failed, up to so long.
const END_AFTER: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(5));

/// The promise, while it lasts.
pub(super) struct Quiet {
    promise: Option<Promise>,
    counted: usize,
    counted_since: Instant,
}

struct Promise {
    asked: Instant,
    end_after: Duration,
    end_at: Instant,
    last_found: Instant,
    last_look: Instant,
}

impl Default for Quiet {
    fn default() -> Self {
        Self { promise: None, counted: 0, counted_since: Instant::now() }
    }
}

impl Quiet {
    /// A claim has found so many tasks. True if the database should be asked to keep quiet for another [`WINDOW`].
    pub(super) fn found(&mut self, tasks: usize) -> bool {
        let now = Instant::now();
        if now - self.counted_since > FAST.1 {
            (self.counted, self.counted_since) = (0, now);
        }
        self.counted += tasks;
        if let Some(promise) = &mut self.promise {
            promise.last_look = now;
            if tasks > 0 {
                promise.last_found = now;
            }
        }
        let asked_lately = self.promise.as_ref().is_some_and(|promise| now - promise.asked <= REFRESH_AFTER);
        let ask = tasks > 0 && self.counted >= FAST.0 && !asked_lately;
        if ask {
            self.promise = Some(Promise {
                asked: now,
                end_after: END_AFTER.0,
                end_at: now + END_AFTER.0,
                last_found: now,
                last_look: now,
            });
        }
        ask
    }

    /// Whether inserts may be quiet at our request.
    pub(super) fn is_on(&self) -> bool {
        self.promise.is_some()
    }

    /// Within which time the worker has promised to look again.
    pub(super) fn look_within(&self) -> Option<Duration> {
        let promise = self.promise.as_ref()?;
        let wait = ((promise.last_look - promise.last_found) / 2).clamp(FIRST_LOOK, RAREST_LOOK);
        let next = (promise.last_look + wait).min(promise.end_at);
        Some(next.saturating_duration_since(Instant::now()))
    }

    /// Whether it is time to ask the database whether the quiet can end, and to look once more after that.
    pub(super) fn may_end(&self) -> bool {
        self.promise.as_ref().is_some_and(|promise| promise.end_at <= Instant::now())
    }

    /// The database has been asked: whether it has ended.
    pub(super) fn ended(&mut self, ended: bool) {
        if ended {
            self.promise = None;
        } else if let Some(promise) = &mut self.promise {
            promise.end_after = (promise.end_after * 2).min(END_AFTER.1);
            promise.end_at = Instant::now() + promise.end_after;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Looks whenever that is due, until the announcement: when, in milliseconds.
    async fn looks(quiet: &mut Quiet, found: impl Fn(u128) -> usize) -> Vec<u128> {
        let began = Instant::now();
        let mut at = Vec::new();
        while !quiet.may_end()
            && let Some(wait) = quiet.look_within()
        {
            tokio::time::advance(wait).await;
            let now = began.elapsed().as_millis();
            at.push(now);
            quiet.found(found(now));
        }
        at
    }

    #[tokio::test(start_paused = true)]
    async fn after_the_last_find_come_ever_rarer_looks_and_one_announcement() {
        let mut quiet = Quiet::default();
        assert!(!quiet.is_on());
        assert!(quiet.found(FAST.0));
        assert!(!quiet.found(FAST.0), "asked a moment ago");
        let at = looks(&mut quiet, |_| 0).await;
        assert_eq!(at, [2, 4, 6, 9, 13, 20, 30, 45, 68, 102, 153, 230, 345, 500]);
        quiet.ended(false);
        assert_eq!(looks(&mut quiet, |_| 0).await, [250, 625, 1000], "somebody may still commit");
        quiet.ended(false);
        assert_eq!(looks(&mut quiet, |_| 0).await, [500, 1000, 1500, 2000], "twice a second at least");
        quiet.ended(true);
        assert!(!quiet.is_on());
    }

    #[tokio::test(start_paused = true)]
    async fn a_few_finds_bring_the_next_look_forward_and_do_not_prolong_the_promise() {
        let mut quiet = Quiet::default();
        assert!(quiet.found(FAST.0));
        let at = looks(&mut quiet, |now| usize::from(now == 102)).await;
        assert!(at.contains(&104), "{at:?}");
        assert_eq!(at.last(), Some(&500));
    }

    #[tokio::test(start_paused = true)]
    async fn tasks_that_come_in_slowly_are_announced_one_by_one() {
        let mut quiet = Quiet::default();
        for _ in 0..100 {
            assert!(!quiet.found(1));
            assert!(!quiet.is_on());
            tokio::time::advance(Duration::from_millis(10)).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_time_to_end_it_even_for_a_worker_that_cannot_look() {
        let mut quiet = Quiet::default();
        assert!(quiet.found(FAST.0));
        tokio::time::advance(END_AFTER.0).await;
        assert!(quiet.may_end());
    }

    #[tokio::test(start_paused = true)]
    async fn under_lasting_load_the_database_is_asked_again_before_the_quiet_ends() {
        let mut quiet = Quiet::default();
        assert!(quiet.found(FAST.0));
        tokio::time::advance(REFRESH_AFTER + Duration::from_millis(1)).await;
        assert!(quiet.found(FAST.0));
        assert!(REFRESH_AFTER < WINDOW && WINDOW < END_AFTER.0);
    }
}
