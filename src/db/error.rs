//! What can go wrong with a query, sorted by what the caller should do about it.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use deadpool_postgres::PoolError;
use tokio_postgres::error::SqlState;

/// A query that did not work. What it displays holds no row: Postgres quotes the refused one in its DETAIL. For the same
/// reason it has no source.
#[derive(Clone, Debug, thiserror::Error)]
pub enum DbError {
    /// No connection could be had.
    #[error("no database connection: {}", describe_pool(.0))]
    Connect(Arc<PoolError>),
    /// The client's own deadline passed. Whether the statement took effect is unknown.
    #[error("the database did not answer within {0:?}")]
    Timeout(Duration),
    /// The server or the connection failed.
    #[error("{}", describe(.0))]
    Postgres(Arc<tokio_postgres::Error>),
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

impl From<tokio_postgres::Error> for DbError {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Postgres(Arc::new(error))
    }
}

impl DbError {
    /// Why something was not stored, for the task's row: no message, which may quote what others wrote.
    #[must_use]
    pub fn refusal(&self) -> String {
        self.sqlstate().map_or_else(
            || "the database refused it".to_owned(),
            |state| format!("the database refused it ({})", state.code()),
        )
    }

    /// The error's five-letter code, where the server gave one.
    #[must_use]
    pub fn sqlstate(&self) -> Option<&SqlState> {
        match self {
            Self::Postgres(error) => error.code(),
            Self::Connect(error) => match &**error {
                PoolError::Backend(error) => error.code(),
                _ => None,
            },
            _ => None,
        }
    }

    /// The same statement may work later, unchanged: no connection could be had, whatever the reason, or it broke, the
    /// server is busy, restarting, read-only, or a lock was in the way.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        let state = match self {
            // A role that may not log in says nothing of the statement.
            Self::Connect(_) | Self::Timeout(_) => return true,
            Self::LeaseOver | Self::Decode { .. } => return false,
            Self::Postgres(error) => match error.code() {
                Some(state) => state,
                None => return is_broken(error),
            },
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
            // Supavisor's own troubles come as internal errors whose text has a code such as (EMAXCONNSESSION).
            || (*state == SqlState::INTERNAL_ERROR && self.to_string().contains("(E"))
    }

    /// The statement was stopped, or given up, because it took too long: it was too much, or somebody's lock was in the way.
    #[must_use]
    pub fn is_too_slow(&self) -> bool {
        matches!(self, Self::Timeout(_))
            || matches!(self.sqlstate(), Some(&SqlState::QUERY_CANCELED | &SqlState::LOCK_NOT_AVAILABLE))
    }

    /// The connection leads to a server that takes no writes: a standby, or a primary that has become one.
    #[must_use]
    pub fn is_read_only(&self) -> bool {
        self.sqlstate() == Some(&SqlState::READ_ONLY_SQL_TRANSACTION)
    }

    /// The connection is gone, or of no use, as opposed to a server that answered with an error or is slow. One that is
    /// silent for good shows when the next connection is made.
    #[must_use]
    pub fn is_disconnect(&self) -> bool {
        if self.is_read_only() {
            return true;
        }
        match self.sqlstate() {
            Some(state) => matches!(&state.code()[..2], "08" | "57") && *state != SqlState::QUERY_CANCELED,
            None => match self {
                Self::Connect(_) => true,
                Self::Postgres(error) => is_broken(error),
                Self::Timeout(_) | Self::LeaseOver | Self::Decode { .. } => false,
            },
        }
    }

    /// The values were refused, not the statement: another value would have done. A row that one of them refers to and
    /// that is not there is something else: it may come.
    #[must_use]
    pub fn is_content(&self) -> bool {
        self.sqlstate().is_some_and(|state| {
            matches!(&state.code()[..2], "22" | "23" | "54") && *state != SqlState::FOREIGN_KEY_VIOLATION
        })
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

/// Whether the connection failed, as opposed to a value that could not be converted on our side of it.
fn is_broken(error: &tokio_postgres::Error) -> bool {
    let mut cause = error.source();
    while let Some(error) = cause {
        if error.is::<std::io::Error>() {
            return true;
        }
        cause = error.source();
    }
    error.is_closed()
}

fn describe(error: &tokio_postgres::Error) -> String {
    match error.as_db_error() {
        Some(db) => format!("{}: {} ({})", db.severity(), db.message(), db.code().code()),
        None => crate::telemetry::chain(error),
    }
}

fn describe_pool(error: &PoolError) -> String {
    match error {
        PoolError::Backend(error) => describe(error),
        other => crate::telemetry::chain(other),
    }
}
