//! What the tests stand on: a server for the process, a database for each test, and patience with a limit.

mod acknowledged;
mod app;
mod db;
mod effects;
mod gate;
mod instance;
mod issuer;
mod model;
mod pooler;
mod proxy;
mod server;
mod smtp;
mod wire;

use std::time::Duration;

use tokio::time::{Instant, sleep};

pub(crate) use acknowledged::{add_tasks, missing};
pub(crate) use app::{KEY, TestApp, answer};
pub(crate) use db::{TestDb, hears};
pub(crate) use effects::{Effects, acting};
pub(crate) use gate::Gate;
pub(crate) use instance::{ACTING_THREADS, Instance};
pub(crate) use issuer::{Issuer, SigningKey, now, token};
pub(crate) use model::{FakeModel, MODEL_KEY, Says};
pub(crate) use proxy::Proxy;
pub(crate) use server::{connect, scratch, test_variable, try_value, value};
pub(crate) use smtp::FakeSmtp;
pub(crate) use wire::{Wire, pass};

/// How long a condition may take to come true before a test gives up.
const PATIENCE: Duration = Duration::from_secs(30);

/// Waits until `condition` holds. Panics with `what` if that takes more than half a minute.
pub(crate) async fn eventually(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let began = Instant::now();
    while !condition().await {
        assert!(began.elapsed() < PATIENCE, "still not true: {what}");
        sleep(Duration::from_millis(20)).await;
    }
}
