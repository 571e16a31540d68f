//! The composition root: the only place that knows everyone.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context;
use axum::Router;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::clients::Clients;
use crate::config::{Config, instance_name};
use crate::db::Database;
use crate::handler::Registry;
use crate::http::{Server, router, worker_router};
use crate::queue::Queue;
use crate::services::Services;
use crate::shutdown::Shutdown;
use crate::telemetry::metrics::Metrics;
use crate::worker::{Worked, Worker, WorkerHandle};

/// Which doors are open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doors {
    /// All faces.
    All,
    /// Health probes only.
    Probes,
}

/// A process, put together from its configuration: nothing is connected, bound or claimed yet.
pub struct App {
    config: Config,
    worker: Worker,
    shutdown: Shutdown,
}

/// A process whose address is bound.
pub struct Bound {
    app: App,
    server: Server,
    router: Router,
    address: SocketAddr,
}

impl App {
    /// Puts the process together. Must be called on the runtime it is to run on.
    pub fn build(config: Config, registry: Registry) -> anyhow::Result<Self> {
        let metrics = Arc::new(Metrics::new());
        let database = Database::new(&config.database).context("the database is not configured")?;
        let queue = Queue::new(database, instance_name(), &config.worker, metrics.clone());
        let shutdown = Shutdown::new(config.worker.shutdown_grace);
        let services = Services::new(queue).with_clients(Clients::new(&config)?);
        let worker = Worker::new(&config, registry, services, metrics, shutdown.clone())
            .context("the database is not configured")?;
        Ok(Self { config, worker, shutdown })
    }

    /// The worker, seen from outside.
    #[must_use]
    pub fn worker(&self) -> WorkerHandle {
        self.worker.handle()
    }

    /// How to stop it.
    #[must_use]
    pub fn shutdown(&self) -> &Shutdown {
        &self.shutdown
    }

    /// Binds the address. HTTP comes first: probes are answered while the database is still being reached.
    pub async fn bind(self, doors: Doors) -> anyhow::Result<Bound> {
        let http = &self.config.http;
        let server =
            Server::bind(http).await.with_context(|| format!("cannot listen on port {}", http.port))?;
        let address = server.address()?;
        let router = match doors {
            Doors::All => router(self.worker(), http),
            Doors::Probes => worker_router(self.worker()),
        };
        Ok(Bound { app: self, server, router, address })
    }

    /// Works off what is due, without any door, and ends.
    pub async fn run_once(self) -> anyhow::Result<Worked> {
        Ok(self.worker.run_once().await?)
    }
}

impl Bound {
    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The worker, seen from outside.
    #[must_use]
    pub fn worker(&self) -> WorkerHandle {
        self.app.worker()
    }

    /// How to stop it.
    #[must_use]
    pub fn shutdown(&self) -> &Shutdown {
        self.app.shutdown()
    }

    /// Serves and works until the shutdown, then drains. Answers the exit code.
    pub async fn run(self) -> anyhow::Result<i32> {
        let Self { app, server, router, address } = self;
        tracing::info!(%address, "listening");
        let queue = app.worker().queue().clone();
        let closed = CancellationToken::new();
        // The doors stay open until the work has ended: readiness has to be told while tasks are being finished.
        let serving = tokio::spawn(server.serve(router, closed.clone()));
        // A task of its own: on the thread that blocks on the runtime, the loop would have to be woken from another one for
        // every claim (measured: a tenth of the time from commit to start).
        let worked = AbortOnDropHandle::new(tokio::spawn(app.worker.run())).await;
        closed.cancel();
        let _ = serving.await;
        queue.database().close();
        worked.context("the worker has panicked")?.context("the renewal thread cannot be started")?;
        tracing::info!("stopped");
        Ok(app.shutdown.exit_code())
    }
}
