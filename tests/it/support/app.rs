//! The service inside the test's process, put together as `main` does it.

use std::net::SocketAddr;

use serde_json::Value;
use task_processor::app::{App, Doors};
use task_processor::config::Config;
use task_processor::handler::Registry;
use task_processor::handlers;
use task_processor::queue::{NewTask, Queue};
use task_processor::shutdown::Shutdown;
use task_processor::worker::WorkerHandle;
use tokio::task::JoinHandle;
use uuid::Uuid;

use super::{Proxy, TestDb, eventually, hears};

/// The key that [`TestDb::config`] sets.
pub(crate) const KEY: &str = "test-key-0123456789abcdef";

/// A running service. Ends, releasing what it holds, when [`TestApp::stop`] is called.
pub(crate) struct TestApp {
    pub(crate) address: SocketAddr,
    pub(crate) worker: WorkerHandle,
    pub(crate) shutdown: Shutdown,
    pub(crate) http: reqwest::Client,
    running: JoinHandle<anyhow::Result<i32>>,
}

impl TestApp {
    /// With the built-in handlers.
    pub(crate) async fn start(db: &TestDb, extra: &[(&str, &str)]) -> Self {
        Self::start_with(db.config(extra), handlers::all()).await
    }

    pub(crate) async fn start_with(config: Config, registry: Registry) -> Self {
        let app = App::build(config, registry).expect("an app");
        let bound = app.bind(Doors::All).await.expect("a free port");
        let (address, worker, shutdown) = (bound.address(), bound.worker(), bound.shutdown().clone());
        Self { address, worker, shutdown, http: client(), running: tokio::spawn(bound.run()) }
    }

    /// With the built-in handlers, at the other end of the given wire, on the server's first database. Waits until it works.
    pub(crate) async fn behind(wire: &Proxy, extra: &[(&str, &str)]) -> Self {
        Self::behind_with(wire, extra, handlers::all()).await
    }

    /// The same, with other handlers.
    pub(crate) async fn behind_with(wire: &Proxy, extra: &[(&str, &str)], registry: Registry) -> Self {
        let url = wire.url("postgres");
        let vars = [("DATABASE_URL", url.as_str()), ("PORT", "0"), ("SHUTDOWN_GRACE_SECONDS", "1")];
        let mut config = Config::from_vars(vars.into_iter().chain(extra.iter().copied())).expect("valid");
        config.http.host = [127, 0, 0, 1].into();
        let app = Self::start_with(config, registry).await;
        app.ready().await;
        app
    }

    /// Waits until it hears notifications, where anybody can.
    pub(crate) async fn listens(&self) {
        eventually("it listens", async || self.worker.is_listening() || !hears()).await;
    }

    /// Waits until it works.
    pub(crate) async fn ready(&self) {
        eventually("it is ready", async || self.get("/health/ready").await.0 == 200).await;
    }

    pub(crate) fn queue(&self) -> &Queue {
        self.worker.queue()
    }

    /// Adds a task for the handler `echo`, which does what the context says.
    pub(crate) async fn add(&self, context: Value) -> Uuid {
        self.queue().enqueue_one(NewTask::new("echo", context)).await.expect("a task").id
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// GET without a key: status and body.
    pub(crate) async fn get(&self, path: &str) -> (u16, Value) {
        answer(self.http.get(self.url(path))).await
    }

    /// POST with the key: status and body.
    pub(crate) async fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        answer(self.http.post(self.url(path)).bearer_auth(KEY).json(body)).await
    }

    /// Begins the shutdown and waits for its end: the exit code.
    pub(crate) async fn stop(self) -> i32 {
        self.shutdown.begin();
        self.running.await.expect("no panic").expect("an orderly end")
    }
}

/// One that goes to loopback addresses whatever the environment says.
pub(super) fn client() -> reqwest::Client {
    reqwest::Client::builder().no_proxy().build().expect("a client")
}

/// Sends the request: status and body, null if that is no JSON.
pub(crate) async fn answer(request: reqwest::RequestBuilder) -> (u16, Value) {
    let response = request.send().await.expect("an answer");
    let status = response.status().as_u16();
    (status, response.json().await.unwrap_or_default())
}
