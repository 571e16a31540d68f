//! A row of `agent_tasks` as a worker holds it.

use std::time::Duration;

use chrono::{DateTime, Utc};
use serde_json::Value;
use tokio_postgres::Row;
use tokio_postgres::types::FromSqlOwned;
use uuid::Uuid;

use super::retry::RetryRule;
use super::{Rules, content};
use crate::db::DbError;

/// The largest input that a claim reads, in bytes; `0010_take.sql` has the same number.
const MAX_INPUT: usize = 16 * 1024 * 1024;

/// The right to end one attempt at one task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Lease {
    /// The task.
    pub id: Uuid,
    /// Fresh for every claim.
    pub token: Uuid,
}

/// A task as its handler sees it.
#[derive(Clone, Debug)]
pub struct Task {
    /// Its row.
    pub id: Uuid,
    /// What to do; a handler is registered under this name.
    pub task_type: String,
    /// The agent that asked for it.
    pub agent_type: String,
    /// The user it is about.
    pub user_id: Option<Uuid>,
    /// What it is about.
    pub context_id: Option<Uuid>,
    /// The kind of thing `context_id` names.
    pub context_type: Option<String>,
    /// The handler's input, `context_json`.
    pub context: Value,
    /// Runs so far, this one included, numbered from 1. A fencing number, never part of an effect's key.
    pub attempt: i32,
    /// Failures so far.
    pub retry_count: u32,
    /// `urgent`, `high`, `medium` or `low`, or whatever the row says; absent means medium.
    pub priority: Option<String>,
    /// When the row was made.
    pub created_at: Option<DateTime<Utc>>,
    /// Who made it.
    pub created_by: Option<String>,
    /// The trace it belongs to.
    pub trace_context: Option<String>,
}

/// What a claim answers for one task.
#[derive(Debug)]
pub struct Claimed {
    /// The right to end the attempt.
    pub lease: Lease,
    /// The attempt's number.
    pub attempt: i32,
    /// As the row has it.
    pub task_type: String,
    /// How long the handler may run.
    pub timeout: Duration,
    /// What a failure costs.
    pub retry: RetryRule,
    /// Failures so far.
    pub retry_count: u32,
    /// Since when it was due.
    pub waited: Duration,
    /// The input's size, where that is too much for a second copy in the log.
    pub oversize: Option<i64>,
    /// The task, or which column of it cannot be read.
    pub task: Result<Task, Undecodable>,
}

/// A row that this program cannot read. It fails alone and for good: no retry would read it better.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("column {column} cannot be read: {reason}")]
pub struct Undecodable {
    /// The column.
    pub column: &'static str,
    /// What is wrong with it.
    pub reason: String,
}

impl Claimed {
    /// Reads a row of `0010_take.sql`.
    pub(super) fn decode(row: &Row, rules: &Rules) -> Result<Self, DbError> {
        let get_positive = |column: &'static str| -> Option<u32> {
            let number = column_of::<Option<i32>>(row, column).ok().flatten()?;
            u32::try_from(number).ok()
        };
        let lease = Lease { id: row.try_get("id")?, token: row.try_get("lease_token")? };
        let attempt = row.try_get("attempt")?;
        let task_type: String = row.try_get("task_type")?;
        let retry_count = get_positive("retry_count").unwrap_or(0);
        let waited: f64 = row.try_get("waited_seconds")?;
        let text = context_of(row);
        Ok(Self {
            lease,
            attempt,
            timeout: get_positive("timeout_seconds")
                .filter(|seconds| *seconds > 0)
                .map_or(rules.timeout, |seconds| Duration::from_secs(seconds.into())),
            retry: RetryRule {
                max_retries: get_positive("max_retries").unwrap_or(rules.retry.max_retries),
                base: get_positive("retry_base_seconds")
                    .map_or(rules.retry.base, |seconds| Duration::from_secs(seconds.into())),
            },
            retry_count,
            waited: Duration::try_from_secs_f64(waited.max(0.0)).unwrap_or_default(),
            oversize: match &text {
                Ok(text) => content::oversize(text),
                Err(_) => column_of::<Option<i32>>(row, "context_bytes").ok().flatten().map(i64::from),
            },
            task: text.and_then(|text| {
                decode_task(row, &text, task_type.clone(), (lease.id, attempt, retry_count))
            }),
            task_type,
        })
    }
}

fn decode_task(
    row: &Row,
    context: &str,
    task_type: String,
    (id, attempt, retry_count): (Uuid, i32, u32),
) -> Result<Task, Undecodable> {
    Ok(Task {
        id,
        task_type,
        attempt,
        retry_count,
        context: serde_json::from_str(context)
            .map_err(|error| Undecodable { column: "context_json", reason: error.to_string() })?,
        agent_type: column_of::<Option<String>>(row, "agent_type")?.unwrap_or_default(),
        user_id: column_of(row, "user_id")?,
        context_id: column_of(row, "context_id")?,
        context_type: column_of(row, "context_type")?,
        priority: column_of(row, "priority")?,
        created_at: column_of(row, "created_at")?,
        created_by: column_of(row, "created_by")?,
        trace_context: column_of(row, "trace_context")?,
    })
}

/// The input as JSON text. `0010_take.sql` holds back what is too large to be carried about.
fn context_of(row: &Row) -> Result<String, Undecodable> {
    let unreadable = |reason| Undecodable { column: "context_json", reason };
    match column_of::<Option<String>>(row, "context_json")? {
        Some(text) => Ok(text),
        None => Err(unreadable(match column_of::<Option<i32>>(row, "context_bytes")? {
            Some(bytes) => format!("{bytes} bytes, at most {MAX_INPUT} can be worked on"),
            None => "it is null".to_owned(),
        })),
    }
}

fn column_of<T: FromSqlOwned>(row: &Row, column: &'static str) -> Result<T, Undecodable> {
    row.try_get(column).map_err(|error| Undecodable { column, reason: crate::telemetry::chain(&error) })
}
