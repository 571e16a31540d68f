//! Speaks the adapter protocol of the comparison with other queues, by the library's public face. See README.md here.
#![expect(clippy::print_stdout, reason = "the protocol is spoken on standard output")]

use std::collections::HashMap;
use std::fmt::Write as _;
use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail};
use clap::Parser;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use task_processor::app::{App, Doors};
use task_processor::config::{Config, env_vars, instance_name};
use task_processor::db::{Database, migrate, schema_state};
use task_processor::queue::{MAX_BATCH, NewTask, Queue};
use task_processor::telemetry::{self, metrics::Metrics};
use task_processor::worker::{Condition, WorkerHandle};
use task_processor::{Handler, Outcome, Registry, Services, Task};
use tokio::task::JoinSet;
use tokio::time::{Instant, interval, sleep};

/// What a service of this kind is told at the least. As with the peers, a success leaves no line in the log.
const ALWAYS: &[(&str, &str)] =
    &[("PORT", "0"), ("API_KEYS", "peers-0123456789abcdef"), ("RUST_LOG", "warn")];
/// `CONFIG=tuned`: as far as the settings carry for handlers that take no time.
const TUNED: &[(&str, &str)] = &[("CONCURRENCY", "500"), ("MAX_TASKS_PER_POLL", "1000")];

/// The task type of both handlers; a process has one of them.
const NOOP: &str = "noop";
const DAY: Duration = Duration::from_hours(24);

/// One command of the protocol.
#[derive(Parser)]
enum Command {
    /// Create the tables.
    Schema,
    /// Add tasks that are due now, as many a call as the library takes.
    Bulk { count: u64 },
    /// The same, due in a day.
    Future { count: u64 },
    /// Add tasks one a call, from concurrent callers.
    Single { count: u64, clients: u64 },
    /// Work until SIGTERM, and tell when the given number of handlers has run.
    Work { count: u64 },
    /// Work until SIGTERM, and write down when each handler was entered.
    Worklat { file: PathBuf },
    /// Add one task each interval, and write down when its call began and returned.
    Produce { file: PathBuf, count: u64, every_ms: u64 },
}

/// A task's input.
#[derive(Serialize, Deserialize)]
struct Payload {
    n: u64,
    kind: String,
    pad: String,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    match Command::parse() {
        Command::Schema => {
            migrate(queue(&[])?.database()).await?;
        }
        Command::Bulk { count } => bulk(count, Duration::ZERO).await?,
        Command::Future { count } => bulk(count, DAY).await?,
        Command::Single { count, clients } => single(count, clients).await?,
        Command::Work { count } => work(Counter { last: count, seen: AtomicU64::new(0) }).await?,
        Command::Worklat { file } => work(Stamper(File::create(file)?)).await?,
        Command::Produce { file, count, every_ms } => {
            produce(&file, count, Duration::from_millis(every_ms)).await?;
        }
    }
    Ok(())
}

/// What `CONFIG` names, on top of `extra`. A variable of the environment goes before both, so that a setting can be tried.
fn config(extra: &[(&str, &str)]) -> anyhow::Result<Config> {
    let environment = env_vars();
    let tuning = match environment.get("CONFIG").map_or("default", String::as_str) {
        "default" => &[],
        "tuned" => TUNED,
        other => bail!("CONFIG is {other:?}, not default or tuned"),
    };
    let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    let mut variables: HashMap<String, String> = [ALWAYS, extra, tuning].concat().iter().map(owned).collect();
    variables.extend(environment);
    Ok(Config::from_vars(variables)?)
}

/// The queue without a worker, as a program that only adds tasks has it.
fn queue(extra: &[(&str, &str)]) -> anyhow::Result<Queue> {
    let config = config(extra)?;
    let database = Database::new(&config.database)?;
    Ok(Queue::new(database, instance_name(), &config.worker, Arc::new(Metrics::new())))
}

fn task(n: u64, delay: Duration) -> NewTask {
    let payload = json!({ "n": n, "kind": "bench", "pad": "x".repeat(160) });
    NewTask { delay, ..NewTask::new(NOOP, payload) }
}

async fn bulk(count: u64, delay: Duration) -> anyhow::Result<()> {
    let queue = queue(&[])?;
    // Opens the connection: connecting is not measured.
    schema_state(queue.database()).await?;
    let began = Instant::now();
    for first in (0..count).step_by(MAX_BATCH) {
        let last = count.min(first + MAX_BATCH as u64);
        let tasks: Vec<NewTask> = (first..last).map(|n| task(n, delay)).collect();
        queue.enqueue(&tasks).await?;
    }
    println!("SECS {}", began.elapsed().as_secs_f64());
    Ok(())
}

async fn single(count: u64, clients: u64) -> anyhow::Result<()> {
    // A connection for each caller, as the peers have it; two of the pool are kept for other uses.
    let queue = queue(&[("DATABASE_POOL_SIZE", &(clients + 2).to_string())])?;
    // The first tasks open the connections: connecting is not measured.
    add_from_many(&queue, clients, clients).await?;
    let began = Instant::now();
    add_from_many(&queue, count, clients).await?;
    println!("SECS {}", began.elapsed().as_secs_f64());
    Ok(())
}

/// `clients` callers share the work of adding `count` tasks.
async fn add_from_many(queue: &Queue, count: u64, clients: u64) -> anyhow::Result<()> {
    let next = Arc::new(AtomicU64::new(0));
    let mut callers = JoinSet::new();
    for _ in 0..clients {
        let (queue, next) = (queue.clone(), next.clone());
        callers.spawn(async move {
            loop {
                let n = next.fetch_add(1, Ordering::Relaxed);
                if n >= count {
                    return anyhow::Ok(());
                }
                queue.enqueue_one(task(n, Duration::ZERO)).await?;
            }
        });
    }
    while let Some(ended) = callers.join_next().await {
        ended??;
    }
    Ok(())
}

async fn produce(file: &Path, count: u64, every: Duration) -> anyhow::Result<()> {
    let queue = queue(&[])?;
    schema_state(queue.database()).await?;
    let mut lines = String::new();
    let mut ticks = interval(every);
    for n in 0..count {
        ticks.tick().await;
        let before = unix_nanos()?;
        queue.enqueue_one(task(n, Duration::ZERO)).await?;
        writeln!(lines, "{n} {before} {}", unix_nanos()?)?;
    }
    std::fs::write(file, lines).with_context(|| format!("cannot write {}", file.display()))
}

/// The service with one handler, until it is told to stop.
async fn work<H: Handler>(handler: H) -> anyhow::Result<()> {
    let config = config(&[])?;
    telemetry::init(&config.log);
    let app = App::build(config, Registry::new().with(handler))?;
    app.shutdown().follow_signals()?;
    let bound = app.bind(Doors::All).await?;
    tokio::spawn(tell_when_ready(bound.worker()));
    let exit_code = bound.run().await?;
    std::process::exit(exit_code)
}

async fn tell_when_ready(worker: WorkerHandle) {
    while worker.condition() != Condition::Healthy || !worker.is_listening() {
        sleep(Duration::from_millis(5)).await;
    }
    println!("READY");
}

/// Does nothing but count.
struct Counter {
    last: u64,
    seen: AtomicU64,
}

impl Handler for Counter {
    const TASK_TYPE: &'static str = NOOP;
    type Input = Payload;

    async fn run(&self, _: Payload, _: Task, _: Services) -> Outcome {
        if self.seen.fetch_add(1, Ordering::Relaxed) + 1 == self.last {
            println!("HANDLED");
        }
        Outcome::complete(Value::Null)
    }
}

/// Writes down when it was entered. One small write a task, as the peers do it.
struct Stamper(File);

impl Handler for Stamper {
    const TASK_TYPE: &'static str = NOOP;
    type Input = Payload;

    async fn run(&self, input: Payload, _: Task, _: Services) -> Outcome {
        let line = unix_nanos().map(|now| format!("{} {now}\n", input.n));
        match line.and_then(|line| Ok((&self.0).write_all(line.as_bytes())?)) {
            Ok(()) => Outcome::complete(Value::Null),
            Err(error) => Outcome::fail(error),
        }
    }
}

fn unix_nanos() -> anyhow::Result<u128> {
    Ok(SystemTime::now().duration_since(UNIX_EPOCH)?.as_nanos())
}
