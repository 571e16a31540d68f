//! The Postgres of a run: durable, restarted and crashed at will, its log kept over all of its lives.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use task_processor::commands::dev::postgres::{EmbeddedPostgres, Options};
use task_processor::config::Config;
use task_processor::db;
use tokio::sync::Mutex;
use tokio::time::{sleep, timeout};
use tokio_postgres::{Client, NoTls, Row};

use crate::journal::Journal;
use crate::proxy::Proxy;

/// The harness's own questions must not hang where the database does.
const PATIENCE: Duration = Duration::from_secs(10);

pub(crate) struct Server {
    data: PathBuf,
    log: PathBuf,
    postgres: Mutex<Option<EmbeddedPostgres>>,
}

/// How a server is ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    /// Connections are closed, data is written.
    Fast,
    /// As by a power cut: nothing is written, and nothing said.
    Immediate,
}

impl Server {
    /// A migrated database, with its files in `dir`.
    pub(crate) async fn start(dir: &Path) -> Self {
        let data = dir.join("pgdata");
        let postgres = start(&data).await;
        let config = Config::from_vars([("DATABASE_URL", postgres.url("postgres"))]).expect("valid");
        let database = db::Database::new(&config.database).expect("a usable URL");
        db::migrate(&database).await.expect("migrations");
        database.close();
        Self { data, log: dir.join("postgres.log"), postgres: Mutex::new(Some(postgres)) }
    }

    /// A wire to it.
    pub(crate) async fn wire(&self) -> Proxy {
        Proxy::to(self.postgres.lock().await.as_ref().expect("it runs").socket_dir()).await
    }

    /// Straight to it.
    pub(crate) async fn url(&self) -> String {
        self.postgres.lock().await.as_ref().expect("it runs").url("postgres")
    }

    /// Stops it and starts it again, and leads the wires there.
    pub(crate) async fn restart(&self, how: Stop, wires: &[&Proxy]) {
        let mut slot = self.postgres.lock().await;
        let postgres = slot.take().expect("it runs");
        if how == Stop::Fast {
            // One that is recovering from a crash may wait for ever if it is told to stop (seen with 15.18).
            let answers = async || tokio_postgres::connect(&postgres.url("postgres"), NoTls).await.is_ok();
            while !answers().await {
                sleep(Duration::from_millis(20)).await;
            }
        }
        if how == Stop::Immediate {
            let pid = postgres.pid().ok().and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?));
            kill_process(pid.expect("the server's id"), Signal::QUIT).expect("it runs");
        }
        let log = postgres.log_file();
        // After a crash there is nothing left to stop, and that may be said.
        let stopped = postgres.stop().await;
        assert!(how == Stop::Immediate || stopped.is_ok(), "{stopped:?}");
        self.keep(&log);
        let postgres = start(&self.data).await;
        for wire in wires {
            wire.lead_to(postgres.socket_dir());
        }
        *slot = Some(postgres);
    }

    /// A direct connection. None while it is being restarted, or does not answer.
    pub(crate) async fn client(&self) -> Option<Client> {
        let url = self.postgres.lock().await.as_ref()?.url("postgres");
        let connecting = tokio_postgres::connect(&url, NoTls);
        let (client, connection) = timeout(PATIENCE, connecting).await.ok()?.ok()?;
        tokio::spawn(connection);
        Some(client)
    }

    /// Rows, or none if that fails for whatever reason.
    pub(crate) async fn rows(&self, sql: &str) -> Option<Vec<Row>> {
        let client = self.client().await?;
        timeout(PATIENCE, client.query_typed(sql, &[])).await.ok()?.ok()
    }

    /// The first column of the first row, or none.
    pub(crate) async fn value<T: tokio_postgres::types::FromSqlOwned>(&self, sql: &str) -> Option<T> {
        self.rows(sql).await?.first()?.try_get(0).ok()
    }

    /// Stops it for good. Answers all that it has ever said.
    pub(crate) async fn stop(&self) -> String {
        if let Some(postgres) = self.postgres.lock().await.take() {
            let log = postgres.log_file();
            postgres.stop().await.expect("it stops");
            self.keep(&log);
        }
        read(&self.log)
    }

    /// Removes its data.
    pub(crate) async fn forget(&self) {
        self.stop().await;
        let _ = std::fs::remove_dir_all(&self.data);
    }

    /// A start begins the log anew.
    fn keep(&self, log: &Path) {
        Journal::open(&self.log).append(&read(log));
    }
}

/// What a client sent need not be text, and the log repeats it.
fn read(log: &Path) -> String {
    let bytes = std::fs::read(log).unwrap_or_else(|error| panic!("{}: {error}", log.display()));
    assert!(!bytes.is_empty(), "a server says something");
    String::from_utf8_lossy(&bytes).into_owned()
}

async fn start(data: &Path) -> EmbeddedPostgres {
    let mut options = Options::kept(data);
    options.durable = true;
    options.max_connections = 300;
    options.settings = vec![("deadlock_timeout".into(), "200ms".into())];
    EmbeddedPostgres::start(options).await.unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn a_log_that_is_not_text_is_read_all_the_same() {
    let log = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("chaos-log-{}", std::process::id()));
    std::fs::write(&log, b"user \xff\xfe\nERROR:  deadlock detected\n").expect("written");
    assert!(read(&log).contains("deadlock detected"));
    std::fs::remove_file(&log).expect("ours");
}
