//! Log lines on Cloud Run: one JSON object each, which says whose it is, how bad it is, and where it belongs.

use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::support::{Instance, KEY, TestDb, eventually};

const CLOUD_RUN: [(&str, &str); 3] =
    [("K_SERVICE", "tasks"), ("K_REVISION", "tasks-00007-abc"), ("GOOGLE_CLOUD_PROJECT", "a-project")];
const TRACE: &str = "logging.googleapis.com/trace";
const LABELS: &str = "logging.googleapis.com/labels";
const TRACEPARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
const TRACE_NAME: &str = "projects/a-project/traces/4bf92f3577b34da6a3ce929d0e0e4736";

/// The lines of the log so far. Each must be JSON.
fn lines(instance: &Instance) -> Vec<Value> {
    let parse = |line: &str| {
        serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: a line of the log is {line:?}"))
    };
    instance.log().lines().map(parse).collect()
}

/// The line whose message begins so, once it is there.
async fn line(instance: &Instance, message: &str) -> Value {
    let mut found = Value::Null;
    eventually(message, async || {
        let is_it = |line: &Value| line["message"].as_str().is_some_and(|text| text.starts_with(message));
        found = lines(instance).into_iter().find(is_it).unwrap_or_default();
        !found.is_null()
    })
    .await;
    found
}

async fn insert(db: &TestDb, context: &str, trace_context: &str) -> String {
    let sql = format!(
        "insert into agent_tasks (task_type, agent_type, context_json, max_retries, trace_context)
         values ('echo', 'test', '{context}', 1, {trace_context}) returning id::text"
    );
    db.value(&sql).await
}

#[tokio::test]
async fn a_task_has_labels_and_a_trace_of_its_own_or_the_one_it_came_with() {
    let db = TestDb::new().await;
    let instance = Instance::start(&db, &CLOUD_RUN).await;
    let alone = insert(&db, "{}", "null").await;
    let own = line(&instance, "task complete").await;
    assert_eq!(own[LABELS], json!({ "task_id": alone, "task_type": "echo", "attempt": "1" }));
    assert_eq!(own[TRACE], format!("projects/a-project/traces/{}", alone.replace('-', "")));
    assert_eq!(own["severity"], "INFO");
    insert(&db, r#"{"fail_permanently": true}"#, &format!("'{TRACEPARENT}'")).await;
    let failed = line(&instance, "task fail").await;
    assert_eq!((&failed[TRACE], &failed["severity"]), (&json!(TRACE_NAME), &json!("ERROR")));
}

#[tokio::test]
async fn what_is_given_up_is_reported_as_an_error_and_what_is_tried_again_is_not() {
    let db = TestDb::new().await;
    let instance = Instance::start(&db, &CLOUD_RUN).await;
    insert(&db, r#"{"fail_times": 9}"#, "null").await;
    let retried = line(&instance, "task retry").await;
    assert_eq!((&retried["severity"], retried.get("@type")), (&json!("WARNING"), None));
    let given_up = line(&instance, "task fail").await;
    assert_eq!(given_up["severity"], "ERROR");
    let kind = given_up["@type"].as_str().unwrap_or_default();
    assert!(kind.ends_with(".ReportedErrorEvent"), "{given_up}");
    assert_eq!(given_up["serviceContext"], json!({ "service": "tasks", "version": "tasks-00007-abc" }));
    assert!(given_up["context"]["reportLocation"]["lineNumber"].is_u64(), "{given_up}");
}

#[tokio::test]
async fn a_panic_is_one_line_that_says_where_and_in_which_task() {
    let db = TestDb::new().await;
    let instance = Instance::start(&db, &CLOUD_RUN).await;
    let task = insert(&db, r#"{"panic": true}"#, "null").await;
    let panic = line(&instance, "panic: ").await;
    assert_eq!(panic["severity"], "CRITICAL");
    assert_eq!(panic[LABELS]["task_id"], json!(task), "{panic}");
    assert_eq!(panic["context"]["reportLocation"]["filePath"], "src/handlers/echo.rs");
}

#[tokio::test]
async fn a_request_has_the_trace_that_the_platform_names_in_either_header() {
    let db = TestDb::new().await;
    let instance = Instance::start(&db, &CLOUD_RUN).await;
    // A request that fails leaves a line: the table is not there.
    db.execute("alter table agent_tasks rename to hidden").await;
    let cloud = "4bf92f3577b34da6a3ce929d0e0e4736/255;o=1";
    let client = reqwest::Client::builder().no_proxy().build().expect("a client");
    for (header, value, span) in [
        ("traceparent", TRACEPARENT, "00f067aa0ba902b7"),
        ("x-cloud-trace-context", cloud, "00000000000000ff"),
    ] {
        let request = client.post(instance.url("/process-task")).bearer_auth(KEY).header(header, value);
        let body = json!({ "task_id": uuid::Uuid::new_v4() });
        let answer = request.header("x-request-id", header).json(&body).send().await.expect("an answer");
        assert_eq!(answer.status(), 503);
        let of_request = |line: &Value| line[LABELS]["request_id"] == header;
        let mut found = None;
        eventually("the request has left a line", async || {
            found = lines(&instance).into_iter().find(of_request);
            found.is_some()
        })
        .await;
        let line = found.unwrap_or_default();
        assert_eq!(line[TRACE], TRACE_NAME, "{header}: {line}");
        assert_eq!(line["logging.googleapis.com/spanId"], span);
        assert_eq!(line["logging.googleapis.com/trace_sampled"], true);
    }
}

#[tokio::test]
async fn a_loop_that_is_not_given_the_cpu_says_so() {
    let db = TestDb::new().await;
    let instance = Instance::start(&db, &[("POLLING_INTERVAL_MS", "1000")]).await;
    insert(&db, "{}", "null").await;
    line(&instance, "task complete").await;
    let warning = || {
        let is_it =
            |line: &Value| line["message"].as_str().is_some_and(|text| text.contains("CPU throttled"));
        lines(&instance).into_iter().find(is_it)
    };
    // As Cloud Run does it to an instance without requests. It may happen in the middle of a query, which is no drift
    // of the loop's; then the next time tells.
    for _ in 0..5 {
        instance.signal(Signal::STOP);
        sleep(Duration::from_secs(6)).await;
        instance.signal(Signal::CONT);
        sleep(Duration::from_millis(200)).await;
        if let Some(warning) = warning() {
            assert_eq!(warning["severity"], "WARNING");
            assert!(warning["message"].as_str().is_some_and(|text| text.contains("--no-cpu-throttling")));
            return;
        }
    }
    panic!("it was frozen five times and said nothing: {}", instance.log());
}
