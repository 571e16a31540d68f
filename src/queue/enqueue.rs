//! Adds tasks.

use std::collections::HashSet;
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde_json::Value;
use tokio_postgres::types::Type;
use uuid::Uuid;

use super::content::{holds_nul, json_text};
use super::{Queue, QueueError, deadline};
use crate::db::{DbError, Lane};

/// Tasks that one call may add.
pub const MAX_BATCH: usize = 1_000;
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
        let ahead = self.scheduled_for.and_then(|at| (at - Utc::now()).to_std().ok()).unwrap_or_default();
        if ahead.max(self.delay) > FARTHEST {
            return invalid("scheduled_for", "is more than five years ahead".into());
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

/// A task that was found fit, and its input as JSON text.
#[derive(Clone, Copy)]
pub(super) struct Fit<'a> {
    pub(super) task: &'a NewTask,
    pub(super) context: &'a str,
}

impl Queue {
    /// Adds tasks, all or none. The answers come in the order given.
    pub async fn enqueue(&self, tasks: &[NewTask]) -> Result<Vec<Enqueued>, QueueError> {
        let contexts = check_batch(tasks)?;
        let mut enqueued = vec![None; tasks.len()];
        let mut missing: Vec<usize> = (0..tasks.len()).collect();
        for _ in 0..ROUNDS {
            let fit = |index: &usize| Fit { task: &tasks[*index], context: &contexts[*index] };
            let batch: Vec<Fit<'_>> = missing.iter().map(fit).collect();
            for (index, answer) in missing.iter().zip(self.insert(&batch).await?) {
                enqueued[*index] = answer;
            }
            missing.retain(|index| enqueued[*index].is_none());
            if missing.is_empty() {
                return Ok(enqueued.into_iter().flatten().collect());
            }
        }
        Err(Invalid {
            field: "unique_key",
            reason: "is being added and deleted by others all the time".into(),
        }
        .into())
    }

    /// One statement. An answer is missing where somebody else has just added the same key.
    pub(super) async fn insert(&self, fit: &[Fit<'_>]) -> Result<Vec<Option<Enqueued>>, DbError> {
        macro_rules! column {
            ($task:ident => $value:expr) => {
                fit.iter().map(|Fit { task: $task, .. }| $value).collect::<Vec<_>>()
            };
        }
        let ids: Vec<Uuid> = fit.iter().map(|_| Uuid::now_v7()).collect();
        let task_types = column!(task => &task.task_type);
        let agent_types = column!(task => &task.agent_type);
        let user_ids = column!(task => task.user_id);
        let context_ids = column!(task => task.context_id);
        let context_types = column!(task => &task.context_type);
        let times = column!(task => task.scheduled_for);
        let priorities = column!(task => &task.priority);
        let max_retries = column!(task => task.max_retries);
        let contexts: Vec<&str> = fit.iter().map(|fit| fit.context).collect();
        let creators = column!(task => &task.created_by);
        let keys = column!(task => &task.unique_key);
        let timeouts = column!(task => task.timeout_seconds);
        let delays = column!(task => task.delay.as_secs_f64());
        let rows = self
            .db
            .query(
                Lane::Shared,
                deadline::REQUEST,
                include_str!("enqueue.sql"),
                &[
                    (&ids, Type::UUID_ARRAY),
                    (&task_types, Type::TEXT_ARRAY),
                    (&agent_types, Type::TEXT_ARRAY),
                    (&user_ids, Type::UUID_ARRAY),
                    (&context_ids, Type::UUID_ARRAY),
                    (&context_types, Type::TEXT_ARRAY),
                    (&times, Type::TIMESTAMPTZ_ARRAY),
                    (&priorities, Type::TEXT_ARRAY),
                    (&max_retries, Type::INT4_ARRAY),
                    (&contexts, Type::TEXT_ARRAY),
                    (&creators, Type::TEXT_ARRAY),
                    (&keys, Type::TEXT_ARRAY),
                    (&timeouts, Type::INT4_ARRAY),
                    (&delays, Type::FLOAT8_ARRAY),
                ],
            )
            .await?;
        rows.iter()
            .map(|row| {
                let (id, existed): (Option<Uuid>, bool) = (row.try_get(0)?, row.try_get(1)?);
                Ok(id.map(|id| Enqueued { id, existed }))
            })
            .collect()
    }
}

/// The inputs of tasks that may be added by one call.
fn check_batch(tasks: &[NewTask]) -> Result<Vec<String>, Invalid> {
    if tasks.is_empty() || tasks.len() > MAX_BATCH {
        return Err(Invalid {
            field: "tasks",
            reason: format!("must be 1 to {MAX_BATCH}, not {}", tasks.len()),
        });
    }
    let mut keys = HashSet::new();
    if tasks.iter().filter_map(|task| task.unique_key.as_ref()).any(|key| !keys.insert(key)) {
        return Err(Invalid { field: "unique_key", reason: "appears twice in one call".into() });
    }
    tasks.iter().map(NewTask::check).collect()
}
