//! How far back a claim has to look.
//!
//! The index entries of claimed tasks stay at the head of the claim's index until the next vacuum, where every look has to
//! step over them; and for as long as somebody holds an old snapshot (a long report, a forgotten transaction), vacuum
//! does not help. So when a complete look has become expensive, most looks pass over what it has seen to be gone. Some,
//! for a small share of the time, look at everything again: they find what was put back with an old date.

use std::time::Duration;

use tokio::time::Instant;

/// A look that takes this long is cheap: the next one may be complete again.
const CHEAP: Duration = Duration::from_millis(2);
/// Complete looks take at most this share of the time.
const SHARE: u32 = 20;
/// A task may become visible this long after it became due: writers take the time at which their transaction began.
const MARGIN: Duration = Duration::from_secs(2);

/// What complete looks have shown.
#[derive(Default)]
pub(super) struct Horizon {
    complete: Option<Complete>,
    passed_over: bool,
}

/// The last complete look.
struct Complete {
    /// When it was sent, if it found less than it could have taken: nothing that was due then was left.
    began: Instant,
    took: Duration,
}

impl Horizon {
    /// How far back the next look has to reach; `None`: all the way.
    pub(super) fn reach(&self) -> Option<Duration> {
        let Complete { began, took } = self.complete.as_ref()?;
        (*took > CHEAP && began.elapsed() < *took * SHARE).then(|| began.elapsed() + MARGIN)
    }

    /// When the next complete look is due, if there were others since the last one: they may have missed something.
    pub(super) fn complete_in(&self) -> Option<Duration> {
        let Complete { began, took } = self.complete.as_ref().filter(|_| self.passed_over)?;
        Some((*took * SHARE).saturating_sub(began.elapsed()))
    }

    /// A look that began at `began` and reached back so far has been answered; `short` if it could have taken more.
    pub(super) fn looked(&mut self, reach: Option<Duration>, began: Instant, short: bool) {
        self.passed_over = reach.is_some();
        if reach.is_none() {
            let took = began.elapsed();
            // A claim that took seconds may have been given back unread.
            self.complete = (short && took < MARGIN).then_some(Complete { began, took });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn look(horizon: &mut Horizon, took: Duration, short: bool) -> bool {
        let (reach, began) = (horizon.reach(), Instant::now());
        tokio::time::advance(took).await;
        horizon.looked(reach, began, short);
        reach.is_none()
    }

    #[tokio::test(start_paused = true)]
    async fn cheap_looks_are_always_complete() {
        let mut horizon = Horizon::default();
        for _ in 0..5 {
            assert!(look(&mut horizon, CHEAP, true).await);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn after_an_expensive_look_others_pass_over_what_it_has_seen_until_its_share_of_time_is_made_up() {
        let (mut horizon, expensive) = (Horizon::default(), CHEAP * 5);
        assert!(look(&mut horizon, expensive, true).await);
        assert_eq!(horizon.reach(), Some(expensive + MARGIN));
        assert_eq!(horizon.complete_in(), None, "nothing was passed over");
        for _ in 0..9 {
            assert!(!look(&mut horizon, CHEAP * 10, true).await);
        }
        assert_eq!(horizon.complete_in(), Some(CHEAP * 5));
        tokio::time::advance(CHEAP * 5).await;
        assert!(look(&mut horizon, CHEAP, true).await, "once more, and it has become cheap");
        assert!(look(&mut horizon, CHEAP, true).await);
    }

    #[tokio::test(start_paused = true)]
    async fn a_look_that_took_all_it_could_says_nothing_of_what_is_left() {
        let mut horizon = Horizon::default();
        for _ in 0..3 {
            assert!(look(&mut horizon, CHEAP * 5, false).await);
        }
    }
}
