//! For tests of handlers: a throw-away Postgres, and attempts and whole tasks on it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use serde_json::Value;
use tokio::sync::OnceCell;

use crate::app::App;
use crate::commands::dev::postgres::{EmbeddedPostgres, Options};
use crate::config::Config;
use crate::db::{Database, Lane, migrate};
use crate::handler::{Outcome, Registry};
use crate::queue::{NewTask, Queue};
use crate::services::Services;
use crate::telemetry::metrics::Metrics;

const TEMPLATE: &str = "template_of_tests";
const PATIENCE: Duration = Duration::from_secs(30);

static SERVER: OnceCell<EmbeddedPostgres> = OnceCell::const_new();
static NUMBER: AtomicU32 = AtomicU32::new(0);

/// A migrated database of its own. The server is started by the first test that asks for one, shared by all tests of the
/// process, and gone with it. Whatever goes wrong panics, with the reason.
///
/// ```
/// use serde_json::json;
/// use task_processor::queue::NewTask;
/// use task_processor::testing::TestDatabase;
/// use task_processor::{Outcome, handlers};
///
/// # tokio::runtime::Runtime::new().unwrap().block_on(async {
/// let db = TestDatabase::new().await;
/// let task = NewTask::new("echo", json!({ "a": 1 }));
/// assert_eq!(db.attempt(&handlers::all(), task.clone()).await, Outcome::complete(json!({ "a": 1 })));
/// assert_eq!(db.work(&handlers::all(), task).await["status"], "completed");
/// # });
/// ```
pub struct TestDatabase {
    url: String,
    config: Config,
    queue: Queue,
}

impl TestDatabase {
    /// Needs the programs of Postgres on this machine, and nothing else.
    pub async fn new() -> Self {
        let server = SERVER.get_or_init(start).await;
        let name = format!("test_{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        create(server, &format!("{name} template {TEMPLATE}")).await;
        let url = server.url(&name);
        let config = Config::from_vars([("DATABASE_URL", &url)]).expect("a configuration");
        let database = Database::new(&config.database).expect("a usable URL");
        let queue = Queue::new(database, name, &config.worker, Arc::new(Metrics::new()));
        Self { url, config, queue }
    }

    /// For connections of your own.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The queue in it.
    #[must_use]
    pub fn queue(&self) -> &Queue {
        &self.queue
    }

    /// What a handler gets.
    #[must_use]
    pub fn services(&self) -> Services {
        Services::new(self.queue.clone())
    }

    /// Runs statements, to prepare what a handler is to find.
    pub async fn execute(&self, sql: &str) {
        execute(self.queue.database(), sql).await;
    }

    /// Adds a task, claims it and makes one attempt at it: the handler's answer. Nothing is done about the answer.
    pub async fn attempt(&self, handlers: &Registry, task: NewTask) -> Outcome {
        let task_type = task.task_type.clone();
        let added = self.queue.enqueue_one(task).await.unwrap_or_else(|error| panic!("{error}"));
        let claimed = self.queue.claim(std::slice::from_ref(&task_type), 1_000).await;
        let claimed = claimed.unwrap_or_else(|error| panic!("{error}"));
        let ours = claimed.into_iter().find(|claimed| claimed.lease.id == added.id);
        let task = ours.expect("a task that is due").task.unwrap_or_else(|error| panic!("{error:?}"));
        let outcome = handlers.run(task, self.services()).await;
        outcome.unwrap_or_else(|| panic!("no handler for task type: {task_type}"))
    }

    /// Adds a task and works off all that is due, as `task-processor once` does: the task's row, an object with the columns'
    /// names. A task that is to be retried is `pending` then.
    pub async fn work(&self, handlers: &Registry, task: NewTask) -> Value {
        let added = self.queue.enqueue_one(task).await.unwrap_or_else(|error| panic!("{error}"));
        let app = App::build(self.config.clone(), handlers.clone()).expect("a usable URL");
        app.run_once().await.unwrap_or_else(|error| panic!("{error:#}"));
        let row = self.queue.get(added.id).await.unwrap_or_else(|error| panic!("{error}"));
        row.expect("the task that was added")
    }
}

async fn start() -> EmbeddedPostgres {
    let server = EmbeddedPostgres::start(Options::throw_away()).await;
    let server = server.unwrap_or_else(|error| panic!("{error}"));
    create(&server, TEMPLATE).await;
    let template = connect(&server, TEMPLATE);
    migrate(&template).await.unwrap_or_else(|error| panic!("{error}"));
    template.close();
    // A database that somebody is connected to cannot be copied.
    let gone = format!(
        "do $$ begin
            while exists (select from pg_stat_activity where datname = '{TEMPLATE}') loop
                perform pg_sleep(0.01);
                perform pg_stat_clear_snapshot();
            end loop;
        end $$"
    );
    execute(&connect(&server, "postgres"), &gone).await;
    server
}

async fn create(server: &EmbeddedPostgres, database: &str) {
    execute(&connect(server, "postgres"), &format!("create database {database}")).await;
}

fn connect(server: &EmbeddedPostgres, database: &str) -> Database {
    let config = Config::from_vars([("DATABASE_URL", server.url(database))]).expect("a configuration");
    Database::new(&config.database).expect("a usable URL")
}

async fn execute(database: &Database, sql: &str) {
    let session = database.session(Lane::Shared, PATIENCE).await;
    let mut session = session.unwrap_or_else(|error| panic!("{error}"));
    session.batch(sql).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
}
