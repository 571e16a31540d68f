//! Scale to zero: a process lives for one call, and between calls there is none.

use chrono::{DateTime, Utc};
use reqwest::Client;
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::{Instance, KEY, TestDb, answer, eventually};

/// Starts a process, calls it once as Cloud Scheduler would, and stops it: what it answered.
async fn visit(db: &TestDb) -> Value {
    let mut instance = Instance::start(db, &[("POLL_MODE", "request")]).await;
    // Nothing is begun before the call, though there is time for it.
    eventually("it is healthy", async || instance.health().await["status"] == "healthy").await;
    assert_eq!(db.value::<i64>("select count(*) from agent_tasks where status = 'processing'").await, 0);
    let client = Client::builder().no_proxy().build().expect("a client");
    let call = client.post(instance.url("/trigger-poll?wait=20")).bearer_auth(KEY);
    let (status, body) = answer(call).await;
    assert_eq!(status, 200, "{body}");
    assert_eq!(instance.health().await["inHand"], 0, "nothing outlives the call");
    instance.signal(Signal::TERM);
    assert_eq!(instance.exit_code().await, Some(0), "{}", instance.log());
    body
}

/// When the answer says the next task is due, beside what the table says. In seconds.
async fn off_by(db: &TestDb, answered: &Value) -> f64 {
    let told: DateTime<Utc> =
        answered["nextDueAt"].as_str().and_then(|time| time.parse().ok()).expect("a time");
    let due: DateTime<Utc> =
        db.value("select min(scheduled_for) from agent_tasks where status = 'pending'").await;
    (told - due).as_seconds_f64().abs()
}

#[tokio::test]
async fn one_call_does_what_is_due_and_says_when_to_call_again_and_no_process_is_needed_in_between() {
    let db = TestDb::new().await;
    db.execute(
        r#"insert into agent_tasks (task_type, agent_type, context_json, scheduled_for)
           select 'echo', 'test', '{"sleep_ms": 100}'::jsonb, now() from generate_series(1, 25)
           union all select 'echo', 'test', '{"fail_times": 1}', now()
           union all select 'echo', 'test', '{}', now() + interval '1 hour'"#,
    )
    .await;
    let first = visit(&db).await;
    assert_eq!((&first["succeeded"], &first["failed"]), (&json!(25), &json!(1)), "{first}");
    assert_eq!((&first["message"], &first["remaining"]), (&json!("Queue drained"), &json!(0)));
    assert!(off_by(&db, &first).await < 2.0, "{first}: the retry comes first");

    db.eventually(
        "the retry is due",
        "select bool_or(scheduled_for <= now()) from agent_tasks where status = 'pending'",
    )
    .await;
    db.execute("insert into agent_tasks (task_type, agent_type, context_json) values ('echo', 'test', '{}')")
        .await;
    let second = visit(&db).await;
    assert_eq!((&second["succeeded"], &second["failed"]), (&json!(2), &json!(0)), "{second}");
    assert!(off_by(&db, &second).await < 2.0, "{second}: only the task of the future is left");

    let third = visit(&db).await;
    assert_eq!(third["processed"], 0, "{third}");
    db.execute("update agent_tasks set scheduled_for = now() where status = 'pending'").await;
    let last = visit(&db).await;
    assert_eq!((&last["succeeded"], &last["nextDueAt"]), (&json!(1), &Value::Null), "{last}");
    assert!(db.value::<bool>("select bool_and(status = 'completed') from agent_tasks").await);
}
