//! What the loop waits for.

use std::time::Duration;

use crate::queue::NextDue;

/// What the loop waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
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

impl Next {
    /// The wait for what comes next, unless something is due.
    pub(super) fn idle_until(due: NextDue) -> Option<Self> {
        let soonest = due.soonest().unwrap_or(Duration::MAX);
        (soonest > Duration::ZERO).then_some(Self::Idle(soonest))
    }
}
