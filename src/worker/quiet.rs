//! Spares inserts their notification while this worker is busy anyway, and makes good for it afterwards.
//!
//! A NOTIFY serialises commits, so under load it costs the writers more than it tells us. While claims come back full
//! the database is asked to keep quiet for a moment (`Queue::keep_quiet`). The promise in return: after the last full
//! claim this worker looks again at 20, 100 and 500 ms, the last look well after the quiet has ended, and then
//! announces once for everybody, since another instance may have been idle all along.

use std::time::Duration;

use tokio::time::Instant;

/// How long one request keeps inserts quiet.
pub(super) const WINDOW: Duration = Duration::from_millis(300);
const REFRESH_AFTER: Duration = Duration::from_millis(150);
const LOOKS: [Duration; 3] =
    [Duration::from_millis(20), Duration::from_millis(100), Duration::from_millis(500)];

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
    looks: usize,
}

impl Quiet {
    /// A claim came back full. True if the database should be asked to keep quiet for another [`WINDOW`].
    pub(super) fn full_claim(&mut self) -> bool {
        let now = Instant::now();
        let asked = self.promise.as_ref().map(|promise| promise.asked);
        let ask = asked.is_none_or(|asked| now - asked > REFRESH_AFTER);
        let asked = if ask { now } else { asked.unwrap_or(now) };
        self.promise = Some(Promise { last_full: now, asked, looks: 0 });
        ask
    }

    /// What is to be done now, before the worker waits for anything.
    pub(super) fn duty(&mut self) -> Duty {
        let Some(promise) = &mut self.promise else { return Duty::None };
        let elapsed = promise.last_full.elapsed();
        while LOOKS.get(promise.looks).is_some_and(|look| *look <= elapsed) {
            promise.looks += 1;
        }
        match LOOKS.get(promise.looks) {
            Some(look) => Duty::LookWithin(look.saturating_sub(elapsed)),
            None => {
                self.promise = None;
                Duty::Announce
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn after_the_last_full_claim_come_three_looks_and_one_announcement() {
        let mut quiet = Quiet::default();
        assert_eq!(quiet.duty(), Duty::None);
        assert!(quiet.full_claim());
        assert!(!quiet.full_claim(), "asked a moment ago");
        let mut at = Vec::new();
        let began = Instant::now();
        let last = loop {
            match quiet.duty() {
                Duty::LookWithin(wait) => {
                    tokio::time::advance(wait).await;
                    at.push(began.elapsed().as_millis());
                }
                other => break other,
            }
        };
        assert_eq!((at, last), (vec![20, 100, 500], Duty::Announce));
        assert_eq!(quiet.duty(), Duty::None);
    }

    #[tokio::test(start_paused = true)]
    async fn under_lasting_load_the_database_is_asked_again_before_the_quiet_ends() {
        let mut quiet = Quiet::default();
        assert!(quiet.full_claim());
        tokio::time::advance(REFRESH_AFTER + Duration::from_millis(1)).await;
        assert!(quiet.full_claim());
        assert!(REFRESH_AFTER < WINDOW && WINDOW < LOOKS[2]);
    }
}
