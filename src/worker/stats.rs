//! What `/health` tells of the worker.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use chrono::{DateTime, Utc};
use tokio::time::Instant;

use crate::queue::Verb;

/// Counted since the process started.
#[derive(Default)]
pub(super) struct Stats {
    succeeded: AtomicU64,
    failed: AtomicU64,
    last_processed_at: Mutex<Option<DateTime<Utc>>>,
    last_step: Mutex<Option<Instant>>,
    polling: AtomicBool,
}

/// The counts at one moment. Every attempt counts once, as succeeded or as failed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Attempts whose handler said complete.
    pub succeeded: u64,
    /// Attempts that failed, with or without a retry to come.
    pub failed: u64,
    /// When the last of them ended, by this process's clock.
    pub last_processed_at: Option<DateTime<Utc>>,
}

impl Stats {
    pub(super) fn ended(&self, verb: Verb) {
        match verb {
            Verb::Complete => self.succeeded.fetch_add(1, Ordering::Relaxed),
            Verb::Retry | Verb::Fail => self.failed.fetch_add(1, Ordering::Relaxed),
            Verb::Snooze | Verb::Release | Verb::Cancel => return,
        };
        *self.last_processed_at.lock().expect("never poisoned") = Some(Utc::now());
    }

    /// The loop came round.
    pub(super) fn stepped(&self) {
        *self.last_step.lock().expect("never poisoned") = Some(Instant::now());
    }

    pub(super) fn set_polling(&self, polling: bool) {
        self.polling.store(polling, Ordering::Relaxed);
    }

    pub(super) fn is_polling(&self) -> bool {
        self.polling.load(Ordering::Relaxed)
    }

    /// How long ago the loop last came round; nothing before it has begun.
    pub(super) fn since_last_step(&self) -> Option<Duration> {
        self.last_step.lock().expect("never poisoned").map(|step| step.elapsed())
    }

    pub(super) fn counts(&self) -> Counts {
        Counts {
            succeeded: self.succeeded.load(Ordering::Relaxed),
            failed: self.failed.load(Ordering::Relaxed),
            last_processed_at: *self.last_processed_at.lock().expect("never poisoned"),
        }
    }
}
