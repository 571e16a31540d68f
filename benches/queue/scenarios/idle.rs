//! `idle`: what a process costs that has nothing to do.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::meter::Meter;
use crate::server::Server;
use crate::table::Table;
use crate::worker::{DEFAULT, Worker};

/// A session that is idle tells the server what it did up to ten seconds later: what the start has done is told by then.
const SETTLED: Duration = Duration::from_secs(12);

/// Options of `idle`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// How long to watch.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// How often.
    #[arg(long, default_value_t = 1)]
    runs: u32,
}

pub(crate) async fn run(server: &Server, args: &Args) -> anyhow::Result<Table> {
    let mut table = Table::new(format!("{} s without a task, default settings", args.seconds));
    for _ in 0..args.runs {
        let db = server.fresh().await?;
        let mut worker = Worker::spawn(&db, DEFAULT)?;
        worker.ready().await?;
        sleep(SETTLED).await;
        let workers = [worker];
        let meter = Meter::begin(server, &db, &workers).await?;
        let began = Instant::now();
        sleep(Duration::from_secs(args.seconds)).await;
        let time = began.elapsed();
        let cost = meter.read(&workers).await?;
        // As much as is still to be told of this time was still to be told of the time before it.
        let transactions = meter.transactions().await?;
        let mut sample = vec![("tx/s", transactions / time.as_secs_f64())];
        sample.extend(cost.per_second(time));
        table.add("1 process", sample);
        for worker in workers {
            worker.stop().await?;
        }
        server.remove(db).await?;
    }
    Ok(table)
}
