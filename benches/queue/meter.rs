//! What work costs: the server's time, log, statements and transactions, and the workers' time and memory.

use std::time::Duration;

use crate::db::Db;
use crate::process;
use crate::server::Server;
use crate::table::Sample;
use crate::worker::Worker;

/// Statements of the harness run as `meter` and are left out. Nested ones, in functions, count as part of theirs.
const STATEMENTS: &str = "
    select coalesce(sum(calls), 0)::float8
    from pg_stat_statements
    where dbid = (select oid from pg_database where datname = '{name}')
        and userid <> 'meter'::regrole";

const TRANSACTIONS: &str =
    "select (xact_commit + xact_rollback)::float8 from pg_stat_database where datname = '{name}'";

/// The counters at one moment.
struct Reading {
    postgres: Duration,
    wal: f64,
    statements: f64,
    own: Duration,
}

/// A measurement under way.
pub(crate) struct Meter<'a> {
    server: &'a Server,
    db: &'a Db,
    began: Reading,
    transactions: f64,
}

/// What was used since a [`Meter`] began.
#[derive(Clone, Copy)]
pub(crate) struct Cost {
    postgres: Duration,
    wal: f64,
    statements: f64,
    own: Duration,
    /// The most that one worker needed.
    peak_megabytes: Option<f64>,
}

impl<'a> Meter<'a> {
    /// Begins. `workers` are those that run already; others are counted from their start.
    pub(crate) async fn begin(server: &'a Server, db: &'a Db, workers: &[Worker]) -> anyhow::Result<Self> {
        let transactions = transactions(server, db).await?;
        let began = read(server, db, workers).await?;
        Ok(Self { server, db, began, transactions })
    }

    /// What was used up to now.
    pub(crate) async fn read(&self, workers: &[Worker]) -> anyhow::Result<Cost> {
        let now = read(self.server, self.db, workers).await?;
        let peaks = workers.iter().map(Worker::peak_megabytes).collect::<anyhow::Result<Vec<_>>>()?;
        Ok(Cost {
            postgres: now.postgres.saturating_sub(self.began.postgres),
            wal: now.wal - self.began.wal,
            statements: now.statements - self.began.statements,
            own: now.own.saturating_sub(self.began.own),
            peak_megabytes: peaks.into_iter().reduce(f64::max),
        })
    }

    /// Transactions since the beginning, the harness's left out. A session counts its own late, up to ten seconds while
    /// it is idle, and at its end at the latest: exact once the workers are gone.
    pub(crate) async fn transactions(&self) -> anyhow::Result<f64> {
        Ok(transactions(self.server, self.db).await? - self.transactions)
    }
}

impl Cost {
    /// The time of somebody who is no [`Worker`].
    pub(crate) fn with_own(mut self, own: Duration) -> Self {
        self.own = own;
        self
    }

    /// As columns, for so many tasks.
    pub(crate) fn per_task(&self, tasks: f64, transactions: f64) -> Sample {
        let mut sample = vec![
            ("postgres µs/task", micros(self.postgres) / tasks),
            ("WAL B/task", self.wal / tasks),
            ("own µs/task", micros(self.own) / tasks),
        ];
        sample.extend(self.peak_megabytes.map(|peak| ("RSS MB", peak)));
        sample.extend([("stmts/task", self.statements / tasks), ("tx/task", transactions / tasks)]);
        sample
    }

    /// As columns, for so much time.
    pub(crate) fn per_second(&self, time: Duration) -> Sample {
        let seconds = time.as_secs_f64();
        let mut sample = vec![
            ("stmts/s", self.statements / seconds),
            ("own CPU ms/s", micros(self.own) / 1e3 / seconds),
            ("postgres ms/s", micros(self.postgres) / 1e3 / seconds),
            ("WAL B/s", self.wal / seconds),
        ];
        sample.extend(self.peak_megabytes.map(|peak| ("RSS MB", peak)));
        sample
    }
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

async fn read(server: &Server, db: &Db, workers: &[Worker]) -> anyhow::Result<Reading> {
    // The scheduler's counters first: what follows is work of the server, too.
    let own = workers.iter().map(Worker::cpu).sum::<anyhow::Result<Duration>>()?;
    let postgres = process::cpu_of_family(server.pid()?)?;
    let sql = format!(
        "select (pg_current_wal_lsn() - '0/0')::float8, ({})",
        STATEMENTS.replace("{name}", db.name())
    );
    let rows = server.admin().query_typed(&sql, &[]).await?;
    Ok(Reading { postgres, wal: rows[0].try_get(0)?, statements: rows[0].try_get(1)?, own })
}

/// So far, less those of the harness.
async fn transactions(server: &Server, db: &Db) -> anyhow::Result<f64> {
    db.flush_statistics().await?;
    let sql = TRANSACTIONS.replace("{name}", db.name());
    let rows = server.admin().query_typed(&sql, &[]).await?;
    Ok(rows[0].try_get::<_, f64>(0)? - db.asked())
}
