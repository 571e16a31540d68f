//! One database that is measured, and the harness's own connection to it.

use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, ensure};
use task_processor::config::Config;
use task_processor::db::{Database, Param};
use tokio::task::JoinHandle;
use tokio_postgres::types::FromSqlOwned;
use tokio_postgres::{Client, NoTls, Row};

/// A database. Statements through this are the harness's and counted nowhere.
pub(crate) struct Db {
    name: String,
    url: String,
    client: Client,
    connection: JoinHandle<()>,
    asked: AtomicU32,
}

impl Db {
    pub(crate) async fn open(name: &str, url: String) -> anyhow::Result<Self> {
        let (client, connection) = as_meter(&url).await?;
        Ok(Self { name: name.to_owned(), url, client, connection, asked: AtomicU32::new(0) })
    }

    /// Closes the connection and waits until it is closed.
    pub(crate) async fn close(self) {
        drop(self.client);
        let _ = self.connection.await;
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// For those that are measured.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// One more connection of the harness.
    pub(crate) async fn another(&self) -> anyhow::Result<Client> {
        Ok(as_meter(&self.url).await?.0)
    }

    /// A pool as the service would open it.
    pub(crate) fn pool(&self, size: usize) -> anyhow::Result<(Database, Config)> {
        let vars = [("DATABASE_URL", self.url.clone()), ("DATABASE_POOL_SIZE", size.to_string())];
        let config = Config::from_vars(vars)?;
        Ok((Database::new(&config.database)?, config))
    }

    /// How many statements the harness has run here.
    pub(crate) fn asked(&self) -> f64 {
        f64::from(self.asked.load(Ordering::Relaxed))
    }

    /// Somebody ran so many over a connection of their own.
    pub(crate) fn count(&self, statements: u32) {
        self.asked.fetch_add(statements, Ordering::Relaxed);
    }

    /// Has our own statements counted by the server at once, not a while later.
    pub(crate) async fn flush_statistics(&self) -> anyhow::Result<()> {
        self.rows("select pg_stat_force_next_flush()").await?;
        Ok(())
    }

    /// Runs statements that answer nothing.
    pub(crate) async fn execute(&self, sql: &str) -> anyhow::Result<()> {
        self.count(1);
        self.client.batch_execute(sql).await.with_context(|| sql.to_owned())
    }

    pub(crate) async fn rows(&self, sql: &str) -> anyhow::Result<Vec<Row>> {
        self.ask(sql, &[]).await
    }

    /// The same with parameters.
    pub(crate) async fn ask(&self, sql: &str, params: &[Param<'_>]) -> anyhow::Result<Vec<Row>> {
        self.count(1);
        self.client.query_typed(sql, params).await.with_context(|| sql.to_owned())
    }

    /// The only row.
    pub(crate) async fn row(&self, sql: &str) -> anyhow::Result<Row> {
        let mut rows = self.rows(sql).await?;
        ensure!(rows.len() == 1, "{} rows instead of one: {sql}", rows.len());
        Ok(rows.remove(0))
    }

    /// The first column of the only row.
    pub(crate) async fn value<T: FromSqlOwned>(&self, sql: &str) -> anyhow::Result<T> {
        Ok(self.row(sql).await?.try_get(0)?)
    }
}

/// A connection with the rights of whoever the URL names.
pub(crate) async fn connect(url: &str) -> anyhow::Result<Client> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.with_context(|| url.to_owned())?;
    tokio::spawn(connection);
    Ok(client)
}

async fn as_meter(url: &str) -> anyhow::Result<(Client, JoinHandle<()>)> {
    let mut config: tokio_postgres::Config = url.parse()?;
    let (client, connection) = config.user("meter").connect(NoTls).await.with_context(|| url.to_owned())?;
    let connection = tokio::spawn(async move {
        let _ = connection.await;
    });
    Ok((client, connection))
}
