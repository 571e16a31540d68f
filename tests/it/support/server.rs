//! The process's Postgres, started by the first test that needs it and taken away by its guardian.

use std::path::PathBuf;
use std::sync::Arc;

use task_processor::commands::dev::postgres::{EmbeddedPostgres, Options};
use task_processor::config::{Config, env_vars};
use task_processor::db;
use tokio::sync::{OnceCell, OwnedSemaphorePermit, Semaphore};
use tokio_postgres::types::FromSqlOwned;
use tokio_postgres::{Client, NoTls};

use super::eventually;
use super::pooler::Pooler;

pub(crate) const TEMPLATE: &str = "tmpl";
/// Databases alive at a time. Each may have a pooler's ten connections and a few direct ones.
const DATABASES: usize = 16;

static SERVER: OnceCell<Server> = OnceCell::const_new();

pub(crate) struct Server {
    pub(crate) postgres: EmbeddedPostgres,
    pub(crate) pooler: Option<Pooler>,
    databases: Arc<Semaphore>,
}

impl Server {
    pub(crate) async fn get() -> &'static Self {
        SERVER.get_or_init(Self::start).await
    }

    async fn start() -> Self {
        let mut options = Options::throw_away();
        options.max_connections = 300;
        let postgres = EmbeddedPostgres::start(options).await.unwrap_or_else(|error| panic!("{error}"));
        make_template(&postgres).await;
        let pooler = match test_variable("TEST_POOLER").as_deref() {
            Some("pgbouncer") => Some(Pooler::start(&postgres).await),
            None => None,
            Some(other) => panic!("TEST_POOLER is {other:?}; it may be pgbouncer"),
        };
        Self { postgres, pooler, databases: Arc::new(Semaphore::new(DATABASES)) }
    }

    /// The right to one more database.
    pub(crate) async fn permit(&self) -> OwnedSemaphorePermit {
        let databases = self.databases.clone();
        databases.acquire_owned().await.expect("never closed")
    }
}

/// A place for files that goes with the process, whatever ends it.
pub(crate) async fn scratch(name: &str) -> PathBuf {
    Server::get().await.postgres.socket_dir().join(name)
}

/// A variable that only the tests know. Empty counts as absent.
pub(crate) fn test_variable(name: &str) -> Option<String> {
    env_vars().remove(name).filter(|value| !value.is_empty())
}

/// A direct connection, known to the server as `test`.
pub(crate) async fn connect(url: &str) -> Client {
    let mut config: tokio_postgres::Config = url.parse().unwrap_or_else(|error| panic!("{url}: {error}"));
    let (client, connection) = config
        .application_name("test")
        .connect(NoTls)
        .await
        .unwrap_or_else(|error| panic!("{url}: {error:?}"));
    tokio::spawn(connection);
    client
}

/// One value, straight from a server.
pub(crate) async fn value<T: FromSqlOwned>(server: &EmbeddedPostgres, sql: &str) -> T {
    try_value(server, sql).await.expect("an answer")
}

/// The same, unless the server is not there.
pub(crate) async fn try_value<T: FromSqlOwned>(server: &EmbeddedPostgres, sql: &str) -> Option<T> {
    let (client, connection) = tokio_postgres::connect(&server.url("postgres"), NoTls).await.ok()?;
    tokio::spawn(connection);
    Some(client.query_typed(sql, &[]).await.ok()?[0].get(0))
}

async fn make_template(postgres: &EmbeddedPostgres) {
    let admin = connect(&postgres.url("postgres")).await;
    // Supabase's, here before the migrations as they are there.
    for create in
        ["role anon", "role authenticated", "role service_role bypassrls", &format!("database {TEMPLATE}")]
    {
        admin.batch_execute(&format!("create {create}")).await.expect("a fresh server");
    }
    let config = Config::from_vars([("DATABASE_URL", postgres.url(TEMPLATE))]).expect("a configuration");
    let database = db::Database::new(&config.database).expect("a usable URL");
    db::migrate(&database).await.expect("migrations");
    database.close();
    // A database that somebody is connected to cannot be copied.
    let others = format!("select from pg_stat_activity where datname = '{TEMPLATE}'");
    eventually("the template is left alone", async || {
        admin.query_typed(&others, &[]).await.expect("an answer").is_empty()
    })
    .await;
}
