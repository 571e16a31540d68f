//! The tasks that belong together: those of the background loop, or those of one request. Counted, and stopped as one.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::queue::Verb;

/// One group of tasks.
pub(super) struct Scope {
    /// No more claims; what has not started is given back.
    pub(super) stop: CancellationToken,
    /// What runs is cut short and given back.
    pub(super) cut: CancellationToken,
    in_hand: AtomicUsize,
    /// Whoever waits for fewer tasks in hand is told when there are no more than this.
    awaited: AtomicUsize,
    changed: Notify,
    tally: Tally,
}

#[derive(Default)]
struct Tally {
    succeeded: AtomicU64,
    failed: AtomicU64,
    released: AtomicU64,
    other: AtomicU64,
}

/// What became of the tasks of a scope.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Worked {
    /// Attempts that ended, in whichever way but by release.
    pub processed: u64,
    /// Of those, completed.
    pub succeeded: u64,
    /// Of those, failed, with or without a retry to come.
    pub failed: u64,
    /// Tasks given back unfinished.
    pub released: u64,
}

/// Keeps one task counted as in hand until it is dropped.
pub(super) struct InHand(Arc<Scope>);

impl Scope {
    pub(super) fn new(stop: CancellationToken, cut: CancellationToken) -> Arc<Self> {
        Arc::new(Self {
            stop,
            cut,
            in_hand: AtomicUsize::new(0),
            awaited: AtomicUsize::new(0),
            changed: Notify::new(),
            tally: Tally::default(),
        })
    }

    /// Counts one more task.
    pub(super) fn take(self: &Arc<Self>) -> InHand {
        self.in_hand.fetch_add(1, Ordering::SeqCst);
        InHand(self.clone())
    }

    /// Tasks claimed and without a verdict.
    pub(super) fn in_hand(&self) -> usize {
        self.in_hand.load(Ordering::SeqCst)
    }

    /// Waits until at most `most` tasks are in hand.
    pub(super) async fn at_most(&self, most: usize) {
        self.awaited.store(most, Ordering::SeqCst);
        loop {
            let changed = self.changed.notified();
            if self.in_hand() <= most {
                return;
            }
            changed.await;
        }
    }

    pub(super) fn ended(&self, verb: Verb) {
        let counter = match verb {
            Verb::Complete => &self.tally.succeeded,
            Verb::Retry | Verb::Fail => &self.tally.failed,
            Verb::Release => &self.tally.released,
            Verb::Snooze | Verb::Cancel => &self.tally.other,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn worked(&self) -> Worked {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let (succeeded, failed) = (read(&self.tally.succeeded), read(&self.tally.failed));
        Worked {
            processed: succeeded + failed + read(&self.tally.other),
            succeeded,
            failed,
            released: read(&self.tally.released),
        }
    }
}

impl Drop for InHand {
    fn drop(&mut self) {
        let left = self.0.in_hand.fetch_sub(1, Ordering::SeqCst) - 1;
        // One waits at the most: the poller of the scope, or whoever winds it up.
        if left <= self.0.awaited.load(Ordering::SeqCst) {
            self.0.changed.notify_one();
        }
    }
}
