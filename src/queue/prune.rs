//! Deletes what ended long ago, only where an operator asked for it.

use std::time::Duration;

use tokio_postgres::types::Type;

use super::{Queue, deadline};
use crate::db::{DbError, Lane};

/// Rows at once: small enough to hold no lock for long.
const BATCH: i64 = 1_000;

const PRUNE_TASKS: &str = "
    with old as materialized (
        select id from agent_tasks
        where status in ('completed', 'failed', 'cancelled')
            and completed_at < statement_timestamp() - make_interval(secs => $1)
        limit $2
        for update skip locked
    )
    delete from agent_tasks using old where agent_tasks.id = old.id returning 1";

const PRUNE_LOG: &str = "
    with old as materialized (
        select ctid from agent_actions_log
        where agent_type = 'task_processor'
            and created_at < statement_timestamp() - make_interval(secs => $1)
        limit $2
        for update skip locked
    )
    delete from agent_actions_log using old where agent_actions_log.ctid = old.ctid returning 1";

/// What one step deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pruned {
    /// Rows.
    pub rows: usize,
    /// There may be more.
    pub more: bool,
}

impl Queue {
    /// Deletes tasks that ended more than `age` ago, a small batch of them. Pending and running tasks never.
    pub async fn prune_tasks(&self, age: Duration) -> Result<Pruned, DbError> {
        self.prune(PRUNE_TASKS, age).await
    }

    /// Deletes this processor's rows of `agent_actions_log` older than `age`, a small batch of them.
    pub async fn prune_log(&self, age: Duration) -> Result<Pruned, DbError> {
        self.prune(PRUNE_LOG, age).await
    }

    async fn prune(&self, sql: &str, age: Duration) -> Result<Pruned, DbError> {
        let seconds = age.as_secs_f64();
        let params = [(&seconds as _, Type::FLOAT8), (&BATCH as _, Type::INT8)];
        let rows = self.db.query(Lane::Shared, deadline::REQUEST, sql, &params).await?.len();
        Ok(Pruned { rows, more: i64::try_from(rows) == Ok(BATCH) })
    }
}
