//! How many tasks to claim at once.

use std::time::Duration;

use tokio::time::Instant;

/// The largest window: claims and endings gain nothing beyond.
const LARGEST: usize = 2_000;
/// What is held is never more than what has lately been ended within this time.
const PERIOD: Duration = Duration::from_millis(100);
/// A claim is put off until there is room for the part of a period's tasks that this divides it by, since small claims cost
/// the database more; but never for more than half of what slow tasks leave room for.
const SHARE: usize = 4;

/// Decides how many claimed tasks this process holds at a time.
///
/// As many as can run; and when they end quickly, as many as ended within the last tenth of a second, so that the
/// round trip of a claim is shared by many while nothing waits here that another process could start.
pub(super) struct Appetite {
    concurrency: usize,
    /// The size of one claim, where an operator has set it.
    fixed: Option<usize>,
    window: usize,
    /// It is not worth a claim before there is room for so many.
    worthwhile: usize,
    period_began: Instant,
    ended_before: u64,
}

impl Appetite {
    pub(super) fn new(concurrency: usize, fixed: Option<usize>) -> Self {
        let period_began = Instant::now();
        Self { concurrency, fixed, window: concurrency, worthwhile: 1, period_began, ended_before: 0 }
    }

    /// The seed's literal rate: so many at each poll, whether they can run yet or not.
    pub(super) fn strict(concurrency: usize, fixed: Option<usize>) -> Self {
        let mut appetite = Self::new(concurrency, fixed);
        appetite.window = concurrency.max(fixed.unwrap_or(0));
        appetite.concurrency = appetite.window;
        appetite
    }

    /// Takes note of how many tasks have ended so far. `slow` tells how many have been held for longer than a given time.
    pub(super) fn ended(&mut self, ended: u64, slow: impl FnOnce(Duration) -> usize) {
        let elapsed = self.period_began.elapsed();
        if elapsed < PERIOD {
            return;
        }
        let in_a_period = u128::from(ended - self.ended_before) * PERIOD.as_micros() / elapsed.as_micros();
        let most = LARGEST.max(self.concurrency);
        let in_a_period = usize::try_from(in_a_period).unwrap_or(LARGEST);
        self.window = in_a_period.clamp(self.concurrency, most);
        let quick = self.window.saturating_sub(slow(PERIOD));
        self.worthwhile = (in_a_period / SHARE).min(quick / 2).min(self.fixed.unwrap_or(LARGEST)).max(1);
        self.period_began = Instant::now();
        self.ended_before = ended;
    }

    /// How many to claim with `in_hand` tasks held; `None` while it is not worth a claim.
    pub(super) fn next_claim(&self, in_hand: usize) -> Option<usize> {
        let free = self.window.saturating_sub(in_hand);
        (in_hand <= self.room_at()).then(|| self.fixed.map_or(free, |size| free.min(size)))
    }

    /// At most so many may be in hand for the next claim to be worth it.
    pub(super) fn room_at(&self) -> usize {
        self.window - self.worthwhile
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn quick_tasks_widen_the_window_and_slow_ones_keep_it_at_the_concurrency() {
        let mut appetite = Appetite::new(10, None);
        assert_eq!(appetite.next_claim(0), Some(10));
        let mut ended = 0;
        for (more, window) in [(300, 300), (700, 700), (5_000, 2_000), (20, 20), (3, 10)] {
            tokio::time::advance(PERIOD).await;
            ended += more;
            appetite.ended(ended, |_| 0);
            assert_eq!(appetite.next_claim(0), Some(window), "after {more}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_claim_is_put_off_until_it_is_worthwhile_but_not_for_room_that_slow_tasks_keep() {
        for (ended, slow, room_at) in [(40, 0, 30), (1_000, 0, 750), (40, 30, 35), (12, 9, 11), (3, 9, 9)] {
            let mut appetite = Appetite::new(10, None);
            tokio::time::advance(PERIOD).await;
            appetite.ended(ended, |_| slow);
            assert_eq!(appetite.room_at(), room_at, "{ended} ended, {slow} slow");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn ten_slow_tasks_that_end_together_are_no_reason_to_hold_more() {
        let mut appetite = Appetite::new(10, None);
        for round in 1..=5 {
            tokio::time::advance(Duration::from_secs(5)).await;
            for ended in 0..10 {
                tokio::time::advance(Duration::from_millis(3)).await;
                appetite.ended((round - 1) * 10 + ended, |_| 0);
                assert!(appetite.next_claim(0).is_some_and(|size| size <= 10));
            }
        }
    }

    #[test]
    fn a_fixed_size_bounds_a_claim_and_a_narrow_window_claims_for_every_free_slot() {
        let appetite = Appetite::new(10, Some(3));
        assert_eq!(appetite.next_claim(0), Some(3));
        assert_eq!(appetite.next_claim(9), Some(1));
        assert_eq!(appetite.next_claim(10), None);
        assert_eq!(appetite.room_at(), 9);
        assert_eq!(Appetite::strict(2, Some(20)).next_claim(0), Some(20));
    }
}
