//! `enqueue`: adding tasks, by SQL with and without the table's trigger, and by the library.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::try_join_all;
use serde_json::{Value, json};
use task_processor::queue::{NewTask, Queue};
use task_processor::telemetry::metrics::Metrics;
use tokio::time::Instant;

use crate::db::Db;
use crate::load::{self, DUE};
use crate::meter::Meter;
use crate::pgbench::{self, Amount, Script};
use crate::process;
use crate::server::Server;
use crate::table::{Sample, Table};
use crate::worker::{DEFAULT, Settings, Worker};

/// Without the trigger nobody tells the worker: it has to look.
const LOOKING: Settings = &[("POLLING_INTERVAL_MS", "1000")];
const CLIENTS: u32 = 10;
const BULK: u32 = 1_000;

/// Options of `enqueue`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// How long tasks are added.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// How often each variant is measured.
    #[arg(long, default_value_t = 5)]
    runs: u32,
    /// Only the variants whose names begin with this: single, bulk or api.
    #[arg(long, default_value = "")]
    only: String,
}

/// Tasks added by SQL.
struct Sql {
    kind: &'static str,
    rows: u32,
    clients: u32,
    worker: bool,
    trigger: bool,
}

impl Sql {
    /// One and many rows a statement, each with and without somebody who works on them, with and without the trigger.
    fn all() -> Vec<Self> {
        let mut all = Vec::new();
        for (kind, rows, clients) in [("single", 1, CLIENTS), ("bulk", BULK, 1)] {
            for (worker, trigger) in [(true, true), (true, false), (false, true), (false, false)] {
                all.push(Self { kind, rows, clients, worker, trigger });
            }
        }
        all
    }

    fn variant(&self) -> String {
        let worker = if self.worker { "worker" } else { "no worker" };
        let trigger = if self.trigger { "" } else { ", no trigger" };
        format!("{}, {worker}{trigger}", self.kind)
    }

    /// The same without the trigger.
    fn base(&self) -> Self {
        Self { trigger: false, ..*self }
    }

    fn settings(&self) -> Option<Settings> {
        self.worker.then_some(if self.trigger { DEFAULT } else { LOOKING })
    }
}

/// Tasks added by the library, while a worker works: name, tasks a call, callers.
const API: [(&str, u32, u32); 2] = [("api, single, worker", 1, CLIENTS), ("api, bulk, worker", BULK, 1)];

pub(crate) async fn run(server: &Server, args: &Args) -> anyhow::Result<Table> {
    let time = Duration::from_secs(args.seconds);
    let mut table = Table::new(format!("tasks added for {} s", args.seconds));
    for _ in 0..args.runs {
        for sql in Sql::all().into_iter().filter(|sql| sql.kind.starts_with(&args.only)) {
            table.add_beside(&sql.base().variant(), &sql.variant(), by_sql(server, &sql, time).await?);
        }
        for (variant, rows, callers) in API.into_iter().filter(|api| api.0.starts_with(&args.only)) {
            table.add(variant, by_api(server, (rows, callers), time).await?);
        }
    }
    Ok(table)
}

async fn by_sql(server: &Server, sql: &Sql, time: Duration) -> anyhow::Result<Sample> {
    let db = server.fresh().await?;
    if !sql.trigger {
        db.execute("drop trigger agent_tasks_announce on agent_tasks").await?;
    }
    let text = DUE.insert(1, sql.rows).split_whitespace().collect::<Vec<_>>().join(" ");
    let script = Script { text: &format!("{text};"), clients: sql.clients, amount: Amount::Time(time) };
    measure(server, db, sql.settings(), async |db| {
        let done = pgbench::run(server, db, script).await?;
        Ok((done.rounds * sql.rows, time))
    })
    .await
}

async fn by_api(server: &Server, (rows, callers): (u32, u32), time: Duration) -> anyhow::Result<Sample> {
    let db = server.fresh().await?;
    let own = process::cpu(std::process::id())?;
    let mut added = 0;
    let mut sample = measure(server, db, Some(DEFAULT), async |db| {
        // One connection is for renewals and one for endings.
        let (database, config) = db.pool(usize::try_from(callers)? + 2)?;
        let queue = Queue::new(database.clone(), "bench", &config.worker, Arc::new(Metrics::new()));
        let began = Instant::now();
        let calls = (0..callers).map(|_| tokio::spawn(keep_calling(queue.clone(), rows, began + time)));
        for calls in try_join_all(calls).await? {
            added += calls? * rows;
        }
        database.close();
        Ok((added, began.elapsed()))
    })
    .await?;
    let own = process::cpu(std::process::id())?.saturating_sub(own);
    sample.push(("caller µs/task", own.as_secs_f64() * 1e6 / f64::from(added.max(1))));
    Ok(sample)
}

/// Calls until the time is over: how often.
async fn keep_calling(queue: Queue, rows: u32, end: Instant) -> anyhow::Result<u32> {
    let context = context();
    let mut calls = 0;
    while Instant::now() < end {
        let task =
            || NewTask { created_by: Some(load::BENCH.to_owned()), ..NewTask::new("echo", context.clone()) };
        match rows {
            1 => drop(queue.enqueue_one(task()).await?),
            _ => drop(queue.enqueue(&(0..rows).map(|_| task()).collect::<Vec<_>>()).await?),
        }
        calls += 1;
    }
    Ok(calls)
}

/// What SQL adds.
fn context() -> Value {
    json!({ "n": 1, "kind": "bench", "pad": "x".repeat(160) })
}

/// Adds tasks in a way of its own, with or without somebody who works on them, and says what that costs by task added.
async fn measure(
    server: &Server,
    db: Db,
    worker: Option<Settings>,
    add: impl AsyncFnOnce(&Db) -> anyhow::Result<(u32, Duration)>,
) -> anyhow::Result<Sample> {
    let mut workers = Vec::new();
    if let Some(settings) = worker {
        let mut worker = Worker::spawn(&db, settings)?;
        worker.ready().await?;
        workers.push(worker);
    }
    server.settle().await?;
    let meter = Meter::begin(server, &db, &workers).await?;
    let (added, time) = add(&db).await?;
    let cost = meter.read(&workers).await?;
    let left = load::unfinished(&db).await?;
    for worker in workers {
        worker.stop().await?;
    }
    let transactions = meter.transactions().await?;
    server.remove(db).await?;
    let (added, left) = (f64::from(added), f64::from(u32::try_from(left)?));
    let mut sample = vec![("added/s", added / time.as_secs_f64())];
    sample.push(("worked off/s", (added - left) / time.as_secs_f64()));
    sample.extend(cost.per_task(added, transactions));
    Ok(sample)
}
