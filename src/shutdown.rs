//! Stopping: signals become tokens, and a deadline that nothing in the process can miss.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Exit code of a process that had to stop because code of its own would not.
pub const EXIT_STUCK: i32 = 70;

/// How much longer than the grace period a process may live: releasing tasks and answering requests takes its time.
const AFTER_GRACE: Duration = Duration::from_millis(1_800);

/// Whether the process is stopping, how urgently, and with which exit code. Clones share the state.
#[derive(Clone)]
pub struct Shutdown {
    begun: CancellationToken,
    hurry: CancellationToken,
    stuck: Arc<AtomicBool>,
    begun_at: Arc<OnceLock<Instant>>,
    grace: Duration,
}

impl Shutdown {
    /// A process that is not stopping; once it is, running tasks have `grace` to end.
    #[must_use]
    pub fn new(grace: Duration) -> Self {
        Self {
            begun: CancellationToken::new(),
            hurry: CancellationToken::new(),
            stuck: Arc::default(),
            begun_at: Arc::default(),
            grace,
        }
    }

    /// Stops taking new work. A second call ends the grace period.
    pub fn begin(&self) {
        if self.begun.is_cancelled() {
            self.hurry.cancel();
        }
        self.begun_at.get_or_init(Instant::now);
        self.begun.cancel();
    }

    /// Stops, because code of ours will not: the exit code becomes [`EXIT_STUCK`].
    pub fn begin_stuck(&self) {
        self.stuck.store(true, Ordering::Relaxed);
        self.begun_at.get_or_init(Instant::now);
        self.begun.cancel();
    }

    /// Whether [`Shutdown::begin`] was called.
    #[must_use]
    pub fn has_begun(&self) -> bool {
        self.begun.is_cancelled()
    }

    /// Cancelled when the process begins to stop.
    #[must_use]
    pub fn begun(&self) -> &CancellationToken {
        &self.begun
    }

    /// Waits for the end of the grace period: it has passed, or somebody is in a hurry.
    pub async fn grace_over(&self) {
        self.begun.cancelled().await;
        let over_at = *self.begun_at.get_or_init(Instant::now) + self.grace;
        tokio::select! {
            () = tokio::time::sleep_until(over_at) => {}
            () = self.hurry.cancelled() => {}
        }
    }

    /// 0, or [`EXIT_STUCK`].
    #[must_use]
    pub fn exit_code(&self) -> i32 {
        if self.stuck.load(Ordering::Relaxed) { EXIT_STUCK } else { 0 }
    }

    /// Begins at SIGTERM and SIGINT, and ends the process at the deadline even if every thread of the runtime is
    /// blocked: Cloud Run kills without a word ten seconds after the signal.
    pub fn follow_signals(&self) -> std::io::Result<()> {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let shutdown = self.clone();
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    _ = terminate.recv() => {}
                    _ = interrupt.recv() => {}
                }
                tracing::info!("asked to stop{}", if shutdown.has_begun() { " again" } else { "" });
                shutdown.begin();
            }
        });
        let shutdown = self.clone();
        let handle = tokio::runtime::Handle::current();
        std::thread::Builder::new().name("deadline".into()).spawn(move || {
            handle.block_on(shutdown.begun.cancelled());
            std::thread::sleep(shutdown.grace + AFTER_GRACE);
            tracing::error!("still running at the deadline, exiting");
            std::process::exit(EXIT_STUCK);
        })?;
        Ok(())
    }
}
