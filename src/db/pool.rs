//! The pool, in three parts, so that neither a busy API nor a busy queue can keep a lease from being renewed.

use std::sync::Arc;
use std::time::Duration;

use deadpool_postgres::{
    Manager, ManagerConfig, Object, Pool, PoolConfig, PoolError, RecyclingMethod, Runtime, TimeoutType,
    Timeouts,
};
use tokio_postgres::{NoTls, Row};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::contact::Contact;
use super::session::{Afterwards, Backends, Param, Session};
use super::target::{SslMode, Target, TargetError};
use super::{DbError, tls};
use crate::config::DatabaseConfig;

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

/// All connections of this process but the listening one. Clones share them.
#[derive(Clone)]
pub struct Database {
    target: Target,
    ca_cert: Option<Arc<str>>,
    renewal: Pool,
    work: Pool,
    shared: Pool,
    contact: Arc<Contact>,
    backends: Arc<Backends>,
    tls: Option<MakeRustlsConnect>,
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
        let (contact, backends) = Default::default();
        Ok(Self { target, ca_cert, renewal, work, shared, contact, backends, tls })
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

    /// A notification has come in on an idle connection to `target`: none to there is shared with others.
    pub(super) fn has_sessions(&self, target: &Target) {
        if !self.target.transaction_pooler && target.postgres == self.target.postgres {
            self.backends.are_own();
        }
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
                backends: self.backends.clone(),
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
