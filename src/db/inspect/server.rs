//! The server and the sessions it gives us: version, limits, clock, pooler, old transactions.

use std::time::Duration;

use tokio_postgres::types::Type;

use super::PATIENCE;
use crate::db::{Database, DbError, Lane, Session};

/// What the server says of itself and of this role. Limits are in milliseconds, 0 means none.
#[derive(Clone, Debug, PartialEq)]
pub struct ServerFacts {
    /// As in 150004 for 15.4.
    pub version: i64,
    /// The role that asks, as SQL writes it.
    pub role: String,
    /// The database's name, as SQL writes it.
    pub database: String,
    /// Nothing can be written: a replica, or a setting.
    pub read_only: bool,
    /// The server's clock minus ours, and by how much that may be wrong: half a round trip.
    pub clock_offset_ms: (f64, f64),
    /// `statement_timeout` of this role's sessions.
    pub statement_timeout: i64,
    /// `lock_timeout`.
    pub lock_timeout: i64,
    /// `idle_in_transaction_session_timeout`.
    pub idle_in_transaction_timeout: i64,
    /// `idle_session_timeout`.
    pub idle_session_timeout: i64,
    /// Connections that roles other than superusers may have at a time.
    pub connections: i64,
    /// Connections there are now.
    pub connections_used: i64,
    /// The role's own limit.
    pub role_connections: Option<i64>,
    /// The database's.
    pub database_connections: Option<i64>,
    /// Whether this role sees what others are doing.
    pub sees_activity: bool,
}

/// Asks the server for its facts.
pub async fn server_facts(database: &Database) -> Result<ServerFacts, DbError> {
    let mut session = database.session(Lane::Shared, PATIENCE).await?;
    let before = chrono::Utc::now();
    let rows = session.query(include_str!("server.sql"), &[]).await?;
    let round_trip = (chrono::Utc::now() - before).as_seconds_f64() * 1000.0;
    let row = &rows[0];
    let clock: f64 = row.try_get(4)?;
    let limit = |column: usize| -> Result<i64, DbError> {
        Ok(row.try_get::<_, Option<i64>>(column)?.unwrap_or_default())
    };
    // Milliseconds of today have 41 bits, a double has 53.
    #[expect(clippy::cast_precision_loss, reason = "see above")]
    let ours = before.timestamp_micros() as f64 / 1000.0 + round_trip / 2.0;
    Ok(ServerFacts {
        version: row.try_get(0)?,
        role: row.try_get(1)?,
        database: row.try_get(2)?,
        read_only: row.try_get(3)?,
        clock_offset_ms: (clock - ours, round_trip / 2.0),
        statement_timeout: limit(5)?,
        lock_timeout: limit(6)?,
        idle_in_transaction_timeout: limit(7)?,
        idle_session_timeout: limit(8)?,
        connections: row.try_get(9)?,
        connections_used: row.try_get(10)?,
        role_connections: row.try_get(11)?,
        database_connections: row.try_get(12)?,
        sees_activity: row.try_get(13)?,
    })
}

/// A transaction that has been open for long.
#[derive(Clone, Debug, PartialEq)]
pub struct OldTransaction {
    /// Whose it is and what it does.
    pub description: String,
    /// Its age.
    pub age: Duration,
    /// The statement that ends it.
    pub ending: String,
}

/// The oldest transactions of this database, of those older than the given age: five at the most. Without the right to
/// see what others do, only this role's own.
pub async fn old_transactions(database: &Database, age: Duration) -> Result<Vec<OldTransaction>, DbError> {
    let sql = include_str!("old_transactions.sql");
    let rows = database.query(Lane::Shared, PATIENCE, sql, &[(&age.as_secs_f64(), Type::FLOAT8)]).await?;
    rows.iter()
        .map(|row| {
            Ok(OldTransaction {
                description: row.try_get(0)?,
                age: Duration::try_from_secs_f64(row.try_get(1)?).unwrap_or_default(),
                ending: row.try_get(2)?,
            })
        })
        .collect()
}

/// Whether two connections were served by one backend: only a pooler in transaction (or statement) mode does that.
///
/// `true` is a proof. Such a pooler may also give each a backend of its own, for as long as it has enough of them.
pub async fn shares_backends(database: &Database) -> Result<bool, DbError> {
    let mut held = database.session(Lane::Work, PATIENCE).await?;
    let mut other = database.session(Lane::Renewal, PATIENCE).await?;
    let before = backend(&mut other).await?;
    held.batch("begin").await?;
    let shared = async {
        let own = backend(&mut held).await?;
        Ok(own == before || backend(&mut other).await? != before)
    };
    let shared = shared.await;
    held.batch("rollback").await?;
    shared
}

async fn backend(session: &mut Session) -> Result<i32, DbError> {
    Ok(session.query("select pg_backend_pid()", &[]).await?[0].try_get(0)?)
}
