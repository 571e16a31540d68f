//! `sustained`: a steady stream with retention on. Dead rows, indexes and waits must stay flat.

use std::fmt::Write;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use tokio::time::interval;

use crate::db::Db;
use crate::files;
use crate::load::{self, ENDED, Rows};
use crate::meter::Meter;
use crate::plot::{self, Curve};
use crate::server::Server;
use crate::stamps::{Stamped, Stream, Waits, now};
use crate::table::{Sample, Table};
use crate::worker::{Settings, Worker};

/// A day is the shortest retention there is.
const RETAINING: Settings = &[("RETENTION_DAYS", "1"), ("LOG_RETENTION_DAYS", "1")];

/// Options of `sustained`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// How long tasks are added.
    #[arg(long, default_value_t = 600)]
    seconds: u64,
    /// How many a second.
    #[arg(long, default_value_t = 1_000.0)]
    rate: f64,
    /// How often the table is looked at, in seconds.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..))]
    every: u64,
    /// Tasks that ended a day before, one after the other at the same rate: for each that is added one may be deleted.
    #[arg(long, default_value_t = 0)]
    old: u32,
    /// Where the plot goes; a CSV file beside it. Without it: `bench/` in the target directory.
    #[arg(long)]
    plot: Option<PathBuf>,
}

/// The table and the worker at one moment.
struct Look {
    moment: u64,
    live: f64,
    dead: f64,
    index_bytes: f64,
    worker_megabytes: f64,
}

/// One moment, and the tasks of the time before it.
struct Point {
    seconds: f64,
    look: Look,
    waits: Waits,
}

impl Point {
    fn index_bytes_per_row(&self) -> f64 {
        self.look.index_bytes / self.look.live.max(1.0)
    }
}

pub(crate) async fn run(server: &Server, args: &Args) -> anyhow::Result<Table> {
    let db = server.fresh().await?;
    let ended = format!("now() - interval '1 day' + n * interval '1 s' / {}", args.rate);
    load::fill(&db, &Rows { scheduled_for: &ended, ..ENDED }, args.old).await?;
    db.execute("vacuum analyze").await?;
    let mut stamped = Stamped::start(&db, RETAINING).await?;
    server.settle().await?;
    let meter = Meter::begin(server, &db, std::slice::from_ref(&stamped.worker)).await?;
    let began = now();
    let lasts = Duration::from_secs(args.seconds);
    let stream = Stream::of(args.rate, lasts);
    let (commits, looks) = tokio::try_join!(
        stream.pour(&db),
        look_around(&db, &stamped.worker, lasts, Duration::from_secs(args.every))
    )?;
    stamped.until_nothing_is_left(&db).await?;
    let cost = meter.read(std::slice::from_ref(&stamped.worker)).await?;
    let starts = stamped.stop().await?;
    let transactions = meter.transactions().await?;
    load::verify(&db, u32::try_from(commits.len())?).await?;
    let pairs = Waits::pairs(&commits, &starts)?;
    let mut points = Vec::new();
    let mut from = began;
    for look in looks {
        let waits =
            Waits::of(pairs.iter().copied().filter(|(commit, _)| (from..look.moment).contains(commit)));
        from = look.moment;
        points.push(Point { seconds: Duration::from_nanos(look.moment - began).as_secs_f64(), look, waits });
    }
    write_files(args, &points)?;
    server.remove(db).await?;
    let added = f64::from(u32::try_from(commits.len())?);
    let mut table = Table::new(format!("{:.0} tasks/s for {} s, retention on", args.rate, args.seconds));
    for (variant, points) in thirds(&points) {
        table.add(variant, summary(points));
    }
    let mut whole = Waits::of(pairs.iter().copied()).columns();
    let poured = Duration::from_nanos(commits.iter().max().unwrap_or(&began) - began);
    whole.push(("added/s", added / poured.as_secs_f64()));
    whole.extend(cost.per_task(added, transactions));
    table.add("all", whole);
    Ok(table)
}

/// Counters only: a look must not cost what it looks for.
async fn look_around(
    db: &Db,
    worker: &Worker,
    lasts: Duration,
    every: Duration,
) -> anyhow::Result<Vec<Look>> {
    let sql = "
        select n_live_tup::float8, n_dead_tup::float8, pg_indexes_size(relid)::float8
        from pg_stat_user_tables
        where relname = 'agent_tasks'";
    let mut looks = Vec::new();
    let mut ticks = interval(every);
    ticks.tick().await;
    for _ in 0..lasts.as_secs() / every.as_secs() {
        ticks.tick().await;
        let row = db.row(sql).await?;
        looks.push(Look {
            moment: now(),
            live: row.try_get(0)?,
            dead: row.try_get(1)?,
            index_bytes: row.try_get(2)?,
            worker_megabytes: worker.megabytes()?,
        });
    }
    Ok(looks)
}

/// Flat is what does not grow from one to the next.
fn thirds(points: &[Point]) -> [(&'static str, &[Point]); 3] {
    let third = points.len().div_ceil(3);
    let (first, rest) = points.split_at(third.min(points.len()));
    let (second, third) = rest.split_at(third.min(rest.len()));
    [("first third", first), ("second third", second), ("last third", third)]
}

fn summary(points: &[Point]) -> Sample {
    let mean = |value: &dyn Fn(&Point) -> f64| {
        points.iter().map(value).sum::<f64>()
            / f64::from(u32::try_from(points.len().max(1)).unwrap_or(u32::MAX))
    };
    vec![
        ("p50 ms", mean(&|point| point.waits.percentile(50))),
        ("p99 ms", mean(&|point| point.waits.percentile(99))),
        ("dead rows", mean(&|point| point.look.dead)),
        ("index B/row", mean(&Point::index_bytes_per_row)),
        ("RSS MB", mean(&|point| point.look.worker_megabytes)),
    ]
}

fn write_files(args: &Args, points: &[Point]) -> anyhow::Result<()> {
    let plot = args.plot.clone().unwrap_or_else(|| files::result("sustained.svg"));
    if let Some(dir) = plot.parent() {
        std::fs::create_dir_all(dir).with_context(|| dir.display().to_string())?;
    }
    let mut csv =
        "seconds,live_rows,dead_rows,index_bytes,index_bytes_per_row,tasks,p50_ms,p99_ms,worker_mb\n"
            .to_owned();
    for point in points {
        let Point { seconds, look, waits } = point;
        writeln!(
            csv,
            "{seconds:.1},{},{},{},{:.1},{},{:.3},{:.3},{:.1}",
            look.live,
            look.dead,
            look.index_bytes,
            point.index_bytes_per_row(),
            waits.count(),
            waits.percentile(50),
            waits.percentile(99),
            look.worker_megabytes
        )?;
    }
    let curve = |name, value: &dyn Fn(&Point) -> f64| Curve {
        name,
        points: points.iter().map(|point| (point.seconds, value(point))).collect(),
    };
    let curves = [
        curve("dead rows", &|point| point.look.dead),
        curve("index bytes per live row", &Point::index_bytes_per_row),
        curve("memory of the worker, MB", &|point| point.look.worker_megabytes),
        curve("commit to start, p50, ms", &|point| point.waits.percentile(50)),
        curve("commit to start, p99, ms", &|point| point.waits.percentile(99)),
    ];
    let title = format!("{:.0} tasks/s, retention on", args.rate);
    std::fs::write(&plot, plot::svg(&title, &curves)).with_context(|| plot.display().to_string())?;
    let table = plot.with_extension("csv");
    std::fs::write(&table, csv).with_context(|| table.display().to_string())?;
    eprintln!("  written: {} and {}", plot.display(), table.display());
    Ok(())
}
