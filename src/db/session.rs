//! One connection, lent from the pool, and what may be asked on it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use deadpool_postgres::{ClientWrapper, Object};
use tokio::time::timeout;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{NoTls, Row};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::DbError;
use super::contact::Contact;

/// A query parameter with its type: typed statements ask the server nothing.
pub type Param<'a> = (&'a (dyn ToSql + Sync), Type);

/// How long a statement that nobody waits for may take to be stopped.
const CANCEL_WITHIN: Duration = Duration::from_secs(3);

/// One connection, lent from the pool.
pub struct Session {
    pub(super) object: Option<Object>,
    pub(super) deadline: Duration,
    pub(super) contact: Arc<Contact>,
    pub(super) backends: Arc<Backends>,
    pub(super) afterwards: Afterwards,
    /// What it says of writing is true of the server: a handler's statement may have been refused by somebody else.
    pub(super) is_ours: bool,
    /// No transaction pooler stands in between, as far as the URL tells.
    pub(super) direct: bool,
    pub(super) tls: Option<MakeRustlsConnect>,
}

/// What becomes of a connection whose session is dropped now.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Afterwards {
    /// The next one gets it.
    GoesBack,
    /// It leads to a server that takes no writes.
    IsClosed,
    /// A query is under way whose answer is still to come, and the next one would wait behind it: it is closed, and the
    /// query cancelled.
    IsAbandoned,
}

/// Whether every connection has a backend of its own, so that what is prepared on it stays there.
#[derive(Default)]
pub(super) struct Backends(AtomicU8);

impl Backends {
    const UNKNOWN: u8 = 0;
    const OWN: u8 = 1;
    const SHARED: u8 = 2;

    /// They have, unless the contrary has shown.
    pub(super) fn are_own(&self) {
        let _ = self.0.compare_exchange(Self::UNKNOWN, Self::OWN, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// They have not, whatever it looked like.
    fn are_shared(&self) {
        self.0.store(Self::SHARED, Ordering::Relaxed);
    }

    fn are_known_to_be_own(&self) -> bool {
        self.0.load(Ordering::Relaxed) == Self::OWN
    }
}

impl Session {
    /// Runs one typed, unnamed statement.
    pub async fn query(&mut self, sql: &str, params: &[Param<'_>]) -> Result<Vec<Row>, DbError> {
        self.ask(async |object| object.query_typed(sql, params).await).await
    }

    /// Runs a typed statement that is asked again and again: prepared, but only where it is known that no transaction
    /// pooler stands in between. For a mere call of a function, which leaves the planner no choice that could go wrong.
    pub async fn query_prepared(
        &mut self,
        sql: &'static str,
        params: &[Param<'_>],
    ) -> Result<Vec<Row>, DbError> {
        if !self.backends.are_known_to_be_own() {
            return self.query(sql, params).await;
        }
        let (values, types): (Vec<_>, Vec<_>) = params.iter().cloned().unzip();
        #[expect(
            clippy::disallowed_methods,
            reason = "prepared on purpose: no transaction pooler stands in between"
        )]
        let answer = self
            .ask(async |object| {
                let statement = object.prepare_typed_cached(sql, &types).await?;
                object.query(&statement, &values).await
            })
            .await;
        match answer {
            Err(error) if is_about_the_statement(&error) => {
                tracing::warn!(%error, "what was prepared on a database connection is gone or another: no more of that");
                self.backends.are_shared();
                self.query(sql, params).await
            }
            answer => answer,
        }
    }

    /// Runs statements without parameters or rows, as one simple query.
    pub async fn batch(&mut self, sql: &str) -> Result<(), DbError> {
        self.ask(async |object| object.batch_execute(sql).await).await
    }

    /// Closes the connection instead of lending it to the next: it may hold an open transaction.
    pub fn discard(mut self) {
        self.afterwards = Afterwards::IsAbandoned;
    }

    async fn ask<T>(
        &mut self,
        question: impl AsyncFnOnce(&Object) -> Result<T, tokio_postgres::Error>,
    ) -> Result<T, DbError> {
        let object = self.object.as_ref().expect("present until the session is dropped");
        self.afterwards = Afterwards::IsAbandoned;
        let result = match timeout(self.deadline, question(object)).await {
            Ok(result) => {
                let result = result.map_err(note_detail);
                // The server that can be written to is at the other end of another connection, if anywhere.
                self.afterwards = match result.as_ref().is_err_and(DbError::is_read_only) {
                    true => Afterwards::IsClosed,
                    false => Afterwards::GoesBack,
                };
                result
            }
            Err(_) => Err(DbError::Timeout(self.deadline)),
        };
        if self.is_ours || self.afterwards != Afterwards::IsClosed {
            self.contact.heard(&result);
        }
        result
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if self.afterwards != Afterwards::GoesBack
            && let Some(object) = self.object.take()
        {
            let client = Object::take(object);
            // PgBouncer before 1.20 may crash on a cancel request, and take all of its clients along. Through a pooler
            // the role's `statement_timeout` has to do.
            if self.afterwards == Afterwards::IsAbandoned && self.direct {
                abandon(client, self.tls.take());
            }
        }
    }
}

/// Stops the statement that still runs on a connection before the connection is closed: the server would not notice
/// that nobody waits for it, and go on for as long as it takes.
fn abandon(client: ClientWrapper, tls: Option<MakeRustlsConnect>) {
    let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
    let token = client.cancel_token();
    runtime.spawn(async move {
        let cancelled = match tls {
            Some(tls) => timeout(CANCEL_WITHIN, token.cancel_query(tls)).await,
            None => timeout(CANCEL_WITHIN, token.cancel_query(NoTls)).await,
        };
        if !matches!(cancelled, Ok(Ok(()))) {
            tracing::debug!("a statement that nobody waits for could not be cancelled");
        }
        drop(client);
    });
}

/// The prepared statement is not there, is there already, or is another one: nothing was done.
fn is_about_the_statement(error: &DbError) -> bool {
    let DbError::Postgres(error) = error else { return false };
    error.as_db_error().is_some_and(|error| match *error.code() {
        SqlState::INVALID_SQL_STATEMENT_NAME | SqlState::DUPLICATE_PSTATEMENT => true,
        // `PgBouncer` says this of all that it does not like; the server adds the severity in a form for programs.
        SqlState::PROTOCOL_VIOLATION => error.parsed_severity().is_some(),
        _ => false,
    })
}

/// The DETAIL quotes rows, so it is for whoever debugs and for nobody else.
fn note_detail(error: tokio_postgres::Error) -> DbError {
    if let Some(detail) = error.as_db_error().and_then(tokio_postgres::error::DbError::detail) {
        tracing::debug!(detail, "what Postgres says beside the error");
    }
    DbError::Postgres(error.into())
}
