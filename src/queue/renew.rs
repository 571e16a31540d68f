//! Keeps leases alive, and gives back what was claimed without our learning of it.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use tokio_postgres::types::Type;
use uuid::Uuid;

use super::task::Lease;
use super::{Queue, deadline};
use crate::db::{DbError, Lane, Param};

const RELEASE_UNKNOWN: [&str; 2] = [
    concat!(
        include_str!("release_unknown_update.sql"),
        include_str!("log.sql"),
        "select count(*) as released from released"
    ),
    concat!(include_str!("release_unknown_update.sql"), "select count(*) as released from released"),
];

/// The leases that are alive, by token; a lease that is in neither is lost.
#[derive(Debug, Default)]
pub struct Renewed {
    /// The leases that were extended; true for a task whose cancellation was requested.
    pub cancel_requested: HashMap<Uuid, bool>,
    /// Somebody else held the row: the token was still on it, and the lease was not extended this time.
    pub locked: HashSet<Uuid>,
}

impl Queue {
    /// Extends leases. The answer must come within a third of a lease, else it is as good as none.
    pub async fn renew(&self, leases: &mut [Lease]) -> Result<Renewed, DbError> {
        leases.sort_unstable();
        let ids: Vec<Uuid> = leases.iter().map(|lease| lease.id).collect();
        let tokens: Vec<Uuid> = leases.iter().map(|lease| lease.token).collect();
        let seconds = self.rules.lease.as_secs_f64();
        let rows = self
            .db
            .query(
                Lane::Renewal,
                self.answer_good_for(),
                include_str!("renew.sql"),
                &[(&ids, Type::UUID_ARRAY), (&tokens, Type::UUID_ARRAY), (&seconds, Type::FLOAT8)],
            )
            .await?;
        let mut renewed = Renewed::default();
        for row in rows {
            let token = row.try_get(0)?;
            match row.try_get(1)? {
                Some(cancel_requested) => drop(renewed.cancel_requested.insert(token, cancel_requested)),
                None => drop(renewed.locked.insert(token)),
            }
        }
        Ok(renewed)
    }

    /// The database's clock as text, for [`Queue::release_unknown`]: no process compares it with its own.
    pub async fn database_time(&self) -> Result<String, DbError> {
        let sql = "select clock_timestamp()::text";
        let rows = self.db.query(Lane::Renewal, self.answer_good_for(), sql, &[]).await?;
        Ok(rows[0].try_get(0)?)
    }

    /// Puts back what was claimed in this worker's name under tokens it does not know. `known` must have been taken
    /// down after `database_time` came in; `release_unknown_update.sql` tells why.
    pub async fn release_unknown(&self, database_time: &str, known: &[Uuid]) -> Result<u64, DbError> {
        let worker: &str = &self.worker;
        let good_for = self.answer_good_for();
        let seconds = good_for.as_secs_f64();
        let params: [Param<'_>; 4] = [
            (&worker, Type::TEXT),
            (&known, Type::UUID_ARRAY),
            (&database_time, Type::TEXT),
            (&seconds, Type::FLOAT8),
        ];
        let (rows, refused) = self.query_logged(Lane::Renewal, good_for, RELEASE_UNKNOWN, &params).await?;
        let released = rows[0].try_get::<_, i64>("released")?.unsigned_abs();
        if let Some(error) = refused {
            self.log_lost(usize::try_from(released).unwrap_or(usize::MAX), &error);
        }
        Ok(released)
    }

    /// How long after it was sent the reply to a claim or a renewal counts. With short leases that is so soon that what
    /// a lost claim brought is given back before its lease is over, and is nobody's crash.
    #[must_use]
    pub fn answer_good_for(&self) -> Duration {
        (self.rules.lease / 3).min(deadline::CLAIM)
    }
}
