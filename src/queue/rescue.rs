//! Takes back tasks whose process died.

use std::time::Duration;

use tokio::time::Instant;
use tokio_postgres::Row;
use tokio_postgres::types::Type;
use uuid::Uuid;

use super::stubborn::is_for_the_rows;
use super::{Queue, deadline};
use crate::db::{DbError, Lane, Param};

const RESCUE: [&str; 2] = [
    concat!(
        include_str!("rescue_expired.sql"),
        include_str!("rescue_update.sql"),
        include_str!("log.sql"),
        include_str!("rescue_answer.sql")
    ),
    concat!(
        include_str!("rescue_expired.sql"),
        include_str!("rescue_update.sql"),
        include_str!("rescue_answer.sql")
    ),
];
/// The ids that `RESCUE` would take back. It changes nothing.
const PICK: &str = concat!(include_str!("rescue_expired.sql"), "select expired.id from expired");
/// In one statement: what a large process held when it died is taken back in steps.
const LIMIT: i64 = 200;

/// What one look found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rescued {
    /// Tasks taken back.
    pub tasks: u64,
    /// Of those, given up as poison.
    pub poisoned: u64,
    /// Whether any of them is due again.
    pub due: bool,
    /// When the next lease expires unless it is renewed. Zero if as many were taken back as one look takes: more may have
    /// expired.
    pub next_expiry: Option<Duration>,
}

impl Queue {
    /// Takes back tasks whose leases expired at least `overdue` ago, 200 at the most: the next look is due at once then.
    ///
    /// Zero is for a process that has itself been in touch with the database for the time of a lease. One that has not
    /// cannot know whether the database was away and all leases expired together; it waits a lease longer.
    pub async fn rescue(&self, overdue: Duration) -> Result<Rescued, DbError> {
        let left_out = self.stubborn.ids();
        match self.rescue_some(overdue, &left_out, None).await {
            Err(error) if is_for_the_rows(&error) => self.rescue_around(overdue, &left_out).await,
            result => result,
        }
    }

    /// A row that the database refuses to change must not keep the others from being taken back.
    async fn rescue_around(&self, overdue: Duration, left_out: &[Uuid]) -> Result<Rescued, DbError> {
        let (rows, _) = self.rescue_query([PICK, PICK], overdue, left_out, None).await?;
        let ids: Vec<Uuid> =
            rows.iter().map(|row| row.try_get(0)).collect::<Result<_, tokio_postgres::Error>>()?;
        let (until, picked) = (Instant::now() + deadline::REQUEST, ids.len() as u64);
        let rescue_part = |ids: Vec<Uuid>| async move { self.rescue_some(overdue, &[], Some(&ids)).await };
        let (parts, ended) = self.around_stubborn(ids, until, rescue_part).await;
        let mut all = parts.into_iter().fold(Rescued::default(), |all, part| Rescued {
            tasks: all.tasks + part.tasks,
            poisoned: all.poisoned + part.poisoned,
            due: all.due || part.due,
            next_expiry: part.next_expiry,
        });
        if all.tasks == 0 {
            return ended.map(|()| all);
        }
        if picked >= LIMIT.unsigned_abs() {
            all.next_expiry = Some(Duration::ZERO);
        }
        // Whoever was taken back before an error has to be told of.
        Ok(all)
    }

    async fn rescue_some(
        &self,
        overdue: Duration,
        left_out: &[Uuid],
        only: Option<&[Uuid]>,
    ) -> Result<Rescued, DbError> {
        let (rows, refused) = self.rescue_query(RESCUE, overdue, left_out, only).await?;
        let count =
            |column| -> Result<u64, DbError> { Ok(rows[0].try_get::<_, i64>(column)?.unsigned_abs()) };
        let expiry: Option<f64> = rows[0].try_get("next_expiry_seconds")?;
        let tasks = count("rescued")?;
        let next_expiry = match expiry {
            _ if tasks >= LIMIT.unsigned_abs() => Some(Duration::ZERO),
            expiry => expiry.and_then(|seconds| Duration::try_from_secs_f64(seconds.max(0.0)).ok()),
        };
        let rescued =
            Rescued { tasks, poisoned: count("poisoned")?, due: rows[0].try_get("due")?, next_expiry };
        if let Some(error) = refused {
            self.log_lost(usize::try_from(rescued.tasks).unwrap_or(usize::MAX), &error);
        }
        self.metrics.rescues.inc_by(rescued.tasks);
        self.metrics.poisoned.inc_by(rescued.poisoned);
        Ok(rescued)
    }

    async fn rescue_query(
        &self,
        sql: [&str; 2],
        overdue: Duration,
        left_out: &[Uuid],
        only: Option<&[Uuid]>,
    ) -> Result<(Vec<Row>, Option<DbError>), DbError> {
        let timeout = self.rules.timeout.as_secs_f64();
        let window = self.rules.adopt_window.as_secs_f64();
        let overdue = overdue.as_secs_f64();
        let params: [Param<'_>; 6] = [
            (&timeout, Type::FLOAT8),
            (&window, Type::FLOAT8),
            (&LIMIT, Type::INT8),
            (&overdue, Type::FLOAT8),
            (&left_out, Type::UUID_ARRAY),
            (&only, Type::UUID_ARRAY),
        ];
        self.query_logged(Lane::Shared, deadline::REQUEST, sql, &params).await
    }
}
