//! Claims: takes due tasks under fresh leases. Which ones, and how, is explained in `migrations/0009_due.sql`.

use std::time::Duration;

use tokio_postgres::types::Type;
use uuid::Uuid;

use super::stubborn::is_for_the_rows;
use super::task::Claimed;
use super::{Queue, deadline};
use crate::db::{DbError, Lane, Param};

/// A claim: what has been picked, an array of places, is taken (`migrations/0010_take.sql`).
macro_rules! claim {
    ($places:expr) => {
        concat!("select taken.* from agent_tasks_take_v1($1, $2, ", $places, ") taken")
    };
}
pub(super) use claim;

const CLAIM: &str = claim!("agent_tasks_due_v1($3, $4, $5)");
const CLAIM_FEW: &str = claim!("agent_tasks_few_v1($3, $4, $5)");

/// The ids that `CLAIM` would take. It changes nothing.
pub(super) const PICK: &str = "
    select task.id
    from agent_tasks task
    where task.ctid = any ((select agent_tasks_due_v1($1, $2, null))::tid[])
    order by
        case task.priority when 'urgent' then 0 when 'high' then 1 when 'low' then 3 else 2 end,
        task.scheduled_for,
        task.id";

/// Those of some picked tasks that are still due.
pub(super) const CLAIM_PICKED: &str = claim!(
    "array(
    select task.ctid
    from agent_tasks task
    where task.id = any ($3::uuid[])
        and task.status || '' = 'pending'
        and task.scheduled_for <= statement_timestamp()
    order by task.id
    for no key update of task skip locked)"
);

/// One task by name, due or not. A suspect has to be reserved first (`suspect.rs`).
const CLAIM_ONE: &str = claim!(
    "array(
    select task.ctid
    from agent_tasks task
    where task.id = $4
        and task.status = 'pending'
        and task.crash_count < 2
        and ($5 or task.scheduled_for <= statement_timestamp())
        and task.task_type = any ($3::text[])
        and not exists (select from task_types kind where kind.task_type = task.task_type and kind.paused)
    for no key update of task skip locked)"
);

/// How often a claim is made in this way.
#[derive(Clone, Copy)]
pub(super) enum Asked {
    /// It is prepared, where that is possible, and nothing but a call of functions.
    Often,
    Seldom,
}

/// When there will be something to claim.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NextDue {
    /// Until the next ordinary task is due; zero if one is now.
    pub ordinary: Option<Duration>,
    /// For how long the oldest ordinary task has been due.
    pub overdue: Duration,
    /// Until the next task is due that must run alone.
    pub suspect: Option<Duration>,
}

impl NextDue {
    /// Until anything is due.
    #[must_use]
    pub fn soonest(&self) -> Option<Duration> {
        [self.ordinary, self.suspect].into_iter().flatten().min()
    }
}

/// Why a task could not be claimed by its id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotClaimed {
    /// There is no such task, or it is not pending, or somebody is claiming it at this moment.
    NotPending,
    /// It is not due yet, and only a due task was asked for.
    NotDue,
    /// No handler here knows its type.
    Unroutable(String),
    /// An operator has paused its type.
    Paused(String),
    /// It cannot run beside the others now: it must run alone, since its process died under it twice, or such a task does.
    Suspect,
}

impl Queue {
    /// Claims at most `limit` due tasks of `types`, in order of service.
    pub async fn claim(&self, types: &[String], limit: usize) -> Result<Vec<Claimed>, DbError> {
        self.claim_within(types, limit, None).await
    }

    /// The same; with `reach`, only of tasks that became due within that time before now.
    pub async fn claim_within(
        &self,
        types: &[String],
        limit: usize,
        reach: Option<Duration>,
    ) -> Result<Vec<Claimed>, DbError> {
        self.claim_or_go_around(CLAIM, types, limit, reach).await
    }

    /// The same, but quicker where little is due.
    pub async fn claim_few(
        &self,
        types: &[String],
        limit: usize,
        reach: Option<Duration>,
    ) -> Result<Vec<Claimed>, DbError> {
        self.claim_or_go_around(CLAIM_FEW, types, limit, reach).await
    }

    async fn claim_or_go_around(
        &self,
        claim: &'static str,
        types: &[String],
        limit: usize,
        reach: Option<Duration>,
    ) -> Result<Vec<Claimed>, DbError> {
        if self.stubborn.ids().is_empty() {
            let most = i32::try_from(limit).unwrap_or(i32::MAX);
            let reach = reach.map(|reach| reach.as_secs_f64());
            let params: [Param<'_>; 3] =
                [(&types, Type::TEXT_ARRAY), (&most, Type::INT4), (&reach, Type::FLOAT8)];
            match self.claim_by(Asked::Often, claim, &params).await {
                Err(error) if is_for_the_rows(&error) => {}
                result => return result,
            }
        }
        self.claim_around(types, limit).await
    }

    /// Claims the task `id`; with `early`, even before it is due.
    pub async fn claim_one(
        &self,
        types: &[String],
        id: Uuid,
        early: bool,
    ) -> Result<Result<Claimed, NotClaimed>, DbError> {
        let params: [Param<'_>; 3] = [(&types, Type::TEXT_ARRAY), (&id, Type::UUID), (&early, Type::BOOL)];
        match self.claim_by(Asked::Seldom, CLAIM_ONE, &params).await?.pop() {
            Some(claimed) => Ok(Ok(claimed)),
            // Claimable, and yet not claimed: somebody was quicker.
            None => Ok(Err(self.refusal(types, id, early).await?.unwrap_or(NotClaimed::NotPending))),
        }
    }

    /// When the next task that this process can run is due.
    pub async fn next_due(&self, types: &[String]) -> Result<NextDue, DbError> {
        self.next_due_within(types, None).await
    }

    /// The same; with `reach`, leaving out ordinary tasks that became due longer ago.
    pub async fn next_due_within(
        &self,
        types: &[String],
        reach: Option<Duration>,
    ) -> Result<NextDue, DbError> {
        let left_out = self.stubborn.ids();
        let reach = reach.map(|reach| reach.as_secs_f64());
        let params: [Param<'_>; 3] =
            [(&types, Type::TEXT_ARRAY), (&left_out, Type::UUID_ARRAY), (&reach, Type::FLOAT8)];
        let rows = self
            .db
            .claim_session(deadline::CLAIM)
            .await?
            .query_prepared("select ordinary, suspect from agent_tasks_next_v1($1, $2, $3)", &params)
            .await?;
        // Infinity is a date, and never.
        let seconds = |column| -> Result<Option<f64>, DbError> {
            Ok(rows[0].try_get::<_, Option<f64>>(column)?.filter(|seconds| *seconds < f64::INFINITY))
        };
        let (ordinary, suspect) = (seconds("ordinary")?, seconds("suspect")?);
        let time = |seconds: f64| Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or(Duration::MAX);
        Ok(NextDue {
            ordinary: ordinary.map(time),
            overdue: ordinary.map(|until| time(-until)).unwrap_or_default(),
            suspect: suspect.map(time),
        })
    }

    /// Runs a statement made by [`claim!`].
    pub(super) async fn claim_by(
        &self,
        asked: Asked,
        sql: &'static str,
        more: &[Param<'_>],
    ) -> Result<Vec<Claimed>, DbError> {
        let lease = self.rules.lease.as_secs_f64();
        let worker: &str = &self.worker;
        let mut params: Vec<Param<'_>> = vec![(&lease, Type::FLOAT8), (&worker, Type::TEXT)];
        params.extend_from_slice(more);
        let mut session = self.db.claim_session(deadline::CLAIM).await?;
        let rows = match asked {
            Asked::Often => session.query_prepared(sql, &params).await?,
            Asked::Seldom => session.query(sql, &params).await?,
        };
        self.metrics.claims.inc_by(rows.len() as u64);
        rows.iter().map(|row| Claimed::decode(row, &self.rules)).collect()
    }

    /// Why [`Queue::claim_one`] would refuse a task, if it would.
    pub async fn refusal(
        &self,
        types: &[String],
        id: Uuid,
        early: bool,
    ) -> Result<Option<NotClaimed>, DbError> {
        let sql = "
            select task.task_type::text, task.status::text, kind.paused is true, task.crash_count >= 2,
                task.scheduled_for <= statement_timestamp()
            from agent_tasks task left join task_types kind on kind.task_type = task.task_type
            where task.id = $1";
        let rows = self.db.query(Lane::Request, deadline::REQUEST, sql, &[(&id, Type::UUID)]).await?;
        let Some(row) = rows.first() else { return Ok(Some(NotClaimed::NotPending)) };
        let (task_type, status): (String, Option<String>) = (row.try_get(0)?, row.try_get(1)?);
        let (paused, suspect, due): (bool, bool, Option<bool>) =
            (row.try_get(2)?, row.try_get(3)?, row.try_get(4)?);
        Ok(match status.as_deref() {
            Some("pending") if !types.contains(&task_type) => Some(NotClaimed::Unroutable(task_type)),
            Some("pending") if paused => Some(NotClaimed::Paused(task_type)),
            Some("pending") if !due.unwrap_or(false) && !early => Some(NotClaimed::NotDue),
            Some("pending") if suspect => Some(NotClaimed::Suspect),
            Some("pending") => None,
            _ => Some(NotClaimed::NotPending),
        })
    }
}
