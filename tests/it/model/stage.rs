//! The real side: the queue of each worker on one database, and a look at all that is in it.

use std::time::Duration;

use serde::Deserialize;
use serde_json::json;
use task_processor::queue::{
    Cancelled, Claimed, Ending, Enqueued, Lease, NewTask, NotClaimed, Queue, Renewed, Rescued, Verb, Verdict,
};
use uuid::Uuid;

use super::pure::{Entry, Row};
use super::steps::{Act, KINDS, Known, Spec, Step, WORKERS};
use crate::support::TestDb;

/// How long a retry or a snooze waits, in seconds.
pub(super) const DELAY: u64 = 20;

/// What the queue said to a step.
#[derive(Debug)]
pub(super) enum Answer {
    Enqueued(Vec<Enqueued>),
    /// Each with the attempt's number.
    Claimed(Vec<(Lease, i32)>),
    Refused(NotClaimed),
    Reserved(Option<Uuid>),
    Moved(bool),
    Renewed(Renewed),
    Ended(Vec<Verdict>),
    Rescued(Rescued),
    Released(u64),
    Cancelled(Vec<Cancelled>),
    Redriven(Vec<Uuid>),
    Done,
}

/// All that is in the database, and its clock.
#[derive(Deserialize)]
pub(super) struct Seen {
    pub(super) now: i64,
    pub(super) rows: Vec<Row>,
    pub(super) log: Vec<Entry>,
}

const LOOK: &str = "
    select jsonb_build_object(
        'now', (extract(epoch from clock_timestamp()) * 1000000)::int8,
        'rows', coalesce((
            select jsonb_agg(jsonb_build_object(
                'id', id,
                'kind', task_type,
                'priority', priority,
                'status', status,
                'retry_count', retry_count,
                'attempt', attempt,
                'crash_count', crash_count,
                'token', lease_token,
                'claimed_by', claimed_by,
                'cancel_requested', cancel_requested_at is not null,
                'completed', completed_at is not null,
                'result', result_json - 'cancelled_at',
                'error', error_log,
                'scheduled_for', (extract(epoch from scheduled_for) * 1000000)::int8,
                'lease_expires_at', (extract(epoch from lease_expires_at) * 1000000)::int8,
                'last_attempted_at', (extract(epoch from last_attempted_at) * 1000000)::int8
            )) from agent_tasks
        ), '[]'),
        'log', coalesce((
            select jsonb_agg(jsonb_build_object(
                'task', context_id, 'action', action_type, 'attempt', attempt, 'token', lease_token, 'error', error
            )) from agent_actions_log
        ), '[]')
    )";

pub(super) struct Stage {
    pub(super) db: TestDb,
    queues: Vec<Queue>,
}

impl Stage {
    pub(super) async fn new() -> Self {
        let db = TestDb::new().await;
        let queues = (0..WORKERS.len()).map(|worker| db.queue(&name(worker), &[])).collect();
        Self { db, queues }
    }

    /// Leaves nothing.
    pub(super) async fn clear(&self) {
        self.db
            .execute("delete from agent_tasks; delete from agent_actions_log; delete from task_types")
            .await;
    }

    pub(super) async fn look(&self) -> Seen {
        serde_json::from_value(self.db.value(LOOK).await).expect("the shape that was asked for")
    }

    /// Does what the step says; `whoever` does what is nobody's in particular. An error is a failure of the queue: nothing
    /// here is wrong input.
    pub(super) async fn perform(&self, whoever: usize, act: &Act, known: &Known) -> Result<Answer, String> {
        let any = &self.queues[whoever % self.queues.len()];
        match self.try_to(any, act, known).await {
            Ok(answer) => Ok(answer),
            Err(error) => Err(format!("{act:?} failed: {error:#}")),
        }
    }

    #[expect(clippy::too_many_lines, reason = "a few lines a step, and nothing is decided here")]
    async fn try_to(&self, any: &Queue, act: &Act, known: &Known) -> anyhow::Result<Answer> {
        Ok(match act {
            Step::Enqueue(specs) => {
                let tasks: Vec<NewTask> = specs.iter().map(task).collect();
                Answer::Enqueued(any.enqueue(&tasks).await?)
            }
            Step::Claim { worker, limit, reach, few } => {
                let (queue, types) = self.worker(*worker);
                let reach = reach.map(Duration::from_secs);
                let claimed = match few {
                    true => queue.claim_few(&types, *limit, reach).await?,
                    false => queue.claim_within(&types, *limit, reach).await?,
                };
                Answer::Claimed(claimed.iter().map(taken).collect())
            }
            Step::ClaimOne { worker, task, early } => {
                let (queue, types) = self.worker(*worker);
                match queue.claim_one(&types, *task, *early).await? {
                    Ok(claimed) => Answer::Claimed(vec![taken(&claimed)]),
                    Err(reason) => Answer::Refused(reason),
                }
            }
            Step::Reserve { worker } => {
                let (queue, types) = self.worker(*worker);
                Answer::Reserved(queue.reserve_suspect(&types).await?)
            }
            Step::KeepReserved { worker, task } => {
                Answer::Moved(self.worker(*worker).0.keep_reserved(*task).await?)
            }
            Step::GiveUpReserved { worker, task } => {
                Answer::Moved(self.worker(*worker).0.give_up_reserved(*task).await?)
            }
            Step::ClaimReserved { worker, task } => {
                let claimed = self.worker(*worker).0.claim_reserved(*task).await?;
                Answer::Claimed(claimed.iter().map(taken).collect())
            }
            Step::Renew(leases) => Answer::Renewed(any.renew(&mut leases.clone()).await?),
            Step::End(endings) => {
                let endings: Vec<Ending> =
                    endings.iter().map(|(lease, verb)| ending(*lease, *verb)).collect();
                Answer::Ended(any.end(&endings).await?)
            }
            Step::Rescue => Answer::Rescued(any.rescue(Duration::ZERO).await?),
            Step::ReleaseUnknown { worker, forgotten } => {
                let queue = self.worker(*worker).0;
                let tokens = known.leases.iter().map(|lease| lease.token);
                let tokens: Vec<Uuid> = tokens.filter(|token| *token != forgotten.token).collect();
                let time = queue.database_time().await?;
                Answer::Released(queue.release_unknown(&time, &tokens).await?)
            }
            Step::Cancel(tasks) => Answer::Cancelled(any.cancel(tasks, "enough").await?),
            Step::Redrive(tasks) => Answer::Redriven(any.redrive(tasks).await?),
            Step::Reschedule { task, seconds } => {
                Answer::Moved(any.reschedule(*task, Duration::from_secs(*seconds)).await?)
            }
            Step::Pause { kind, paused } => {
                match paused {
                    true => any.pause(KINDS[*kind]).await?,
                    false => any.resume(KINDS[*kind]).await?,
                }
                Answer::Done
            }
            Step::ByHand(task) => {
                self.db
                    .execute(&format!("update agent_tasks set status = 'pending' where id = '{task}'"))
                    .await;
                Answer::Done
            }
            Step::Pass(seconds) => {
                self.pass(*seconds).await;
                Answer::Done
            }
        })
    }

    /// Nobody waits: the past moves away. In the order of ids, as all who lock many rows.
    async fn pass(&self, seconds: u64) {
        self.db
            .execute(&format!(
                "with every as materialized (select id from agent_tasks order by id for no key update)
                 update agent_tasks task
                 set scheduled_for = scheduled_for - interval '{seconds} s',
                     lease_expires_at = lease_expires_at - interval '{seconds} s',
                     last_attempted_at = last_attempted_at - interval '{seconds} s'
                 from every where every.id = task.id"
            ))
            .await;
    }

    fn worker(&self, worker: usize) -> (&Queue, Vec<String>) {
        (&self.queues[worker], WORKERS[worker].iter().map(|kind| (*kind).to_owned()).collect())
    }
}

impl Known {
    /// Takes down what an answer brought.
    pub(super) fn learn(&mut self, answer: &Answer) {
        match answer {
            Answer::Enqueued(tasks) => {
                self.tasks.extend(tasks.iter().filter(|task| !task.existed).map(|task| task.id));
            }
            Answer::Claimed(claimed) => self.leases.extend(claimed.iter().map(|(lease, _)| *lease)),
            _ => {}
        }
    }
}

/// A worker's name, as `claimed_by` has it.
pub(super) fn name(worker: usize) -> String {
    format!("worker {worker}")
}

fn task(spec: &Spec) -> NewTask {
    NewTask {
        priority: spec.priority.to_owned(),
        delay: Duration::from_secs(spec.delay),
        unique_key: spec.key.map(|key| format!("key {key}")),
        ..NewTask::new(KINDS[spec.kind], json!({}))
    }
}

fn taken(claimed: &Claimed) -> (Lease, i32) {
    (claimed.lease, claimed.terms.attempt)
}

fn ending(lease: Lease, verb: Verb) -> Ending {
    let delay = Duration::from_secs(DELAY);
    match verb {
        Verb::Complete => Ending::complete(lease, json!({ "done": true })),
        Verb::Retry => Ending::retry(lease, "no luck", delay),
        Verb::Fail => Ending::fail(lease, "hopeless"),
        Verb::Snooze => Ending::snooze(lease, delay, "later"),
        Verb::Release => Ending::release(lease),
        Verb::Cancel => Ending::cancel(lease, "unwanted"),
    }
}
