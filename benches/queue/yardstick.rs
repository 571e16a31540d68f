//! The yardstick: a drain of the same tasks by raw SQL, which claims and ends 500 at once over two connections.

use anyhow::ensure;

use crate::db::Db;
use crate::meter::Meter;
use crate::pgbench::{Amount, Script};
use crate::server::Server;
use crate::table::Sample;
use crate::{load, pgbench, process};

const SCHEMA: &str = include_str!("yardstick/schema.sql");
const CLAIM_AND_END: &str = include_str!("yardstick/claim_and_end.sql");
const CLIENTS: u32 = 2;
const BATCH: u32 = 500;

/// Puts the yardstick's tables in the place of the product's.
pub(crate) async fn make_tables(db: &Db) -> anyhow::Result<()> {
    db.execute("drop table agent_tasks, agent_actions_log").await?;
    db.execute(SCHEMA).await
}

/// How many of so many tasks can be measured: both clients do whole batches, and the same number of them.
pub(crate) fn whole_batches(tasks: u32) -> u32 {
    tasks.div_ceil(CLIENTS * BATCH) * CLIENTS * BATCH
}

/// Works off the `tasks` that are counted in `db`.
pub(crate) async fn drain(server: &Server, db: &Db, tasks: u32) -> anyhow::Result<Sample> {
    ensure!(tasks == whole_batches(tasks), "{tasks} are not whole batches");
    server.settle().await?;
    let meter = Meter::begin(server, db, &[]).await?;
    let own = process::cpu_of_ended_children()?;
    let amount = Amount::Rounds(tasks / (CLIENTS * BATCH));
    let done = pgbench::run(server, db, Script { text: CLAIM_AND_END, clients: CLIENTS, amount }).await?;
    let own = process::cpu_of_ended_children()?.saturating_sub(own);
    let cost = meter.read(&[]).await?.with_own(own);
    let transactions = meter.transactions().await?;
    load::verify(db, tasks).await?;
    let tasks = f64::from(tasks);
    let mut sample = vec![("tasks/s", tasks / done.took.as_secs_f64())];
    sample.extend(cost.per_task(tasks, transactions));
    Ok(sample)
}
