//! The worker in one process: wake-ups, retries, limits, bad rows, order.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde::Deserialize;
use serde_json::json;
use task_processor::handler::Registry;
use task_processor::queue::NewTask;
use task_processor::{Handler, Outcome, Services, Task};
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use crate::support::{TestApp, TestDb, eventually, hears};

/// Notes who runs when, and with how many others.
#[derive(Clone, Default)]
struct Watched {
    running: Arc<AtomicUsize>,
    most: Arc<AtomicUsize>,
    company: Arc<Mutex<HashMap<Uuid, usize>>>,
    starts: Arc<Mutex<Vec<Uuid>>>,
}

#[derive(Deserialize)]
struct WatchedInput {
    #[serde(default)]
    ms: u64,
}

impl Handler for Watched {
    const TASK_TYPE: &'static str = "watched";
    type Input = WatchedInput;

    async fn run(&self, input: WatchedInput, task: Task, _services: Services) -> Outcome {
        let running = self.running.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(running, Ordering::SeqCst);
        self.company.lock().unwrap().insert(task.id, running);
        self.starts.lock().unwrap().push(task.id);
        sleep(Duration::from_millis(input.ms)).await;
        self.running.fetch_sub(1, Ordering::SeqCst);
        Outcome::complete(json!({}))
    }
}

#[tokio::test]
async fn a_row_that_anybody_inserts_is_done_at_once_and_not_at_the_next_poll() {
    let db = TestDb::new().await;
    let app = TestApp::start(&db, &[]).await;
    app.ready().await;
    db.execute("insert into agent_tasks (task_type, agent_type, context_json) values ('echo', 'me', '{\"hello\": 1}')")
        .await;
    db.eventually("it is done", "select (result_json = '{\"hello\": 1}') is true from agent_tasks").await;
    db.eventually(
        "one log row",
        "select count(*) = 1 from agent_actions_log where action_type = 'process_echo'",
    )
    .await;
    app.stop().await;
}

#[tokio::test]
async fn a_task_of_the_future_starts_when_it_is_due_and_not_at_the_next_poll() {
    let db = TestDb::new().await;
    let app = TestApp::start(&db, &[]).await;
    let task = NewTask { delay: Duration::from_millis(1_500), ..NewTask::new("echo", json!({})) };
    app.queue().enqueue_one(task).await.expect("a task");
    db.eventually("it is done", "select status = 'completed' from agent_tasks").await;
    let late: f64 = db.value("select extract(epoch from last_attempted_at - (created_at + interval '1.5 s'))::float8 from agent_tasks").await;
    assert!((-0.1..1.0).contains(&late), "started {late} s after it was due");
    app.stop().await;
}

#[tokio::test]
async fn a_task_that_always_fails_starts_at_0_1_3_and_7_and_is_then_given_up() {
    let db = TestDb::new().await;
    let app = TestApp::start(&db, &[("RETRY_BASE_SECONDS", "1")]).await;
    let id = app.add(json!({ "fail_times": 100 })).await;
    db.task_becomes(id, "status = 'failed' and retry_count = 3 and attempt = 4").await;
    let waits = db
        .rows(
            "select extract(epoch from created_at - first_value(created_at) over (order by created_at))::float8
             from agent_actions_log order by created_at",
        )
        .await;
    let waits: Vec<f64> = waits.iter().map(|row| row.get(0)).collect();
    assert_eq!(waits.len(), 4, "one log row for each attempt");
    for (wait, minutes) in waits.iter().zip([0.0, 1.0, 3.0, 7.0]) {
        assert!(*wait >= minutes && *wait < minutes + 0.9, "{waits:?}");
    }
    app.stop().await;
}

#[tokio::test]
async fn a_handler_that_panics_hangs_or_answers_oddly_costs_only_its_own_attempt() {
    let db = TestDb::new().await;
    let app = TestApp::start(&db, &[]).await;
    let once =
        |context| NewTask { max_retries: Some(0), timeout_seconds: Some(1), ..NewTask::new("echo", context) };
    let tasks = [
        once(json!({ "panic": true })),
        once(json!({ "sleep_ms": 60_000 })),
        once(json!({ "cancel": true })),
        once(json!({ "fail_permanently": "nul \u{1}\u{fffd}" })),
        NewTask::new("echo", json!({ "snooze_ms": 300 })),
        NewTask::new("echo", json!({ "fail_times": 1 })),
        NewTask::new("echo", json!({ "sleep_ms": "soon" })),
        NewTask::new("echo", json!({ "fail_times": -1 })),
        NewTask::new("echo", json!([])),
    ];
    let ids: Vec<Uuid> =
        app.queue().enqueue(&tasks).await.expect("tasks").iter().map(|task| task.id).collect();
    for (id, condition) in ids.iter().zip([
        "status = 'failed' and error_log like '%panicked: told to panic%'",
        "status = 'failed' and error_log = 'timed out after 1 s'",
        "status = 'cancelled' and result_json ->> 'reason' = 'told to cancel'",
        "status = 'failed' and error_log like 'nul %'",
        "status = 'completed' and attempt = 2 and retry_count = 0",
        "status = 'completed' and attempt = 2 and retry_count = 1 and error_log like 'told to fail%'",
        "status = 'failed' and attempt = 1 and error_log like '%sleep_ms%'",
        "status = 'failed' and attempt = 1 and error_log like '%fail_times%'",
        "status = 'completed' or status = 'failed'",
    ]) {
        db.task_becomes(*id, condition).await;
    }
    assert_eq!(app.get("/health").await.1["status"], "healthy");
    app.stop().await;
}

#[tokio::test]
async fn one_row_that_cannot_be_read_among_ninety_nine_good_ones_fails_alone_and_names_its_column() {
    let db = TestDb::new().await;
    db.execute(
        "insert into agent_tasks (task_type, agent_type, context_json)
         select 'echo', 't', jsonb_build_object('number', n) from generate_series(1, 99) n;
         insert into agent_tasks (task_type, agent_type, context_json)
         values ('echo', 'huge number', '{\"n\": 1e400}'),
             ('echo', 'deep', (repeat('[', 2000) || repeat(']', 2000))::jsonb);
         insert into agent_tasks (task_type, agent_type, context_json, created_at)
         values ('echo', 'no date', '{}', 'infinity')",
    )
    .await;
    let app = TestApp::start(&db, &[]).await;
    db.eventually("all have ended", "select bool_and(status in ('completed', 'failed')) from agent_tasks")
        .await;
    assert_eq!(db.value::<i64>("select count(*) from agent_tasks where status = 'completed'").await, 99);
    for (row, column) in
        [("huge number", "context_json"), ("deep", "context_json"), ("no date", "created_at")]
    {
        let named = format!(
            "select error_log like 'column {column} cannot be read:%' and attempt = 1
             from agent_tasks where agent_type = '{row}'"
        );
        assert!(db.value::<bool>(&named).await, "{row}");
    }
    app.stop().await;
}

#[tokio::test]
async fn concurrency_bounds_the_running_handlers() {
    let db = TestDb::new().await;
    let watched = Watched::default();
    db.execute(
        "insert into agent_tasks (task_type, agent_type, context_json)
         select 'watched', 't', '{\"ms\": 1}' from generate_series(1, 2000)",
    )
    .await;
    let app =
        TestApp::start_with(db.config(&[("CONCURRENCY", "4")]), Registry::new().with(watched.clone())).await;
    db.eventually("all are done", "select bool_and(status = 'completed') from agent_tasks").await;
    assert_eq!(watched.most.load(Ordering::SeqCst), 4);
    assert_eq!(watched.starts.lock().unwrap().len(), 2000, "each started once");
    assert_eq!(db.value::<i64>("select count(*) from agent_actions_log").await, 2000);
    app.stop().await;
}

#[tokio::test]
async fn a_process_that_stops_gives_back_what_it_claimed_ahead_and_what_it_cannot_finish() {
    let db = TestDb::new().await;
    let watched = Watched::default();
    let config = db.config(&[("CONCURRENCY", "2"), ("MAX_TASKS_PER_POLL", "20"), ("POLL_STRICT", "true")]);
    db.execute(
        "insert into agent_tasks (task_type, agent_type, context_json)
         select 'watched', 't', '{\"ms\": 60000}' from generate_series(1, 20)",
    )
    .await;
    let app = TestApp::start_with(config, Registry::new().with(watched.clone())).await;
    db.eventually("all are claimed", "select bool_and(status = 'processing') from agent_tasks").await;
    eventually("two run", async || watched.running.load(Ordering::SeqCst) == 2).await;
    let began = Instant::now();
    assert_eq!(app.stop().await, 0);
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    let free = "select bool_and(status = 'pending' and retry_count = 0 and crash_count = 0 and scheduled_for <= now())
        from agent_tasks";
    assert!(db.value::<bool>(free).await);
    assert_eq!(watched.starts.lock().unwrap().len(), 2);
    assert_eq!(
        db.value::<i64>("select count(*) from agent_actions_log where action_type = 'release_watched'").await,
        20
    );
}

#[tokio::test]
async fn a_task_whose_process_died_under_it_twice_runs_with_no_other() {
    let db = TestDb::new().await;
    let watched = Watched::default();
    db.execute(
        "insert into agent_tasks (task_type, agent_type, crash_count, context_json)
         select 'watched', 't', 0, '{\"ms\": 150}'::jsonb from generate_series(1, 40)
         union all select 'watched', 'suspect', 2, '{\"ms\": 150}' from generate_series(1, 3)",
    )
    .await;
    let app = TestApp::start_with(db.config(&[]), Registry::new().with(watched.clone())).await;
    db.eventually("all are done", "select bool_and(status = 'completed') from agent_tasks").await;
    let suspects = db.rows("select id from agent_tasks where agent_type = 'suspect'").await;
    for suspect in suspects {
        assert_eq!(watched.company.lock().unwrap()[&suspect.get::<_, Uuid>(0)], 1, "in company");
    }
    assert!(watched.most.load(Ordering::SeqCst) > 1, "the others ran side by side");
    assert!(db.value::<bool>("select bool_and(crash_count = 0) from agent_tasks").await);
    app.stop().await;
}

#[tokio::test]
async fn a_waiting_task_is_cancelled_at_once_and_a_running_one_within_a_moment() {
    let db = TestDb::new().await;
    // Only the notification can tell that soon, where there is one.
    let lease = if hears() { "300" } else { "6" };
    let app = TestApp::start(&db, &[("LEASE_SECONDS", lease)]).await;
    app.listens().await;
    let running = app.add(json!({ "sleep_ms": 60_000 })).await;
    db.task_becomes(running, "status = 'processing'").await;
    let task = NewTask { delay: Duration::from_hours(1), ..NewTask::new("echo", json!({})) };
    let waiting = app.queue().enqueue_one(task).await.expect("a task").id;
    let answers = app.queue().cancel(&[running, waiting], "enough").await.expect("an answer");
    assert_eq!(
        answers.iter().filter(|answer| answer.done).map(|answer| answer.id).collect::<Vec<_>>(),
        [waiting]
    );
    db.task_becomes(running, "status = 'cancelled' and completed_at is not null").await;
    assert!(db.task_is(waiting, "status = 'cancelled' and result_json ->> 'reason' = 'enough'").await);
    assert_eq!(
        db.value::<i64>("select count(*) from agent_actions_log where action_type = 'cancel_echo'").await,
        2
    );
    app.stop().await;
}

#[tokio::test]
async fn a_long_task_keeps_its_lease_for_as_long_as_it_runs() {
    let db = TestDb::new().await;
    let app = TestApp::start(&db, &[("LEASE_SECONDS", "2")]).await;
    let id = app.add(json!({ "sleep_ms": 6_000 })).await;
    db.task_becomes(id, "status = 'completed'").await;
    assert!(db.task_is(id, "attempt = 1 and crash_count = 0").await);
    app.stop().await;
}

#[tokio::test]
async fn an_attempt_whose_lease_was_taken_is_cut_short_and_writes_nothing() {
    let db = TestDb::new().await;
    let app = TestApp::start(&db, &[("LEASE_SECONDS", "9")]).await;
    let id = app.add(json!({ "sleep_ms": 60_000 })).await;
    eventually("it runs", async || app.worker.metrics().running.get() == 1).await;
    let taken = "update agent_tasks set lease_token = gen_random_uuid(), claimed_by = 'another process'";
    db.execute(&format!("{taken} where id = '{id}'")).await;
    eventually("it was given up", async || app.worker.in_hand() == 0).await;
    assert!(db.task_is(id, "status = 'processing' and result_json is null").await);
    assert_eq!(db.value::<i64>("select count(*) from agent_actions_log").await, 0);
    app.stop().await;
}

#[tokio::test]
async fn four_workers_on_one_table_start_each_task_exactly_once() {
    let db = TestDb::new().await;
    db.execute(
        "insert into agent_tasks (task_type, agent_type, context_json)
         select 'watched', 't', '{}' from generate_series(1, 4000)",
    )
    .await;
    let watched = Watched::default();
    let mut apps = Vec::new();
    for _ in 0..4 {
        apps.push(TestApp::start_with(db.config(&[]), Registry::new().with(watched.clone())).await);
    }
    db.eventually("all are done", "select bool_and(status = 'completed') from agent_tasks").await;
    let mut starts = watched.starts.lock().unwrap().clone();
    starts.sort_unstable();
    let all = starts.len();
    starts.dedup();
    assert_eq!((all, starts.len()), (4000, 4000), "starts and tasks");
    let logged = "select count(*) = 4000 and count(distinct context_id) = 4000 from agent_actions_log";
    db.eventually("one log row each", logged).await;
    for app in apps {
        app.stop().await;
    }
}

#[tokio::test]
async fn ten_writers_around_the_idle_edge_never_wait_for_the_poll() {
    let db = TestDb::new().await;
    let app = TestApp::start(&db, &[]).await;
    app.ready().await;
    let writers: Vec<_> = (0..10_u64)
        .map(|writer| {
            let url = db.direct_url();
            tokio::spawn(async move {
                let (client, connection) = tokio_postgres::connect(&url, tokio_postgres::NoTls).await.expect("a connection");
                tokio::spawn(connection);
                let insert = "insert into agent_tasks (task_type, agent_type, context_json) values ('echo', 't', '{}')";
                for number in 0..1000_u64 {
                    client.batch_execute(insert).await.expect("an insert");
                    // Pauses of all lengths around those in which a worker falls asleep.
                    if number % 50 == 0 {
                        sleep(Duration::from_millis((writer * 37 + number * 13) % 700)).await;
                    }
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.expect("no panic");
    }
    db.eventually("all are done", "select bool_and(status = 'completed') from agent_tasks").await;
    assert_eq!(db.value::<i64>("select count(*) from agent_tasks").await, 10_000);
    let latest: f64 = db
        .value("select max(extract(epoch from last_attempted_at - created_at))::float8 from agent_tasks")
        .await;
    assert!(latest < 1.0, "the last to start waited {latest} s");
    app.stop().await;
}

#[tokio::test]
async fn a_strict_poll_claims_once_in_an_interval() {
    let db = TestDb::new().await;
    db.execute(
        "insert into agent_tasks (task_type, agent_type, context_json)
         select 'echo', 't', '{}' from generate_series(1, 12)",
    )
    .await;
    let strict = [("POLL_STRICT", "true"), ("MAX_TASKS_PER_POLL", "4"), ("POLLING_INTERVAL_MS", "1000")];
    let app = TestApp::start(&db, &strict).await;
    db.eventually("all are done", "select bool_and(status = 'completed') from agent_tasks").await;
    let claims =
        "select extract(epoch from max(last_attempted_at) - min(last_attempted_at))::float8 from agent_tasks";
    let span: f64 = db.value(claims).await;
    assert!((1.9..3.5).contains(&span), "three claims in {span} s");
    app.stop().await;
}

#[tokio::test]
async fn once_works_off_what_is_due_and_ends() {
    let db = TestDb::new().await;
    db.execute(
        "insert into agent_tasks (task_type, agent_type, scheduled_for, context_json)
         select 'echo', 't', now(), '{}'::jsonb from generate_series(1, 50)
         union all select 'echo', 't', now() + interval '1 hour', '{}'",
    )
    .await;
    let app =
        task_processor::app::App::build(db.config(&[]), task_processor::handlers::all()).expect("an app");
    let worked = app.run_once().await.expect("an end");
    assert_eq!((worked.processed, worked.succeeded), (50, 50));
    assert_eq!(db.value::<i64>("select count(*) from agent_tasks where status = 'pending'").await, 1);
}

#[tokio::test]
async fn an_empty_database_is_filled_and_an_old_one_is_left_alone_until_it_is_migrated() {
    let db = TestDb::empty().await;
    let app = TestApp::start(&db, &[]).await;
    app.ready().await;
    app.stop().await;

    let db = TestDb::empty().await;
    db.execute("create table agent_tasks (id uuid primary key, status text)").await;
    let app = TestApp::start(&db, &[]).await;
    eventually("it says what is missing", async || {
        let (status, body) = app.get("/health/ready").await;
        status == 503
            && body["reason"].as_str().is_some_and(|reason| reason.contains("task-processor migrate"))
    })
    .await;
    let (status, body) = app.get("/health").await;
    assert_eq!((status, &body["status"]), (200, &json!("degraded")));
    let columns = "select count(*) from information_schema.columns where table_name = 'agent_tasks'";
    assert_eq!(db.value::<i64>(columns).await, 2);
    app.stop().await;
}

#[tokio::test]
async fn nothing_is_deleted_unless_retention_is_set_and_then_only_what_ended_long_ago() {
    let db = TestDb::new().await;
    db.execute(
        "insert into agent_tasks (task_type, agent_type, status, context_json, scheduled_for, completed_at)
         select 'none', 't', status, '{}', now() - interval '10 years', now() - age * interval '1 day'
         from (values ('completed'), ('failed'), ('cancelled'), ('pending')) as statuses (status),
             (values (1), (100)) as ages (age);
         insert into agent_actions_log (agent_type, action_type, created_at)
         select agent, 'a', now() - interval '100 days' from (values ('task_processor'), ('bouncer')) as agents (agent)",
    )
    .await;
    let rows = "select (select count(*) from agent_tasks) + (select count(*) from agent_actions_log)";
    // Tasks come first in a sweep: where the old row of the log is gone they have been left alone.
    let app = TestApp::start(&db, &[("LOG_RETENTION_DAYS", "30")]).await;
    db.eventually("the old log row is gone", "select count(*) = 1 from agent_actions_log").await;
    app.stop().await;
    assert_eq!(db.value::<i64>(rows).await, 9);

    let app = TestApp::start(&db, &[("RETENTION_DAYS", "30")]).await;
    db.eventually("the old tasks are gone", &format!("select ({rows}) = 6")).await;
    let kept =
        "select bool_and(status = 'pending' or completed_at > now() - interval '2 days') from agent_tasks";
    assert!(db.value::<bool>(kept).await);
    assert_eq!(db.value::<String>("select agent_type::text from agent_actions_log").await, "bouncer");
    app.stop().await;
}
