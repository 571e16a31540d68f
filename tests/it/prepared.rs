//! What is asked all the time is prepared, but only on connections that have a backend of their own.

use std::time::Duration;

use serde_json::json;
use task_processor::db::{Lane, Session};

use crate::support::{TestApp, TestDb, hears};

const PREPARED: &str = "select count(*) from pg_prepared_statements where statement like '%agent_tasks_%'";

/// A service whose claims have one connection.
async fn service(db: &TestDb) -> TestApp {
    let app = TestApp::start(db, &[("DATABASE_POOL_SIZE", "3")]).await;
    app.listens().await;
    app
}

async fn work(db: &TestDb, app: &TestApp) {
    let task = app.add(json!({})).await;
    db.task_becomes(task, "status = 'completed'").await;
}

async fn session(app: &TestApp) -> Session {
    app.queue().database().session(Lane::Shared, Duration::from_secs(5)).await.expect("a connection")
}

async fn prepared(app: &TestApp) -> i64 {
    session(app).await.query(PREPARED, &[]).await.expect("a count")[0].get(0)
}

#[tokio::test]
async fn what_is_asked_all_the_time_is_prepared_unless_a_transaction_pooler_stands_in_between() {
    let db = TestDb::new().await;
    let app = service(&db).await;
    work(&db, &app).await;
    let direct = hears() && db.url() == db.direct_url();
    assert_eq!(prepared(&app).await > 0, direct);
    app.stop().await;
}

#[tokio::test]
async fn where_what_was_prepared_is_gone_it_is_asked_without_and_nothing_is_prepared_any_more() {
    let db = TestDb::new().await;
    let app = service(&db).await;
    work(&db, &app).await;
    let mut forgetful = session(&app).await;
    forgetful.query_prepared("select 'agent_tasks_1'", &[]).await.expect("an answer");
    forgetful.batch("deallocate all").await.expect("forgotten");
    forgetful.query_prepared("select 'agent_tasks_1'", &[]).await.expect("the same answer");
    forgetful.query_prepared("select 'agent_tasks_2'", &[]).await.expect("another answer");
    drop(forgetful);
    work(&db, &app).await;
    assert_eq!(prepared(&app).await, 0);
    app.stop().await;
}
