//! Tasks whose process died under them twice: one process at a time makes room for one of them.

use std::time::Duration;

use tokio_postgres::types::Type;
use uuid::Uuid;

use super::{Queue, deadline};
use crate::db::{DbError, Lane};

impl Queue {
    /// Reserves one due task that must run alone, for `time`: others no longer see it as due, so that only one process
    /// empties itself for it. It stays pending: whatever becomes of that process, the task is due again afterwards.
    pub async fn reserve_suspect(&self, types: &[String], time: Duration) -> Result<Option<Uuid>, DbError> {
        let sql = "
            with picked as materialized (
                select task.id
                from agent_tasks task
                where task.status = 'pending'
                    and task.crash_count >= 2
                    and task.scheduled_for <= statement_timestamp()
                    and task.task_type = any ($1::text[])
                    and not exists (
                        select from task_types kind where kind.task_type = task.task_type and kind.paused
                    )
                order by task.scheduled_for, task.id
                limit 1
                for no key update of task skip locked
            )
            update agent_tasks task
            set scheduled_for = clock_timestamp() + make_interval(secs => $2)
            from picked
            where task.id = picked.id and task.status || '' = 'pending'
            returning task.id";
        let seconds = time.as_secs_f64();
        let params = [(&types as _, Type::TEXT_ARRAY), (&seconds as _, Type::FLOAT8)];
        let rows = self.db.query(Lane::Shared, deadline::CLAIM, sql, &params).await?;
        Ok(rows.first().map(|row| row.try_get(0)).transpose()?)
    }
}
