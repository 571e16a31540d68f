//! Adds tasks.

use std::time::Duration;

use chrono::{DateTime, Utc};
use serde_json::Value;
use tokio_postgres::GenericClient;
use uuid::Uuid;

use super::content::{MAX_DEPTH, holds_nul, is_deeper_than, json_text};
use super::enqueue_batch::Batch;
use super::{Queue, QueueError, deadline};
use crate::db::Lane;

/// Adds what [`Columns`](super::enqueue_batch::Columns) holds.
pub(super) const INSERT: &str = include_str!("enqueue.sql");

/// The largest input, in bytes.
const MAX_CONTEXT: usize = 1024 * 1024;

/// Looks for the holder of a key that somebody else has just added: the second finds it, unless it was deleted since.
const ROUNDS: usize = 5;
const FARTHEST: Duration = Duration::from_hours(24 * 5 * 366);

/// A task to be added. Build one with [`NewTask::new`] and change what differs.
#[derive(Clone, Debug)]
pub struct NewTask {
    /// What to do, 1 to 100 characters.
    pub task_type: String,
    /// The agent that asks for it.
    pub agent_type: String,
    /// The handler's input.
    pub context: Value,
    /// The user it is about.
    pub user_id: Option<Uuid>,
    /// What it is about.
    pub context_id: Option<Uuid>,
    /// The kind of thing `context_id` names.
    pub context_type: Option<String>,
    /// Absent: `delay` from now, by the database's clock. Five years ahead at the most.
    pub scheduled_for: Option<DateTime<Utc>>,
    /// How long to wait from now; without meaning where `scheduled_for` is given.
    pub delay: Duration,
    /// `urgent`, `high`, `medium` or `low`.
    pub priority: String,
    /// Absent: the type's, or the process's default.
    pub max_retries: Option<i32>,
    /// Who adds it.
    pub created_by: Option<String>,
    /// At most one task ever has this key.
    pub unique_key: Option<String>,
    /// Absent: the type's, or the process's default.
    pub timeout_seconds: Option<i32>,
}

/// What became of a task that was added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Enqueued {
    /// The task that now exists.
    pub id: Uuid,
    /// It existed before, with the same unique key. It was not changed.
    pub existed: bool,
}

/// A field that cannot be accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field} {reason}")]
pub struct Invalid {
    /// The field's name.
    pub field: &'static str,
    /// What is wrong with it.
    pub reason: String,
}

impl NewTask {
    /// A task that is due now, with priority medium.
    #[must_use]
    pub fn new(task_type: impl Into<String>, context: Value) -> Self {
        Self {
            task_type: task_type.into(),
            agent_type: "system".to_owned(),
            context,
            user_id: None,
            context_id: None,
            context_type: None,
            scheduled_for: None,
            delay: Duration::ZERO,
            priority: "medium".to_owned(),
            max_retries: None,
            created_by: None,
            unique_key: None,
            timeout_seconds: None,
        }
    }

    /// Whether it can be accepted: its input as JSON text.
    pub(super) fn check(&self) -> Result<String, Invalid> {
        let invalid = |field, reason: String| Err(Invalid { field, reason });
        let texts = [
            ("task_type", Some(&self.task_type), 100),
            ("agent_type", Some(&self.agent_type), 50),
            ("context_type", self.context_type.as_ref(), 50),
            ("created_by", self.created_by.as_ref(), 100),
            ("unique_key", self.unique_key.as_ref(), 255),
        ];
        for (field, text, longest) in texts {
            let Some(text) = text else { continue };
            if text.trim().is_empty() || text.chars().count() > longest {
                return invalid(field, format!("must have 1 to {longest} characters"));
            }
            if text.contains('\0') {
                return invalid(field, "holds the character U+0000".into());
            }
        }
        if !matches!(self.priority.as_str(), "urgent" | "high" | "medium" | "low") {
            return invalid("priority", format!("{:?} is none of urgent, high, medium, low", self.priority));
        }
        if self.max_retries.is_some_and(|retries| !(0..=30).contains(&retries)) {
            return invalid("max_retries", "must be from 0 to 30".into());
        }
        if self.timeout_seconds.is_some_and(|seconds| !(1..=604_800).contains(&seconds)) {
            return invalid("timeout_seconds", "must be from 1 to 604800".into());
        }
        if self.scheduled_for.is_some_and(|at| at < DateTime::UNIX_EPOCH) {
            return invalid("scheduled_for", "is before 1970".into());
        }
        let ahead = self.scheduled_for.and_then(|at| (at - Utc::now()).to_std().ok()).unwrap_or_default();
        if ahead.max(self.delay) > FARTHEST {
            return invalid("scheduled_for", "is more than five years ahead".into());
        }
        if is_deeper_than(&self.context, MAX_DEPTH) {
            return invalid("context_json", format!("nests more than {MAX_DEPTH} levels"));
        }
        let context = json_text(&self.context);
        if holds_nul(&self.context) {
            return invalid("context_json", "holds the character U+0000, which jsonb cannot store".into());
        }
        if context.len() > MAX_CONTEXT {
            return invalid(
                "context_json",
                format!("has {} bytes, at most {MAX_CONTEXT} are allowed", context.len()),
            );
        }
        Ok(context)
    }
}

impl Queue {
    /// Adds tasks, all or none. The answers come in the order given. Where a trigger of the database leaves one out, the
    /// others are added all the same, and the answer is an error.
    pub async fn enqueue(&self, tasks: &[NewTask]) -> Result<Vec<Enqueued>, QueueError> {
        let mut batch = Batch::new(tasks)?;
        for _ in 0..ROUNDS {
            let columns = batch.columns();
            let rows = self.db.query(Lane::Shared, deadline::REQUEST, INSERT, &columns.params()).await?;
            if batch.learn(&rows)? {
                return Ok(batch.answers());
            }
        }
        Err(contended())
    }
}

/// Adds tasks by a connection of the caller's, all or none: in a transaction they are there when it is committed, and are
/// not if it is not. The answers come in the order given.
///
/// A `unique_key` that another transaction has taken and not yet committed is waited for.
pub async fn enqueue_in(
    connection: &impl GenericClient,
    tasks: &[NewTask],
) -> Result<Vec<Enqueued>, QueueError> {
    let mut batch = Batch::new(tasks)?;
    for _ in 0..ROUNDS {
        let columns = batch.columns();
        let rows = connection.query_typed(INSERT, &columns.params()).await?;
        if batch.learn(&rows)? {
            return Ok(batch.answers());
        }
    }
    Err(contended())
}

fn contended() -> QueueError {
    Invalid { field: "unique_key", reason: "is being added and deleted by others all the time".into() }.into()
}
