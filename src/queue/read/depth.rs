//! How much is waiting, and since when: for metrics and operators, never for the hot path.

use tokio_postgres::types::Type;

use crate::db::{DbError, Lane};
use crate::queue::{Queue, deadline};

/// Rows that are counted one by one: beyond this a queue is just "deep".
pub const MAX_DEPTH: i64 = 100_000;

/// The unfinished tasks of one type in one status.
#[derive(Clone, Debug, PartialEq)]
pub struct Depth {
    /// As it stands in the table.
    pub task_type: String,
    /// `pending` or `processing`.
    pub status: String,
    /// How many, of the first [`MAX_DEPTH`] of that status.
    pub tasks: i64,
    /// Seconds since the oldest of them was due, or was claimed; 0 if none is due.
    pub oldest_age_seconds: f64,
}

impl Queue {
    /// Counts the unfinished tasks by type and status, up to [`MAX_DEPTH`] rows of each status.
    pub async fn depths(&self) -> Result<Vec<Depth>, DbError> {
        let sql = "
            with unfinished (task_type, status, since) as (
                (
                    -- The two halves of the pending tasks, each as one partial index has it. The orders are those of the
                    -- indexes: without one a plan may hope to find enough in the table, and read all that has ended.
                    (
                        select task_type, 'pending', scheduled_for from agent_tasks
                        where status = 'pending' and crash_count < 2 order by task_type limit $1
                    )
                    union all
                    (
                        select task_type, 'pending', scheduled_for from agent_tasks
                        where status = 'pending' and crash_count >= 2 order by scheduled_for limit $1
                    )
                    limit $1
                )
                union all
                (
                    select task_type, 'processing', last_attempted_at from agent_tasks
                    where status = 'processing' order by id limit $1
                )
            )
            select
                task_type::text,
                status::text,
                count(*),
                greatest(
                    extract(epoch from clock_timestamp())
                        - min(extract(epoch from since)) filter (where isfinite(since)),
                    0
                )::float8
            from unfinished
            group by task_type, status
            order by task_type, status";
        let rows = self.db.query(Lane::Request, deadline::REQUEST, sql, &[(&MAX_DEPTH, Type::INT8)]).await?;
        rows.iter()
            .map(|row| {
                Ok(Depth {
                    task_type: row.try_get(0)?,
                    status: row.try_get(1)?,
                    tasks: row.try_get(2)?,
                    oldest_age_seconds: row.try_get::<_, Option<f64>>(3)?.unwrap_or_default(),
                })
            })
            .collect()
    }

    /// How many tasks of these types are due now, counted up to 1,000.
    pub async fn count_due(&self, types: &[String]) -> Result<u64, DbError> {
        let sql = "
            with lanes as (
                select wanted.task_type
                from unnest($1::text[]) as wanted (task_type)
                where not exists (
                    select from task_types where task_types.task_type = wanted.task_type and task_types.paused
                )
            )
            select count(*) from (
                (
                    select from agent_tasks task
                    where task.status = 'pending'
                        and task.crash_count < 2
                        and task.task_type in (select lanes.task_type from lanes)
                        and task.scheduled_for <= statement_timestamp()
                    order by task.task_type
                    limit 1000
                )
                union all
                (
                    select from agent_tasks task
                    where task.status = 'pending'
                        and task.crash_count >= 2
                        and task.task_type in (select lanes.task_type from lanes)
                        and task.scheduled_for <= statement_timestamp()
                    order by task.scheduled_for
                    limit 1000
                )
                limit 1000
            ) due";
        let rows =
            self.db.query(Lane::Request, deadline::REQUEST, sql, &[(&types, Type::TEXT_ARRAY)]).await?;
        Ok(rows[0].try_get::<_, i64>(0)?.unsigned_abs())
    }
}
