//! A database of its own for each test.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use task_processor::config::Config;
use task_processor::db::Database;
use task_processor::queue::Queue;
use task_processor::telemetry::metrics::Metrics;
use tokio::sync::{Mutex, OwnedSemaphorePermit};
use tokio_postgres::types::FromSqlOwned;
use tokio_postgres::{Client, Row};
use uuid::Uuid;

use super::server::{self, Server, TEMPLATE, test_variable};
use super::{Proxy, eventually};

static NUMBER: AtomicU32 = AtomicU32::new(0);

/// One database, dropped with this. Its own statements go through one direct connection, which the server knows by the
/// application name `test`.
pub(crate) struct TestDb {
    name: String,
    server: &'static Server,
    client: Mutex<Option<Arc<Client>>>,
    permit: Option<OwnedSemaphorePermit>,
}

impl TestDb {
    /// A migrated database.
    pub(crate) async fn new() -> Self {
        Self::copy_of(TEMPLATE).await
    }

    /// A database without tables.
    pub(crate) async fn empty() -> Self {
        Self::copy_of("template0").await
    }

    async fn copy_of(template: &str) -> Self {
        let server = Server::get().await;
        let permit = server.permit().await;
        let name = format!("t_{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        let admin = server::connect(&server.postgres.url("postgres")).await;
        let sql = format!("create database {name} template {template}");
        admin.batch_execute(&sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
        Self { name, server, client: Mutex::default(), permit: Some(permit) }
    }

    /// As the service connects: through the pooler that `TEST_POOLER` names, if it names one.
    pub(crate) fn url(&self) -> String {
        match &self.server.pooler {
            Some(pooler) => pooler.url(&self.name),
            None => self.direct_url(),
        }
    }

    /// Straight to the server.
    pub(crate) fn direct_url(&self) -> String {
        self.server.postgres.url(&self.name)
    }

    /// A way there over TCP, for whom the server's socket is out of reach, and its URL.
    pub(crate) async fn over_tcp(&self) -> (Proxy, String) {
        let proxy = Proxy::to(self.server.postgres.socket_dir()).await;
        let url = proxy.url(&self.name);
        (proxy, url)
    }

    /// Lets new connections through a wire that was cut.
    pub(crate) fn lead(&self, wire: &Proxy) {
        wire.lead_to(self.server.postgres.socket_dir());
    }

    /// The environment for this database. Retries come after a second, and the poll is so rare that only a wake-up
    /// explains work done at once; where nothing can listen (`TEST_LISTEN=off`), it is frequent. The last of two values
    /// for a variable counts.
    pub(crate) fn vars(&self, extra: &[(&str, &str)]) -> Vec<(String, String)> {
        let (listen_url, poll) = match hears() {
            false => (self.direct_url() + "&pgbouncer=true", "200"),
            true => (self.direct_url(), "120000"),
        };
        let url = self.url();
        let vars = [
            ("DATABASE_URL", url.as_str()),
            ("LISTEN_DATABASE_URL", &listen_url),
            ("PORT", "0"),
            ("POLLING_INTERVAL_MS", poll),
            ("RETRY_BASE_SECONDS", "1"),
            ("SHUTDOWN_GRACE_SECONDS", "1"),
            ("API_KEYS", "test-key-0123456789abcdef"),
        ];
        let vars = vars.iter().chain(extra).map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        vars.collect::<HashMap<_, _>>().into_iter().collect()
    }

    /// The configuration made of [`TestDb::vars`], on the loopback address.
    pub(crate) fn config(&self, extra: &[(&str, &str)]) -> Config {
        let mut config = Config::from_vars(self.vars(extra)).unwrap_or_else(|error| panic!("{error}"));
        config.http.host = [127, 0, 0, 1].into();
        config
    }

    /// The queue for a worker of that name, configured by [`TestDb::config`].
    pub(crate) fn queue(&self, worker: &str, extra: &[(&str, &str)]) -> Queue {
        let config = self.config(extra);
        let database = Database::new(&config.database).expect("a usable URL");
        Queue::new(database, worker, &config.worker, Arc::new(Metrics::new()))
    }

    /// Runs statements that answer nothing.
    pub(crate) async fn execute(&self, sql: &str) {
        self.client().await.batch_execute(sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    }

    /// The rows of one statement.
    pub(crate) async fn rows(&self, sql: &str) -> Vec<Row> {
        self.client().await.query_typed(sql, &[]).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"))
    }

    /// The first column of the only row.
    pub(crate) async fn value<T: FromSqlOwned>(&self, sql: &str) -> T {
        let rows = self.rows(sql).await;
        assert_eq!(rows.len(), 1, "rows of {sql}");
        rows[0].try_get(0).unwrap_or_else(|error| panic!("{sql}: {error:?}"))
    }

    /// Whether a condition holds for the task's row.
    pub(crate) async fn task_is(&self, id: Uuid, condition: &str) -> bool {
        self.value(&format!("select ({condition}) is true from agent_tasks where id = '{id}'")).await
    }

    /// Waits until a condition holds for the task's row.
    pub(crate) async fn task_becomes(&self, id: Uuid, condition: &str) {
        eventually(condition, async || self.task_is(id, condition).await).await;
    }

    /// Waits until the statement answers `true`.
    pub(crate) async fn eventually(&self, what: &str, sql_returning_bool: &str) {
        eventually(what, async || self.value(sql_returning_bool).await).await;
    }

    /// Buffers that a call of one of our functions touches.
    pub(crate) async fn buffers_of(&self, call: &str) -> i64 {
        // In a transaction that is rolled back: every measurement finds the same tasks.
        self.execute("begin").await;
        let sql = format!("explain (analyze, buffers, format json) select {call}");
        let plan = &self.value::<serde_json::Value>(&sql).await[0]["Plan"];
        self.execute("rollback").await;
        let blocks = |kind: &str| plan[kind].as_i64().expect("a number");
        blocks("Shared Hit Blocks") + blocks("Shared Read Blocks")
    }

    async fn client(&self) -> Arc<Client> {
        let mut slot = self.client.lock().await;
        match slot.as_ref().filter(|client| !client.is_closed()) {
            Some(client) => client.clone(),
            None => slot.insert(Arc::new(server::connect(&self.direct_url()).await)).clone(),
        }
    }
}

impl Drop for TestDb {
    fn drop(&mut self) {
        let (url, permit) = (self.server.postgres.url("postgres"), self.permit.take());
        let sql = format!("drop database {} with (force)", self.name);
        // On a thread of its own: the test's runtime may be at its end.
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime").block_on(async {
                let dropped = server::connect(&url).await.batch_execute(&sql).await;
                dropped.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
            });
            drop(permit);
        });
    }
}

/// Whether notifications reach anybody in this run.
pub(crate) fn hears() -> bool {
    test_variable("TEST_LISTEN").as_deref() != Some("off")
}
