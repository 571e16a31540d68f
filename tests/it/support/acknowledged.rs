//! Writers that know what was acknowledged to them, and whether a server still has it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use task_processor::commands::dev::postgres::EmbeddedPostgres;
use task_processor::queue::{NewTask, QueueError};
use tokio::task::JoinHandle;
use tokio::time::sleep;
use uuid::Uuid;

use super::{TestApp, value};

/// Adds tasks like this one, one after the other, until told to stop: the ids of those that were acknowledged. `refused` is
/// told of the others.
pub(crate) fn add_tasks(
    app: &Arc<TestApp>,
    over: &Arc<AtomicBool>,
    task: NewTask,
    refused: impl Fn(&QueueError) + Send + Sync + 'static,
) -> JoinHandle<Vec<Uuid>> {
    let (app, over) = (app.clone(), over.clone());
    tokio::spawn(async move {
        let mut acknowledged = Vec::new();
        while !over.load(Ordering::SeqCst) {
            match app.queue().enqueue_one(task.clone()).await {
                Ok(added) => acknowledged.push(added.id),
                Err(error) => {
                    refused(&error);
                    sleep(Duration::from_millis(20)).await;
                }
            }
        }
        acknowledged
    })
}

/// How many of the given tasks the server does not know.
pub(crate) async fn missing(server: &EmbeddedPostgres, ids: &[Uuid]) -> i64 {
    let ids: Vec<String> = ids.iter().map(Uuid::to_string).collect();
    let sql = format!(
        "select count(*) from unnest('{{{}}}'::uuid[]) id
         where not exists (select from agent_tasks task where task.id = id.id)",
        ids.join(",")
    );
    value(server, &sql).await
}
