//! Tasks whose process died under them twice: one process at a time reserves one of them, and claims it when nothing else
//! is in that process.

use std::time::Duration;

use tokio::time::Instant;
use tokio_postgres::types::Type;
use uuid::Uuid;

use super::Queue;
use super::claim::{Asked, claim};
use super::stubborn::BUDGET;
use super::task::Claimed;
use crate::db::{DbError, Param};

/// How long a reservation lasts.
pub const RESERVED_FOR: Duration = Duration::from_mins(1);

/// The task $3 while it is reserved for the worker $2, for at most $4 seconds. After an outage others may have reserved it,
/// or run it, and somebody may have given it another date: then it is no longer ours.
macro_rules! reserved_for_us {
    () => {
        "task.id = $3
        and task.status = 'pending'
        and task.crash_count >= 2
        and task.claimed_by = $2
        and task.scheduled_for <= statement_timestamp() + make_interval(secs => $4)"
    };
}

const RESERVE: &str = "
    update agent_tasks
    set scheduled_for = clock_timestamp() + make_interval(secs => $1), claimed_by = $2
    where id = $3 and status = 'pending' and crash_count >= 2 and scheduled_for <= statement_timestamp()
    returning id";

const CLAIM_RESERVED: &str = claim!(concat!(
    "array(
    select task.ctid
    from agent_tasks task
    where ",
    reserved_for_us!(),
    "
        and not exists (select from task_types kind where kind.task_type = task.task_type and kind.paused)
    for no key update of task skip locked)"
));

/// To $1 seconds from now; the others are told if that is now.
const MOVE: &str = concat!(
    "update agent_tasks task
    set scheduled_for = clock_timestamp() + make_interval(secs => $1)
    where ",
    reserved_for_us!(),
    " returning case when $1 = 0 then pg_notify('agent_tasks', '')::text end"
);

impl Queue {
    /// Reserves one due task that must run alone, for [`RESERVED_FOR`]: others no longer see it as due, so that only one
    /// process empties itself for it. It stays pending: whatever becomes of that process, the task is due again afterwards.
    pub async fn reserve_suspect(&self, types: &[String]) -> Result<Option<Uuid>, DbError> {
        let until = Instant::now() + BUDGET;
        // Again, if what was picked was refused: the next one may be changed.
        while Instant::now() < until {
            let left_out = self.stubborn.ids();
            let params: [Param<'_>; 2] = [(&types, Type::TEXT_ARRAY), (&left_out, Type::UUID_ARRAY)];
            let rows = self.query_at_once(include_str!("suspect_pick.sql"), &params).await?;
            let Some(row) = rows.first() else { break };
            let id: Uuid = row.try_get(0)?;
            let reserve = |ids: Vec<Uuid>| async move { self.reserve(ids[0]).await };
            let (mut reserved, ended) = self.around_stubborn(vec![id], until, reserve).await;
            ended?;
            if let Some(reserved) = reserved.pop() {
                return Ok(reserved.then_some(id));
            }
        }
        Ok(None)
    }

    /// Reserves it anew for the whole time. False if it is no longer reserved for us.
    pub async fn keep_reserved(&self, id: Uuid) -> Result<bool, DbError> {
        self.move_reserved(id, RESERVED_FOR).await
    }

    /// Leaves what was reserved to the others, and tells them. False if it was no longer reserved for us.
    pub async fn give_up_reserved(&self, id: Uuid) -> Result<bool, DbError> {
        self.move_reserved(id, Duration::ZERO).await
    }

    /// Claims what was reserved; the caller must have nothing else in hand. None if it is no longer reserved for us.
    pub async fn claim_reserved(&self, id: Uuid) -> Result<Option<Claimed>, DbError> {
        let longest = RESERVED_FOR.as_secs_f64();
        let claim = |ids: Vec<Uuid>| async move {
            self.claim_by(Asked::Seldom, CLAIM_RESERVED, &[(&ids[0], Type::UUID), (&longest, Type::FLOAT8)])
                .await
        };
        let (claimed, ended) = self.around_stubborn(vec![id], Instant::now() + BUDGET, claim).await;
        ended?;
        Ok(claimed.into_iter().flatten().next())
    }

    async fn reserve(&self, id: Uuid) -> Result<bool, DbError> {
        let (seconds, worker): (f64, &str) = (RESERVED_FOR.as_secs_f64(), &self.worker);
        let params: [Param<'_>; 3] = [(&seconds, Type::FLOAT8), (&worker, Type::TEXT), (&id, Type::UUID)];
        Ok(!self.query_at_once(RESERVE, &params).await?.is_empty())
    }

    async fn move_reserved(&self, id: Uuid, to: Duration) -> Result<bool, DbError> {
        let (seconds, worker, longest): (f64, &str, f64) =
            (to.as_secs_f64(), &self.worker, RESERVED_FOR.as_secs_f64());
        let params: [Param<'_>; 4] =
            [(&seconds, Type::FLOAT8), (&worker, Type::TEXT), (&id, Type::UUID), (&longest, Type::FLOAT8)];
        Ok(!self.query_at_once(MOVE, &params).await?.is_empty())
    }
}
