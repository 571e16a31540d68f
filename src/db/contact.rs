//! Whether the database is there, as far as this process can see.

use std::sync::Mutex;
use std::time::Duration;

use tokio::time::Instant;

use super::DbError;

/// Since when the database has answered without a break.
#[derive(Default)]
pub(super) struct Contact {
    since: Mutex<Option<Instant>>,
}

impl Contact {
    /// This is what it has answered.
    pub(super) fn heard<T>(&self, result: &Result<T, DbError>) {
        match result {
            Err(error) if error.is_disconnect() => self.lost(),
            // A slow statement says nothing: neither that the server is there nor that it is gone.
            Err(DbError::Timeout(_)) => {}
            _ => {
                self.since.lock().expect("never poisoned").get_or_insert_with(Instant::now);
            }
        }
    }

    /// It cannot be reached.
    pub(super) fn lost(&self) {
        *self.since.lock().expect("never poisoned") = None;
    }

    /// For how long it has answered without a break.
    pub(super) fn unbroken_for(&self) -> Option<Duration> {
        self.since.lock().expect("never poisoned").map(|since| since.elapsed())
    }
}
