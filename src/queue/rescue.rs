//! Takes back tasks whose process died.

use std::time::Duration;

use tokio_postgres::types::Type;

use super::{Queue, deadline};
use crate::db::{DbError, Lane};

const RESCUE: &str =
    concat!(include_str!("rescue_update.sql"), include_str!("log.sql"), include_str!("rescue_answer.sql"));
const RESCUE_WITHOUT_LOG: &str =
    concat!(include_str!("rescue_update.sql"), include_str!("rescue_answer.sql"));
/// At once: a storm of expired leases, after the database's clock was set forward say, is worked off in steps.
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
    /// When the next lease expires unless it is renewed.
    pub next_expiry: Option<Duration>,
}

impl Queue {
    /// Takes back tasks whose leases expired at least `overdue` ago, 200 at the most.
    ///
    /// Zero is for a process that has itself been in touch with the database for the time of a lease. One that has not
    /// cannot know whether the database was away and all leases expired together; it waits a lease longer.
    pub async fn rescue(&self, overdue: Duration) -> Result<Rescued, DbError> {
        let timeout = self.rules.timeout.as_secs_f64();
        let window = self.rules.adopt_window.as_secs_f64();
        let overdue = overdue.as_secs_f64();
        let params = [
            (&timeout as _, Type::FLOAT8),
            (&window as _, Type::FLOAT8),
            (&LIMIT as _, Type::INT8),
            (&overdue as _, Type::FLOAT8),
        ];
        let (rows, refused) = match self.db.query(Lane::Shared, deadline::REQUEST, RESCUE, &params).await {
            Err(error) if !error.is_transient() => (
                self.db.query(Lane::Shared, deadline::REQUEST, RESCUE_WITHOUT_LOG, &params).await?,
                Some(error),
            ),
            result => (result?, None),
        };
        let count =
            |column| -> Result<u64, DbError> { Ok(rows[0].try_get::<_, i64>(column)?.unsigned_abs()) };
        let expiry: Option<f64> = rows[0].try_get("next_expiry_seconds")?;
        let rescued = Rescued {
            tasks: count("rescued")?,
            poisoned: count("poisoned")?,
            due: rows[0].try_get("due")?,
            next_expiry: expiry.and_then(|seconds| Duration::try_from_secs_f64(seconds.max(0.0)).ok()),
        };
        if let Some(error) = refused
            && rescued.tasks > 0
        {
            self.log_lost(usize::try_from(rescued.tasks).unwrap_or(usize::MAX), &error);
        }
        self.metrics.rescues.inc_by(rescued.tasks);
        self.metrics.poisoned.inc_by(rescued.poisoned);
        Ok(rescued)
    }
}
