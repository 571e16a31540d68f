//! The pool, in three parts, so that neither a busy API nor a busy queue can keep a lease from being renewed.

use std::sync::Arc;
use std::time::Duration;

use deadpool_postgres::{
    ClientWrapper, Manager, ManagerConfig, Object, Pool, PoolConfig, PoolError, RecyclingMethod, Runtime,
    TimeoutType, Timeouts,
};
use tokio::time::timeout;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{NoTls, Row};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::contact::Contact;
use super::target::{SslMode, Target, TargetError};
use super::{DbError, tls};
use crate::config::DatabaseConfig;

/// A query parameter with its type: typed statements ask the server nothing.
pub type Param<'a> = (&'a (dyn ToSql + Sync), Type);

/// Which part of the pool a query may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lane {
    /// One connection, for renewals alone.
    Renewal,
    /// One connection, for endings and, when no other is free, for claims and what else the loop waits for.
    Work,
    /// The rest: handlers and maintenance.
    Shared,
    /// The same, for the API, whose callers are told soon if no connection is free.
    Request,
}

/// How long a caller of the API waits for a connection.
const REQUEST_WAITS: Duration = Duration::from_secs(2);

const TIMEOUTS: Timeouts = Timeouts {
    wait: Some(Duration::from_secs(5)),
    create: Some(Duration::from_secs(10)),
    recycle: Some(Duration::from_secs(2)),
};

/// How long a statement that nobody waits for may take to be stopped.
const CANCEL_WITHIN: Duration = Duration::from_secs(3);

/// All connections of this process but the listening one. Clones share them.
#[derive(Clone)]
pub struct Database {
    target: Target,
    ca_cert: Option<Arc<str>>,
    renewal: Pool,
    work: Pool,
    shared: Pool,
    contact: Arc<Contact>,
    tls: Option<MakeRustlsConnect>,
}

/// One connection, lent from the pool.
pub struct Session {
    object: Option<Object>,
    deadline: Duration,
    contact: Arc<Contact>,
    afterwards: Afterwards,
    /// What it says of writing is true of the server: a handler's statement may have been refused by somebody else.
    is_ours: bool,
    /// No transaction pooler stands in between.
    direct: bool,
    tls: Option<MakeRustlsConnect>,
}

/// What becomes of a connection whose session is dropped now.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Afterwards {
    /// The next one gets it.
    GoesBack,
    /// It leads to a server that takes no writes.
    IsClosed,
    /// A query is under way whose answer is still to come, and the next one would wait behind it: it is closed, and the
    /// query cancelled.
    IsAbandoned,
}

impl Database {
    /// Connects to nothing yet: connections are made when they are first needed.
    pub fn new(config: &DatabaseConfig) -> Result<Self, TargetError> {
        let target = Target::named("DATABASE_URL", &config.url)?;
        let ca_cert: Option<Arc<str>> = config.ca_cert.as_deref().map(Into::into);
        let tls = match target.ssl {
            SslMode::Disable => None,
            mode => Some(tls::connector(mode, ca_cert.as_deref())?),
        };
        let part = |size| build_pool(&target, tls.clone(), size);
        let (renewal, work, shared) = (part(1)?, part(1)?, part(config.pool_size.saturating_sub(2).max(1))?);
        Ok(Self { target, ca_cert, renewal, work, shared, contact: Arc::default(), tls })
    }

    /// Where the connections go.
    #[must_use]
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// The CA certificate they trust beside the platform's.
    pub(super) fn ca_cert(&self) -> Option<&str> {
        self.ca_cert.as_deref()
    }

    /// Borrows a connection whose queries must be answered within `deadline`.
    pub async fn session(&self, lane: Lane, deadline: Duration) -> Result<Session, DbError> {
        let timeouts = match lane {
            Lane::Request => Timeouts { wait: Some(REQUEST_WAITS), ..TIMEOUTS },
            _ => TIMEOUTS,
        };
        self.lend(self.pool(lane).timeout_get(&timeouts).await, deadline, lane != Lane::Shared)
    }

    /// Borrows a connection for a claim, for what else the loop waits for, or for a probe: a shared one if one is free at
    /// this moment, so that it need not wait behind an ending; else the one kept for work, so that it never waits behind
    /// handlers and the API.
    pub async fn claim_session(&self, deadline: Duration) -> Result<Session, DbError> {
        let at_once = Timeouts { wait: Some(Duration::ZERO), ..TIMEOUTS };
        match self.shared.timeout_get(&at_once).await {
            Err(PoolError::Timeout(TimeoutType::Wait)) => self.session(Lane::Work, deadline).await,
            result => self.lend(result, deadline, true),
        }
    }

    fn lend(
        &self,
        object: Result<Object, PoolError>,
        deadline: Duration,
        is_ours: bool,
    ) -> Result<Session, DbError> {
        match object {
            Ok(object) => Ok(Session {
                object: Some(object),
                deadline,
                contact: self.contact.clone(),
                afterwards: Afterwards::GoesBack,
                is_ours,
                direct: !self.target.transaction_pooler,
                tls: self.tls.clone(),
            }),
            Err(error) => {
                // An exhausted pool says nothing about the database.
                if !matches!(error, PoolError::Timeout(TimeoutType::Wait)) {
                    self.contact.lost();
                }
                Err(DbError::Connect(error.into()))
            }
        }
    }

    /// Borrows a connection for one query.
    pub async fn query(
        &self,
        lane: Lane,
        deadline: Duration,
        sql: &str,
        params: &[Param<'_>],
    ) -> Result<Vec<Row>, DbError> {
        self.session(lane, deadline).await?.query(sql, params).await
    }

    /// For how long the database has answered without a break, as far as this process could see.
    #[must_use]
    pub fn unbroken_for(&self) -> Option<Duration> {
        self.contact.unbroken_for()
    }

    /// Connections (open, in use) of one part.
    #[must_use]
    pub fn usage(&self, lane: Lane) -> (usize, usize) {
        let status = self.pool(lane).status();
        (status.size, status.size.saturating_sub(status.available))
    }

    /// Closes all connections; whoever asks for one from now on is refused.
    pub fn close(&self) {
        for lane in [Lane::Shared, Lane::Work, Lane::Renewal] {
            self.pool(lane).close();
        }
    }

    fn pool(&self, lane: Lane) -> &Pool {
        match lane {
            Lane::Renewal => &self.renewal,
            Lane::Work => &self.work,
            Lane::Shared | Lane::Request => &self.shared,
        }
    }
}

impl Session {
    /// Runs one typed, unnamed statement.
    pub async fn query(&mut self, sql: &str, params: &[Param<'_>]) -> Result<Vec<Row>, DbError> {
        self.ask(async |object| object.query_typed(sql, params).await).await
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

/// The DETAIL quotes rows, so it is for whoever debugs and for nobody else.
fn note_detail(error: tokio_postgres::Error) -> DbError {
    if let Some(detail) = error.as_db_error().and_then(tokio_postgres::error::DbError::detail) {
        tracing::debug!(detail, "what Postgres says beside the error");
    }
    DbError::Postgres(error.into())
}

fn build_pool(target: &Target, tls: Option<MakeRustlsConnect>, size: usize) -> Result<Pool, TargetError> {
    // Fast: a closed connection is noticed without asking the server, and a silently dead one by keepalives and the
    // deadline of its next query. Asking before every query would double an idle instance's traffic.
    let manager = ManagerConfig { recycling_method: RecyclingMethod::Fast };
    let manager = match tls {
        None => Manager::from_config(target.postgres.clone(), NoTls, manager),
        Some(tls) => Manager::from_config(target.postgres.clone(), tls, manager),
    };
    let mut config = PoolConfig::new(size);
    config.timeouts = TIMEOUTS;
    Pool::builder(manager)
        .config(config)
        .runtime(Runtime::Tokio1)
        .build()
        .map_err(|error| TargetError(error.to_string()))
}
