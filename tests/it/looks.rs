//! When the loop looks, how far back, and what becomes of that while others are in the way.

use std::time::Duration;

use serde_json::json;
use tokio::time::{Instant, sleep};
use tokio_postgres::Client;

use crate::support::{TestApp, TestDb, connect, hears};

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
    // The first looks, over fresh connections, are expensive too: for so long others pass over what they have seen.
    sleep(Duration::from_secs(2)).await;
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

#[tokio::test]
async fn a_row_that_somebody_holds_during_an_expensive_look_is_not_forgotten() {
    let db = TestDb::new().await;
    let app = start(&db, LARGE).await;
    app.queue().pause("echo").await.expect("paused");
    db.execute(
        "insert into agent_tasks (task_type, agent_type, scheduled_for, context_json)
         values ('echo', 'held', now() - interval '1 hour', '{}')",
    )
    .await;
    let holder = connect(&db.direct_url()).await;
    let hold = "begin; select from agent_tasks where agent_type = 'held' for update";
    holder.batch_execute(hold).await.expect("held");
    let _in_the_way = make_claims_expensive(&db).await;
    app.queue().resume("echo").await.expect("resumed");
    let looks = "select count(*) from pg_stat_activity
        where wait_event = 'advisory' and query like '%agent_tasks_due%' and datname = current_database()";
    for (looking, looks_now) in [("it looks", 1), ("it has looked", 0)] {
        db.eventually(looking, &format!("select ({looks}) = {looks_now}")).await;
    }
    holder.batch_execute("rollback").await.expect("let go");
    db.execute("update agent_tasks set created_at = now() where agent_type = 'held'").await;
    db.eventually("it is done", "select bool_and(status = 'completed') from agent_tasks").await;
    let in_time =
        "select last_attempted_at < created_at + interval '10 s' from agent_tasks where agent_type = 'held'";
    assert!(db.value::<bool>(in_time).await);
    app.stop().await;
}

#[tokio::test]
async fn a_row_that_somebody_holds_does_not_keep_new_tasks_waiting() {
    let db = TestDb::new().await;
    if !hears() {
        return;
    }
    let app = start(&db, &[]).await;
    app.listens().await;
    let held = "insert into agent_tasks (task_type, agent_type, context_json) values ('echo', 'held', '{}')";
    let holder = connect(&db.direct_url()).await;
    app.queue().pause("echo").await.expect("paused");
    db.execute(held).await;
    holder
        .batch_execute("begin; select from agent_tasks where agent_type = 'held' for update")
        .await
        .expect("held");
    app.queue().resume("echo").await.expect("resumed");
    // The loop looks for it ever more rarely, up to once a second.
    sleep(Duration::from_secs(2)).await;
    let began = Instant::now();
    for _ in 0..10 {
        let task = app.add(json!({})).await;
        db.task_becomes(task, "status = 'completed'").await;
    }
    assert!(began.elapsed() < Duration::from_secs(4), "each waited for the next look");
    holder.batch_execute("rollback").await.expect("let go");
    db.eventually("all are done", "select bool_and(status = 'completed') from agent_tasks").await;
    app.stop().await;
}

#[tokio::test]
async fn a_full_worker_ends_the_quiet_for_an_idle_one() {
    let db = TestDb::new().await;
    let full = TestApp::start(&db, &[("CONCURRENCY", "20")]).await;
    full.ready().await;
    db.execute(
        "insert into agent_tasks (task_type, agent_type, context_json)
         select 'echo', 'long', '{\"sleep_ms\": 60000}' from generate_series(1, 20)",
    )
    .await;
    db.eventually("it has asked for quiet", "select quiet_until > '-infinity' from agent_tasks_wake").await;
    // Somebody inserts while it is quiet, and commits when that is over.
    full.queue().keep_quiet(Duration::from_mins(1), false).await.expect("quiet");
    let writer = connect(&db.direct_url()).await;
    let insert =
        "insert into agent_tasks (task_type, agent_type, context_json) values ('echo', 'quiet', '{}')";
    writer.batch_execute(&format!("begin; {insert}")).await.expect("inserted");
    db.execute("update agent_tasks_wake set quiet_until = '-infinity'").await;
    let idle = start(&db, &[]).await;
    writer.batch_execute("commit").await.expect("committed");
    db.eventually("it is done", "select status = 'completed' from agent_tasks where agent_type = 'quiet'")
        .await;
    assert_eq!(full.worker.in_hand(), 20, "there was no room for it");
    idle.stop().await;
    full.stop().await;
}

#[tokio::test]
async fn a_drain_is_not_over_before_it_has_looked_at_everything() {
    let db = TestDb::new().await;
    // So rarely that no look for suspects comes in between.
    let settings = [("POLL_MODE", "request"), ("POLLING_INTERVAL_MS", "120000")];
    let app = TestApp::start(&db, &settings).await;
    app.ready().await;
    let first = app.add(json!({ "sleep_ms": 1_000 })).await;
    let worker = app.worker.clone();
    let drain = tokio::spawn(async move { worker.drain(Duration::from_mins(1)).await.expect("an answer") });
    db.task_becomes(first, "status = 'processing'").await;
    // The next look takes long, so that those after it need not be complete.
    let client = connect(&db.direct_url()).await;
    client.batch_execute("begin; lock table task_types in access exclusive mode").await.expect("locked");
    let second = app.add(json!({ "sleep_ms": 1_000 })).await;
    let held_up = "select count(*) > 0 from pg_stat_activity
        where wait_event_type = 'Lock' and query like '%agent_tasks_take%' and datname = current_database()";
    db.eventually("the look is held up", held_up).await;
    sleep(Duration::from_millis(300)).await;
    client.batch_execute("rollback").await.expect("unlocked");
    db.task_becomes(second, "status = 'processing'").await;
    db.execute(
        "insert into agent_tasks (task_type, agent_type, scheduled_for, context_json)
         values ('echo', 'put back', now() - interval '1 hour', '{}')",
    )
    .await;
    let drained = drain.await.expect("no panic");
    assert_eq!((drained.worked.succeeded, drained.remaining), (3, 0));
    app.stop().await;
}

#[tokio::test]
async fn a_drain_does_not_ask_for_quiet() {
    let db = TestDb::new().await;
    let app = TestApp::start(&db, &[("POLL_MODE", "request"), ("CONCURRENCY", "100")]).await;
    app.ready().await;
    db.execute(
        "insert into agent_tasks (task_type, agent_type, context_json)
         select 'echo', 't', '{}'::jsonb from generate_series(1, 99)
         union all select 'echo', 'long', '{\"sleep_ms\": 1500}'",
    )
    .await;
    let worker = app.worker.clone();
    let drain = tokio::spawn(async move { worker.drain(Duration::from_mins(1)).await.expect("an answer") });
    let last = "select count(*) = 99 from agent_tasks where status = 'completed'";
    db.eventually("only the long one runs", last).await;
    // Said before the claim was worked on, or never.
    assert!(db.value::<bool>("select bool_and(quiet_until = '-infinity') from agent_tasks_wake").await);
    assert_eq!(drain.await.expect("no panic").worked.succeeded, 100);
    app.stop().await;
}
