//! Adds single tasks. Calls that come in while others are under way share one statement: a commit costs more than a row.

use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::oneshot;

use super::enqueue::INSERT;
use super::enqueue_batch::{Columns, Fit, MAX_BATCH, answers, untaken};
use super::{Enqueued, NewTask, Queue, QueueError, deadline};
use crate::db::{DbError, Lane};

/// Statements under way at once. Few callers do not wait for each other at all.
const MOST_ROUNDS: usize = 2;
/// Inputs that one statement carries, in bytes; a larger one goes alone.
const MOST_BYTES: usize = 1024 * 1024;

type Answer = Result<Option<Enqueued>, DbError>;

/// A call whose task is not under way yet.
struct Waiting {
    task: NewTask,
    context: String,
    answer: oneshot::Sender<Answer>,
}

impl Waiting {
    fn fit(&self) -> Fit<'_> {
        Fit { task: &self.task, context: &self.context }
    }

    /// The caller may have gone.
    fn tell(self, answer: Answer) {
        let _ = self.answer.send(answer);
    }
}

/// The calls that wait, and how many rounds are at work on them.
#[derive(Default)]
pub(super) struct Merger(Mutex<(Vec<Waiting>, usize)>);

impl Merger {
    fn state(&self) -> MutexGuard<'_, (Vec<Waiting>, usize)> {
        self.0.lock().expect("never poisoned")
    }
}

/// One of the rounds. It is over when nothing waits, or when it panics.
struct Round {
    merger: Arc<Merger>,
    over: bool,
}

impl Round {
    /// Leaves a call to the rounds; the new round, if one is needed.
    fn begin(merger: &Arc<Merger>, call: Waiting) -> Option<Self> {
        let (waiting, rounds) = &mut *merger.state();
        waiting.push(call);
        (*rounds < MOST_ROUNDS).then(|| {
            *rounds += 1;
            Self { merger: merger.clone(), over: false }
        })
    }

    /// What the next statement carries. With nothing the round is over, in the same breath: a call that comes in now
    /// begins one.
    fn next(&mut self) -> Vec<Waiting> {
        let (waiting, rounds) = &mut *self.merger.state();
        if waiting.is_empty() {
            *rounds -= 1;
            self.over = true;
            return Vec::new();
        }
        let mut bytes = 0;
        let fitting = waiting.iter().take(MAX_BATCH).take_while(|call| {
            bytes += call.context.len();
            bytes <= MOST_BYTES
        });
        let count = fitting.count().max(1);
        waiting.drain(..count).collect()
    }
}

impl Drop for Round {
    fn drop(&mut self) {
        if !self.over {
            self.merger.state().1 -= 1;
        }
    }
}

impl Queue {
    /// Adds one task. A caller that goes away does not take it back.
    pub async fn enqueue_one(&self, task: NewTask) -> Result<Enqueued, QueueError> {
        // It may have to wait for somebody who is adding the same key, and nobody should wait with it.
        if task.unique_key.is_some() {
            return Ok(self.enqueue(&[task]).await?[0]);
        }
        let context = task.check()?;
        let (answer, answered) = oneshot::channel();
        if let Some(round) = Round::begin(&self.merger, Waiting { task, context, answer }) {
            // Not in the caller's future: others depend on it.
            tokio::spawn(self.clone().insert_waiting(round));
        }
        // Only a unique key could be in the way.
        answered.await.expect("a round answers every call")?.ok_or_else(|| untaken().into())
    }

    async fn insert_waiting(self, mut round: Round) {
        loop {
            let calls = round.next();
            if calls.is_empty() {
                return;
            }
            match self.insert_fit(&calls).await {
                Ok(added) => added.into_iter().zip(calls).for_each(|(added, call)| call.tell(Ok(added))),
                // One task that the database refuses must not cost the others theirs.
                Err(error) if calls.len() > 1 && !error.is_transient() => {
                    for call in calls {
                        let added = self.insert_fit(std::slice::from_ref(&call)).await;
                        call.tell(added.map(|added| added[0]));
                    }
                }
                Err(error) => calls.into_iter().for_each(|call| call.tell(Err(error.clone()))),
            }
        }
    }

    /// One answer a call: none where no row was taken.
    async fn insert_fit(&self, calls: &[Waiting]) -> Result<Vec<Option<Enqueued>>, DbError> {
        let fit: Vec<Fit<'_>> = calls.iter().map(Waiting::fit).collect();
        let columns = Columns::of(&fit);
        let rows = self.db.query(Lane::Shared, deadline::REQUEST, INSERT, &columns.params()).await?;
        answers(&rows)
    }
}
