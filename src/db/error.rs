//! What can go wrong with a query, sorted by what the caller should do about it.

use std::time::Duration;

use deadpool_postgres::PoolError;
use tokio_postgres::error::SqlState;

/// A query that did not work.
#[derive(Debug, thiserror::Error)]
pub enum DbError {
    /// No connection could be had.
    #[error("no database connection: {}", crate::telemetry::chain(.0))]
    Connect(#[source] PoolError),
    /// The client's own deadline passed. Whether the statement took effect is unknown.
    #[error("the database did not answer within {0:?}")]
    Timeout(Duration),
    /// The server or the connection failed.
    #[error("{}", crate::telemetry::chain(.0))]
    Postgres(#[from] tokio_postgres::Error),
    /// The attempt on whose behalf the question was asked has lost its lease. Nothing was asked.
    #[error("the lease has run out")]
    LeaseOver,
    /// A column held something this program cannot read.
    #[error("column {column}: {reason}")]
    Decode {
        /// The column's name.
        column: &'static str,
        /// Why.
        reason: String,
    },
}

impl DbError {
    /// The error's five-letter code, where the server gave one.
    #[must_use]
    pub fn sqlstate(&self) -> Option<&SqlState> {
        match self {
            Self::Postgres(error) | Self::Connect(PoolError::Backend(error)) => error.code(),
            _ => None,
        }
    }

    /// The same statement may work later, unchanged: the connection broke, the server is busy, restarting, read-only,
    /// or a lock was in the way.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        let Some(state) = self.sqlstate() else {
            return matches!(self, Self::Connect(_) | Self::Timeout(_) | Self::Postgres(_));
        };
        let class = &state.code()[..2];
        matches!(class, "08" | "53" | "57")
            || matches!(
                *state,
                SqlState::T_R_SERIALIZATION_FAILURE
                    | SqlState::T_R_DEADLOCK_DETECTED
                    | SqlState::LOCK_NOT_AVAILABLE
                    | SqlState::READ_ONLY_SQL_TRANSACTION
            )
            || (*state == SqlState::INTERNAL_ERROR && self.to_string().contains("(E"))
    }

    /// The connection is gone or silent, as opposed to a server that answered with an error.
    #[must_use]
    pub fn is_disconnect(&self) -> bool {
        match self.sqlstate() {
            Some(state) => matches!(&state.code()[..2], "08" | "57") && *state != SqlState::QUERY_CANCELED,
            None => matches!(self, Self::Connect(_) | Self::Timeout(_) | Self::Postgres(_)),
        }
    }

    /// The values were refused, not the statement: another value would have done.
    #[must_use]
    pub fn is_content(&self) -> bool {
        self.sqlstate().is_some_and(|state| matches!(&state.code()[..2], "22" | "23" | "54"))
    }

    /// The statement was refused whatever its values: a grant, a table or a column is missing.
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        self.sqlstate().is_some_and(|state| state.code().starts_with("42"))
    }

    /// A lock timeout.
    #[must_use]
    pub fn is_lock_timeout(&self) -> bool {
        self.sqlstate() == Some(&SqlState::LOCK_NOT_AVAILABLE)
    }
}
