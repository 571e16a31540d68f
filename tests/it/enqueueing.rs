//! Adding single tasks from many callers at once.

use std::time::Duration;

use futures_util::future::{join_all, poll_immediate};
use serde_json::json;
use task_processor::queue::NewTask;
use uuid::Uuid;

use crate::support::TestDb;

fn task() -> NewTask {
    NewTask::new("a", json!({}))
}

#[tokio::test]
async fn calls_at_the_same_time_share_statements() {
    let db = TestDb::new().await;
    let queue = db.queue("test", &[]);
    let added = join_all((0..60).map(|_| queue.enqueue_one(task()))).await;
    let mut ids: Vec<Uuid> = added.into_iter().map(|added| added.expect("a task").id).collect();
    ids.sort_unstable();
    ids.dedup();
    let stored: Vec<Uuid> = db.value("select array_agg(id order by id) from agent_tasks").await;
    assert_eq!(ids, stored, "each caller learns of a task of its own");
    let transactions: i64 = db.value("select count(distinct xmin::text) from agent_tasks").await;
    assert!(transactions <= 3, "{transactions} transactions for calls made in one breath");
}

#[tokio::test]
async fn a_task_that_the_database_refuses_costs_its_neighbours_nothing() {
    let db = TestDb::new().await;
    let queue = db.queue("test", &[]);
    let calls = (0..20).map(|n| {
        let nobody = (n == 7).then(Uuid::new_v4);
        queue.enqueue_one(NewTask { user_id: nobody, ..task() })
    });
    let added = join_all(calls).await;
    let refused: Vec<usize> = (0..20).filter(|n| added[*n].is_err()).collect();
    assert_eq!(refused, [7], "whose user does not exist");
    assert_eq!(db.value::<i64>("select count(*) from agent_tasks").await, 19);
}

#[tokio::test]
async fn a_caller_that_goes_away_leaves_nobody_waiting() {
    let db = TestDb::new().await;
    let queue = db.queue("test", &[]);
    // The first call begins the round that the second one depends on.
    let gone = poll_immediate(Box::pin(queue.enqueue_one(task()))).await;
    assert!(gone.is_none(), "it was under way when its caller left");
    let stays = queue.enqueue_one(task());
    tokio::time::timeout(Duration::from_secs(10), stays).await.expect("an answer").expect("a task");
    db.eventually("both are there", "select count(*) = 2 from agent_tasks").await;
}
