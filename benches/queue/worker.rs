//! The release binary as a process of its own, or this program in the part of one.

use std::ffi::OsStr;
use std::net::{Ipv4Addr, TcpListener};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};

use crate::db::Db;
use crate::process;

const PATIENCE: Duration = Duration::from_secs(30);
/// Without one the process complains that nobody can call it.
const KEY: &str = "benchmark-0123456789";

/// Variables of a worker's environment, beside those that lead it to the database.
pub(crate) type Settings = &'static [(&'static str, &'static str)];

/// As it comes: the product's own defaults.
pub(crate) const DEFAULT: Settings = &[];

/// For a machine that does nothing but work off a backlog of quick tasks.
pub(crate) const TUNED: Settings = &[("CONCURRENCY", "500"), ("MAX_TASKS_PER_POLL", "1000")];

/// A running process, killed if it is not stopped.
pub(crate) struct Worker {
    child: Child,
    pid: u32,
    port: u16,
    started: Instant,
}

impl Worker {
    /// Starts `task-processor serve`, and does not wait for anything.
    pub(crate) fn spawn(db: &Db, settings: Settings) -> anyhow::Result<Self> {
        Self::spawn_program(env!("CARGO_BIN_EXE_task-processor").as_ref(), &["serve".as_ref()], db, settings)
    }

    /// Starts a program that is configured as the product is.
    pub(crate) fn spawn_program(
        program: &OsStr,
        arguments: &[&OsStr],
        db: &Db,
        settings: Settings,
    ) -> anyhow::Result<Self> {
        let port = free_port()?;
        let started = Instant::now();
        let child = Command::new(program)
            .args(arguments)
            .env_clear()
            .env("DATABASE_URL", db.url())
            .env("PORT", port.to_string())
            .env("RUST_LOG", "warn")
            .env("LOG_FORMAT", "pretty")
            .env("API_KEYS", KEY)
            .envs(settings.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| program.display().to_string())?;
        let pid = child.id().context("the process has ended at once")?;
        Ok(Self { child, pid, port, started })
    }

    /// When it was started.
    pub(crate) fn started(&self) -> Instant {
        self.started
    }

    /// Waits until it is in touch with the database and listens to it.
    pub(crate) async fn ready(&mut self) -> anyhow::Result<()> {
        let client = reqwest::Client::builder().no_proxy().build()?;
        let url = format!("http://127.0.0.1:{}/health/ready", self.port);
        let asked = Instant::now();
        while asked.elapsed() < PATIENCE {
            self.check()?;
            if client.get(&url).send().await.is_ok_and(|answer| answer.status().is_success()) {
                return Ok(());
            }
            sleep(Duration::from_millis(50)).await;
        }
        bail!("the worker is not ready after {PATIENCE:?}")
    }

    /// An error if it has ended.
    pub(crate) fn check(&mut self) -> anyhow::Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => bail!("the worker has ended: {status}"),
        }
    }

    pub(crate) fn cpu(&self) -> anyhow::Result<Duration> {
        process::cpu(self.pid)
    }

    pub(crate) fn peak_megabytes(&self) -> anyhow::Result<f64> {
        process::peak_megabytes(self.pid)
    }

    pub(crate) fn megabytes(&self) -> anyhow::Result<f64> {
        process::megabytes(self.pid)
    }

    /// Asks it to stop, and insists on an orderly end.
    pub(crate) async fn stop(mut self) -> anyhow::Result<()> {
        self.check()?;
        let pid = i32::try_from(self.pid).ok().and_then(Pid::from_raw).context("a process id")?;
        kill_process(pid, Signal::TERM)?;
        let status = timeout(PATIENCE, self.child.wait()).await.context("the worker does not stop")??;
        ensure!(status.success(), "the worker ended with {status}");
        Ok(())
    }
}

/// One that nobody uses at this moment.
fn free_port() -> anyhow::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}
