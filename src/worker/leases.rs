//! What this process holds: one entry per claimed task, from the claim's reply to the verdict on its ending.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;
use uuid::Uuid;

use crate::queue::{Lease, Renewed};
use crate::services::Fence;

/// Code that still runs this long after it should have stopped will not stop.
pub(super) const STUCK_AFTER: Duration = Duration::from_secs(10);

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
    since: Instant,
    stop: OnceLock<Stop>,
    stop_told: Notify,
    code: Mutex<Code>,
    /// Nothing more will be done about it here: its lease is left to expire.
    abandoned: AtomicBool,
}

/// Where the handler's code is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Code {
    /// Not started.
    Waiting,
    /// Running; at this moment it must have ended at the latest.
    Running(Instant),
    /// Ended. What remains is to write that down.
    Gone,
}

impl Held {
    /// Asks the attempt to stop. The first reason counts.
    pub(super) fn stop(&self, reason: Stop) {
        if self.stop.set(reason).is_ok() {
            self.must_be_gone_in(STUCK_AFTER);
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
        *self.lock_code() = Code::Running(Instant::now() + timeout + STUCK_AFTER);
    }

    /// The handler's code has ended.
    pub(super) fn gone(&self) {
        *self.lock_code() = Code::Gone;
    }

    /// The handler's time is over, and its code is being stopped.
    pub(super) fn must_be_gone_in(&self, time: Duration) {
        let mut code = self.lock_code();
        if let Code::Running(moment) = *code {
            *code = Code::Running(moment.min(Instant::now() + time));
        }
    }

    /// Leaves the task to its lease: it cannot be ended.
    pub(super) fn abandon(&self) {
        self.abandoned.store(true, Ordering::Relaxed);
    }

    fn is_stuck(&self) -> bool {
        matches!(*self.lock_code(), Code::Running(moment) if moment < Instant::now())
    }

    fn is_gone(&self) -> bool {
        *self.lock_code() == Code::Gone
    }

    fn is_abandoned(&self) -> bool {
        self.abandoned.load(Ordering::Relaxed)
    }

    fn lock_code(&self) -> MutexGuard<'_, Code> {
        self.code.lock().expect("never poisoned")
    }
}

/// All claimed tasks of this process, by token.
#[derive(Default)]
pub(super) struct Leases {
    held: Mutex<HashMap<Uuid, Arc<Held>>>,
    /// When the reply to a claim was last lost: there may be rows in our name that we do not know of.
    claim_lost_at: Mutex<Option<Instant>>,
}

impl Leases {
    /// Takes up a claimed task whose lease lasts until `until`.
    pub(super) fn hold(&self, lease: Lease, until: Instant) -> Arc<Held> {
        let held = Arc::new(Held {
            lease,
            fence: Arc::new(Fence::until(until)),
            since: Instant::now(),
            stop: OnceLock::new(),
            stop_told: Notify::new(),
            code: Mutex::new(Code::Waiting),
            abandoned: AtomicBool::new(false),
        });
        self.lock().insert(lease.token, held.clone());
        held
    }

    /// Forgets a task: the verdict on its ending is in.
    pub(super) fn let_go(&self, lease: Lease) {
        self.lock().remove(&lease.token);
    }

    /// Waits until the lease of a task is over that was left to it: until then it stays known, so that it is not taken for
    /// one that was claimed without our learning of it.
    pub(super) async fn outlast(&self, held: &Held) {
        held.fence.fallen().await;
        self.let_go(held.lease);
    }

    /// How many tasks are held and not abandoned.
    pub(super) fn len(&self) -> usize {
        self.lock().values().filter(|held| !held.is_abandoned()).count()
    }

    /// How many tasks have been held for longer than `time`.
    pub(super) fn held_longer_than(&self, time: Duration) -> usize {
        self.lock().values().filter(|held| held.since.elapsed() > time).count()
    }

    /// Whether this process has the given task.
    pub(super) fn holds(&self, task: Uuid) -> bool {
        self.lock().values().any(|held| held.lease.id == task)
    }

    /// The tokens of all tasks held.
    pub(super) fn tokens(&self) -> Vec<Uuid> {
        self.lock().keys().copied().collect()
    }

    /// The leases that run out before `moment`.
    pub(super) fn ending_before(&self, moment: Instant) -> Vec<Lease> {
        let held = self.lock();
        let ending = held.values().filter(|held| held.fence.falls_at() < moment && !held.is_abandoned());
        ending.map(|held| held.lease).collect()
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
                // Still ours, and not extended: the next renewal will be in time, or the fence falls.
                None if renewed.locked.contains(&held.lease.token) => {}
                // It has ended, and whether its ending was accepted will be said by its verdict.
                None if held.is_gone() => {}
                None => {
                    held.stop(Stop::LeaseLost);
                    lost += 1;
                }
            }
        }
        lost
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_has_ended_is_not_lost_for_no_longer_being_renewed() {
        let leases = Leases::default();
        let held = [(); 2].map(|()| {
            let lease = Lease { id: Uuid::new_v4(), token: Uuid::new_v4() };
            leases.hold(lease, Instant::now() + Duration::from_hours(1))
        });
        held[0].gone();
        let asked = held.map(|held| held.lease);
        assert_eq!(leases.renewed(&asked, &Renewed::default(), Instant::now()), 1, "the one that has not");
    }

    #[tokio::test(start_paused = true)]
    async fn only_code_that_runs_can_be_stuck() {
        let leases = Leases::default();
        let hold = || {
            let lease = Lease { id: Uuid::new_v4(), token: Uuid::new_v4() };
            leases.hold(lease, Instant::now() + Duration::from_hours(1))
        };
        let (waiting, running, gone) = (hold(), hold(), hold());
        running.started(Duration::from_hours(1));
        gone.started(Duration::from_hours(1));
        gone.gone();
        for held in [&waiting, &running, &gone] {
            held.stop(Stop::Cancelled);
        }
        assert_eq!(leases.stuck(), None, "it has a moment to stop");
        tokio::time::advance(STUCK_AFTER + Duration::from_secs(1)).await;
        assert_eq!(leases.stuck(), Some(running.lease.id));
        leases.let_go(running.lease);
        assert_eq!(leases.stuck(), None);
    }
}
