//! The model's rules of adding and claiming.

use task_processor::queue::{Enqueued, Lease, NotClaimed, RESERVED_FOR};
use uuid::Uuid;

use super::pure::{Model, Moment, Row, micros, same};
use super::stage::name;
use super::steps::{KINDS, LEASE, Spec, WORKERS};

/// Crashes after which a task runs with no other in its process.
pub(super) const SUSPECT: i32 = 2;

impl Model {
    pub(super) fn enqueue(&mut self, specs: &[Spec], tasks: &[Enqueued]) -> Result<(), String> {
        same("tasks added", &specs.len(), &tasks.len())?;
        for (spec, task) in specs.iter().zip(tasks) {
            let holder = spec.key.and_then(|key| self.keys.get(&key).copied());
            same("existed", &holder.is_some(), &task.existed)?;
            if let Some(holder) = holder {
                self.meet("a key that is taken");
                same("the holder of the key", &holder, &task.id)?;
                continue;
            }
            self.keys.extend(spec.key.map(|key| (key, task.id)));
            self.rows.push(Row {
                id: task.id,
                kind: KINDS[spec.kind].to_owned(),
                priority: spec.priority.to_owned(),
                status: "pending".to_owned(),
                retry_count: 0,
                attempt: 0,
                crash_count: 0,
                token: None,
                claimed_by: None,
                cancel_requested: false,
                completed: false,
                result: None,
                error: None,
                scheduled_for: Moment::after(spec.delay),
                lease_expires_at: None,
                last_attempted_at: None,
            });
        }
        Ok(())
    }

    /// What an ordinary claim may take, in order of service.
    pub(super) fn due(&self, worker: usize, since: i64, now: i64) -> Vec<Uuid> {
        let mut due: Vec<&Row> = self
            .rows
            .iter()
            .filter(|row| row.status == "pending" && row.crash_count < SUSPECT)
            .filter(|row| self.runs(worker, row) && (since..=now).contains(&row.scheduled_for.at()))
            .collect();
        due.sort_by_key(|row| (rank(row), row.scheduled_for.at(), row.id));
        due.iter().map(|row| row.id).collect()
    }

    fn runs(&self, worker: usize, row: &Row) -> bool {
        WORKERS[worker].contains(&row.kind.as_str()) && !self.paused.contains(&row.kind)
    }

    pub(super) fn is_paused(&self, id: Uuid) -> bool {
        self.rows.iter().any(|row| row.id == id && self.paused.contains(&row.kind))
    }

    /// Why a task cannot be claimed by its id.
    pub(super) fn refusal(&mut self, worker: usize, id: Uuid, early: bool, now: i64) -> Option<NotClaimed> {
        let paused = self.is_paused(id);
        let row = self.row(id);
        match row {
            _ if row.status != "pending" => Some(NotClaimed::NotPending),
            _ if !WORKERS[worker].contains(&row.kind.as_str()) => {
                Some(NotClaimed::Unroutable(row.kind.clone()))
            }
            _ if paused => Some(NotClaimed::Paused(row.kind.clone())),
            _ if !early && row.scheduled_for.at() > now => Some(NotClaimed::NotDue),
            _ if row.crash_count >= SUSPECT => Some(NotClaimed::Suspect),
            _ => None,
        }
    }

    /// These were to be claimed, in this order, each under a token never seen before.
    pub(super) fn claim(
        &mut self,
        worker: usize,
        wanted: &[Uuid],
        claimed: &[(Lease, i32)],
        now: i64,
    ) -> Result<(), String> {
        let found: Vec<Uuid> = claimed.iter().map(|(lease, _)| lease.id).collect();
        same("claimed", &wanted, &found.as_slice())?;
        for (lease, attempt) in claimed {
            same("a token that is new", &true, &self.tokens.insert(lease.token))?;
            let row = self.row(lease.id);
            same("the attempt", &(row.attempt + 1), attempt)?;
            row.attempt += 1;
            "processing".clone_into(&mut row.status);
            row.token = Some(lease.token);
            row.claimed_by = Some(name(worker));
            row.lease_expires_at = Some(Moment::after(LEASE));
            row.last_attempted_at = Some(Moment::After(0));
            if row.scheduled_for.at() > now {
                row.scheduled_for = Moment::After(0);
            }
            let asked = std::mem::take(&mut row.cancel_requested);
            let alone = row.crash_count >= SUSPECT;
            if asked {
                self.meet("an old request to cancel is forgotten");
            }
            if alone {
                self.meet("claimed to run alone");
            }
        }
        Ok(())
    }

    /// The task that this worker may reserve.
    pub(super) fn suspect(&self, worker: usize, now: i64) -> Option<Uuid> {
        let suspects = self.rows.iter().filter(|row| {
            row.status == "pending"
                && row.crash_count >= SUSPECT
                && self.runs(worker, row)
                && row.scheduled_for.at() <= now
        });
        suspects.min_by_key(|row| (row.scheduled_for.at(), row.id)).map(|row| row.id)
    }

    pub(super) fn is_reserved(&mut self, worker: usize, id: Uuid, now: i64) -> bool {
        let row = self.row(id);
        row.status == "pending"
            && row.crash_count >= SUSPECT
            && row.claimed_by == Some(name(worker))
            && row.scheduled_for.at() <= now + micros(RESERVED_FOR.as_secs())
    }

    pub(super) fn move_reserved(
        &mut self,
        (worker, id): (usize, Uuid),
        seconds: u64,
        now: i64,
        moved: bool,
    ) -> Result<(), String> {
        let ours = self.is_reserved(worker, id, now);
        if ours {
            self.meet("a reservation is moved");
            self.row(id).scheduled_for = Moment::after(seconds);
        }
        same("moved", &ours, &moved)
    }
}

fn rank(row: &Row) -> u8 {
    match row.priority.as_str() {
        "urgent" => 0,
        "high" => 1,
        "low" => 3,
        _ => 2,
    }
}
