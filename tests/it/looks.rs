//! When the loop looks, how far back, and what becomes of that while others are in the way.

use serde_json::json;
use tokio_postgres::Client;

use crate::support::{TestApp, TestDb, connect};

/// Claims of so many wait for each other (`migrations/0009_due.sql`), so that a test can make them expensive.
const LARGE: &[(&str, &str)] = &[("CONCURRENCY", "100")];
/// Less than the time for which looks may pass over what an expensive one has seen to be gone, by far.
const IN_TIME: &str = "max(last_attempted_at) - min(last_attempted_at) < interval '10 s'";

/// A worker that has looked at least once, when that was cheap.
async fn start(db: &TestDb, settings: &[(&str, &str)]) -> TestApp {
    let app = TestApp::start(db, settings).await;
    app.ready().await;
    let first = app.add(json!({})).await;
    db.task_becomes(first, "status = 'completed'").await;
    app
}

/// From now on a large claim takes the quarter of a second for which it waits for others.
async fn make_claims_expensive(db: &TestDb) -> Client {
    let client = connect(&db.direct_url()).await;
    let lock = "begin;
        select pg_advisory_xact_lock(hashtextextended('agent_tasks_due', 'agent_tasks'::regclass::oid::bigint))";
    client.batch_execute(lock).await.expect("the lock");
    client
}

#[tokio::test]
async fn a_burst_of_urgent_tasks_does_not_hide_an_older_backlog() {
    let db = TestDb::new().await;
    let app = start(&db, LARGE).await;
    let _in_the_way = make_claims_expensive(&db).await;
    db.execute(
        "insert into agent_tasks (task_type, agent_type, priority, scheduled_for, context_json)
         select 'echo', 'backlog', 'medium', now() - interval '1 hour', '{}'::jsonb from generate_series(1, 100)
         union all select 'echo', 'burst', 'urgent', now(), '{}' from generate_series(1, 100)",
    )
    .await;
    db.eventually("all are done", "select bool_and(status = 'completed') from agent_tasks").await;
    let in_time = format!("select {IN_TIME} from agent_tasks where agent_type in ('backlog', 'burst')");
    assert!(db.value::<bool>(&in_time).await, "the backlog waited while nothing was in hand");
    app.stop().await;
}
