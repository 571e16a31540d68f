//! Raw SQL from pgbench: what Postgres does without us.

use std::time::Duration;

use anyhow::{Context, bail};
use tokio::time::{Instant, timeout};

use crate::db::Db;
use crate::files;
use crate::server::Server;

const PATIENCE: Duration = Duration::from_mins(10);

/// How much a client does.
#[derive(Clone, Copy)]
pub(crate) enum Amount {
    /// So many rounds of the script.
    Rounds(u32),
    /// As many as fit.
    Time(Duration),
}

/// A script and who runs it.
#[derive(Clone, Copy)]
pub(crate) struct Script<'a> {
    pub(crate) text: &'a str,
    pub(crate) clients: u32,
    pub(crate) amount: Amount,
}

/// What pgbench did.
pub(crate) struct Done {
    pub(crate) rounds: u32,
    pub(crate) took: Duration,
}

/// Runs a script, with unnamed statements as the product does.
pub(crate) async fn run(server: &Server, db: &Db, script: Script<'_>) -> anyhow::Result<Done> {
    let file = files::scratch("pgbench");
    std::fs::write(&file, script.text).with_context(|| file.display().to_string())?;
    let result = run_file(server, db, script, &file).await;
    std::fs::remove_file(&file)?;
    result
}

async fn run_file(
    server: &Server,
    db: &Db,
    script: Script<'_>,
    file: &std::path::Path,
) -> anyhow::Result<Done> {
    let mut command = server.program("pgbench");
    command.args(["-n", "-M", "extended", "-j", "2", "-c", &script.clients.to_string(), "-f"]).arg(file);
    match script.amount {
        Amount::Rounds(rounds) => command.args(["-t", &rounds.to_string()]),
        Amount::Time(time) => command.args(["-T", &time.as_secs().to_string()]),
    };
    let began = Instant::now();
    let output = timeout(PATIENCE, command.arg(db.name()).kill_on_drop(true).output()).await??;
    let took = began.elapsed();
    let (said, complained) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if !output.status.success() || complained.contains("aborted") {
        bail!("pgbench: {complained}");
    }
    let processed = said
        .lines()
        .find_map(|line| line.strip_prefix("number of transactions actually processed: "))
        .with_context(|| format!("pgbench does not say what it did: {said}"))?;
    let rounds = processed.split('/').next().unwrap_or_default().trim().parse()?;
    Ok(Done { rounds, took })
}
