//! Claims tasks and runs them: claim → run → end, and on the side renew, rescue, listen.

mod appetite;
mod company;
mod dispatch;
mod drift;
mod ears;
mod engine;
mod execute;
mod finisher;
mod handle;
mod horizon;
mod leases;
mod maintenance;
mod next;
mod poller;
mod prepare;
mod quiet;
mod renewal;
mod scope;
mod stats;
mod suspects;
mod sweeping;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, Semaphore};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::config::{Config, PollMode};
use crate::db::{Listener, Target, TargetError};
use crate::handler::Registry;
use crate::queue::{CANCEL_CHANNEL, WAKE_CHANNEL};
use crate::services::Services;
use crate::shutdown::Shutdown;
use crate::telemetry::metrics::Metrics;
use company::Company;
use engine::Engine;
use finisher::Finisher;
use leases::Leases;
use poller::Until;
use prepare::{Readiness, prepare};
use scope::Scope;
use stats::Stats;

pub use handle::{Condition, Drained, WorkerHandle};
pub use scope::Worked;
pub use stats::Counts;

/// After the grace period: cutting handlers short and writing that down. Together with the next it must be less than
/// what `Shutdown` allows after the grace period.
const RELEASE_WITHIN: Duration = Duration::from_millis(1_200);
/// Telling the others, by the loop and by whoever winds it up.
const GOODBYE_WITHIN: Duration = Duration::from_millis(400);

/// Work that could not be done.
#[derive(Debug, thiserror::Error)]
pub enum WorkError {
    /// The database cannot be worked on, and why.
    #[error("{0}")]
    NotReady(String),
    /// The renewal thread could not be started.
    #[error("cannot start the renewal thread")]
    Thread(#[from] std::io::Error),
}

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
        services: Services,
        metrics: Arc<Metrics>,
        shutdown: Shutdown,
    ) -> Result<Self, TargetError> {
        let queue = services.queue().clone();
        let listen_url = config.database.listen_url.as_ref();
        let target = listen_url.map(|url| Target::named("LISTEN_DATABASE_URL", url)).transpose()?;
        let (listener, heard, listening) =
            Listener::new(queue.database(), target, &[WAKE_CHANNEL, CANCEL_CHANNEL]);
        let engine = Arc::new(Engine {
            types: registry.task_types(),
            registry,
            services,
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
            company: Arc::new(Company::default()),
            cut: CancellationToken::new(),
            wake: Notify::new(),
            renew_now: Notify::new(),
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
    pub async fn run(self) -> Result<Worked, WorkError> {
        self.work(Until::Stopped).await
    }

    /// Works off what is due, once, and returns when nothing is left to do now. A database that cannot be worked on is
    /// an error: nobody would wait for it.
    pub async fn run_once(self) -> Result<Worked, WorkError> {
        self.work(Until::Dry).await
    }

    async fn work(mut self, until: Until) -> Result<Worked, WorkError> {
        let engine = self.engine.clone();
        let scope = engine.scope();
        let renewal = renewal::start(engine.clone())?;
        tokio::spawn(cut_after_grace(engine.clone()));
        let result = tokio::select! {
            result = prepare(&engine, self.migrate_on_start, until) => match (result, until) {
                (Err(missing), _) => Err(WorkError::NotReady(missing)),
                (Ok(()), Until::Dry) => {
                    maintenance::rescue_once(&engine).await;
                    handle::start(&engine, &scope, until).run().await;
                    Ok(())
                }
                (Ok(()), Until::Stopped) => {
                    self.poll(&scope).await;
                    Ok(())
                }
            },
            () = engine.shutdown.begun().cancelled() => Ok(()),
        };
        wind_up(&engine).await;
        engine.over.cancel();
        let _ = tokio::task::spawn_blocking(move || renewal.join()).await;
        result.map(|()| scope.worked())
    }

    async fn poll(&mut self, scope: &Arc<Scope>) {
        let engine = &self.engine;
        if engine.config.poll_mode == PollMode::Request {
            tracing::info!("POLL_MODE=request: work is done inside requests");
            return engine.shutdown.begun().cancelled().await;
        }
        tokio::spawn(maintenance::run(engine.clone()));
        if let Some((listener, heard)) = self.listener.take() {
            tokio::spawn(listener.run(engine.over.clone()));
            tokio::spawn(ears::run(engine.clone(), heard));
        }
        engine.stats.set_polling(true);
        tracing::info!(task_types = engine.types.join(", "), "working");
        handle::start(engine, scope, Until::Stopped).run().await;
        engine.stats.set_polling(false);
    }
}

/// When the grace period after the shutdown's beginning is over, what still runs is given back.
async fn cut_after_grace(engine: Arc<Engine>) {
    tokio::select! {
        () = engine.shutdown.grace_over() => {
            tracing::info!(tasks = engine.leases.len(), "the grace period is over, giving tasks back");
            engine.cut.cancel();
        }
        () = engine.over.cancelled() => {}
    }
}

/// Waits until everything in hand has ended or has been given back, claims in flight included.
async fn wind_up(engine: &Arc<Engine>) {
    let late = async {
        engine.cut.cancelled().await;
        sleep(RELEASE_WITHIN).await;
    };
    tokio::select! {
        () = engine.company.empty() => {}
        () = late => {}
    }
    if engine.leases.len() > 0 {
        // Their leases are left to expire: what still runs here must not run elsewhere.
        tracing::error!(
            tasks = engine.leases.len(),
            "tasks that did not stop, or could not be ended, keep their leases"
        );
        engine.shutdown.begin_stuck();
    }
    let goodbye = async {
        if engine.leases.claim_lost_at().is_some() {
            // No claim is in flight any more: what is in our name and not known to us never will be.
            engine.queue.release_unknown("infinity", &engine.leases.tokens()).await?;
        }
        engine.queue.announce().await
    };
    if let Ok(Err(error)) = timeout(GOODBYE_WITHIN, goodbye).await {
        tracing::debug!(%error, "others will find what was given back at their next poll");
    }
}
