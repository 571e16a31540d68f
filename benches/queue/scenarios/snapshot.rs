//! `snapshot`: somebody holds a snapshot open, so that nothing dead can be cleared away, and the stream goes on.

use std::time::Duration;

use tokio::time::sleep;

use crate::db::Db;
use crate::load;
use crate::server::Server;
use crate::stamps::{Stamped, Stream, Waits, now};
use crate::table::Table;
use crate::worker::DEFAULT;

const BEFORE: Duration = Duration::from_secs(30);
/// It is over when waits are what they were before, give or take this.
const TOLERANCE: f64 = 2.0;
const UNREMARKABLE_MS: f64 = 10.0;

/// Options of `snapshot`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// How long the snapshot is held.
    #[arg(long, default_value_t = 300)]
    seconds: u64,
    /// How many tasks are added a second.
    #[arg(long, default_value_t = 1_000.0)]
    rate: f64,
    /// How long tasks are added before, and three times as long after it.
    #[arg(long, default_value_t = BEFORE.as_secs())]
    around: u64,
}

pub(crate) async fn run(server: &Server, args: &Args) -> anyhow::Result<Table> {
    let db = server.fresh().await?;
    let mut stamped = Stamped::start(&db, DEFAULT).await?;
    server.settle().await?;
    let (before, held) = (Duration::from_secs(args.around), Duration::from_secs(args.seconds));
    let after = before * 3;
    let stream = Stream::of(args.rate, before + held + after);
    let began = now();
    let (commits, (taken, released)) = tokio::try_join!(stream.pour(&db), hold(&db, before, held))?;
    let ended = now();
    stamped.until_nothing_is_left(&db).await?;
    let starts = stamped.stop().await?;
    load::verify(&db, u32::try_from(commits.len())?).await?;
    let pairs = Waits::pairs(&commits, &starts)?;
    server.remove(db).await?;
    let mut table =
        Table::new(format!("{:.0} inserts/s, a snapshot held open for {} s", args.rate, args.seconds));
    let calm = waits_within(&pairs, began, taken).percentile(99);
    for (variant, from, to) in
        [("before", began, taken), ("during", taken, released), ("after", released, ended)]
    {
        let seconds = Duration::from_nanos(to - from).as_secs_f64();
        let started = pairs.iter().filter(|(_, start)| (from..to).contains(start)).count();
        let mut sample = vec![("started/s", f64::from(u32::try_from(started)?) / seconds)];
        sample.extend(waits_within(&pairs, from, to).columns());
        if variant == "after" {
            sample.push(("recovered s", recovery(&pairs, released, ended, calm)));
        }
        table.add_beside("before", variant, sample);
    }
    Ok(table)
}

/// Holds a snapshot for a while: from when, and until when.
async fn hold(db: &Db, after: Duration, time: Duration) -> anyhow::Result<(u64, u64)> {
    let client = db.another().await?;
    sleep(after).await;
    client.batch_execute("begin isolation level repeatable read; select from agent_tasks limit 1").await?;
    let taken = now();
    sleep(time).await;
    client.batch_execute("commit").await?;
    db.count(1);
    Ok((taken, now()))
}

/// Of the tasks that were committed in between.
fn waits_within(pairs: &[(u64, u64)], from: u64, to: u64) -> Waits {
    Waits::of(pairs.iter().copied().filter(|(commit, _)| (from..to).contains(commit)))
}

/// Seconds after `released` from which on the waits of every second are unremarkable again.
fn recovery(pairs: &[(u64, u64)], released: u64, ended: u64, calm: f64) -> f64 {
    let second = 1_000_000_000;
    let limit = (calm * TOLERANCE).max(UNREMARKABLE_MS);
    let mut recovered = 0.0;
    for (number, from) in (1_u32..).zip((released..ended).step_by(1_000_000_000)) {
        if waits_within(pairs, from, from + second).percentile(99) > limit {
            recovered = f64::from(number);
        }
    }
    recovered
}
