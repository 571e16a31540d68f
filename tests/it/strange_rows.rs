//! Values at the ends of their types: in rows that others insert, and in tasks that are added by the library.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Value, json};
use task_processor::queue::{Ending, NewTask, QueueError, Verdict};

use crate::support::{TestApp, TestDb};

#[tokio::test]
async fn numbers_that_no_program_can_hold_cost_their_own_tasks_and_no_other() {
    let db = TestDb::new().await;
    let digits = "7".repeat(400);
    let unreadable = ["1e400", "-1e400", "1e131071", digits.as_str()];
    let readable = [
        "1e308",
        "1e-400",
        "-0",
        "-0.0",
        "9223372036854775808",
        "18446744073709551616",
        "0.1234567890123456789012345",
    ];
    for (number, ends) in
        unreadable.iter().map(|n| (n, "failed")).chain(readable.iter().map(|n| (n, "completed")))
    {
        let insert = format!(
            "insert into agent_tasks (task_type, agent_type, context_json, priority)
             values ('echo', '{ends}', '{{\"n\": [{number}]}}', 'urgent')"
        );
        db.execute(&insert).await;
    }
    let app = TestApp::start(&db, &[]).await;
    db.eventually("all have ended", "select bool_and(status in ('completed', 'failed')) from agent_tasks")
        .await;
    let wrong = "select coalesce(string_agg(left(context_json::text, 60) || error_log, '; '), '')
        from agent_tasks where status <> agent_type or attempt <> 1 or length(error_log) > 200
            or (status = 'failed' and error_log not like 'column context_json cannot be read:%')";
    assert_eq!(db.value::<String>(wrong).await, "");
    let logged = "select max(pg_column_size(l.*)) from agent_actions_log l";
    assert!(db.value::<i32>(logged).await < 20_000, "131,072 digits are not copied into the log");
    assert_eq!(app.get("/health").await.1["status"], "healthy");
    app.stop().await;
}

#[tokio::test]
async fn every_fraction_that_an_f64_holds_comes_back_to_the_last_digit() {
    let db = TestDb::new().await;
    db.execute(
        "insert into agent_tasks (task_type, agent_type, context_json)
         select 'echo', 'a', jsonb_build_object('n', jsonb_agg((random() * 10 ^ (n % 40 - 20))::float8)) from generate_series(1, 2000) n",
    )
    .await;
    let app = TestApp::start(&db, &[]).await;
    db.eventually("it has ended", "select status = 'completed' from agent_tasks").await;
    let changed = "select count(*) from agent_tasks
        cross join jsonb_array_elements(context_json -> 'n') with ordinality as put (n, at)
        join jsonb_array_elements(result_json -> 'n') with ordinality as got (n, at) using (at)
        where put.n::float8 is distinct from got.n::float8";
    assert_eq!(db.value::<i64>(changed).await, 0);
    app.stop().await;
}

#[tokio::test]
async fn dates_at_the_ends_of_time_stall_neither_claims_nor_rescue_nor_the_doors() {
    let db = TestDb::new().await;
    db.execute(
        "insert into agent_tasks (task_type, agent_type, context_json, scheduled_for, created_at, last_attempted_at) values
             ('echo', 'pending', '{}', 'infinity', now(), null),
             ('echo', 'pending', '{}', '294276-12-31 23:59:59.999999+00', now(), null),
             ('echo', 'completed', '{}', '-infinity', now(), 'infinity'),
             ('echo', 'completed', '{}', '4713-01-01 00:00:00+00 BC', now(), '-infinity'),
             ('echo', 'completed', '{}', '1970-01-01 00:00:00+14', '4713-01-01 00:00:00+00 BC', null),
             ('echo', 'completed', '{}', '2016-12-31 23:59:60+00', '1970-01-01', null),
             ('echo', 'failed', '{}', now(), 'infinity', null),
             ('echo', 'failed', '{}', now(), '-infinity', null),
             ('echo', 'failed', '{}', now(), '294276-12-31', null);
         insert into agent_tasks (task_type, agent_type, status, context_json, lease_expires_at, lease_token, last_attempted_at) values
             ('echo', 'processing', 'processing', '{}', 'infinity', gen_random_uuid(), 'infinity'),
             ('echo', 'processing', 'processing', '{}', '294276-12-31', gen_random_uuid(), now()),
             ('echo', 'processing', 'processing', '{}', null, null, '-infinity'),
             ('echo', 'processing', 'processing', '{}', null, null, 'infinity'),
             ('echo', 'completed', 'processing', '{}', '-infinity', gen_random_uuid(), '-infinity'),
             ('echo', 'completed', 'processing', '{}', '4713-01-01 BC', gen_random_uuid(), '4713-01-01 BC')",
    )
    .await;
    let app = TestApp::start(&db, &[("METRICS_OPEN", "true"), ("LEASE_SECONDS", "2")]).await;
    db.eventually("all are as they should be", "select bool_and(status = agent_type) from agent_tasks").await;
    let unread = "select count(*) = 3 and bool_and(error_log like 'column created_at cannot be read:%')
        from agent_tasks where status = 'failed'";
    assert!(db.value::<bool>(unread).await);
    // With the year 294276 as the next date, and with infinity.
    for _ in 0..2 {
        let (status, body) = app.post("/trigger-poll?wait=5", &json!({})).await;
        assert_eq!(
            (status, &body["remaining"], &body["nextDueAt"]),
            (200, &json!(0), &Value::Null),
            "{body}"
        );
        db.execute("delete from agent_tasks where scheduled_for between '294276-01-01' and '294276-12-31 23:59:59.999999'").await;
    }
    for path in ["/metrics", "/health", "/health/ready"] {
        assert_eq!(app.get(path).await.0, 200, "{path}");
    }
    // What is due in a moment is still done in a moment: the loop sleeps until then, and not until the year 294276.
    let soon = NewTask { delay: Duration::from_millis(300), ..NewTask::new("echo", json!({})) };
    let id = app.queue().enqueue_one(soon).await.expect("a task").id;
    db.task_becomes(id, "status = 'completed'").await;
    app.stop().await;
}

#[tokio::test]
async fn a_priority_that_is_none_counts_as_medium_and_numbers_out_of_range_as_absent() {
    let db = TestDb::new().await;
    for (label, priority) in [
        ("first", "'urgent'"),
        ("a", "'-1'"),
        ("b", "'32768'"),
        ("c", "'URGENT'"),
        ("d", "''"),
        ("e", "null"),
    ] {
        let insert = format!(
            "insert into agent_tasks (task_type, agent_type, context_json, priority, max_retries, retry_count, timeout_seconds)
             values ('echo', '{label}', '{{}}', {priority}, -1, -5, -3)"
        );
        db.execute(&insert).await;
    }
    db.execute("insert into agent_tasks (task_type, agent_type, context_json, priority) values ('echo', 'last', '{}', 'low')")
        .await;
    let queue = db.queue("test", &[]);
    let claimed = queue.claim(&["echo".to_owned()], 100).await.expect("a claim");
    let order: Vec<&str> =
        claimed.iter().map(|claimed| claimed.task.as_ref().expect("a task").agent_type.as_str()).collect();
    assert_eq!(order, ["first", "a", "b", "c", "d", "e", "last"]);
    for claimed in &claimed {
        assert_eq!((claimed.terms.timeout, claimed.terms.retry_count), (Duration::from_mins(5), 0));
        assert_eq!(claimed.terms.retry.max_retries, 3);
    }
}

#[tokio::test]
async fn the_library_refuses_what_no_worker_could_read_and_names_the_field() {
    let db = TestDb::new().await;
    let queue = db.queue("test", &[]);
    let task = || NewTask::new("echo", json!({}));
    let nested = |levels| (0..levels).fold(json!({}), |inner, _| Value::Array(vec![inner]));
    let of = |context: Value| NewTask::new("echo", context);
    for (field, tasks) in [
        ("task_type", vec![NewTask::new("", json!({})), NewTask::new("x".repeat(101), json!({}))]),
        ("task_type", vec![NewTask::new("a\0", json!({}))]),
        ("agent_type", vec![NewTask { agent_type: "x".repeat(51), ..task() }]),
        ("created_by", vec![NewTask { created_by: Some("\0".into()), ..task() }]),
        ("unique_key", vec![NewTask { unique_key: Some("k".repeat(256)), ..task() }]),
        ("unique_key", vec![NewTask { unique_key: Some(" ".into()), ..task() }]),
        (
            "priority",
            ["", "-1", "10", "32768", "High", "high ", "1.5", "null"]
                .map(|priority| NewTask { priority: priority.to_owned(), ..task() })
                .to_vec(),
        ),
        ("max_retries", [-1, 31, i32::MAX].map(|n| NewTask { max_retries: Some(n), ..task() }).to_vec()),
        (
            "timeout_seconds",
            [-1, 0, i32::MAX].map(|n| NewTask { timeout_seconds: Some(n), ..task() }).to_vec(),
        ),
        (
            "scheduled_for",
            [
                DateTime::<Utc>::MIN_UTC,
                DateTime::UNIX_EPOCH - TimeDelta::seconds(1),
                DateTime::<Utc>::MAX_UTC,
            ]
            .map(|at| NewTask { scheduled_for: Some(at), ..task() })
            .to_vec(),
        ),
        ("scheduled_for", vec![NewTask { delay: Duration::MAX, ..task() }]),
        ("context_json", vec![of(json!("x".repeat(1024 * 1024))), of(json!({ "\0": 1 })), of(json!(["\0"]))]),
        ("context_json", vec![of(nested(120)), of(nested(1_000))]),
    ] {
        for task in tasks {
            let what = format!("{:?}", NewTask { context: Value::Null, ..task.clone() });
            for refused in [queue.enqueue_one(task.clone()).await.err(), queue.enqueue(&[task]).await.err()] {
                match refused {
                    Some(QueueError::Invalid(invalid)) => {
                        assert_eq!(invalid.field, field, "{what}: {invalid}");
                    }
                    other => panic!("{field}: {other:?}: {what}"),
                }
            }
        }
    }
    assert_eq!(db.value::<i64>("select count(*) from agent_tasks").await, 0);
    // What is just within the bounds comes back as it was.
    for context in [nested(119), json!({ "n": [12.5, -0.0, u64::MAX, i64::MIN] })] {
        queue.enqueue_one(of(context.clone())).await.expect("a task");
        let claimed = queue.claim(&["echo".to_owned()], 1).await.expect("a claim");
        assert_eq!(claimed[0].task.as_ref().expect("readable").context, context);
    }
}

#[tokio::test]
async fn the_same_key_a_hundred_times_at_once_is_one_task_and_the_first_body_stays() {
    let db = TestDb::new().await;
    let queue = db.queue("test", &[("DATABASE_POOL_SIZE", "10")]);
    let calls = (0..100).map(|number| {
        let task = NewTask::new("echo", json!({ "number": number }));
        let queue = queue.clone();
        tokio::spawn(async move {
            queue.enqueue_one(NewTask { unique_key: Some("invoice-17".into()), ..task }).await
        })
    });
    let mut added = Vec::new();
    for call in calls.collect::<Vec<_>>() {
        added.push(call.await.expect("no panic").expect("a task"));
    }
    assert!(added.iter().all(|task| task.id == added[0].id), "all learn of the same task");
    let fresh: Vec<usize> = (0..100).filter(|number| !added[*number].existed).collect();
    let [first] = fresh[..] else { panic!("one of them made it: {fresh:?}") };
    let body = format!("select context_json = '{{\"number\": {first}}}' from agent_tasks");
    assert!(db.value::<bool>(&body).await, "and nobody else's body is in it");
}

#[tokio::test]
async fn one_answer_among_a_hundred_that_cannot_be_stored_costs_the_others_nothing() {
    let db = TestDb::new().await;
    let queue = db.queue("test", &[]);
    let tasks: Vec<NewTask> = (0..100).map(|number| NewTask::new("a", json!(number))).collect();
    for (poison, note) in [
        (
            (0..1_000).fold(json!(1), |inner, _| Value::Array(vec![inner])),
            "result_json ->> 'levels' = 'more than 120'",
        ),
        (json!("x".repeat(3 * 1024 * 1024)), "(result_json ->> 'sizeBytes')::int = 3 * 1024 * 1024 + 2"),
        (json!("\0".repeat(1_000)), "result_json #>> '{}' = repeat('\u{FFFD}', 1000)"),
    ] {
        queue.enqueue(&tasks).await.expect("tasks");
        let claimed = queue.claim(&["a".to_owned()], 100).await.expect("a claim");
        let endings: Vec<Ending> = claimed
            .iter()
            .enumerate()
            .map(|(number, claimed)| {
                let result = if number == 42 { poison.clone() } else { json!({ "number": number }) };
                Ending::complete(claimed.lease, result)
            })
            .collect();
        assert_eq!(queue.end(&endings).await.expect("verdicts"), [Verdict::Accepted; 100]);
        let kept =
            "select count(*) = 99 from agent_tasks where status = 'completed' and result_json ? 'number'";
        assert!(db.value::<bool>(kept).await);
        assert!(db.task_is(claimed[42].lease.id, note).await, "{note}");
        assert_eq!(db.value::<i64>("select count(*) from agent_actions_log").await, 100);
        db.execute("truncate agent_tasks, agent_actions_log").await;
    }
}
