//! `migrate`: bring the database up to date.

use serde_json::json;

use super::output::Output;
use crate::config::Config;
use crate::db::inspect::drift;
use crate::db::{Database, migrate, pending_migrations};
use crate::telemetry;

/// Options of `migrate`.
#[derive(clap::Args)]
pub(super) struct Args {
    /// Print what would be done, and do nothing.
    #[arg(long)]
    dry_run: bool,
}

pub(super) async fn run(args: Args, output: &Output) -> anyhow::Result<i32> {
    let config = Config::from_env()?;
    telemetry::init(&config.log);
    let database = Database::new(&config.database)?;
    if args.dry_run {
        return dry_run(&database, output).await;
    }
    let report = migrate(&database).await?;
    let text = match report.applied.as_slice() {
        [] => "nothing to do".to_owned(),
        applied => format!("applied {}", applied.join(", ")),
    };
    output.answer(&json!({ "applied": report.applied }), text);
    Ok(0)
}

async fn dry_run(database: &Database, output: &Output) -> anyhow::Result<i32> {
    let pending = pending_migrations(database).await?;
    let names: Vec<&str> = pending.iter().map(|migration| migration.name).collect();
    let mut lines: Vec<String> =
        pending.iter().map(|migration| format!("-- {}\n{}", migration.name, migration.sql)).collect();
    // While migrations are missing, so is what they make.
    let drifted = if pending.is_empty() { drift(database).await? } else { Vec::new() };
    let drifted: Vec<String> = drifted.iter().map(|drift| format!("{} {}", drift.kind, drift.name)).collect();
    if pending.is_empty() {
        lines.push("-- nothing to do".to_owned());
    }
    lines.extend(drifted.iter().map(|what| format!("-- drift: {what}; see `task-processor doctor`")));
    output.answer(&json!({ "pending": names, "drift": drifted }), lines.join("\n").trim_end());
    Ok(0)
}
