//! Spares inserts their notification while this worker is busy anyway, and makes good for it afterwards.
//!
//! A NOTIFY serialises commits, so under load it costs the writers more than it tells us. When a claim comes back full
//! the database is asked to keep quiet for a moment (`Queue::keep_quiet`). The promise in return: until well after the
//! quiet has ended this worker looks again by itself, soon after a look that found something and ever more rarely after
//! that, and then it announces once for everybody, since another instance may have been idle all along.

use std::time::Duration;

use tokio::time::Instant;

/// How long one request keeps inserts quiet.
pub(super) const WINDOW: Duration = Duration::from_millis(300);
const REFRESH_AFTER: Duration = Duration::from_millis(150);
/// The looks after one that found something: each after this time, and then after half as much again as has passed.
const FIRST_LOOK: Duration = Duration::from_millis(2);
/// What was inserted quietly has been committed by then, counted from the last full claim, unless something is amiss.
const LAST_LOOK: Duration = Duration::from_millis(500);

/// What the promise asks for now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Duty {
    /// Nothing: inserts announce themselves.
    None,
    /// Look again at the latest after this time.
    LookWithin(Duration),
    /// All looks are done: announce on behalf of those that kept quiet.
    Announce,
}

/// The promise, while it lasts.
#[derive(Default)]
pub(super) struct Quiet {
    promise: Option<Promise>,
}

struct Promise {
    last_full: Instant,
    asked: Instant,
    last_found: Instant,
    last_look: Instant,
}

impl Quiet {
    /// A claim came back full. True if the database should be asked to keep quiet for another [`WINDOW`].
    pub(super) fn full_claim(&mut self) -> bool {
        let now = Instant::now();
        let asked = self.promise.as_ref().map(|promise| promise.asked);
        let ask = asked.is_none_or(|asked| now - asked > REFRESH_AFTER);
        let asked = if ask { now } else { asked.unwrap_or(now) };
        self.promise = Some(Promise { last_full: now, asked, last_found: now, last_look: now });
        ask
    }

    /// A claim has looked, and found something or not.
    pub(super) fn looked(&mut self, found: bool) {
        if let Some(promise) = &mut self.promise {
            promise.last_look = Instant::now();
            if found {
                promise.last_found = promise.last_look;
            }
        }
    }

    /// What is to be done now, before the worker waits for anything.
    pub(super) fn duty(&mut self) -> Duty {
        let Some(promise) = &self.promise else { return Duty::None };
        let last = promise.last_full + LAST_LOOK;
        if promise.last_look >= last {
            self.promise = None;
            return Duty::Announce;
        }
        let wait = FIRST_LOOK.max((promise.last_look - promise.last_found) / 2);
        Duty::LookWithin((promise.last_look + wait).min(last).saturating_duration_since(Instant::now()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Looks whenever it is due, until the announcement: when, in milliseconds, and what `found` made of it.
    async fn looks(quiet: &mut Quiet, found: impl Fn(u128) -> bool) -> Vec<u128> {
        let began = Instant::now();
        let mut at = Vec::new();
        while let Duty::LookWithin(wait) = quiet.duty() {
            tokio::time::advance(wait).await;
            let now = began.elapsed().as_millis();
            at.push(now);
            quiet.looked(found(now));
        }
        at
    }

    #[tokio::test(start_paused = true)]
    async fn after_the_last_full_claim_come_ever_rarer_looks_and_one_announcement() {
        let mut quiet = Quiet::default();
        assert_eq!(quiet.duty(), Duty::None);
        assert!(quiet.full_claim());
        assert!(!quiet.full_claim(), "asked a moment ago");
        let at = looks(&mut quiet, |_| false).await;
        assert_eq!(at, [2, 4, 6, 9, 13, 20, 30, 45, 68, 102, 153, 230, 345, 500]);
        assert_eq!(quiet.duty(), Duty::None, "announced");
    }

    #[tokio::test(start_paused = true)]
    async fn a_look_that_finds_something_is_soon_followed_by_another_and_does_not_prolong_the_promise() {
        let mut quiet = Quiet::default();
        assert!(quiet.full_claim());
        let at = looks(&mut quiet, |now| (100..400).contains(&now)).await;
        assert!(at.contains(&102) && at.contains(&104) && at.contains(&398), "{at:?}");
        assert_eq!(at.last(), Some(&500));
    }

    #[tokio::test(start_paused = true)]
    async fn under_lasting_load_the_database_is_asked_again_before_the_quiet_ends() {
        let mut quiet = Quiet::default();
        assert!(quiet.full_claim());
        tokio::time::advance(REFRESH_AFTER + Duration::from_millis(1)).await;
        assert!(quiet.full_claim());
        assert!(REFRESH_AFTER < WINDOW && WINDOW < LAST_LOOK);
    }
}
