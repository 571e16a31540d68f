//! How many tasks to claim at once.

use std::time::Duration;

use tokio::time::Instant;

/// The largest window: claims and endings gain nothing beyond.
const LARGEST: usize = 1_000;
/// A full claim that is worked off within this time may be twice as large next time.
const QUICK: Duration = Duration::from_millis(100);
/// One that takes longer than this is too large: what waits here could run elsewhere.
const SLOW: Duration = Duration::from_millis(500);

/// Decides how many claimed tasks this process holds at a time.
///
/// Slow tasks: as many as can run. Quick ones: more and more, so that the round trip of a claim is shared by many,
/// but never more than half a second's worth of work.
pub(super) struct Appetite {
    concurrency: usize,
    fixed: Option<usize>,
    window: usize,
    /// When the last full claim came in.
    filled_at: Option<Instant>,
}

impl Appetite {
    pub(super) fn new(concurrency: usize, fixed: Option<usize>) -> Self {
        Self { concurrency, fixed, window: concurrency.max(fixed.unwrap_or(0)), filled_at: None }
    }

    /// How many to claim with `in_hand` tasks held; `None` while it is not worth a claim.
    pub(super) fn next_claim(&self, in_hand: usize) -> Option<usize> {
        let free = self.window.saturating_sub(in_hand);
        let worthwhile = if self.window > self.concurrency { self.window / 2 } else { 1 };
        (free >= worthwhile).then(|| self.fixed.map_or(free, |size| free.min(size)))
    }

    /// At most so many may be in hand for the next claim to be worth it.
    pub(super) fn room_at(&self) -> usize {
        if self.window > self.concurrency { self.window - self.window / 2 } else { self.window - 1 }
    }

    /// A claim for `asked` tasks is about to be sent.
    pub(super) fn claiming(&mut self) {
        if self.fixed.is_some() {
            return;
        }
        let Some(took) = self.filled_at.take().map(|filled| filled.elapsed()) else { return };
        if took < QUICK {
            self.window = (self.window * 2).min(LARGEST).max(self.concurrency);
        } else if took > SLOW {
            self.window = (self.window / 2).max(self.concurrency);
        }
    }

    /// A claim brought `got` of the `asked` tasks.
    pub(super) fn claimed(&mut self, asked: usize, got: usize) {
        if got == asked {
            self.filled_at = Some(Instant::now());
        } else {
            self.filled_at = None;
            self.window = (self.window / 2).max(self.concurrency.max(self.fixed.unwrap_or(0)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn quick_full_claims_grow_and_slow_ones_shrink_back_to_the_concurrency() {
        let mut appetite = Appetite::new(10, None);
        for expected in [10, 20, 40, 80] {
            assert_eq!(appetite.next_claim(0), Some(expected));
            appetite.claimed(expected, expected);
            tokio::time::advance(Duration::from_millis(5)).await;
            appetite.claiming();
        }
        for _ in 0..10 {
            let window = appetite.next_claim(0).unwrap();
            appetite.claimed(window, window);
            tokio::time::advance(Duration::from_secs(1)).await;
            appetite.claiming();
        }
        assert_eq!(appetite.next_claim(0), Some(10));
    }

    #[test]
    fn a_fixed_size_stays_and_a_small_window_claims_for_every_free_slot() {
        let appetite = Appetite::new(10, Some(3));
        assert_eq!(appetite.next_claim(0), Some(3));
        assert_eq!(appetite.next_claim(9), Some(1));
        assert_eq!(appetite.next_claim(10), None);
        assert_eq!(appetite.room_at(), 9);
    }
}
