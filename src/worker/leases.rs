//! What this process holds: one entry per claimed task, from the claim's reply to the verdict on its ending.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;
use uuid::Uuid;

use crate::queue::{Lease, Renewed};
use crate::services::Fence;

/// Code that still runs this long after it should have stopped will not stop.
const STUCK_AFTER: Duration = Duration::from_secs(10);

/// Why a running attempt is cut short.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// Somebody cancelled the task.
    Cancelled,
    /// The lease ran out, or was taken by another process.
    LeaseLost,
    /// This process has no more time for it.
    Released,
}

/// One claimed task.
pub(super) struct Held {
    pub(super) lease: Lease,
    /// Until when the attempt may act.
    pub(super) fence: Arc<Fence>,
    stop: OnceLock<Stop>,
    stop_told: Notify,
    /// When its code must have stopped at the latest.
    gone_by: Mutex<Option<Instant>>,
}

impl Held {
    /// Asks the attempt to stop. The first reason counts.
    pub(super) fn stop(&self, reason: Stop) {
        if self.stop.set(reason).is_ok() {
            self.must_be_gone(Instant::now() + STUCK_AFTER);
            self.stop_told.notify_one();
        }
    }

    /// Waits until the attempt is asked to stop, or its lease has run out.
    pub(super) async fn stopped(&self) -> Stop {
        tokio::select! {
            biased;
            () = self.fence.fallen() => self.stop(Stop::LeaseLost),
            () = self.stop_told.notified() => {}
        }
        *self.stop.get().expect("told after it was set")
    }

    /// Why the attempt may not even start.
    pub(super) fn stopped_already(&self) -> Option<Stop> {
        if !self.fence.is_up() {
            self.stop(Stop::LeaseLost);
        }
        self.stop.get().copied()
    }

    /// The handler starts and may run this long.
    pub(super) fn started(&self, timeout: Duration) {
        self.must_be_gone(Instant::now() + timeout + STUCK_AFTER);
    }

    fn must_be_gone(&self, moment: Instant) {
        let mut gone_by = self.gone_by.lock().expect("never poisoned");
        *gone_by = Some(gone_by.map_or(moment, |before| before.min(moment)));
    }

    fn is_stuck(&self) -> bool {
        self.gone_by.lock().expect("never poisoned").is_some_and(|moment| moment < Instant::now())
    }

    /// The handler's code has ended; what remains is to write it down.
    pub(super) fn is_gone(&self) {
        *self.gone_by.lock().expect("never poisoned") = None;
    }
}

/// All claimed tasks of this process, by token.
#[derive(Default)]
pub(super) struct Leases {
    held: Mutex<HashMap<Uuid, Arc<Held>>>,
    /// When the reply to a claim was last lost: there may be rows in our name that we do not know of.
    claim_lost_at: Mutex<Option<Instant>>,
    let_go: Notify,
}

impl Leases {
    /// Takes up a claimed task whose lease lasts until `until`.
    pub(super) fn hold(&self, lease: Lease, until: Instant) -> Arc<Held> {
        let held = Arc::new(Held {
            lease,
            fence: Arc::new(Fence::until(until)),
            stop: OnceLock::new(),
            stop_told: Notify::new(),
            gone_by: Mutex::default(),
        });
        self.lock().insert(lease.token, held.clone());
        held
    }

    /// Forgets a task: the verdict on its ending is in.
    pub(super) fn let_go(&self, lease: Lease) {
        self.lock().remove(&lease.token);
        self.let_go.notify_waiters();
    }

    /// Waits until nothing is held.
    pub(super) async fn empty(&self) {
        loop {
            let let_go = self.let_go.notified();
            if self.len() == 0 {
                return;
            }
            let_go.await;
        }
    }

    /// How many tasks are held.
    pub(super) fn len(&self) -> usize {
        self.lock().len()
    }

    /// The tokens of all tasks held.
    pub(super) fn tokens(&self) -> Vec<Uuid> {
        self.lock().keys().copied().collect()
    }

    /// The leases that run out before `moment`.
    pub(super) fn ending_before(&self, moment: Instant) -> Vec<Lease> {
        self.lock().values().filter(|held| held.fence.falls_at() < moment).map(|held| held.lease).collect()
    }

    /// Takes note of what a renewal answered for the leases it asked for. Answers how many were lost.
    pub(super) fn renewed(&self, asked: &[Lease], renewed: &Renewed, until: Instant) -> usize {
        let held = self.lock();
        let mut lost = 0;
        for held in asked.iter().filter_map(|lease| held.get(&lease.token)) {
            match renewed.cancel_requested.get(&held.lease.token) {
                Some(cancel_requested) => {
                    held.fence.extend(until);
                    if *cancel_requested {
                        held.stop(Stop::Cancelled);
                    }
                }
                None => {
                    held.stop(Stop::LeaseLost);
                    lost += 1;
                }
            }
        }
        lost
    }

    /// Stops the attempt at the given task, if it is one of ours.
    pub(super) fn cancel(&self, task: Uuid) {
        if let Some(held) = self.lock().values().find(|held| held.lease.id == task) {
            held.stop(Stop::Cancelled);
        }
    }

    /// A task whose code should have stopped some time ago and has not.
    pub(super) fn stuck(&self) -> Option<Uuid> {
        self.lock().values().find(|held| held.is_stuck()).map(|held| held.lease.id)
    }

    /// The reply to a claim was lost.
    pub(super) fn claim_lost(&self) {
        *self.claim_lost_at.lock().expect("never poisoned") = Some(Instant::now());
    }

    /// When the reply to a claim was last lost, if nothing has been done about it since.
    pub(super) fn claim_lost_at(&self) -> Option<Instant> {
        *self.claim_lost_at.lock().expect("never poisoned")
    }

    /// Something was done about the claim lost at `moment`.
    pub(super) fn claim_settled(&self, moment: Instant) {
        let mut lost_at = self.claim_lost_at.lock().expect("never poisoned");
        *lost_at = lost_at.filter(|lost_at| *lost_at > moment);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Uuid, Arc<Held>>> {
        self.held.lock().expect("never poisoned")
    }
}
