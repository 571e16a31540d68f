//! What operators set per task type: `task_types`.

use serde::Serialize;
use tokio_postgres::types::Type;

use super::{Queue, deadline};
use crate::db::{DbError, Lane};

/// One row of `task_types`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TaskType {
    /// Its name.
    pub task_type: String,
    /// Nothing of this type is claimed.
    pub paused: bool,
    /// Run time of an attempt, in seconds.
    pub timeout_seconds: Option<i32>,
    /// Retries of a task that names none.
    pub max_retries: Option<i32>,
    /// The wait before the first retry, in seconds.
    pub retry_base_seconds: Option<i32>,
}

impl Queue {
    /// Stops claims of this type, everywhere, from the next claim on. Running tasks go on.
    pub async fn pause(&self, task_type: &str) -> Result<(), DbError> {
        self.set_paused(task_type, true).await
    }

    /// Allows claims of this type again and wakes the workers.
    pub async fn resume(&self, task_type: &str) -> Result<(), DbError> {
        self.set_paused(task_type, false).await
    }

    /// All types that operators have touched.
    pub async fn task_types(&self) -> Result<Vec<TaskType>, DbError> {
        let sql = "
            select task_type::text, paused, timeout_seconds, max_retries, retry_base_seconds
            from task_types order by task_type";
        let rows = self.db.query(Lane::Request, deadline::REQUEST, sql, &[]).await?;
        rows.iter()
            .map(|row| {
                Ok(TaskType {
                    task_type: row.try_get(0)?,
                    paused: row.try_get(1)?,
                    timeout_seconds: row.try_get(2)?,
                    max_retries: row.try_get(3)?,
                    retry_base_seconds: row.try_get(4)?,
                })
            })
            .collect()
    }

    async fn set_paused(&self, task_type: &str, paused: bool) -> Result<(), DbError> {
        let sql = "
            with kind as (
                insert into task_types (task_type, paused) values ($1, $2)
                on conflict (task_type) do update set paused = excluded.paused, updated_at = clock_timestamp()
                returning paused
            )
            select case when not paused then pg_notify('agent_tasks', '')::text end from kind";
        let params = [(&task_type as _, Type::TEXT), (&paused as _, Type::BOOL)];
        self.db.query(Lane::Request, deadline::REQUEST, sql, &params).await?;
        Ok(())
    }
}
