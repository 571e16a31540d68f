//! Wakes listening workers, and keeps inserts from doing so while a busy worker promises to look again by itself.

use std::time::Duration;

use tokio_postgres::types::Type;

use super::{Queue, deadline};
use crate::db::{DbError, Lane, Param};

/// Something may be due: look.
pub const WAKE_CHANNEL: &str = "agent_tasks";
/// The payload is the id of a running task that is to be cancelled.
pub const CANCEL_CHANNEL: &str = "agent_tasks_cancel";

impl Queue {
    /// Tells all listening workers to look. The trigger on inserts does the same (`migrations/0012_announce.sql`).
    pub async fn announce(&self) -> Result<(), DbError> {
        let sql = "select pg_notify($1, '')::text";
        self.db.query(Lane::Shared, deadline::REQUEST, sql, &[(&WAKE_CHANNEL, Type::TEXT)]).await?;
        Ok(())
    }

    /// Lets inserts of the next while go unannounced. The caller promises to look again after that, and to announce
    /// on behalf of whoever kept quiet. With `more_due` there is more than the caller can take, and the others are told.
    pub async fn keep_quiet(&self, window: Duration, more_due: bool) -> Result<(), DbError> {
        let sql = "
            update agent_tasks_wake
            set quiet_until = greatest(quiet_until, clock_timestamp() + make_interval(secs => $1))
            returning case when $2 then pg_notify($3, '')::text end";
        let seconds = window.as_secs_f64();
        let params: [Param<'_>; 3] =
            [(&seconds, Type::FLOAT8), (&more_due, Type::BOOL), (&WAKE_CHANNEL, Type::TEXT)];
        self.query_at_once(sql, &params).await?;
        Ok(())
    }

    /// Ends the quiet at once, whoever asked for it, and announces on behalf of those that kept it.
    pub async fn stop_quiet(&self) -> Result<(), DbError> {
        let sql = "update agent_tasks_wake set quiet_until = '-infinity' returning pg_notify($1, '')::text";
        self.query_at_once(sql, &[(&WAKE_CHANNEL, Type::TEXT)]).await?;
        Ok(())
    }

    /// Announces on behalf of those that kept quiet, unless it is still quiet or a transaction is open that may be one
    /// of them: what it has inserted cannot be seen yet. False if so, or if a worker is writing at this moment: ask again.
    pub async fn end_quiet(&self) -> Result<bool, DbError> {
        let params: [Param<'_>; 1] = [(&WAKE_CHANNEL, Type::TEXT)];
        Ok(!self.query_at_once(include_str!("announce_end_quiet.sql"), &params).await?.is_empty())
    }
}
