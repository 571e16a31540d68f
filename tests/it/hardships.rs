//! What a worker must bear: locks in the way, claims cut off, tasks cancelled while they wait, suspects beside long
//! tasks, rows that cannot be ended.

use std::time::Duration;

use rustix::process::Signal;
use serde_json::json;
use task_processor::app::App;
use task_processor::handlers;
use task_processor::queue::NewTask;
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use crate::support::{Gate, Instance, TestApp, TestDb, connect};

#[tokio::test]
async fn a_task_cancelled_while_it_waits_for_a_slot_costs_the_process_nothing() {
    let db = TestDb::new().await;
    let settings =
        [("CONCURRENCY", "1"), ("MAX_TASKS_PER_POLL", "3"), ("POLL_STRICT", "true"), ("LEASE_SECONDS", "3")];
    db.execute(
        "insert into agent_tasks (task_type, agent_type, context_json)
         select 'echo', 't', '{\"sleep_ms\": 13000}' from generate_series(1, 3)",
    )
    .await;
    let app = TestApp::start(&db, &settings).await;
    db.eventually("all are claimed", "select bool_and(status = 'processing') from agent_tasks").await;
    let waiting = db.rows("select id from agent_tasks order by id offset 1").await;
    let ids: Vec<Uuid> = waiting.iter().map(|row| row.get(0)).collect();
    app.queue().cancel(&ids, "enough").await.expect("an answer");
    // Longer than code that will not stop is borne with.
    sleep(Duration::from_secs(12)).await;
    assert!(!app.shutdown.has_begun(), "the process lives");
    db.eventually("it ran undisturbed", "select count(*) = 1 from agent_tasks where status = 'completed'")
        .await;
    db.eventually(
        "the others are cancelled",
        "select count(*) = 2 from agent_tasks where status = 'cancelled'",
    )
    .await;
    assert_eq!(app.stop().await, 0);
}

#[tokio::test]
async fn slow_tasks_are_never_hoarded() {
    let db = TestDb::new().await;
    db.execute(
        "insert into agent_tasks (task_type, agent_type, context_json)
         select 'echo', 't', '{\"sleep_ms\": 700}' from generate_series(1, 200)",
    )
    .await;
    let app = TestApp::start(&db, &[("CONCURRENCY", "10")]).await;
    let mut most = 0;
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(4) {
        most = most.max(app.worker.in_hand());
        sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(most, 10, "tasks in hand");
    app.stop().await;
}

#[tokio::test]
async fn what_was_claimed_ahead_of_a_slow_task_is_given_back_once() {
    let db = TestDb::new().await;
    // A thousand quick ones widen the window; the slow ones behind them are then claimed in one go.
    db.execute(
        "insert into agent_tasks (task_type, agent_type, scheduled_for, context_json)
         select 'echo', 't', now() - interval '1 hour', '{}'::jsonb from generate_series(1, 3000)
         union all select 'echo', 'slow', now(), '{\"sleep_ms\": 20000}'::jsonb from generate_series(1, 300)",
    )
    .await;
    let app = TestApp::start(&db, &[("CONCURRENCY", "4")]).await;
    db.eventually(
        "the quick ones are done",
        "select count(*) = 3000 from agent_tasks where status = 'completed'",
    )
    .await;
    let free = "select count(*) = 296 from agent_tasks where status = 'pending' and retry_count = 0 and scheduled_for <= now()";
    db.eventually("only what runs is held", free).await;
    // Longer than it takes to claim them again and to lose patience once more.
    sleep(Duration::from_secs(3)).await;
    let given_back = "select count(*) > 0 and count(*) = count(distinct context_id) from agent_actions_log where action_type = 'release_echo'";
    assert!(db.value::<bool>(given_back).await);
    app.stop().await;
}

#[tokio::test]
async fn a_suspect_waits_for_long_tasks_without_stopping_the_other_processes() {
    let db = TestDb::new().await;
    let gate = Gate::closed();
    let start = async || TestApp::start_with(db.config(&[]), gate.among_all()).await;
    let apps = [start().await, start().await];
    for app in &apps {
        app.ready().await;
    }
    for app in &apps {
        let long = NewTask { delay: Duration::from_hours(1), ..Gate::task() };
        let long = app.queue().enqueue_one(long).await.expect("a task").id;
        assert_eq!(app.post("/process-task", &json!({ "task_id": long })).await.0, 200);
    }
    assert!(apps.iter().all(|app| app.worker.in_hand() == 1), "both work");
    db.execute(
        "insert into agent_tasks (task_type, agent_type, crash_count, context_json) values ('echo', 'suspect', 2, '{}')",
    )
    .await;
    let reserved = "select scheduled_for > now() from agent_tasks where agent_type = 'suspect'";
    db.eventually("one process makes room", reserved).await;
    let urgent = apps[0].add(json!({})).await;
    db.task_becomes(urgent, "status = 'completed'").await;
    gate.open(2);
    db.eventually("the suspect runs in the end", "select bool_and(status = 'completed') from agent_tasks")
        .await;
    for app in apps {
        app.stop().await;
    }
}

#[tokio::test]
async fn while_a_task_runs_alone_others_are_refused_or_made_due_as_they_would_be_otherwise() {
    let db = TestDb::new().await;
    db.execute(
        "insert into agent_tasks (task_type, agent_type, crash_count, context_json)
         values ('echo', 'suspect', 2, '{\"sleep_ms\": 3000}')",
    )
    .await;
    let app = TestApp::start(&db, &[]).await;
    db.eventually("it runs alone", "select status = 'processing' from agent_tasks").await;
    let later = NewTask { delay: Duration::from_hours(24), ..NewTask::new("echo", json!({})) };
    let tomorrow = app.queue().enqueue_one(later).await.expect("a task").id;
    let unknown = app.queue().enqueue_one(NewTask::new("no_such_type", json!({}))).await.expect("a task").id;
    let webhook = json!({ "type": "INSERT", "table": "agent_tasks", "record": { "id": tomorrow } });
    assert_eq!(app.post("/process-task", &webhook).await.1["skipped"], "Task is not due yet");
    assert_eq!(app.post("/process-task", &json!({ "task_id": unknown })).await.0, 422);
    assert!(db.task_is(tomorrow, "scheduled_for > now() + interval '23 hours'").await);
    let sql = "insert into agent_tasks (task_type, agent_type, scheduled_for, context_json)
        values ('echo', 't', now() - interval '1 hour', '{}') returning id";
    let overdue = db.value(sql).await;
    for task in [tomorrow, overdue] {
        assert_eq!(app.post("/process-task", &json!({ "task_id": task })).await.0, 200);
    }
    db.task_becomes(overdue, "status = 'completed' and scheduled_for < now() - interval '59 minutes'").await;
    db.task_becomes(tomorrow, "status = 'completed'").await;
    app.stop().await;
}

#[tokio::test]
async fn an_insert_that_commits_after_the_quiet_is_announced_all_the_same() {
    let db = TestDb::new().await;
    let app = TestApp::start(&db, &[("CONCURRENCY", "100")]).await;
    app.ready().await;
    let client = connect(&db.direct_url()).await;
    let insert =
        "insert into agent_tasks (task_type, agent_type, context_json) select 'echo', 't', '{}' from ";
    db.execute(&format!("{insert} generate_series(1, 100)")).await;
    db.eventually("it is quiet", "select quiet_until > '-infinity' from agent_tasks_wake").await;
    client.batch_execute("begin").await.expect("begun");
    client.batch_execute(&format!("{insert} generate_series(1, 1)")).await.expect("inserted");
    sleep(Duration::from_secs(3)).await;
    client.batch_execute("commit").await.expect("committed");
    let committed = Instant::now();
    db.eventually("it is done", "select bool_and(status = 'completed') from agent_tasks").await;
    assert!(committed.elapsed() < Duration::from_secs(2), "{:?}", committed.elapsed());
    app.stop().await;
}

#[tokio::test]
async fn while_it_is_quiet_no_insert_announces_itself_whatever_the_protocol() {
    let db = TestDb::new().await;
    let app = TestApp::start(&db, &[]).await;
    app.ready().await;
    app.add(json!({})).await;
    db.eventually("it is done", "select bool_and(status = 'completed') from agent_tasks").await;
    let listens = app.worker.is_listening();
    if listens {
        // Whoever begins to listen looks once, and so does whoever is told of a task. After that there is no reason to.
        let rests =
            "select bool_and(state = 'idle' and state_change < clock_timestamp() - interval '1 second')
            from pg_stat_activity where datname = current_database() and application_name <> 'test'";
        db.eventually("the worker has nothing more to look for", rests).await;
    }
    app.queue().keep_quiet(Duration::from_mins(1), false).await.expect("quiet");
    let client = connect(&db.direct_url()).await;
    let insert = "insert into agent_tasks (task_type, agent_type, context_json) values ('echo', 't', '{}')";
    client.batch_execute(insert).await.expect("inserted");
    client.query_typed(insert, &[]).await.expect("inserted");
    if listens {
        sleep(Duration::from_millis(500)).await;
        assert!(db.value::<bool>("select count(*) = 2 from agent_tasks where status = 'pending'").await);
    }
    app.queue().announce().await.expect("announced");
    db.eventually("they are done", "select bool_and(status = 'completed') from agent_tasks").await;
    app.stop().await;
}

#[tokio::test]
async fn a_claim_held_up_when_the_signal_comes_loses_no_task_and_no_time() {
    let db = TestDb::new().await;
    let mut instance = Instance::start(&db, &[("SHUTDOWN_GRACE_SECONDS", "3")]).await;
    db.execute("insert into agent_tasks (task_type, agent_type, context_json) values ('echo', 't', '{\"sleep_ms\": 60000}')")
        .await;
    db.eventually("it runs", "select bool_and(status = 'processing') from agent_tasks").await;
    let locker = connect(&db.direct_url()).await;
    locker.batch_execute("begin; lock table task_types in access exclusive mode").await.expect("locked");
    db.execute(
        "insert into agent_tasks (task_type, agent_type, context_json) values ('echo', 'second', '{}')",
    )
    .await;
    let held_up = "select count(*) > 0 from pg_stat_activity where wait_event_type = 'Lock' and query like '%agent_tasks_take%'";
    db.eventually("a claim is held up", held_up).await;
    let told = Instant::now();
    instance.signal(Signal::TERM);
    sleep(Duration::from_secs(2)).await;
    locker.batch_execute("rollback").await.expect("unlocked");
    assert_eq!(instance.exit_code().await, Some(0), "{}", instance.log());
    assert!(told.elapsed() < Duration::from_secs(5), "{:?}", told.elapsed());
    let left = "select count(*) from agent_tasks where status = 'processing'";
    assert_eq!(db.value::<i64>(left).await, 0, "{}", instance.log());
    assert!(db.value::<bool>("select bool_and(crash_count = 0 and retry_count = 0) from agent_tasks").await);
}

#[tokio::test]
async fn a_task_that_cannot_be_ended_is_left_to_its_lease_and_not_run_again_and_again() {
    let db = TestDb::new().await;
    db.execute(
        "create function refuse() returns trigger language plpgsql as
         $$ begin if new.status in ('completed', 'failed') then raise exception 'no'; end if; return new; end $$;
         create trigger refuse before update on agent_tasks for each row execute function refuse()",
    )
    .await;
    let app = TestApp::start(&db, &[("LEASE_SECONDS", "18")]).await;
    let id = app.add(json!({})).await;
    db.task_becomes(id, "attempt = 1").await;
    let keeps_us_busy = app.add(json!({ "sleep_ms": 13_000 })).await;
    // Old enough for what is unknown to be released, which happens with each renewal.
    db.task_becomes(keeps_us_busy, "lease_expires_at > last_attempted_at + interval '23.5 s'").await;
    sleep(Duration::from_secs(1)).await;
    assert!(db.task_is(id, "attempt = 1 and status = 'processing'").await, "it is left alone");
    assert_eq!(
        db.value::<i64>("select count(*) from agent_actions_log where action_type = 'release_echo'").await,
        0
    );
    app.stop().await;
}

/// Several threads: what follows from the refusal and the end of the process run side by side.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_that_cannot_be_ended_does_not_make_its_process_end_as_if_code_would_not_stop() {
    let db = TestDb::new().await;
    db.execute(
        "create function refuse() returns trigger language plpgsql as
         $$ begin if old.status = 'processing' then raise exception 'no'; end if; return new; end $$;
         create trigger refuse before update on agent_tasks for each row execute function refuse()",
    )
    .await;
    for _ in 0..5 {
        let app = TestApp::start(&db, &[]).await;
        let id = app.add(json!({ "sleep_ms": 60_000 })).await;
        db.task_becomes(id, "status = 'processing'").await;
        assert_eq!(app.stop().await, 0);
    }
}

#[tokio::test]
async fn nobody_cancels_a_running_task_by_a_notification_alone() {
    let db = TestDb::new().await;
    let app = TestApp::start(&db, &[]).await;
    app.listens().await;
    let id = app.add(json!({ "sleep_ms": 1_500 })).await;
    db.task_becomes(id, "status = 'processing'").await;
    db.execute(&format!("notify agent_tasks_cancel, '{id}'")).await;
    db.task_becomes(id, "status = 'completed'").await;
    app.stop().await;
}

#[tokio::test]
async fn a_row_that_somebody_holds_delays_its_own_ending_and_no_other() {
    let db = TestDb::new().await;
    let gate = Gate::closed();
    let app = TestApp::start_with(db.config(&[]), gate.among_all()).await;
    let tasks = app.queue().enqueue(&[Gate::task(), Gate::task()]).await.expect("tasks");
    let ids: Vec<Uuid> = tasks.iter().map(|task| task.id).collect();
    db.eventually("both run", "select bool_and(status = 'processing') from agent_tasks").await;
    let holder = connect(&db.direct_url()).await;
    let hold = format!("begin; select from agent_tasks where id = '{}' for update", ids[0]);
    holder.batch_execute(&hold).await.expect("held");
    gate.open(2);
    db.task_becomes(ids[1], "status = 'completed' and attempt = 1").await;
    assert!(db.task_is(ids[0], "status = 'processing'").await);
    holder.batch_execute("rollback").await.expect("let go");
    db.task_becomes(ids[0], "status = 'completed' and attempt = 1").await;
    app.stop().await;
}

#[tokio::test]
async fn a_lock_that_the_log_of_one_task_waits_for_delays_no_other_ending() {
    let db = TestDb::new().await;
    db.execute(
        "create function wait() returns trigger language plpgsql as
         $$ begin if new.input_data ? 'waits' then perform pg_advisory_xact_lock(1); end if; return new; end $$;
         create trigger wait before insert on agent_actions_log for each row execute function wait();
         do $$ begin execute format('alter database %I set statement_timeout = 300', current_database()); end $$",
    )
    .await;
    let app = TestApp::start(&db, &[]).await;
    let holder = connect(&db.direct_url()).await;
    holder.batch_execute("select pg_advisory_lock(1)").await.expect("the lock");
    let context = |n| if n == 1 { json!({ "waits": true }) } else { json!({}) };
    let tasks: Vec<NewTask> = (0..4).map(|n| NewTask::new("echo", context(n))).collect();
    let ids = app.queue().enqueue(&tasks).await.expect("tasks");
    let waits = ids[1].id;
    for together in [0, 2, 3] {
        db.task_becomes(ids[together].id, "status = 'completed'").await;
    }
    for _ in 0..3 {
        let other = app.add(json!({})).await;
        db.task_becomes(other, "status = 'completed'").await;
    }
    assert!(db.task_is(waits, "status = 'processing'").await);
    holder.batch_execute("select pg_advisory_unlock(1)").await.expect("let go");
    db.task_becomes(waits, "status = 'completed' and attempt = 1").await;
    app.stop().await;
}

#[tokio::test]
async fn a_single_run_ends_with_an_error_where_there_is_nothing_to_work_on() {
    let db = TestDb::empty().await;
    db.execute("create table agent_tasks (id uuid primary key, status text)").await;
    let app = App::build(db.config(&[]), handlers::all()).expect("an app");
    let error = app.run_once().await.expect_err("it is not migrated");
    assert!(error.to_string().contains("task-processor migrate"), "{error}");
}
