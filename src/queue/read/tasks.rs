//! Tasks and their histories, as JSON objects with the columns' names.

use serde_json::Value;
use tokio_postgres::Row;
use tokio_postgres::types::Type;
use uuid::Uuid;

use crate::db::{DbError, Lane, Param};
use crate::queue::{Queue, deadline};

/// Which tasks to look at. Absent parts do not restrict.
#[derive(Clone, Debug, Default)]
pub struct TaskFilter {
    /// `pending`, `processing`, `completed`, `failed` or `cancelled`.
    pub status: Option<String>,
    /// The type.
    pub task_type: Option<String>,
    /// How many at the most, newest first.
    pub limit: i64,
}

impl TaskFilter {
    /// Those that match, as a select of `columns` in an order. The pending ones are named by halves, as their partial indexes
    /// have them, so that none is read of those that have ended.
    fn select(&self, columns: &str, order: &str) -> String {
        let source = match self.status.as_deref() {
            Some("pending") => {
                "(
                    select ctid, * from agent_tasks where status = 'pending' and crash_count < 2
                    union all
                    select ctid, * from agent_tasks where status = 'pending' and crash_count >= 2
                )"
            }
            _ => "agent_tasks",
        };
        format!(
            "select {columns} from {source} task
             where ($1::text is null or task.status = $1) and ($2::text is null or task.task_type = $2)
             order by {order}
             limit $3"
        )
    }

    fn params(&self) -> [Param<'_>; 3] {
        [(&self.status, Type::TEXT), (&self.task_type, Type::TEXT), (&self.limit, Type::INT8)]
    }
}

impl Queue {
    /// The newest tasks that match, without their inputs and results.
    pub async fn list(&self, filter: &TaskFilter) -> Result<Vec<Value>, DbError> {
        const NEWEST: &str = "task.created_at desc nulls last, task.id desc";
        // Only of those that are shown: an object made of a row holds its input and its result, however large.
        let sql = format!(
            "select (to_jsonb(task) - '{{lease_token,context_json,result_json}}'::text[])::text
             from agent_tasks task
             where task.ctid = any (array({}))
             order by {NEWEST}",
            filter.select("task.ctid", NEWEST)
        );
        json_rows(&self.db.query(Lane::Request, deadline::REQUEST, &sql, &filter.params()).await?)
    }

    /// The ids of all tasks that match, oldest first, to change them.
    pub async fn ids(&self, filter: &TaskFilter) -> Result<Vec<Uuid>, DbError> {
        let sql = filter.select("task.id", "task.created_at, task.id");
        let rows = self.db.query(Lane::Request, deadline::REQUEST, &sql, &filter.params()).await?;
        rows.iter().map(|row| Ok(row.try_get(0)?)).collect()
    }

    /// One task, whole.
    pub async fn get(&self, id: Uuid) -> Result<Option<Value>, DbError> {
        let sql = "
            select (to_jsonb(task) - 'lease_token')::text from agent_tasks task where task.id = $1";
        let rows = self.db.query(Lane::Request, deadline::REQUEST, sql, &[(&id, Type::UUID)]).await?;
        Ok(json_rows(&rows)?.pop())
    }

    /// What happened to a task, oldest first: the log rows of its endings.
    pub async fn history(&self, id: Uuid) -> Result<Vec<Value>, DbError> {
        let sql = "
            select (to_jsonb(entry) - '{lease_token,input_data}'::text[])::text
            from agent_actions_log entry
            where entry.context_id = $1 and entry.agent_type = 'task_processor'
            order by entry.created_at, entry.attempt
            limit 1000";
        json_rows(&self.db.query(Lane::Request, deadline::REQUEST, sql, &[(&id, Type::UUID)]).await?)
    }
}

fn json_rows(rows: &[Row]) -> Result<Vec<Value>, DbError> {
    rows.iter()
        .map(|row| {
            let text: String = row.try_get(0)?;
            // What Postgres stores and we cannot read (a number of 400 digits, say) is shown as it stands.
            Ok(serde_json::from_str(&text).unwrap_or(Value::String(text)))
        })
        .collect()
}
