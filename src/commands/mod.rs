//! The command line: one file a subcommand.

mod budget;
mod cancel;
mod check_config;
pub mod dev;
mod doctor;
mod enqueue;
mod healthcheck;
mod list;
mod migrate;
mod once;
mod output;
mod pause;
mod retry;
mod selection;
mod serve;
mod show;
mod token;

use std::process::ExitCode;
use std::sync::Arc;

use clap::{Parser, Subcommand};
use tokio::runtime::Runtime;

use crate::app::Doors;
use crate::clients::ClientError;
use crate::config::{Config, ConfigError, instance_name};
use crate::db::{Database, DbError, TargetError};
use crate::handler::Registry;
use crate::queue::{Queue, QueueError};
use crate::telemetry::{self, metrics::Metrics};
use output::Output;

/// Bad configuration: `EX_CONFIG` of sysexits.h.
const EXIT_CONFIG: u8 = 78;

/// A durable task queue on one Postgres table.
#[derive(Parser)]
#[command(version, about)]
struct Cli {
    /// Print JSON, one object.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Serve the API and work on tasks (the default).
    Serve,
    /// Work on tasks; answer health probes and nothing else.
    Worker,
    /// Work off what is due, then exit.
    Once,
    /// Try it: a private Postgres, demo tasks, the API on 127.0.0.1:8080.
    Dev(dev::Args),
    /// Bring the database up to date.
    Migrate(migrate::Args),
    /// Check the environment and print what it means.
    CheckConfig,
    /// Look for what is wrong with the database and the connection to it, and say how to mend it.
    Doctor,
    /// Ask a running process how it is, for container health checks.
    Healthcheck,
    /// Add a task.
    Enqueue(enqueue::Args),
    /// List tasks, newest first.
    List(list::Args),
    /// Show one task and what happened to it.
    Show(show::Args),
    /// Give ended tasks a new life.
    Retry(retry::Args),
    /// Cancel tasks, waiting or running.
    Cancel(cancel::Args),
    /// Stop claims of a task type.
    Pause(pause::Args),
    /// Allow claims of a task type again.
    Resume(pause::Args),
    /// Make a token for a caller of the API.
    Token(token::Args),
}

/// Runs the command named on the command line, with these handlers. What a program's `main` does.
#[must_use]
pub fn run(registry: Registry) -> ExitCode {
    let cli = Cli::parse();
    // At least two threads: a handler that blocks one must not stop the timers that would tell.
    let threads = std::thread::available_parallelism().map_or(2, usize::from).max(2);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build();
    let result = match runtime {
        Ok(runtime) => {
            // In a task: whatever panics there, the runtime is still ours to end.
            let work = runtime.spawn(dispatch(cli, registry));
            finish(runtime, work).unwrap_or_else(|panic| Err(panic.into()))
        }
        Err(error) => Err(error.into()),
    };
    match result {
        Ok(code) => std::process::exit(code),
        Err(error) => {
            output::complain(&format!("{error:#}{}", remedy(&error)));
            ExitCode::from(if is_configuration(&error) { EXIT_CONFIG } else { 1 })
        }
    }
}

/// Runs the work to its end, and waits for nothing else: a thread that will not stop would keep the runtime, and so the
/// process.
fn finish<T>(runtime: Runtime, work: impl Future<Output = T>) -> T {
    let result = runtime.block_on(work);
    runtime.shutdown_background();
    result
}

fn is_configuration(error: &anyhow::Error) -> bool {
    error
        .chain()
        .any(|cause| cause.is::<ConfigError>() || cause.is::<TargetError>() || cause.is::<ClientError>())
}

/// What to do about it, where that is known.
fn remedy(error: &anyhow::Error) -> &'static str {
    let database = error.chain().find_map(|cause| match cause.downcast_ref::<QueueError>() {
        Some(QueueError::Database(error)) => Some(error),
        _ => cause.downcast_ref::<DbError>(),
    });
    match database.and_then(DbError::sqlstate) {
        Some(state) if ["42P01", "42703", "42883"].contains(&state.code()) => {
            "\nthis database lacks a table, a column or a function of ours: run `task-processor migrate`"
        }
        _ => "",
    }
}

async fn dispatch(cli: Cli, registry: Registry) -> anyhow::Result<i32> {
    let output = Output::new(cli.json);
    match cli.command.unwrap_or(Command::Serve) {
        Command::Serve => serve::run(registry, Doors::All).await,
        Command::Worker => serve::run(registry, Doors::Probes).await,
        Command::Once => once::run(registry, &output).await,
        Command::Dev(args) => dev::run(args, registry).await,
        Command::Migrate(args) => migrate::run(args, &output).await,
        Command::CheckConfig => check_config::run(&output),
        Command::Doctor => doctor::run(&registry, &output).await,
        Command::Healthcheck => healthcheck::run(&output).await,
        Command::Enqueue(args) => enqueue::run(args, &queue()?, &output).await,
        Command::List(args) => list::run(args, &queue()?, &output).await,
        Command::Show(args) => show::run(args, &queue()?, &output).await,
        Command::Retry(args) => retry::run(args, &queue()?, &output).await,
        Command::Cancel(args) => cancel::run(args, &queue()?, &output).await,
        Command::Pause(args) => pause::run(args, true, &queue()?, &output).await,
        Command::Resume(args) => pause::run(args, false, &queue()?, &output).await,
        Command::Token(args) => token::run(&args, &output),
    }
}

/// The queue of the configured database, for commands that change or read it and run nothing.
fn queue() -> anyhow::Result<Queue> {
    let config = Config::from_env()?;
    telemetry::init(&config.log);
    let database = Database::new(&config.database)?;
    Ok(Queue::new(database, instance_name(), &config.worker, Arc::new(Metrics::new())))
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use proptest::collection::vec;
    use proptest::prelude::*;
    use proptest::sample::select;

    use super::*;

    fn words() -> impl Strategy<Value = Vec<String>> {
        let commands =
            select(vec!["enqueue", "list", "show", "retry", "cancel", "pause", "migrate", "token", "dev"]);
        let word = prop_oneof![
            8 => select(vec![
                "--status", "--type", "--limit", "--yes", "--json", "--priority", "--delay", "--at", "--user", "--agent",
                "--unique-key", "--max-retries", "--timeout", "--reason", "--dry-run", "--", "-", "--=", "pending", "failed",
                "0", "-1", "1001", "9223372036854775808", "1e3", "2026-11-21T00:00:00Z", "+262142-12-31T23:59:59Z",
                "-262143-01-01T00:00:00Z", "2026-02-30T00:00:00Z", "2026-11-21T23:59:60Z", "{}", "[", "{\"a\":1e999}",
                "00000000-0000-0000-0000-000000000000", "echo",
            ]).prop_map(str::to_owned),
            1 => "\\PC{0,12}",
        ];
        (commands, vec(word, 0..6)).prop_map(|(command, words)| {
            ["task-processor", command].into_iter().map(str::to_owned).chain(words).collect()
        })
    }

    #[test]
    fn a_thread_that_a_handler_leaves_behind_keeps_no_command_from_its_end() {
        let (let_go, held) = mpsc::channel::<()>();
        let (end, ended) = mpsc::channel();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build();
            let (start, started) = tokio::sync::oneshot::channel();
            let work = async {
                tokio::task::spawn_blocking(move || start.send(()).map(|()| held.recv()));
                started.await.expect("it runs");
            };
            finish(runtime.expect("a runtime"), work);
            end.send(())
        });
        ended.recv_timeout(Duration::from_secs(10)).expect("an end, while the thread goes on");
        drop(let_go);
    }

    proptest! {
        #[test]
        fn no_command_line_makes_it_panic_and_what_is_wrong_is_told(words in words()) {
            if let Err(error) = Cli::try_parse_from(&words) {
                let told = error.to_string();
                prop_assert!(told.contains("error: ") || told.contains("Usage: "), "{words:?}: {told}");
            }
        }
    }
}
