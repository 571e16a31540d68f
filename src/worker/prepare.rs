//! Waits until the database can be worked on, creates everything in an empty one, and says what is missing in another.

use std::sync::Mutex;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::engine::Engine;
use super::poller::Until;
use crate::db::{DbError, SchemaState, migrate, schema_state};

/// How often a database that is not ready is looked at again.
const LOOK_AGAIN: Duration = Duration::from_mins(1);
const BACKOFF: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(5));

/// How long a worker that came to work once tries to reach the database. What it finds missing there it does not wait for.
const PATIENCE: Duration = Duration::from_secs(10);

/// Whether this process can work, and if not, what is missing and how to mend it.
pub(super) struct Readiness(Mutex<Result<(), String>>);

impl Default for Readiness {
    fn default() -> Self {
        Self(Mutex::new(Err("the database has not been reached yet".to_owned())))
    }
}

impl Readiness {
    pub(super) fn get(&self) -> Result<(), String> {
        self.0.lock().expect("never poisoned").clone()
    }

    fn set(&self, state: Result<(), String>) {
        *self.0.lock().expect("never poisoned") = state;
    }
}

/// Returns when the schema is complete. A worker that stays waits for a database that is away or not ready: no restart
/// is needed. One that came to work once is told what is missing.
pub(super) async fn prepare(engine: &Engine, migrate_on_start: bool, until: Until) -> Result<(), String> {
    let mut wait = BACKOFF.0;
    let began = Instant::now();
    loop {
        let (missing, again, patience) = match look(engine, migrate_on_start).await {
            Ok(None) => {
                engine.readiness.set(Ok(()));
                return Ok(());
            }
            Ok(Some(missing)) => {
                tracing::error!("not ready: {missing}");
                (missing, LOOK_AGAIN, Duration::ZERO)
            }
            Err(error) => {
                tracing::warn!(%error, "the database cannot be worked on, trying again");
                let again = wait;
                wait = (wait * 2).min(BACKOFF.1);
                ("the database cannot be reached".to_owned(), again, PATIENCE)
            }
        };
        if until == Until::Dry && began.elapsed() >= patience {
            return Err(missing);
        }
        engine.readiness.set(Err(missing));
        sleep(again).await;
    }
}

/// What is missing, if anything that may not be mended here.
async fn look(engine: &Engine, migrate_on_start: bool) -> Result<Option<String>, DbError> {
    let database = engine.queue.database();
    match schema_state(database).await? {
        SchemaState::Current => Ok(None),
        SchemaState::Blind(reason) => Ok(Some(reason)),
        SchemaState::Behind(names) if !migrate_on_start => Ok(Some(format!(
            "this database lacks {}; run `task-processor migrate`, or set MIGRATE_ON_START=true",
            names.join(", ")
        ))),
        SchemaState::Empty | SchemaState::Behind(_) => {
            migrate(database).await?;
            // Once more, for what a migration cannot give: rights.
            match schema_state(database).await? {
                SchemaState::Blind(reason) => Ok(Some(reason)),
                _ => Ok(None),
            }
        }
    }
}
