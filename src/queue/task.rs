//! A row of `agent_tasks` as a worker holds it.

use std::time::Duration;

use chrono::{DateTime, Utc};
use serde_json::Value;
use tokio_postgres::Row;
use tokio_postgres::types::FromSql;
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
    /// What holds for the attempt.
    pub terms: Terms,
    /// The task, or which column of it cannot be read.
    pub task: Result<Task, Undecodable>,
}

/// What holds for one attempt, whatever its handler makes of the task.
#[derive(Debug)]
pub struct Terms {
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

/// The columns of `0010_take.sql`: a name would be searched for in every row.
mod column {
    use super::Column;

    pub(super) const ID: Column = (0, "id");
    pub(super) const LEASE_TOKEN: Column = (1, "lease_token");
    pub(super) const ATTEMPT: Column = (2, "attempt");
    pub(super) const TASK_TYPE: Column = (3, "task_type");
    pub(super) const AGENT_TYPE: Column = (4, "agent_type");
    pub(super) const USER_ID: Column = (5, "user_id");
    pub(super) const CONTEXT_ID: Column = (6, "context_id");
    pub(super) const CONTEXT_TYPE: Column = (7, "context_type");
    pub(super) const PRIORITY: Column = (8, "priority");
    pub(super) const RETRY_COUNT: Column = (9, "retry_count");
    pub(super) const MAX_RETRIES: Column = (10, "max_retries");
    pub(super) const RETRY_BASE_SECONDS: Column = (11, "retry_base_seconds");
    pub(super) const TIMEOUT_SECONDS: Column = (12, "timeout_seconds");
    pub(super) const CONTEXT_JSON: Column = (13, "context_json");
    pub(super) const CONTEXT_BYTES: Column = (14, "context_bytes");
    pub(super) const CREATED_AT: Column = (15, "created_at");
    pub(super) const CREATED_BY: Column = (16, "created_by");
    pub(super) const TRACE_CONTEXT: Column = (17, "trace_context");
    pub(super) const WAITED_SECONDS: Column = (18, "waited_seconds");
}

/// A place in the row, and its name.
type Column = (usize, &'static str);

impl Claimed {
    /// Reads a row of `0010_take.sql`.
    pub(super) fn decode(row: &Row, rules: &Rules) -> Result<Self, DbError> {
        let get_positive = |column| -> Option<u32> {
            let number = column_of::<Option<i32>>(row, column).ok().flatten()?;
            u32::try_from(number).ok()
        };
        let seconds = |column| get_positive(column).map(|seconds| Duration::from_secs(seconds.into()));
        let lease = Lease { id: row.try_get(column::ID.0)?, token: row.try_get(column::LEASE_TOKEN.0)? };
        let waited: f64 = row.try_get(column::WAITED_SECONDS.0)?;
        let text = context_of(row);
        let terms = Terms {
            attempt: row.try_get(column::ATTEMPT.0)?,
            task_type: row.try_get(column::TASK_TYPE.0)?,
            timeout: seconds(column::TIMEOUT_SECONDS)
                .filter(|timeout| !timeout.is_zero())
                .unwrap_or(rules.timeout),
            retry: RetryRule {
                max_retries: get_positive(column::MAX_RETRIES).unwrap_or(rules.retry.max_retries),
                base: seconds(column::RETRY_BASE_SECONDS).unwrap_or(rules.retry.base),
            },
            retry_count: get_positive(column::RETRY_COUNT).unwrap_or(0),
            waited: Duration::try_from_secs_f64(waited.max(0.0)).unwrap_or_default(),
            oversize: match &text {
                Ok(text) => content::oversize(text),
                Err(_) => column_of::<Option<i32>>(row, column::CONTEXT_BYTES).ok().flatten().map(i64::from),
            },
        };
        let task = text.and_then(|text| decode_task(row, lease.id, text, &terms));
        Ok(Self { lease, terms, task })
    }
}

fn decode_task(row: &Row, id: Uuid, context: &str, terms: &Terms) -> Result<Task, Undecodable> {
    Ok(Task {
        id,
        task_type: terms.task_type.clone(),
        attempt: terms.attempt,
        retry_count: terms.retry_count,
        context: serde_json::from_str(context)
            .map_err(|error| Undecodable { column: "context_json", reason: error.to_string() })?,
        agent_type: column_of::<Option<String>>(row, column::AGENT_TYPE)?.unwrap_or_default(),
        user_id: column_of(row, column::USER_ID)?,
        context_id: column_of(row, column::CONTEXT_ID)?,
        context_type: column_of(row, column::CONTEXT_TYPE)?,
        priority: column_of(row, column::PRIORITY)?,
        created_at: column_of(row, column::CREATED_AT)?,
        created_by: column_of(row, column::CREATED_BY)?,
        trace_context: column_of(row, column::TRACE_CONTEXT)?,
    })
}

/// The input as JSON text. `0010_take.sql` holds back what is too large to be carried about.
fn context_of(row: &Row) -> Result<&str, Undecodable> {
    let unreadable = |reason| Undecodable { column: "context_json", reason };
    match column_of::<Option<&str>>(row, column::CONTEXT_JSON)? {
        Some(text) => Ok(text),
        None => Err(unreadable(match column_of::<Option<i32>>(row, column::CONTEXT_BYTES)? {
            Some(bytes) => format!("{bytes} bytes, at most {MAX_INPUT} can be worked on"),
            None => "it is null".to_owned(),
        })),
    }
}

fn column_of<'a, T: FromSql<'a>>(row: &'a Row, (place, column): Column) -> Result<T, Undecodable> {
    debug_assert_eq!(row.columns()[place].name(), column, "0010_take.sql has its columns in another order");
    row.try_get(place).map_err(|error| Undecodable { column, reason: crate::telemetry::chain(&error) })
}
