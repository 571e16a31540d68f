//! `drain`: how fast a backlog is worked off, with default and with tuned settings, beside the raw yardstick.

use crate::drain::drain;
use crate::load::{self, DUE, MIXED, Rows};
use crate::server::Server;
use crate::table::Table;
use crate::worker::{DEFAULT, TUNED};
use crate::yardstick;

/// Options of `drain`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The size of the backlog.
    #[arg(long, default_value_t = 400_000)]
    tasks: u32,
    /// How often each variant is measured.
    #[arg(long, default_value_t = 5)]
    runs: u32,
    /// Tasks of all four priorities instead of one.
    #[arg(long)]
    mixed: bool,
}

pub(crate) async fn run(server: &Server, args: &Args) -> anyhow::Result<Table> {
    let tasks = yardstick::whole_batches(args.tasks);
    let rows = Rows { priority: if args.mixed { MIXED } else { DUE.priority }, ..DUE };
    let mut table = Table::new(format!("drain of {tasks} tasks"));
    for _ in 0..args.runs {
        for (variant, settings) in [("default", DEFAULT), ("tuned", TUNED)] {
            let db = server.copy_of("backlog", async |db| load::fill(db, &rows, tasks).await).await?;
            table.add_beside("yardstick", variant, drain(server, &db, tasks, (1, settings)).await?);
            server.remove(db).await?;
        }
        let fill = async |db: &_| {
            yardstick::make_tables(db).await?;
            load::fill(db, &rows, tasks).await
        };
        let db = server.copy_of("yardstick", fill).await?;
        table.add_beside("yardstick", "yardstick", yardstick::drain(server, &db, tasks).await?);
        server.remove(db).await?;
    }
    Ok(table)
}
