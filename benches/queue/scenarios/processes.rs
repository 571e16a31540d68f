//! `processes`: one, two and four processes on one table.

use crate::drain::drain;
use crate::load::{self, DUE};
use crate::server::Server;
use crate::table::Table;
use crate::worker::TUNED;

/// Options of `processes`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The size of the backlog.
    #[arg(long, default_value_t = 400_000)]
    tasks: u32,
    /// How often each variant is measured.
    #[arg(long, default_value_t = 5)]
    runs: u32,
}

pub(crate) async fn run(server: &Server, args: &Args) -> anyhow::Result<Table> {
    let tasks = args.tasks;
    let mut table = Table::new(format!("drain of {tasks} tasks by several processes, tuned"));
    for _ in 0..args.runs {
        for (processes, variant) in [(1, "1 process"), (2, "2 processes"), (4, "4 processes")] {
            let db = server.copy_of("backlog", async |db| load::fill(db, &DUE, tasks).await).await?;
            table.add_beside("1 process", variant, drain(server, &db, tasks, (processes, TUNED)).await?);
            server.remove(db).await?;
        }
    }
    Ok(table)
}
