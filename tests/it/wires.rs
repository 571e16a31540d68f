//! The wire between the service and the database: swallowed, slow, deaf, and cut while a reply is on it.

use std::time::Duration;

use serde_json::json;
use task_processor::handler::Registry;
use task_processor::handlers;
use task_processor::queue::NewTask;
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use crate::support::{Effects, Proxy, TestApp, TestDb, acting, eventually, pass};

/// A service at the other end of a wire, which listens past it.
struct Wired {
    db: TestDb,
    wire: Proxy,
    app: TestApp,
}

impl Wired {
    async fn new(settings: &[(&str, &str)]) -> Self {
        Self::with(settings, handlers::all()).await
    }

    async fn with(settings: &[(&str, &str)], handlers: Registry) -> Self {
        let db = TestDb::new().await;
        let (wire, url) = db.over_tcp().await;
        let config = db.config(&[&[("DATABASE_URL", url.as_str())], settings].concat());
        let app = TestApp::start_with(config, handlers).await;
        app.ready().await;
        Self { db, wire, app }
    }

    /// A reply that the wire holds is lost.
    async fn lose_what_is_held(&self) {
        self.wire.holds().await;
        self.wire.cut();
        self.db.lead(&self.wire);
    }
}

#[tokio::test]
async fn an_attempt_acts_no_more_when_a_route_has_swallowed_its_renewals_for_a_lease() {
    let effects = Effects::listen().await;
    let wired = Wired::with(&[("LEASE_SECONDS", "3")], Registry::new().with(effects.handler())).await;
    let task = NewTask::new("act", acting(450, 10));
    let id = wired.app.queue().enqueue_one(task).await.expect("a task").id;
    eventually("it acts", async || effects.of_attempt(1) > 10).await;
    wired.wire.stall();
    let swallowed = Instant::now();
    eventually("it has stopped", async || effects.seen().last().unwrap().at.elapsed().as_secs() >= 1).await;
    let acted = effects.seen().last().unwrap().at - swallowed;
    assert!(acted < Duration::from_millis(3_800), "it went on without a lease: {acted:?}");
    assert_eq!(wired.app.get("/health").await.0, 200, "no restart would help");
    wired.wire.flow();
    wired.db.task_becomes(id, "status = 'completed' and attempt = 2 and retry_count = 0").await;
    wired.app.stop().await;
}

#[tokio::test]
async fn a_slow_wire_costs_no_lease_and_no_task() {
    let wired = Wired::new(&[("LEASE_SECONDS", "3"), ("CONCURRENCY", "20")]).await;
    // A round trip of 300 ms.
    wired.wire.delay(Duration::from_millis(150));
    wired
        .db
        .execute(
            "insert into agent_tasks (task_type, agent_type, context_json)
             select 'echo', 't', jsonb_build_object('sleep_ms', 4000 * (number % 2)) from generate_series(1, 20) number",
        )
        .await;
    wired.db.eventually("all are done", "select bool_and(status = 'completed') from agent_tasks").await;
    let unharmed = "select bool_and(attempt = 1 and crash_count = 0 and retry_count = 0) from agent_tasks";
    assert!(wired.db.value::<bool>(unharmed).await);
    assert_eq!(wired.app.worker.metrics().leases_lost.get(), 0);
    wired.app.stop().await;
}

#[tokio::test]
async fn an_enqueue_whose_reply_is_lost_is_repeated_under_its_key_and_adds_nothing() {
    let wired = Wired::new(&[]).await;
    let task = NewTask { unique_key: Some("once".to_owned()), ..NewTask::new("echo", json!({})) };
    wired.wire.hold_reply("insert into agent_tasks");
    let (lost, ()) = tokio::join!(wired.app.queue().enqueue_one(task.clone()), wired.lose_what_is_held());
    lost.expect_err("nobody knows");
    let added: Uuid = wired.db.value("select id from agent_tasks").await;
    let again = wired.app.queue().enqueue_one(task).await.expect("an answer");
    assert_eq!((again.id, again.existed), (added, true));
    wired.db.task_becomes(added, "status = 'completed'").await;
    assert_eq!(wired.db.value::<i64>("select count(*) from agent_tasks").await, 1);
    wired.app.stop().await;
}

#[tokio::test]
async fn a_failure_whose_reply_is_lost_spends_one_retry_and_is_logged_once() {
    let wired = Wired::new(&[("RETRY_BASE_SECONDS", "3")]).await;
    wired.wire.hold_reply("agent_tasks_end_v1");
    let retried = wired.app.add(json!({ "fail_times": 1 })).await;
    wired.lose_what_is_held().await;
    assert!(wired.db.task_is(retried, "status = 'pending' and retry_count = 1").await);
    eventually("it is known", async || wired.app.worker.in_hand() == 0).await;
    wired.wire.hold_reply("agent_tasks_end_v1");
    let failed = wired.app.add(json!({ "fail_permanently": true })).await;
    wired.lose_what_is_held().await;
    wired.db.task_becomes(retried, "status = 'completed' and retry_count = 1").await;
    assert!(wired.db.task_is(failed, "status = 'failed' and attempt = 1").await);
    eventually("all is known", async || wired.app.worker.in_hand() == 0).await;
    let counts = wired.app.worker.counts();
    assert_eq!((counts.succeeded, counts.failed), (1, 2));
    let log = "select count(*) from agent_actions_log where action_type = 'process_echo'";
    assert_eq!(wired.db.value::<i64>(log).await, 3, "a retry, a failure, a success");
    wired.app.stop().await;
}

/// A service that listens over a wire of its own, which has become deaf.
async fn deaf(db: &TestDb, poll_ms: &str) -> TestApp {
    let (ears, url) = db.over_tcp().await;
    let settings = [("LISTEN_DATABASE_URL", url.as_str()), ("POLLING_INTERVAL_MS", poll_ms)];
    let app = TestApp::start(db, &settings).await;
    app.ready().await;
    eventually("it listens", async || app.worker.is_listening()).await;
    let first = app.add(json!({})).await;
    db.task_becomes(first, "status = 'completed'").await;
    let quiet = "select quiet_until < clock_timestamp() from agent_tasks_wake";
    db.eventually("inserts announce themselves", quiet).await;
    sleep(Duration::from_secs(1)).await;
    ears.mute();
    // A new connection would hear.
    db.lead(&ears);
    app
}

#[tokio::test]
async fn a_task_whose_announcement_is_lost_starts_at_the_poll() {
    let db = TestDb::new().await;
    let app = deaf(&db, "1500").await;
    assert!(app.worker.is_listening(), "nobody knows yet");
    db.execute("insert into agent_tasks (task_type, agent_type, context_json) values ('echo', 'lost', '{}')")
        .await;
    db.eventually("all are done", "select bool_and(status = 'completed') from agent_tasks").await;
    let waited = "select extract(epoch from last_attempted_at - created_at)::float8 from agent_tasks where agent_type = 'lost'";
    let waited: f64 = db.value(waited).await;
    // The next probe would come much later.
    assert!(waited < 8.0, "{waited} s");
    app.stop().await;
}

#[tokio::test]
async fn a_connection_that_has_gone_deaf_is_noticed_by_its_probe_and_what_it_missed_is_done_at_once() {
    let db = TestDb::new().await;
    let app = deaf(&db, "600000").await;
    db.execute("insert into agent_tasks (task_type, agent_type, context_json) values ('echo', 'lost', '{}')")
        .await;
    sleep(Duration::from_millis(500)).await;
    let waits = "select count(*) = 1 from agent_tasks where status = 'pending'";
    assert!(db.value::<bool>(waits).await, "it was heard");
    assert!(app.worker.is_listening(), "nobody knows yet");
    // The probe comes every half minute, and has five seconds.
    pass(Duration::from_secs(30)).await;
    eventually("it notices", async || !app.worker.is_listening()).await;
    eventually("it listens again", async || app.worker.is_listening()).await;
    db.eventually("all are done", "select bool_and(status = 'completed') from agent_tasks").await;
    app.stop().await;
}
