//! `long`: thousands of tasks at once that take longer than a lease, so that all have to be renewed.

use std::time::Duration;

use anyhow::ensure;
use tokio::time::{Instant, sleep};

use crate::db::Db;
use crate::drain::until_done;
use crate::load::{self, DUE, Rows};
use crate::meter::Meter;
use crate::server::Server;
use crate::table::Table;
use crate::worker::{Settings, Worker};

const ALL_AT_ONCE: Settings = &[("CONCURRENCY", "5000")];
const MOST: u32 = 5_000;
/// How long it may take until all of them run.
const PATIENCE: Duration = Duration::from_secs(30);

/// Options of `long`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// How many run at once, 5,000 at the most.
    #[arg(long, default_value_t = MOST)]
    tasks: u32,
    /// How long each takes; a lease is 30 s.
    #[arg(long, default_value_t = 40)]
    seconds: u64,
    /// How often.
    #[arg(long, default_value_t = 1)]
    runs: u32,
}

pub(crate) async fn run(server: &Server, args: &Args) -> anyhow::Result<Table> {
    let tasks = args.tasks.min(MOST);
    let mut table = Table::new(format!("{tasks} tasks of {} s at once", args.seconds));
    let context = format!("jsonb_build_object('n', n, 'sleep_ms', {})", args.seconds * 1000);
    let rows = Rows { context: &context, ..DUE };
    for _ in 0..args.runs {
        let db = server.copy_of("long", async |db| load::fill(db, &rows, tasks).await).await?;
        let last = load::last(&db).await?;
        server.settle().await?;
        let mut workers = [Worker::spawn(&db, ALL_AT_ONCE)?];
        let began = workers[0].started();
        until_all_run(&db, tasks).await?;
        let all_run = began.elapsed();
        let meter = Meter::begin(server, &db, &workers).await?;
        let watched = Instant::now();
        sleep(Duration::from_secs(args.seconds).saturating_sub(all_run)).await;
        let time = watched.elapsed();
        let cost = meter.read(&workers).await?;
        let ended = until_done(&db, last, &mut workers).await?;
        let mut sample =
            vec![("all done s", (ended - began).as_secs_f64()), ("all run after s", all_run.as_secs_f64())];
        sample.extend(cost.per_second(time));
        sample.push(("RSS MB", workers[0].peak_megabytes()?));
        for worker in workers {
            worker.stop().await?;
        }
        load::verify(&db, tasks).await?;
        table.add("1 process", sample);
        server.remove(db).await?;
    }
    Ok(table)
}

async fn until_all_run(db: &Db, tasks: u32) -> anyhow::Result<()> {
    let began = Instant::now();
    let sql = "select count(*) from agent_tasks where status = 'processing'";
    while db.value::<i64>(sql).await? < tasks.into() {
        ensure!(began.elapsed() < PATIENCE, "not all tasks run after {PATIENCE:?}");
        sleep(Duration::from_millis(100)).await;
    }
    Ok(())
}
