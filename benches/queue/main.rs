//! The benchmarks of the queue: `cargo bench --bench queue -- SCENARIO`, described in `benches/README.md`.
//!
//! Every scenario starts a Postgres of its own with the durability of production, runs its variants in alternation, so
//! that what disturbs the machine disturbs them all, checks that the work was done, and prints one table.

#![allow(clippy::print_stdout, reason = "a benchmark answers on standard output")]

mod db;
mod drain;
mod files;
mod load;
mod meter;
mod pgbench;
mod plot;
mod process;
mod scenarios;
mod server;
mod stamps;
mod table;
mod worker;
mod yardstick;

use std::path::PathBuf;

use clap::{CommandFactory, Parser, Subcommand};

use server::Server;
use table::Table;

/// Measures the release build of the queue on a private Postgres.
#[derive(Parser)]
#[command(name = "cargo bench --bench queue --", disable_help_subcommand = true)]
struct Cli {
    /// Print JSON, with every run.
    #[arg(long, global = true)]
    json: bool,
    /// Give the server 4 GB of write-ahead log to reuse, as one has that has been busy for a while. A new one has to make
    /// each file of 16 MB first, and all commits wait for that; with stock settings it may keep 1 GB.
    #[arg(long, global = true)]
    warm_wal: bool,
    /// What cargo adds.
    #[arg(long, global = true, hide = true)]
    bench: bool,
    #[command(subcommand)]
    scenario: Option<Scenario>,
}

#[derive(Subcommand)]
enum Scenario {
    /// A backlog, worked off with default and tuned settings, beside raw SQL.
    Drain(scenarios::drain::Args),
    /// A backlog, worked off by one, two and four processes.
    Processes(scenarios::processes::Args),
    /// Adding tasks, by SQL with and without the table's trigger, and by the library.
    Enqueue(scenarios::enqueue::Args),
    /// From the commit of a task to its handler, when idle or at half load.
    Latency(scenarios::latency::Args),
    /// What a process costs that has nothing to do.
    Idle(scenarios::idle::Args),
    /// A backlog in a table that holds a million other rows.
    Growth(scenarios::growth::Args),
    /// Thousands of tasks at once that take longer than a lease.
    Long(scenarios::long::Args),
    /// Inputs of 10 KB and 100 KB.
    Payload(scenarios::payload::Args),
    /// A steady stream with retention on, looked at every ten seconds; with a plot.
    Sustained(scenarios::sustained::Args),
    /// A steady stream while somebody holds a snapshot open.
    Snapshot(scenarios::snapshot::Args),
    /// A part that this program plays for `latency`, `sustained` and `snapshot`.
    #[command(name = stamps::COMMAND, hide = true)]
    StampingWorker {
        /// Where the starts are noted.
        file: PathBuf,
    },
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let cli = Cli::parse();
    let scenario = match cli.scenario {
        None => return Ok(Cli::command().print_help()?),
        Some(Scenario::StampingWorker { file }) => return stamps::work(&file).await,
        Some(scenario) => scenario,
    };
    let server = Server::start().await?;
    if cli.warm_wal {
        server.warm_wal().await?;
    }
    let result = run(&server, &scenario).await;
    server.stop().await?;
    result?.print(cli.json);
    Ok(())
}

async fn run(server: &Server, scenario: &Scenario) -> anyhow::Result<Table> {
    match scenario {
        Scenario::Drain(args) => scenarios::drain::run(server, args).await,
        Scenario::Processes(args) => scenarios::processes::run(server, args).await,
        Scenario::Enqueue(args) => scenarios::enqueue::run(server, args).await,
        Scenario::Latency(args) => scenarios::latency::run(server, args).await,
        Scenario::Idle(args) => scenarios::idle::run(server, args).await,
        Scenario::Growth(args) => scenarios::growth::run(server, args).await,
        Scenario::Long(args) => scenarios::long::run(server, args).await,
        Scenario::Payload(args) => scenarios::payload::run(server, args).await,
        Scenario::Sustained(args) => scenarios::sustained::run(server, args).await,
        Scenario::Snapshot(args) => scenarios::snapshot::run(server, args).await,
        Scenario::StampingWorker { .. } => unreachable!("a part without a server"),
    }
}
