//! Working off a backlog: the measurement that most scenarios are made of.

use std::time::Duration;

use anyhow::ensure;
use tokio::time::{Instant, sleep};
use tokio_postgres::types::Type;

use crate::db::Db;
use crate::load;
use crate::meter::Meter;
use crate::server::Server;
use crate::table::Sample;
use crate::worker::{Settings, Worker};

const POLL: Duration = Duration::from_millis(20);
const PATIENCE: Duration = Duration::from_mins(10);

/// Has so many processes work off the `tasks` that are counted in `db`, from their start to the last ending.
pub(crate) async fn drain(
    server: &Server,
    db: &Db,
    tasks: u32,
    (processes, settings): (usize, Settings),
) -> anyhow::Result<Sample> {
    let last = load::last(db).await?;
    server.settle().await?;
    let meter = Meter::begin(server, db, &[]).await?;
    let mut workers =
        (0..processes).map(|_| Worker::spawn(db, settings)).collect::<anyhow::Result<Vec<_>>>()?;
    let began = workers[0].started();
    let ended = until_done(db, last, &mut workers).await?;
    let cost = meter.read(&workers).await?;
    for worker in workers {
        worker.stop().await?;
    }
    let transactions = meter.transactions().await?;
    load::verify(db, tasks).await?;
    let tasks = f64::from(tasks);
    let mut sample = vec![("tasks/s", tasks / (ended - began).as_secs_f64())];
    sample.extend(cost.per_task(tasks, transactions));
    Ok(sample)
}

/// The moment at which nothing was left to do: that of the question, not of the answer.
pub(crate) async fn until_done(db: &Db, last: uuid::Uuid, workers: &mut [Worker]) -> anyhow::Result<Instant> {
    let began = Instant::now();
    loop {
        let asked = Instant::now();
        // By primary key: it disturbs nobody. Only then the rest is counted.
        if is_over(db, last).await? && load::unfinished(db).await? == 0 {
            return Ok(asked);
        }
        ensure!(began.elapsed() < PATIENCE, "not done within {PATIENCE:?}");
        workers.iter_mut().try_for_each(Worker::check)?;
        sleep(POLL).await;
    }
}

async fn is_over(db: &Db, task: uuid::Uuid) -> anyhow::Result<bool> {
    let sql = "select status not in ('pending', 'processing') from agent_tasks where id = $1";
    let rows = db.ask(sql, &[(&task, Type::UUID)]).await?;
    Ok(rows.first().is_some_and(|row| row.get(0)))
}
