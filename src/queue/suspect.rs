//! Tasks whose process died under them twice: one process at a time makes room for one of them.

use std::time::Duration;

use tokio_postgres::types::Type;
use uuid::Uuid;

use super::{Queue, deadline};
use crate::db::{DbError, Lane};

const RESERVE: &str = concat!(
    "with picked as materialized (select task.id",
    include_str!("suspect.sql"),
    ")
    update agent_tasks task
    set scheduled_for = clock_timestamp() + make_interval(secs => $1),
        claimed_by = $2
    from picked
    where task.id = picked.id and task.status || '' = 'pending'
    returning task.id"
);

impl Queue {
    /// Reserves one due task that must run alone, for `time`: others no longer see it as due, so that only one process
    /// empties itself for it. It stays pending: whatever becomes of that process, the task is due again afterwards.
    pub async fn reserve_suspect(&self, types: &[String], time: Duration) -> Result<Option<Uuid>, DbError> {
        let seconds = time.as_secs_f64();
        let worker: &str = &self.worker;
        let params =
            [(&seconds as _, Type::FLOAT8), (&worker as _, Type::TEXT), (&types as _, Type::TEXT_ARRAY)];
        let rows = self.db.query(Lane::Shared, deadline::CLAIM, RESERVE, &params).await?;
        Ok(rows.first().map(|row| row.try_get(0)).transpose()?)
    }
}
