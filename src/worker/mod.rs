//! Claims tasks and runs them: claim → run → end, and on the side renew, rescue, listen.

mod appetite;
mod dispatch;
mod ears;
mod engine;
mod execute;
mod finisher;
mod handle;
mod leases;
mod maintenance;
mod poller;
mod prepare;
mod quiet;
mod renewal;
mod scope;
mod stats;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, RwLock, Semaphore};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::config::{Config, PollMode};
use crate::db::{Listener, Target, TargetError};
use crate::handler::Registry;
use crate::queue::{CANCEL_CHANNEL, Queue, WAKE_CHANNEL};
use crate::services::Services;
use crate::shutdown::Shutdown;
use crate::telemetry::metrics::Metrics;
use engine::Engine;
use finisher::Finisher;
use leases::Leases;
use poller::Until;
use prepare::Readiness;
use scope::Scope;
use stats::Stats;

pub use handle::{Condition, Drained, WorkerHandle};
pub use scope::Worked;
pub use stats::Counts;

/// After the grace period: cutting handlers short and writing that down.
const RELEASE_WITHIN: Duration = Duration::from_millis(1_200);

/// A worker, before it runs.
pub struct Worker {
    engine: Arc<Engine>,
    listener: Option<(Listener, tokio::sync::mpsc::Receiver<crate::db::Heard>)>,
    migrate_on_start: bool,
}

impl Worker {
    /// Puts a worker together on the current runtime. Nothing is claimed before [`Worker::run`].
    pub fn new(
        config: &Config,
        registry: Registry,
        queue: Queue,
        metrics: Arc<Metrics>,
        shutdown: Shutdown,
    ) -> Result<Self, TargetError> {
        let target = config.database.listen_url.as_ref().map(parse_target).transpose()?;
        let (listener, heard, listening) =
            Listener::new(queue.database(), target, &[WAKE_CHANNEL, CANCEL_CHANNEL]);
        let engine = Arc::new(Engine {
            types: registry.task_types(),
            registry,
            services: Services::new(queue.clone()),
            finisher: Finisher::start(queue.clone()),
            queue,
            config: config.worker.clone(),
            retention: config.retention,
            metrics,
            shutdown,
            leases: Leases::default(),
            stats: Stats::default(),
            readiness: Readiness::default(),
            listening,
            slots: Arc::new(Semaphore::new(config.worker.concurrency)),
            company: Arc::new(RwLock::new(())),
            cut: CancellationToken::new(),
            wake: Notify::new(),
            claim_lost: Notify::new(),
            over: CancellationToken::new(),
        });
        Ok(Self { engine, listener: Some((listener, heard)), migrate_on_start: config.migrate_on_start })
    }

    /// A handle that works before, while and after the worker runs.
    #[must_use]
    pub fn handle(&self) -> WorkerHandle {
        WorkerHandle(self.engine.clone())
    }

    /// Works until the shutdown has begun and everything in hand has ended or has been given back.
    pub async fn run(self) -> std::io::Result<Worked> {
        self.work(Until::Stopped).await
    }

    /// Works off what is due, once, and returns when nothing is left to do now.
    pub async fn run_once(self) -> std::io::Result<Worked> {
        self.work(Until::Dry).await
    }

    async fn work(mut self, until: Until) -> std::io::Result<Worked> {
        let engine = self.engine.clone();
        let scope = engine.scope();
        let renewal = renewal::start(engine.clone())?;
        tokio::select! {
            () = prepare::prepare(&engine, self.migrate_on_start) => match until {
                Until::Dry => {
                    maintenance::rescue_once(&engine).await;
                    handle::start(&engine, &scope).run(Until::Dry).await;
                }
                Until::Stopped => self.poll(&scope).await,
            },
            () = engine.shutdown.begun().cancelled() => {}
        }
        self.wind_up().await;
        engine.over.cancel();
        let _ = tokio::task::spawn_blocking(move || renewal.join()).await;
        Ok(scope.worked())
    }

    async fn poll(&mut self, scope: &Arc<Scope>) {
        let engine = &self.engine;
        tokio::spawn(maintenance::run(engine.clone()));
        if engine.config.poll_mode == PollMode::Request {
            tracing::info!("POLL_MODE=request: work is done inside requests");
            return engine.shutdown.begun().cancelled().await;
        }
        if let Some((listener, heard)) = self.listener.take() {
            tokio::spawn(listener.run(engine.over.clone()));
            tokio::spawn(ears::run(engine.clone(), heard));
        }
        engine.stats.set_polling(true);
        tracing::info!(task_types = engine.types.join(", "), "working");
        handle::start(engine, scope).run(Until::Stopped).await;
        engine.stats.set_polling(false);
    }

    /// Lets running tasks end within the grace period, then gives the rest back.
    async fn wind_up(&self) {
        let engine = &self.engine;
        tokio::select! {
            () = engine.leases.empty() => return,
            () = engine.shutdown.grace_over() => {}
        }
        tracing::info!(tasks = engine.leases.len(), "the grace period is over, giving tasks back");
        engine.cut.cancel();
        let given_back = timeout(RELEASE_WITHIN, engine.leases.empty()).await.is_ok();
        if let Err(error) = engine.queue.announce().await {
            tracing::debug!(%error, "others will find the released tasks at their next poll");
        }
        if !given_back {
            // Their leases are left to expire: what still runs here must not run elsewhere.
            tracing::error!(tasks = engine.leases.len(), "tasks that will not stop keep their leases");
            engine.shutdown.begin_stuck();
        }
    }
}

fn parse_target(url: &secrecy::SecretString) -> Result<Target, TargetError> {
    use secrecy::ExposeSecret;
    url.expose_secret()
        .parse()
        .map_err(|TargetError(what)| TargetError(format!("LISTEN_DATABASE_URL {what}")))
}
