//! Tasks that nobody will ever end: of types without a handler, and those that another program left running.

use std::time::Duration;

use tokio_postgres::types::Type;

use crate::db::{DbError, Lane};
use crate::queue::{Queue, deadline};

/// Pending tasks of one type are counted up to this.
pub const MAX_UNROUTABLE: i64 = 10_000;

/// Tasks that an older processor left `processing`, longer ago than the adoption window.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Strays {
    /// How many.
    pub tasks: i64,
    /// How long ago the oldest was started.
    pub oldest: Duration,
    /// The statement that has them done once more.
    pub requeue: String,
    /// The statement that closes them.
    pub close: String,
}

impl Queue {
    /// Types of pending tasks that are none of `known`, with how many there are, up to [`MAX_UNROUTABLE`].
    pub async fn unroutable(&self, known: &[String]) -> Result<Vec<(String, i64)>, DbError> {
        let params = [(&known as _, Type::TEXT_ARRAY), (&MAX_UNROUTABLE as _, Type::INT8)];
        let sql = include_str!("unroutable.sql");
        let rows = self.db.query(Lane::Request, deadline::REQUEST, sql, &params).await?;
        rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect()
    }

    /// Tasks without a lease that rescue leaves alone because they are old, if there are any.
    pub async fn strays(&self) -> Result<Option<Strays>, DbError> {
        let window = self.rules.adopt_window.as_secs_f64();
        let sql = include_str!("strays.sql");
        let rows = self.db.query(Lane::Request, deadline::REQUEST, sql, &[(&window, Type::FLOAT8)]).await?;
        let tasks: i64 = rows[0].try_get(0)?;
        let Some(age) = rows[0].try_get::<_, Option<f64>>(1)? else { return Ok(None) };
        let these = format!(
            "where status = 'processing' and lease_expires_at is null \
             and coalesce(last_attempted_at, scheduled_for) < now() - interval '{window} seconds'"
        );
        Ok(Some(Strays {
            tasks,
            oldest: Duration::try_from_secs_f64(age).unwrap_or_default(),
            requeue: format!("update agent_tasks set status = 'pending' {these}"),
            close: format!(
                "update agent_tasks set status = 'cancelled', completed_at = now(), \
                 error_log = 'left running by an earlier processor' {these}"
            ),
        }))
    }
}
