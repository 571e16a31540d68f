//! Gives ended tasks a new life, and waiting ones another time.

use std::time::Duration;

use tokio_postgres::types::Type;
use uuid::Uuid;

use super::{Queue, deadline};
use crate::db::{DbError, Lane};

impl Queue {
    /// Makes ended tasks due now, with a full budget of retries. Answers the ids that were ended and now are pending.
    pub async fn redrive(&self, ids: &[Uuid]) -> Result<Vec<Uuid>, DbError> {
        let params = [(&ids as _, Type::UUID_ARRAY)];
        let rows =
            self.db.query(Lane::Request, deadline::REQUEST, include_str!("redrive.sql"), &params).await?;
        rows.iter().map(|row| Ok(row.try_get(0)?)).collect()
    }

    /// Makes a pending task due, if it is not, and wakes the workers.
    pub async fn hasten(&self, id: Uuid) -> Result<(), DbError> {
        let sql = "
            with moved as (
                update agent_tasks
                set scheduled_for = clock_timestamp()
                where id = $1 and status = 'pending' and scheduled_for > clock_timestamp()
            )
            select pg_notify('agent_tasks', '')::text";
        self.db.query(Lane::Request, deadline::REQUEST, sql, &[(&id, Type::UUID)]).await?;
        Ok(())
    }

    /// Moves a pending task to `delay` from now and wakes the workers. False if it is not pending.
    pub async fn reschedule(&self, id: Uuid, delay: Duration) -> Result<bool, DbError> {
        let sql = "
            with moved as (
                update agent_tasks
                set scheduled_for = clock_timestamp() + make_interval(secs => $2)
                where id = $1 and status = 'pending'
                returning id
            )
            select pg_notify('agent_tasks', '')::text from moved";
        let seconds = delay.as_secs_f64();
        let params = [(&id as _, Type::UUID), (&seconds as _, Type::FLOAT8)];
        Ok(!self.db.query(Lane::Request, deadline::REQUEST, sql, &params).await?.is_empty())
    }
}
