//! A database that is there and will not do: backends terminated, connections used up, tables locked, writes refused,
//! notifications without end.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use serde_json::json;
use task_processor::commands::dev::postgres::{EmbeddedPostgres, Options};
use task_processor::db::Lane;
use task_processor::queue::NewTask;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};
use tokio_postgres::NoTls;
use uuid::Uuid;

use crate::support::{Gate, KEY, Proxy, TestApp, TestDb, connect, eventually};

const DONE: &str = "select bool_and(status = 'completed') from agent_tasks";
const UNHARMED: &str =
    "select bool_and(attempt = 1 and crash_count = 0 and retry_count = 0) from agent_tasks";

/// Asks for this task now: the status, and whether a refusal says when to come back.
async fn process(app: &TestApp, id: Uuid) -> (u16, bool) {
    let request = app.http.post(app.url("/process-task")).bearer_auth(KEY).json(&json!({ "task_id": id }));
    let answer = request.send().await.expect("an answer");
    (answer.status().as_u16(), answer.headers().contains_key("retry-after"))
}

/// Adds tasks, each until it is acknowledged, until told to stop: how many.
fn add_tasks(app: &Arc<TestApp>, over: &Arc<AtomicBool>, writer: u32) -> JoinHandle<i64> {
    let (app, over) = (app.clone(), over.clone());
    tokio::spawn(async move {
        let mut added = 0;
        while !over.load(Ordering::SeqCst) {
            let key = Some(format!("{writer} {added}"));
            let task = NewTask { unique_key: key, ..NewTask::new("echo", json!({ "sleep_ms": 30 })) };
            while app.queue().enqueue_one(task.clone()).await.is_err() {
                sleep(Duration::from_millis(5)).await;
            }
            added += 1;
        }
        added
    })
}

#[tokio::test]
async fn backends_that_are_terminated_all_the_time_cost_time_and_nothing_else() {
    let db = TestDb::new().await;
    let app = Arc::new(TestApp::start(&db, &[("CONCURRENCY", "20")]).await);
    app.ready().await;
    db.execute(
        "insert into agent_tasks (task_type, agent_type, context_json)
         select 'echo', 'backlog', '{\"sleep_ms\": 20}' from generate_series(1, 2500)",
    )
    .await;
    let over = Arc::new(AtomicBool::new(false));
    let adding = [0, 1].map(|writer| add_tasks(&app, &over, writer));
    let terminate = "select count(pg_terminate_backend(pid)) from pg_stat_activity
        where datname = current_database() and application_name <> 'test' and backend_type = 'client backend'";
    let (mut terminated, mut refused) = (0, 0);
    let add = "insert into agent_tasks (task_type, agent_type, scheduled_for, context_json)
         select 'echo', 'asked for', now() + interval '1 hour', '{}' from generate_series(1, 20) returning id";
    let began = Instant::now();
    let enough = Duration::from_secs(3);
    let mut met = false;
    while began.elapsed() < enough || (!met && began.elapsed() < enough * 5) {
        let rows = db.rows(add).await;
        // In the midst of them.
        let (now, answers) = tokio::join!(
            db.value::<i64>(terminate),
            join_all(rows.iter().map(|row| process(&app, row.get(0))))
        );
        terminated += now;
        for answer in answers {
            assert!(matches!(answer, (200, _) | (503, true)), "{answer:?}");
            refused += u32::from(answer.0 == 503);
        }
        met = terminated > 10 && refused > 0;
        sleep(Duration::from_millis(200)).await;
    }
    over.store(true, Ordering::SeqCst);
    let mut added = 0;
    for writer in adding {
        added += writer.await.expect("no panic");
    }
    assert!(met, "{terminated} terminated, {refused} requests refused");
    db.execute("update agent_tasks set scheduled_for = now() where status = 'pending'; notify agent_tasks")
        .await;
    db.eventually("all are done", DONE).await;
    let counts = "select count(unique_key) from agent_tasks where crash_count = 0 and retry_count = 0";
    assert_eq!(db.value::<i64>(counts).await, added, "what was acknowledged");
    let log = "select count(*) = count(distinct context_id) and count(*) = (select count(*) from agent_tasks)
        from agent_actions_log where action_type = 'process_echo'";
    assert!(db.value::<bool>(log).await, "one ending each");
    let recovered = "select count(*) from agent_actions_log where action_type = 'recover_echo'";
    assert_eq!(db.value::<i64>(recovered).await, 0, "nothing counts as a crash");
    Arc::into_inner(app).expect("ours alone").stop().await;
}

#[tokio::test]
async fn an_exhausted_pool_costs_no_lease_and_no_ending_and_callers_are_told_soon() {
    let db = TestDb::new().await;
    let gate = Gate::closed();
    let config = db.config(&[("DATABASE_POOL_SIZE", "4"), ("LEASE_SECONDS", "10")]);
    let app = TestApp::start_with(config, gate.among_all()).await;
    // Whether it is ready is asked later: the answer is kept for 5 s.
    eventually("it works", async || app.get("/health").await.1["status"] == "healthy").await;
    let database = app.queue().database();
    let hold = || database.session(Lane::Shared, Duration::from_secs(1));
    let held = (hold().await.expect("one of two"), hold().await.expect("the other"));
    db.execute(
        "insert into agent_tasks (task_type, agent_type, context_json)
         select 'gate', 't', '{}' from generate_series(1, 5);
         notify agent_tasks",
    )
    .await;
    db.eventually("all are claimed", "select bool_and(attempt = 1) from agent_tasks").await;
    let asked = Instant::now();
    let answers = join_all((0..100).map(|_| process(&app, Uuid::new_v4()))).await;
    let took = asked.elapsed();
    assert!(answers.iter().all(|answer| *answer == (503, true)), "{answers:?}");
    assert!(took < Duration::from_secs(5), "{took:?}");
    assert_eq!(app.get("/health/ready").await.0, 200, "the database is well");
    let renewed = "select bool_and(lease_expires_at > last_attempted_at + interval '11 s') from agent_tasks";
    db.eventually("the leases are renewed", renewed).await;
    gate.open(5);
    db.eventually("all are done", DONE).await;
    assert!(db.value::<bool>(UNHARMED).await);
    assert_eq!(app.worker.metrics().leases_lost.get(), 0);
    drop(held);
    assert_eq!(process(&app, Uuid::new_v4()).await, (404, false));
    app.stop().await;
}

#[tokio::test]
async fn a_table_that_somebody_locks_costs_time_and_nothing_else() {
    let db = TestDb::new().await;
    let gate = Gate::closed();
    // Two thirds of it are more than the lock will last.
    let app = TestApp::start_with(db.config(&[("LEASE_SECONDS", "15")]), gate.among_all()).await;
    app.ready().await;
    for _ in 0..5 {
        app.queue().enqueue_one(Gate::task()).await.expect("a task");
    }
    db.eventually("all run", "select bool_and(status = 'processing') from agent_tasks").await;
    let human = connect(&db.direct_url()).await;
    human.batch_execute("begin; lock table agent_tasks").await.expect("locked");
    let locked = Instant::now();
    gate.open(5);
    app.worker.wake();
    let adding = app.queue().enqueue_one(NewTask::new("echo", json!({})));
    let asking = async {
        let answer = process(&app, Uuid::new_v4()).await;
        let told = locked.elapsed();
        human.batch_execute("rollback").await.expect("unlocked");
        (answer, told)
    };
    let (added, (answer, told)) = tokio::join!(adding, asking);
    assert_eq!(answer, (503, true));
    assert!((4..10).contains(&told.as_secs()), "{told:?}");
    added.expect("it has waited");
    db.eventually("all are done", DONE).await;
    assert!(db.value::<bool>("select count(*) = 6 from agent_tasks").await);
    assert!(db.value::<bool>(UNHARMED).await);
    assert_eq!(app.worker.metrics().leases_lost.get(), 0);
    app.stop().await;
}

#[tokio::test]
async fn a_server_without_room_for_another_connection_costs_no_lease_and_no_ending() {
    let mut options = Options::throw_away();
    options.max_connections = 20;
    let server = EmbeddedPostgres::start(options).await.expect("a server");
    let wire = Proxy::to(server.socket_dir()).await;
    let gate = Gate::closed();
    let app = TestApp::behind_with(&wire, &[("LEASE_SECONDS", "9")], gate.among_all()).await;
    let client = connect(&server.url("postgres")).await;
    let value = async |sql: &str| client.query_typed(sql, &[]).await.expect("an answer")[0].get::<_, bool>(0);
    for _ in 0..3 {
        app.queue().enqueue_one(Gate::task()).await.expect("a task");
    }
    let renewed =
        "select bool_and(lease_expires_at > last_attempted_at + interval '10 s') is true from agent_tasks";
    eventually("the leases are being renewed", async || value(renewed).await).await;
    let mut crowd = Vec::new();
    let mut fill = async || {
        while let Ok((other, connection)) = tokio_postgres::connect(&server.url("postgres"), NoTls).await {
            tokio::spawn(connection);
            crowd.push(other);
        }
    };
    // The connection for endings, which a claim or the listener's probe may have used already, has to be made anew. Whoever
    // is quicker than the crowd is sent away again.
    let terminate = "select count(pg_terminate_backend(pid)) > 0 from pg_stat_activity
        where application_name = 'task-processor'
            and query like any ('{%agent_tasks_take_v1%,%agent_tasks_next_v1%,%pg_notify%}')";
    loop {
        let any = value(terminate).await;
        fill().await;
        if !any {
            break;
        }
    }
    gate.open(3);
    eventually("the handlers have answered", async || app.worker.metrics().running.get() == 0).await;
    client.batch_execute("create temporary table asked as select now() at").await.expect("a table");
    let kept = "select bool_and(lease_expires_at > at + interval '9 s') is true from agent_tasks, asked";
    eventually("the leases are renewed all the same", async || value(kept).await).await;
    assert_eq!(app.worker.in_hand(), 3, "endings that cannot be written down");
    assert!(value("select bool_and(status = 'processing') from agent_tasks").await);
    drop(crowd);
    eventually("all are done", async || value(DONE).await).await;
    assert!(value(UNHARMED).await);
    assert_eq!(app.stop().await, 0);
}

#[tokio::test]
async fn a_server_that_takes_no_writes_costs_no_attempt_and_its_connections_are_not_kept() {
    let db = TestDb::new().await;
    let gate = Gate::closed();
    let config = db.config(&[("DATABASE_URL", &db.direct_url()), ("LEASE_SECONDS", "10")]);
    let app = TestApp::start_with(config, gate.among_all()).await;
    let running = app.queue().enqueue_one(Gate::task()).await.expect("a task").id;
    db.task_becomes(running, "status = 'processing'").await;
    let read_only = |on: &str| {
        format!("do $$ begin execute format('alter database %I {on}', current_database()); end $$")
    };
    // The sessions that there are go on as they began.
    db.execute(&read_only("set default_transaction_read_only = on")).await;
    let terminate = "select count(pg_terminate_backend(pid)) from pg_stat_activity
        where datname = current_database() and application_name <> 'test' and backend_type = 'client backend'";
    db.value::<i64>(terminate).await;
    db.execute(
        "insert into agent_tasks (task_type, agent_type, context_json) values ('echo', 'waits', '{}')",
    )
    .await;
    app.worker.wake();
    eventually("health tells", async || app.get("/health").await.1["status"] == "degraded").await;
    gate.open(1);
    eventually("it has ended", async || app.worker.metrics().running.get() == 0).await;
    assert_eq!(app.worker.in_hand(), 1, "which cannot be written down");
    assert!(db.value::<bool>("select bool_or(attempt = 0) and bool_or(attempt = 1) from agent_tasks").await);
    db.execute(&read_only("reset default_transaction_read_only")).await;
    db.eventually("all are done", DONE).await;
    assert!(db.value::<bool>(UNHARMED).await);
    eventually("health tells", async || app.get("/health").await.1["status"] == "healthy").await;
    app.stop().await;
}

#[tokio::test]
async fn a_storm_of_notifications_wakes_and_does_no_more() {
    let db = TestDb::new().await;
    let gate = Gate::closed();
    let app = TestApp::start_with(db.config(&[("DATABASE_URL", &db.direct_url())]), gate.among_all()).await;
    app.ready().await;
    let long = app.queue().enqueue_one(Gate::task()).await.expect("a task").id;
    db.task_becomes(long, "status = 'processing'").await;
    let commits = "select xact_commit from pg_stat_database where datname = current_database()";
    let before: i64 = db.value(commits).await;
    let stranger = connect(&db.direct_url()).await;
    for _ in 0..5 {
        let storm = format!(
            "select pg_notify('agent_tasks', number::text), pg_notify('agent_tasks_cancel', '{long}'),
                 pg_notify('agent_tasks_cancel', 'rubbish ' || number)
             from generate_series(1, 20000) number"
        );
        stranger.batch_execute(&storm).await.expect("notified");
    }
    let asked = Instant::now();
    let quick = app.add(json!({})).await;
    db.task_becomes(quick, "status = 'completed'").await;
    assert!(asked.elapsed() < Duration::from_secs(10), "{:?}", asked.elapsed());
    gate.open(1);
    db.task_becomes(long, "status = 'completed' and attempt = 1").await;
    app.stop().await;
    // A session hands in its counts when it ends.
    let gone = "select count(*) = 0 from pg_stat_activity
        where datname = current_database() and application_name <> 'test' and backend_type = 'client backend'";
    drop(stranger);
    db.eventually("its sessions are over", gone).await;
    let spent = db.value::<i64>(commits).await - before;
    assert!(spent < 2_000, "{spent} transactions for 200,000 notifications");
}
