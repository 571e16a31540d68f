//! What operators see: log lines and metrics.

mod cloud;
pub mod metrics;
pub mod trace;

use std::io::IsTerminal;
use std::panic::PanicHookInfo;

use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Registry, fmt};

use crate::config::{LogConfig, LogFormat, cloud_run_revision};
use cloud::CloudLines;

/// Sends log lines to standard error, as JSON for Google Cloud Logging or for people, panics included.
///
/// A second call in one process changes nothing.
pub fn init(config: &LogConfig) {
    let json = match config.format {
        LogFormat::Json => true,
        LogFormat::Pretty => false,
        LogFormat::Auto => cloud_run_revision().is_some() || !std::io::stderr().is_terminal(),
    };
    let filter = EnvFilter::builder().parse_lossy(&config.filter);
    let registry = Registry::default().with(filter);
    let initialised = if json {
        registry.with(tracing_stackdriver::layer().with_writer(CloudLines::new(config))).try_init()
    } else {
        registry
            .with(
                fmt::layer()
                    .compact()
                    .with_target(false)
                    .with_ansi(std::io::stderr().is_terminal())
                    .with_writer(std::io::stderr),
            )
            .try_init()
    };
    if initialised.is_ok() {
        std::panic::set_hook(Box::new(log_panic));
    }
}

/// One line instead of the default hook's several, which Cloud Logging would tear apart.
fn log_panic(panic: &PanicHookInfo<'_>) {
    let message = panic.payload_as_str().unwrap_or("a value that is no text");
    let (file, line) = panic.location().map(|place| (place.file(), place.line())).unzip();
    tracing::error!(severity = "CRITICAL", panic_file = file, panic_line = line, "panic: {message}");
}

/// An error with its causes, in one line: what a client must not see and the log must.
#[must_use]
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut line = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !line.contains(&cause_text) {
            line.push_str(": ");
            line.push_str(&cause_text);
        }
        source = cause.source();
    }
    line
}
