//! `migrate`: bring the database up to date.

use serde_json::json;

use super::output::Output;
use crate::config::Config;
use crate::db::{Database, migrate, pending_migrations};

/// Options of `migrate`.
#[derive(clap::Args)]
pub(super) struct Args {
    /// Print what would be done, and do nothing.
    #[arg(long)]
    dry_run: bool,
}

pub(super) async fn run(args: Args, output: &Output) -> anyhow::Result<i32> {
    let config = Config::from_env()?;
    let database = Database::new(&config.database)?;
    if args.dry_run {
        let pending = pending_migrations(&database).await?;
        let names: Vec<&str> = pending.iter().map(|migration| migration.name).collect();
        let texts: Vec<String> =
            pending.iter().map(|migration| format!("-- {}\n{}", migration.name, migration.sql)).collect();
        let text = if pending.is_empty() { "-- nothing to do".to_owned() } else { texts.join("\n") };
        output.answer(&json!({ "pending": names }), text.trim_end());
        return Ok(0);
    }
    let report = migrate(&database).await?;
    let text = match report.applied.as_slice() {
        [] => "nothing to do".to_owned(),
        applied => format!("applied {}", applied.join(", ")),
    };
    output.answer(&json!({ "applied": report.applied }), text);
    Ok(0)
}
