//! How far back a claim has to look.
//!
//! The index entries of claimed tasks stay at the head of the claim's index until the next vacuum, where every look has to
//! step over them; and for as long as somebody holds an old snapshot (a long report, a forgotten transaction), vacuum
//! does not help. So when a complete look has become expensive, most looks pass over what it has seen to be gone. Some,
//! for a small share of the time, look at everything again: they find what was put back with an old date.

use std::time::Duration;

use tokio::time::Instant;

/// A look that takes so much longer than the fastest one is cheap: the next one may be complete again.
const CHEAP: Duration = Duration::from_millis(2);
/// Complete looks take about this share of the time.
const SHARE: u32 = 100;
/// What was put back with an old date must not wait for longer.
const LONGEST: Duration = Duration::from_secs(30);
/// A task may become visible this long after it became due: writers take the time at which their transaction began.
const MARGIN: Duration = Duration::from_secs(2);

/// What complete looks have shown.
#[derive(Default)]
pub(super) struct Horizon {
    complete: Option<Complete>,
    passed_over: bool,
    /// Mostly the way to the database and back.
    fastest: Option<Duration>,
}

/// The last complete look.
struct Complete {
    at: Instant,
    /// What was due before is gone or, with `more_behind`, has to wait behind what was found.
    since: Instant,
    /// For so long others may pass over that.
    good_for: Duration,
    more_behind: bool,
}

/// A look at what is due.
#[derive(Clone, Copy)]
pub(super) struct Look {
    /// How far back it reached; `None`: all the way.
    pub(super) reach: Option<Duration>,
    pub(super) began: Instant,
    /// Until it was answered.
    pub(super) took: Duration,
}

/// What came of a look.
pub(super) enum Found {
    /// All that was due.
    All,
    /// As much as could be taken; the oldest of it had been due for so long.
    Full(Duration),
    /// Less than is due now, and the oldest of the rest has been due for so long: it has just come in, or others hold it.
    Part(Duration),
    /// Perhaps nothing: it may have been given back unread.
    Late,
}

impl Horizon {
    /// How far back the next look has to reach; `None`: all the way.
    pub(super) fn reach(&self) -> Option<Duration> {
        let Complete { at, since, good_for, .. } = self.complete.as_ref()?;
        (at.elapsed() < *good_for).then(|| since.elapsed() + MARGIN)
    }

    /// When the next complete look is due, if there were others since the last one: they may have missed something.
    pub(super) fn complete_in(&self) -> Option<Duration> {
        let Complete { at, good_for, .. } = self.complete.as_ref().filter(|_| self.passed_over)?;
        Some(good_for.saturating_sub(at.elapsed()))
    }

    /// Whether the last look was complete.
    pub(super) fn was_complete(&self) -> bool {
        !self.passed_over
    }

    /// Has the next look be complete.
    pub(super) fn forget(&mut self) {
        self.complete = None;
    }

    /// Learns from a look.
    pub(super) fn looked(&mut self, Look { reach, began: at, took }: Look, found: &Found) {
        self.passed_over = reach.is_some();
        let fastest = *self.fastest.get_or_insert(took);
        self.fastest = Some(fastest.min(took));
        // What is left came due no earlier than that.
        let left_since = |waited: Duration| at.checked_sub(waited);
        if reach.is_some() {
            match (found, &mut self.complete) {
                (Found::Full(_) | Found::Late, _) | (_, None) => {}
                // What is behind need not wait any longer: it may be older, and of a lower priority.
                (_, Some(complete)) if complete.more_behind => self.complete = None,
                (Found::All, Some(complete)) => complete.since = at,
                (Found::Part(waited), Some(complete)) => {
                    if let Some(since) = left_since(*waited) {
                        complete.since = complete.since.max(since);
                    }
                }
            }
            return;
        }
        let expense = took.saturating_sub(fastest);
        let since = match found {
            _ if expense <= CHEAP => None,
            Found::All => Some(at),
            Found::Full(waited) | Found::Part(waited) => left_since(*waited),
            Found::Late => None,
        };
        let (good_for, more_behind) = ((expense * SHARE).min(LONGEST), matches!(found, Found::Full(_)));
        self.complete = since.map(|since| Complete { at, since, good_for, more_behind });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXPENSIVE: Duration = Duration::from_millis(50);

    /// Whether it was a complete one.
    async fn look(horizon: &mut Horizon, took: Duration, found: &Found) -> bool {
        let (reach, began) = (horizon.reach(), Instant::now());
        tokio::time::advance(took).await;
        horizon.looked(Look { reach, began, took }, found);
        reach.is_none()
    }

    #[tokio::test(start_paused = true)]
    async fn cheap_looks_are_always_complete_however_far_the_database_is() {
        let mut horizon = Horizon::default();
        for _ in 0..5 {
            assert!(look(&mut horizon, EXPENSIVE, &Found::All).await);
            assert!(look(&mut horizon, EXPENSIVE + CHEAP, &Found::All).await);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn after_an_expensive_look_others_pass_over_what_it_has_seen_until_its_share_of_time_is_made_up() {
        let mut horizon = Horizon::default();
        assert!(look(&mut horizon, Duration::ZERO, &Found::All).await);
        assert!(look(&mut horizon, EXPENSIVE, &Found::All).await);
        assert_eq!(horizon.reach(), Some(EXPENSIVE + MARGIN));
        assert_eq!(horizon.complete_in(), None, "nothing was passed over");
        for _ in 0..98 {
            assert!(!look(&mut horizon, EXPENSIVE, &Found::All).await);
            assert_eq!(
                horizon.reach(),
                Some(EXPENSIVE + MARGIN),
                "what others saw to be gone need not be seen again"
            );
        }
        assert_eq!(horizon.complete_in(), Some(EXPENSIVE));
        tokio::time::advance(EXPENSIVE).await;
        assert!(look(&mut horizon, CHEAP, &Found::All).await, "once more, and it has become cheap");
        assert!(look(&mut horizon, CHEAP, &Found::All).await);
    }

    #[tokio::test(start_paused = true)]
    async fn a_look_that_took_all_it_could_reaches_as_far_as_what_it_found() {
        let mut horizon = Horizon::default();
        let waited = Duration::from_secs(7);
        tokio::time::advance(waited * 2).await;
        assert!(look(&mut horizon, Duration::ZERO, &Found::Full(waited)).await);
        assert!(look(&mut horizon, EXPENSIVE, &Found::Full(waited)).await);
        assert_eq!(horizon.reach(), Some(EXPENSIVE + waited + MARGIN));
    }

    #[tokio::test(start_paused = true)]
    async fn once_others_take_less_than_they_could_what_was_left_behind_is_looked_at_again() {
        for (found, complete) in
            [(Found::Full(Duration::ZERO), false), (Found::All, true), (Found::Part(Duration::ZERO), true)]
        {
            let mut horizon = Horizon::default();
            assert!(look(&mut horizon, Duration::ZERO, &Found::All).await);
            assert!(look(&mut horizon, EXPENSIVE, &Found::Full(EXPENSIVE * 2)).await);
            assert!(!look(&mut horizon, Duration::ZERO, &found).await);
            assert_eq!(horizon.reach().is_none(), complete);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_others_hold_is_not_passed_over_and_what_is_older_is() {
        let mut horizon = Horizon::default();
        let waited = Duration::from_secs(7);
        tokio::time::advance(waited * 2).await;
        assert!(look(&mut horizon, Duration::ZERO, &Found::All).await);
        assert!(look(&mut horizon, EXPENSIVE, &Found::Part(waited)).await);
        assert_eq!(horizon.reach(), Some(EXPENSIVE + waited + MARGIN));
        assert!(!look(&mut horizon, Duration::ZERO, &Found::Part(waited)).await);
        assert_eq!(horizon.reach(), Some(waited + MARGIN), "it has come in since: nothing older is left");
    }

    #[tokio::test(start_paused = true)]
    async fn a_steady_stream_does_not_push_the_horizon_back() {
        let mut horizon = Horizon::default();
        assert!(look(&mut horizon, Duration::ZERO, &Found::All).await);
        assert!(look(&mut horizon, EXPENSIVE, &Found::All).await);
        for _ in 0..50 {
            assert!(!look(&mut horizon, EXPENSIVE, &Found::Part(Duration::ZERO)).await);
            assert_eq!(horizon.reach(), Some(EXPENSIVE + MARGIN));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_look_whose_finds_were_given_back_says_nothing() {
        let mut horizon = Horizon::default();
        assert!(look(&mut horizon, Duration::ZERO, &Found::All).await);
        for _ in 0..3 {
            assert!(look(&mut horizon, EXPENSIVE, &Found::Late).await);
        }
    }
}
