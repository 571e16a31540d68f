//! `payload`: inputs of 10 KB and 100 KB that do not compress, echoed back.

use crate::drain::drain;
use crate::load::{self, DUE, Rows, incompressible};
use crate::server::Server;
use crate::table::Table;
use crate::worker::TUNED;

/// Options of `payload`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The number of inputs of 10 KB; there are a tenth as many of 100 KB.
    #[arg(long, default_value_t = 20_000)]
    tasks: u32,
    /// How often each variant is measured.
    #[arg(long, default_value_t = 5)]
    runs: u32,
}

pub(crate) async fn run(server: &Server, args: &Args) -> anyhow::Result<Table> {
    let mut table = Table::new("drain of large inputs, tuned");
    for _ in 0..args.runs {
        for (variant, template, bytes, tasks) in [
            ("10 KB", "kilobytes_10", 10_000, args.tasks),
            ("100 KB", "kilobytes_100", 100_000, args.tasks.div_ceil(10)),
        ] {
            let context = incompressible(bytes);
            let rows = Rows { context: &context, ..DUE };
            let db = server.copy_of(template, async |db| load::fill(db, &rows, tasks).await).await?;
            table.add(variant, drain(server, &db, tasks, (1, TUNED)).await?);
            server.remove(db).await?;
        }
    }
    Ok(table)
}
