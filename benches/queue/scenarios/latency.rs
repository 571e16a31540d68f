//! `latency`: from the commit of a task to its handler, for an idle worker or at half of what it can do.

use std::time::Duration;

use tokio::time::Instant;

use crate::drain::drain;
use crate::load::{self, DUE};
use crate::meter::Meter;
use crate::server::Server;
use crate::stamps::{Stamped, Stream, Waits};
use crate::table::{Sample, Table};
use crate::worker::{DEFAULT, Settings, TUNED};

/// Options of `latency`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// How long tasks are added.
    #[arg(long, default_value_t = 20)]
    seconds: u64,
    /// How often each variant is measured.
    #[arg(long, default_value_t = 5)]
    runs: u32,
    /// Add tasks at half the rate of a tuned drain, measured first, to a tuned worker.
    #[arg(long)]
    half_load: bool,
    /// The backlog of that drain.
    #[arg(long, default_value_t = 400_000)]
    tasks: u32,
}

pub(crate) async fn run(server: &Server, args: &Args) -> anyhow::Result<Table> {
    let lasts = Duration::from_secs(args.seconds);
    let mut table = Table::new("from the acknowledged commit to the handler's first line");
    for _ in 0..args.runs {
        if args.half_load {
            let db = server.copy_of("backlog", async |db| load::fill(db, &DUE, args.tasks).await).await?;
            let rate = drain(server, &db, args.tasks, (1, TUNED)).await?[0].1;
            server.remove(db).await?;
            let stream = Stream::of(rate / 2.0, lasts);
            table.add("half load, tuned", latency(server, stream, TUNED).await?);
        } else {
            let stream = Stream { every: Duration::from_millis(20), rows: 1, lasts };
            table.add("50 inserts/s, default", latency(server, stream, DEFAULT).await?);
        }
    }
    Ok(table)
}

async fn latency(server: &Server, stream: Stream, settings: Settings) -> anyhow::Result<Sample> {
    let db = server.fresh().await?;
    let mut stamped = Stamped::start(&db, settings).await?;
    server.settle().await?;
    let meter = Meter::begin(server, &db, std::slice::from_ref(&stamped.worker)).await?;
    let began = Instant::now();
    let commits = stream.pour(&db).await?;
    let poured = began.elapsed();
    stamped.until_nothing_is_left(&db).await?;
    let cost = meter.read(std::slice::from_ref(&stamped.worker)).await?;
    let starts = stamped.stop().await?;
    let transactions = meter.transactions().await?;
    let waits = Waits::of(Waits::pairs(&commits, &starts)?.into_iter());
    load::verify(&db, u32::try_from(commits.len())?).await?;
    server.remove(db).await?;
    let tasks = f64::from(u32::try_from(commits.len())?);
    let mut sample = waits.columns();
    sample.push(("added/s", tasks / poured.as_secs_f64()));
    sample.extend(cost.per_task(tasks, transactions));
    Ok(sample)
}
