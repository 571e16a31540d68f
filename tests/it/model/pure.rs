//! The rules of docs/LIFECYCLE.md as a small program without a database: what each step must answer and change.

use std::collections::{BTreeSet, HashMap, HashSet};

use serde::Deserialize;
use serde_json::Value;
use task_processor::queue::RESERVED_FOR;
use uuid::Uuid;

use super::stage::{Answer, Seen, name};
use super::steps::{Act, KINDS, LEASE, Step};

/// A time in microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(from = "i64")]
pub(super) enum Moment {
    At(i64),
    /// So long after the step: the database's clock says when that was.
    After(i64),
}

impl From<i64> for Moment {
    fn from(at: i64) -> Self {
        Self::At(at)
    }
}

impl Moment {
    pub(super) fn after(seconds: u64) -> Self {
        Self::After(micros(seconds))
    }

    pub(super) fn at(self) -> i64 {
        match self {
            Self::At(at) => at,
            Self::After(_) => unreachable!("settled after each step"),
        }
    }
}

/// A task's row.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub(super) struct Row {
    pub(super) id: Uuid,
    pub(super) kind: String,
    pub(super) priority: String,
    pub(super) status: String,
    pub(super) retry_count: i32,
    pub(super) attempt: i32,
    pub(super) crash_count: i32,
    pub(super) token: Option<Uuid>,
    pub(super) claimed_by: Option<String>,
    pub(super) cancel_requested: bool,
    pub(super) completed: bool,
    pub(super) result: Option<Value>,
    pub(super) error: Option<String>,
    pub(super) scheduled_for: Moment,
    pub(super) lease_expires_at: Option<Moment>,
    pub(super) last_attempted_at: Option<Moment>,
}

/// A row of the log.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub(super) struct Entry {
    pub(super) task: Uuid,
    pub(super) attempt: i32,
    pub(super) action: String,
    pub(super) token: Option<Uuid>,
    pub(super) error: Option<String>,
}

/// What there must be, and what has happened on the way.
#[derive(Default)]
pub(super) struct Model {
    pub(super) rows: Vec<Row>,
    pub(super) log: Vec<Entry>,
    pub(super) keys: HashMap<usize, Uuid>,
    pub(super) paused: HashSet<String>,
    pub(super) tokens: HashSet<Uuid>,
    pub(super) met: BTreeSet<String>,
}

pub(super) fn micros(seconds: u64) -> i64 {
    i64::try_from(seconds * 1_000_000).expect("a short time")
}

/// Whether the two are the same.
pub(super) fn same<T: PartialEq + std::fmt::Debug>(what: &str, wanted: &T, found: &T) -> Result<(), String> {
    match wanted == found {
        true => Ok(()),
        false => Err(format!("{what}: {wanted:?} was to be, and it is {found:?}")),
    }
}

impl Model {
    /// Takes a step that was answered so. `now` is a moment before it.
    #[expect(clippy::too_many_lines, reason = "a few lines a step, and nothing is decided here")]
    pub(super) fn take(&mut self, act: &Act, answer: &Answer, now: i64) -> Result<(), String> {
        match (act, answer) {
            (Step::Enqueue(specs), Answer::Enqueued(tasks)) => self.enqueue(specs, tasks),
            (Step::Claim { worker, limit, reach, .. }, Answer::Claimed(claimed)) => {
                let since = reach.map_or(i64::MIN, |seconds| now - micros(seconds));
                let wanted: Vec<_> = self.due(*worker, since, now).into_iter().take(*limit).collect();
                self.claim(*worker, &wanted, claimed, now)
            }
            (Step::ClaimOne { worker, task, early }, Answer::Claimed(claimed)) => {
                same("refusal", &None, &self.refusal(*worker, *task, *early, now))?;
                self.claim(*worker, &[*task], claimed, now)
            }
            (Step::ClaimOne { worker, task, early }, Answer::Refused(reason)) => {
                self.meet(&format!("refused: {reason:?}"));
                same("refusal", &self.refusal(*worker, *task, *early, now).as_ref(), &Some(reason))
            }
            (Step::Reserve { worker }, Answer::Reserved(id)) => {
                let wanted = self.suspect(*worker, now);
                same("reserved", &wanted, id)?;
                if let Some(row) = wanted.map(|id| self.row(id)) {
                    row.scheduled_for = Moment::after(RESERVED_FOR.as_secs());
                    row.claimed_by = Some(name(*worker));
                }
                Ok(())
            }
            (Step::KeepReserved { worker, task }, Answer::Moved(moved)) => {
                self.move_reserved((*worker, *task), RESERVED_FOR.as_secs(), now, *moved)
            }
            (Step::GiveUpReserved { worker, task }, Answer::Moved(moved)) => {
                self.move_reserved((*worker, *task), 0, now, *moved)
            }
            (Step::ClaimReserved { worker, task }, Answer::Claimed(claimed)) => {
                let ours = self.is_reserved(*worker, *task, now) && !self.is_paused(*task);
                self.claim(*worker, ours.then_some(*task).as_slice(), claimed, now)
            }
            (Step::Renew(leases), Answer::Renewed(renewed)) => {
                let mut wanted = HashMap::new();
                for lease in leases {
                    let row = self.row(lease.id);
                    if row.token == Some(lease.token) && row.status == "processing" {
                        row.lease_expires_at = Some(Moment::after(LEASE));
                        wanted.insert(lease.token, row.cancel_requested);
                    }
                }
                same("held by others", &HashSet::new(), &renewed.locked)?;
                same("renewed", &wanted, &renewed.cancel_requested)
            }
            (Step::End(endings), Answer::Ended(verdicts)) => self.end(endings, verdicts, now),
            (Step::Rescue, Answer::Rescued(rescued)) => self.rescue(rescued, now),
            (Step::ReleaseUnknown { worker, forgotten }, Answer::Released(released)) => {
                same("released", &self.release_unknown(*worker, *forgotten, now), released)
            }
            (Step::Cancel(tasks), Answer::Cancelled(cancelled)) => self.cancel(tasks, cancelled),
            (Step::Redrive(tasks), Answer::Redriven(redriven)) => self.redrive(tasks, redriven),
            (Step::Reschedule { task, seconds }, Answer::Moved(moved)) => {
                let row = self.row(*task);
                let pending = row.status == "pending";
                if pending {
                    row.scheduled_for = Moment::after(*seconds);
                }
                same("rescheduled", &pending, moved)
            }
            (Step::Pause { kind, paused }, Answer::Done) => {
                match paused {
                    true => drop(self.paused.insert(KINDS[*kind].to_owned())),
                    false => drop(self.paused.remove(KINDS[*kind])),
                }
                Ok(())
            }
            (Step::ByHand(task), Answer::Done) => {
                "pending".clone_into(&mut self.row(*task).status);
                Ok(())
            }
            (Step::Pass(seconds), Answer::Done) => {
                self.pass(micros(*seconds));
                Ok(())
            }
            _ => Err(format!("{act:?} was answered by {answer:?}")),
        }
    }

    /// Whether the database is as it must be. Times that the step has set lie between `before` and now, and what they are
    /// is taken down.
    pub(super) fn settle(&mut self, seen: &Seen, before: i64) -> Result<(), String> {
        same("tasks", &self.rows.len(), &seen.rows.len())?;
        for wanted in &mut self.rows {
            let found = seen.rows.iter().find(|row| row.id == wanted.id).ok_or("a task is missing")?;
            let within = |wanted: &mut Moment, found: Moment| match *wanted {
                Moment::After(wait) if (before + wait..=seen.now + wait).contains(&found.at()) => {
                    *wanted = found;
                }
                _ => {}
            };
            within(&mut wanted.scheduled_for, found.scheduled_for);
            if let (Some(wanted), Some(found)) = (&mut wanted.lease_expires_at, found.lease_expires_at) {
                within(wanted, found);
            }
            if let (Some(wanted), Some(found)) = (&mut wanted.last_attempted_at, found.last_attempted_at) {
                within(wanted, found);
            }
            same("a row", wanted, found)?;
        }
        let mut log = seen.log.clone();
        log.sort_unstable();
        self.log.sort_unstable();
        same("the log", &self.log, &log)
    }

    pub(super) fn row(&mut self, id: Uuid) -> &mut Row {
        self.rows.iter_mut().find(|row| row.id == id).expect("a task that was added")
    }

    /// Takes down that something worth meeting was met.
    pub(super) fn meet(&mut self, what: &str) {
        self.met.insert(what.to_owned());
    }

    pub(super) fn note(&mut self, id: Uuid, action: &str, token: Option<Uuid>, error: Option<&str>) {
        let row = self.row(id);
        let entry = Entry {
            task: id,
            attempt: row.attempt,
            action: format!("{action}_{}", row.kind),
            token,
            error: error.map(str::to_owned),
        };
        self.log.push(entry);
    }

    fn pass(&mut self, time: i64) {
        let earlier = |moment: Moment| Moment::At(moment.at() - time);
        for row in &mut self.rows {
            row.scheduled_for = earlier(row.scheduled_for);
            row.lease_expires_at = row.lease_expires_at.map(earlier);
            row.last_attempted_at = row.last_attempted_at.map(earlier);
        }
    }
}
