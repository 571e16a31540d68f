//! The model's rules of ending, taking back, cancelling and giving a new life.

use serde_json::json;
use task_processor::queue::{Cancelled, Lease, Rescued, Verb, Verdict};
use uuid::Uuid;

use super::pure::{Model, Moment, Row, micros, same};
use super::rules::SUSPECT;
use super::stage::{DELAY, name};

const POISON: &str = "poison: its process died three times in a row while running it";
/// A claim answered later than after so many seconds is thrown away.
const UNTOLD: u64 = 5;

impl Model {
    pub(super) fn end(
        &mut self,
        endings: &[(Lease, Verb)],
        verdicts: &[Verdict],
        now: i64,
    ) -> Result<(), String> {
        let wanted: Vec<Verdict> =
            endings.iter().map(|(lease, verb)| verdict(self.row(lease.id), *lease, *verb)).collect();
        same(&format!("verdicts of {endings:?}"), &wanted, &verdicts.to_vec())?;
        for ((lease, verb), verdict) in endings.iter().zip(wanted) {
            self.meet(&format!("{verdict:?}"));
            if verdict == Verdict::Accepted {
                if self.row(lease.id).lease_expires_at.is_some_and(|at| at.at() < now) {
                    self.meet("accepted, though the lease was over");
                }
                self.accept(*lease, *verb);
            }
        }
        Ok(())
    }

    fn accept(&mut self, lease: Lease, verb: Verb) {
        let row = self.row(lease.id);
        let asked = row.cancel_requested;
        let status = match state_after(verb) {
            "pending" if asked => "cancelled",
            status => status,
        };
        status.clone_into(&mut row.status);
        row.completed |= status != "pending";
        row.crash_count = 0;
        row.lease_expires_at = None;
        if matches!(verb, Verb::Retry | Verb::Snooze) {
            row.scheduled_for = Moment::after(DELAY);
        }
        let mut error = None;
        match verb {
            Verb::Complete => row.result = Some(json!({ "done": true })),
            Verb::Cancel => row.result = Some(json!({ "reason": "unwanted" })),
            Verb::Retry => (row.retry_count, error) = (row.retry_count + 1, Some("no luck")),
            Verb::Fail => (row.result, error) = (Some(json!({ "error": "hopeless" })), Some("hopeless")),
            Verb::Snooze | Verb::Release => {}
        }
        if let Some(error) = error {
            row.error = Some(error.to_owned());
        }
        let action = match verb {
            Verb::Complete | Verb::Retry | Verb::Fail => "process",
            Verb::Snooze | Verb::Release | Verb::Cancel => verb.name(),
        };
        self.note(lease.id, action, Some(lease.token), error);
        if asked && state_after(verb) == "pending" {
            self.meet("not put back, since it is to be cancelled");
        }
    }

    pub(super) fn rescue(&mut self, rescued: &Rescued, now: i64) -> Result<(), String> {
        let (mut wanted, mut notes) = (Rescued::default(), Vec::new());
        let mut alive = false;
        for row in self.rows.iter_mut().filter(|row| row.status == "processing") {
            // A lease is on every row here that is being worked on.
            if row.lease_expires_at.is_none_or(|at| at.at() >= now) {
                alive = true;
                continue;
            }
            let poison = row.crash_count >= SUSPECT;
            let status = match poison {
                _ if row.cancel_requested => "cancelled",
                true => "failed",
                false => "pending",
            };
            status.clone_into(&mut row.status);
            row.crash_count += 1;
            (row.token, row.lease_expires_at) = (None, None);
            if poison {
                row.error = Some(POISON.to_owned());
            } else if row.error.is_none() {
                row.error = Some("its process died while running it".to_owned());
            }
            if status == "failed" {
                row.result = Some(json!({ "error": POISON }));
            }
            row.completed |= poison || status != "pending";
            wanted.tasks += 1;
            wanted.poisoned += u64::from(status == "failed");
            wanted.due |= status == "pending";
            notes.push((row.id, row.crash_count, format!("rescued: {status}")));
        }
        for (id, crashes, what) in notes {
            self.note(id, "recover", None, Some(&format!("the lease expired, crash {crashes}")));
            self.meet(&what);
        }
        same("another lease will expire", &alive, &rescued.next_expiry.is_some())?;
        same("rescued", &wanted, &Rescued { next_expiry: None, ..*rescued })
    }

    pub(super) fn release_unknown(&mut self, worker: usize, forgotten: Lease, now: i64) -> u64 {
        let row = self.row(forgotten.id);
        let ours = row.status == "processing"
            && row.token == Some(forgotten.token)
            && row.claimed_by == Some(name(worker))
            && row.last_attempted_at.is_some_and(|at| at.at() < now - micros(UNTOLD));
        if !ours {
            return 0;
        }
        let status = if row.cancel_requested { "cancelled" } else { "pending" };
        status.clone_into(&mut row.status);
        row.completed |= status == "cancelled";
        (row.token, row.lease_expires_at) = (None, None);
        self.note(forgotten.id, "release", None, Some("the reply to the claim was lost"));
        self.meet("the reply to a claim was lost");
        1
    }

    pub(super) fn cancel(&mut self, tasks: &[Uuid], cancelled: &[Cancelled]) -> Result<(), String> {
        let mut wanted = Vec::new();
        for id in tasks {
            let row = self.row(*id);
            let done = row.status == "pending";
            if !done && row.status != "processing" {
                continue;
            }
            row.cancel_requested = true;
            wanted.push((*id, done));
            if done {
                "cancelled".clone_into(&mut row.status);
                row.completed = true;
                row.result = Some(json!({ "reason": "enough" }));
                self.note(*id, "cancel", None, Some("enough"));
            }
        }
        let mut found: Vec<(Uuid, bool)> = cancelled.iter().map(|task| (task.id, task.done)).collect();
        found.sort_unstable();
        same("cancelled", &wanted, &found)
    }

    pub(super) fn redrive(&mut self, tasks: &[Uuid], redriven: &[Uuid]) -> Result<(), String> {
        let mut wanted = Vec::new();
        for id in tasks {
            let row = self.row(*id);
            if !["completed", "failed", "cancelled"].contains(&row.status.as_str()) {
                continue;
            }
            "pending".clone_into(&mut row.status);
            row.scheduled_for = Moment::After(0);
            (row.retry_count, row.crash_count) = (0, 0);
            (row.result, row.token) = (None, None);
            (row.completed, row.cancel_requested) = (false, false);
            wanted.push(*id);
            self.meet("a new life");
        }
        let mut found = redriven.to_vec();
        found.sort_unstable();
        same("redriven", &wanted, &found)
    }
}

/// Only the token on the row ends the attempt, and that once.
fn verdict(row: &Row, lease: Lease, verb: Verb) -> Verdict {
    let status = row.status.as_str();
    match row.token == Some(lease.token) {
        true if status == "processing" => Verdict::Accepted,
        true if status == state_after(verb) => Verdict::Already,
        true if status == "cancelled" && row.cancel_requested => Verdict::Already,
        _ => Verdict::Stale,
    }
}

/// Where an ending leads if nobody asked for a cancellation.
fn state_after(verb: Verb) -> &'static str {
    match verb {
        Verb::Complete => "completed",
        Verb::Fail => "failed",
        Verb::Cancel => "cancelled",
        Verb::Retry | Verb::Snooze | Verb::Release => "pending",
    }
}
