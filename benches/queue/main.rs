//! The benchmarks of the queue: `cargo bench --bench queue -- SCENARIO`, described in `benches/README.md`.
//!
//! Every scenario starts a Postgres of its own with the durability of production, runs its variants in alternation, so
//! that what disturbs the machine disturbs them all, checks that the work was done, and prints one table.

#![allow(clippy::print_stdout, reason = "a benchmark answers on standard output")]

mod db;
mod drain;
mod load;
mod meter;
mod pgbench;
mod process;
mod scenarios;
mod server;
mod table;
mod worker;
mod yardstick;

use clap::{CommandFactory, Parser, Subcommand};

use scenarios::drain as drain_scenario;
use server::Server;
use table::Table;

/// Measures the release build of the queue on a private Postgres.
#[derive(Parser)]
#[command(name = "cargo bench --bench queue --", disable_help_subcommand = true)]
struct Cli {
    /// Print JSON, with every run.
    #[arg(long, global = true)]
    json: bool,
    /// What cargo adds.
    #[arg(long, global = true, hide = true)]
    bench: bool,
    #[command(subcommand)]
    scenario: Option<Scenario>,
}

#[derive(Subcommand)]
enum Scenario {
    /// A backlog, worked off with default and tuned settings, beside raw SQL.
    Drain(drain_scenario::Args),
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let cli = Cli::parse();
    let Some(scenario) = cli.scenario else {
        return Ok(Cli::command().print_help()?);
    };
    let server = Server::start().await?;
    let result = run(&server, &scenario).await;
    server.stop().await?;
    result?.print(cli.json);
    Ok(())
}

async fn run(server: &Server, scenario: &Scenario) -> anyhow::Result<Table> {
    match scenario {
        Scenario::Drain(args) => drain_scenario::run(server, args).await,
    }
}
