//! The Postgres of a benchmark: private, with the durability of production, gone when the benchmark ends.

use std::path::PathBuf;

use anyhow::{Context, bail};
use task_processor::commands::dev::postgres::{EmbeddedPostgres, Options};
use task_processor::config::Config;
use task_processor::db;

use crate::db::{Db, connect};

/// Where what the migrations make is copied from.
const MIGRATED: &str = "migrated";

/// A running server and what is needed to make databases on it.
pub(crate) struct Server {
    postgres: EmbeddedPostgres,
    admin: tokio_postgres::Client,
    /// Where pgbench is.
    programs: PathBuf,
}

impl Server {
    /// Stock settings but for the memory, as the peers are measured (`shared_buffers`), and for what counts statements.
    pub(crate) async fn start() -> anyhow::Result<Self> {
        let settings = [("shared_buffers", "1GB"), ("shared_preload_libraries", "pg_stat_statements")];
        let settings = settings.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
        let options = Options { durable: true, settings, ..Options::throw_away() };
        let postgres = EmbeddedPostgres::start(options).await?;
        let admin = connect(&postgres.url("postgres")).await?;
        // The harness's own statements run as `meter`, so that they can be told from those that are measured.
        admin.batch_execute("create extension pg_stat_statements; create role meter superuser login").await?;
        let rows = admin.query_typed("select setting from pg_config where name = 'BINDIR'", &[]).await?;
        let programs: String = rows[0].try_get(0)?;
        let server = Self { postgres, admin, programs: programs.into() };
        server.migrate().await?;
        Ok(server)
    }

    /// A database that looks like the template of this name, which is made by `fill` at its first use.
    pub(crate) async fn copy_of(
        &self,
        template: &str,
        fill: impl AsyncFnOnce(&Db) -> anyhow::Result<()>,
    ) -> anyhow::Result<Db> {
        let exists = format!("select from pg_database where datname = '{template}'");
        if self.admin.query_typed(&exists, &[]).await?.is_empty() {
            let db = self.create("filling", MIGRATED).await?;
            fill(&db).await?;
            db.execute("vacuum analyze").await?;
            db.close().await;
            self.batch(&format!("alter database filling rename to {template}")).await?;
        }
        self.create("bench", template).await
    }

    /// A migrated database without rows.
    pub(crate) async fn fresh(&self) -> anyhow::Result<Db> {
        self.create("bench", MIGRATED).await
    }

    /// Takes a database away that is no longer needed.
    pub(crate) async fn remove(&self, db: Db) -> anyhow::Result<()> {
        let name = db.name().to_owned();
        db.close().await;
        self.batch(&format!("drop database {name} with (force)")).await
    }

    /// As the administrator, outside the database that is measured.
    pub(crate) fn admin(&self) -> &tokio_postgres::Client {
        &self.admin
    }

    /// Of the server's first process.
    pub(crate) fn pid(&self) -> anyhow::Result<u32> {
        Ok(self.postgres.pid()?)
    }

    /// A program of the server's distribution that is pointed at this server.
    pub(crate) fn program(&self, name: &str) -> tokio::process::Command {
        let mut command = tokio::process::Command::new(self.programs.join(name));
        command.arg("-h").arg(self.postgres.socket_dir()).args(["-U", "postgres"]);
        command
    }

    /// Fills write-ahead log with nothing, to be reused after the next checkpoint.
    pub(crate) async fn warm_wal(&self) -> anyhow::Result<()> {
        for setting in ["max_wal_size = '8GB'", "min_wal_size = '4GB'"] {
            self.batch(&format!("alter system set {setting}")).await?;
        }
        let fill =
            "select pg_logical_emit_message(false, '', repeat('x', 1 << 20)) from generate_series(1, 4096)";
        self.batch(&format!(
            "select pg_reload_conf(); do $$ begin perform count(m) from ({fill}) filled(m); end $$"
        ))
        .await?;
        self.batch("checkpoint").await
    }

    /// Begins a measurement from the same state of the disk as all others.
    pub(crate) async fn settle(&self) -> anyhow::Result<()> {
        self.batch("checkpoint").await?;
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
        Ok(())
    }

    pub(crate) async fn stop(self) -> anyhow::Result<()> {
        drop(self.admin);
        Ok(self.postgres.stop().await?)
    }

    async fn create(&self, name: &str, template: &str) -> anyhow::Result<Db> {
        self.batch(&format!("drop database if exists {name} with (force)")).await?;
        self.batch(&format!("create database {name} template {template} strategy file_copy")).await?;
        Db::open(name, self.postgres.url(name)).await
    }

    async fn migrate(&self) -> anyhow::Result<()> {
        self.batch(&format!("create database {MIGRATED}")).await?;
        let config = Config::from_vars([("DATABASE_URL", self.postgres.url(MIGRATED))])?;
        let database = db::Database::new(&config.database)?;
        db::migrate(&database).await?;
        database.close();
        self.until_left_alone(MIGRATED).await
    }

    /// A database that somebody is connected to cannot be copied, and connections close a moment later.
    async fn until_left_alone(&self, name: &str) -> anyhow::Result<()> {
        let others = format!("select from pg_stat_activity where datname = '{name}'");
        for _ in 0..500 {
            if self.admin.query_typed(&others, &[]).await?.is_empty() {
                return Ok(());
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        bail!("somebody stays connected to {name}")
    }

    async fn batch(&self, sql: &str) -> anyhow::Result<()> {
        self.admin.batch_execute(sql).await.with_context(|| sql.to_owned())
    }
}
