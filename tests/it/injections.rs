//! Texts that would be SQL, or lines of the log, if they were not kept for what they are.

use std::time::Duration;

use serde_json::{Value, json};
use task_processor::db::inspect;
use task_processor::queue::read::TaskFilter;
use task_processor::queue::{Ending, NewTask, NotClaimed, Usage, Verdict};
use uuid::Uuid;

use crate::support::{Instance, KEY, TestApp, TestDb, answer, connect, eventually};

const SQL: [&str; 12] = [
    "'; drop table victim; --",
    "'); drop table victim; --",
    "\"; drop table victim; --",
    "$1",
    "$$; drop table victim; $$",
    "%s%n",
    "\\'; drop table victim; --",
    "echo' or '1'='1",
    "'||(select pg_sleep(30))||'",
    "{a,\"b\"}",
    "agent_tasks'; notify agent_tasks, 'x",
    "-- \r\n; drop table victim; /*",
];

/// A table that all these are after.
const VICTIM: &str = "create table victim (id int); insert into victim values (1)";

async fn unharmed(db: &TestDb) -> String {
    assert_eq!(db.value::<i64>("select count(*) from victim").await, 1);
    let queue = db.queue("test", &[]);
    inspect::schema_lines(queue.database()).await.expect("the schema")
}

#[tokio::test]
async fn sql_in_any_text_that_the_library_takes_stays_a_text() {
    let db = TestDb::new().await;
    db.execute(VICTIM).await;
    let (queue, before) = (db.queue("a'; drop table victim; --", &[]), unharmed(&db).await);
    for (number, text) in SQL.iter().enumerate() {
        let text = (*text).to_owned();
        let task = NewTask {
            agent_type: text.clone(),
            context_type: Some(text.clone()),
            created_by: Some(text.clone()),
            unique_key: Some(text.clone()),
            ..NewTask::new(text.clone(), json!({ text.clone(): [text] }))
        };
        let id = queue.enqueue_one(task.clone()).await.expect("a task").id;
        assert_eq!(queue.enqueue_one(task).await.expect("the same").id, id);
        queue.pause(&text).await.expect("an answer");
        let types = std::slice::from_ref(&text);
        assert_eq!(queue.claim(types, 10).await.expect("none").len(), 0);
        let refusal = queue.claim_one(types, id, true).await.expect("an answer").err();
        assert_eq!(refusal, Some(NotClaimed::Paused(text.clone())));
        queue.resume(&text).await.expect("an answer");
        let nothing = TaskFilter { status: Some(text.clone()), task_type: None, limit: 10 };
        assert_eq!(queue.list(&nothing).await.expect("an answer").len(), 0);
        let found = TaskFilter { status: None, task_type: Some(text.clone()), limit: 10 };
        assert_eq!(queue.ids(&found).await.expect("an answer"), [id]);
        assert_eq!(queue.list(&found).await.expect("an answer")[0]["agent_type"], json!(text));

        let claimed = queue.claim(types, 10).await.expect("a claim");
        let task = claimed[0].task.as_ref().expect("a task");
        assert_eq!((&task.task_type, &task.context), (&text, &json!({ text.clone(): [text] })));
        let usage = Usage { model: Some(text.clone()), ..Usage::default() };
        let lease = claimed[0].lease;
        let ending = match number % 3 {
            0 => Ending::complete(lease, json!({ text.clone(): text })),
            1 => Ending::fail(lease, &text),
            _ => Ending::cancel(lease, &text),
        };
        assert_eq!(
            queue.end(&[ending.with_usage(Some(&usage))]).await.expect("verdicts"),
            [Verdict::Accepted]
        );
        assert_eq!(queue.redrive(&[id]).await.expect("an answer").len(), 1);
        assert_eq!(queue.cancel(&[id], &text).await.expect("an answer").len(), 1);
        let reason =
            queue.get(id).await.expect("an answer").expect("a task")["result_json"]["reason"].clone();
        assert_eq!(reason, json!(text));
    }
    let names = queue.task_types().await.expect("an answer");
    assert!(SQL.iter().all(|text| names.iter().any(|kind| kind.task_type == *text)));
    assert_eq!(unharmed(&db).await, before, "the schema has not changed");
}

#[tokio::test]
async fn sql_in_a_request_or_in_a_row_stays_a_text() {
    let db = TestDb::new().await;
    db.execute(VICTIM).await;
    let before = unharmed(&db).await;
    let app = TestApp::start(&db, &[("METRICS_OPEN", "true")]).await;
    app.ready().await;
    let id =
        app.queue().enqueue_one(NewTask { delay: Duration::from_mins(9), ..NewTask::new("echo", json!({})) });
    let id = id.await.expect("a task").id;
    for text in SQL {
        let unknown = app.queue().enqueue_one(NewTask::new(text, json!({}))).await.expect("a task").id;
        let line: String = text.chars().filter(|c| !c.is_control()).collect();
        let post = async |path: &str, body: Value| {
            let url = url::Url::parse_with_params(&app.url(path), [("wait", text)]).expect("a URL");
            let request = app
                .http
                .post(url)
                .bearer_auth(KEY)
                .header("x-request-id", &line)
                .header("traceparent", &line);
            answer(request.header("x-cloudtasks-taskname", &line).json(&body)).await.0
        };
        assert_eq!(post("/process-task", json!({ "task_id": text })).await, 400, "wait is no number");
        assert_eq!(post("/trigger-poll", json!({ text: text })).await, 400);
        for body in [
            json!({ "task_id": text }),
            json!({ "task_id": format!("{id}{text}") }),
            json!({ "task_id": { text: text } }),
        ] {
            assert_eq!(app.post("/process-task", &body).await.0, 404, "{body}");
        }
        let hook = |kind: &str, table: &str, id: Value| json!({ "type": kind, "table": table, "record": { "id": id } });
        for body in [
            hook(text, "agent_tasks", json!(id)),
            hook("INSERT", text, json!(id)),
            hook("INSERT", "agent_tasks", json!(text)),
        ] {
            let (status, answer) = app.post("/process-task", &body).await;
            assert!(status == 200 && answer["skipped"].is_string(), "{body}: {answer}");
        }
        let (status, answer) = app.post("/process-task", &json!({ "task_id": unknown })).await;
        assert_eq!((status, &answer["error"]), (422, &json!(format!("No handler for task type: {text}"))));
        assert_eq!(answer_of(&app, text).await, 401);
    }
    assert_eq!(app.get("/metrics").await.0, 200, "where types are labels");
    assert!(db.task_is(id, "status = 'pending' and attempt = 0").await);
    app.stop().await;
    assert_eq!(unharmed(&db).await, before, "the schema has not changed");
}

async fn answer_of(app: &TestApp, key: &str) -> u16 {
    let line: String = key.chars().filter(|c| !c.is_control()).collect();
    answer(app.http.post(app.url("/trigger-poll")).bearer_auth(line)).await.0
}

#[tokio::test]
async fn sql_by_the_function_for_others_stays_a_text() {
    let db = TestDb::new().await;
    db.execute(VICTIM).await;
    let (client, before) = (connect(&db.direct_url()).await, unharmed(&db).await);
    for text in SQL {
        let sql = "select enqueue_task(task_type => $1::text, agent_type => $1::text, unique_key => $1::text, \
             created_by => $1::text, context_json => to_jsonb($1::text))";
        let rows =
            client.query_typed(sql, &[(&text, tokio_postgres::types::Type::TEXT)]).await.expect("a task");
        let id: Uuid = rows[0].get(0);
        let kept =
            format!("task_type = {0} and unique_key = {0} and context_json #>> '{{}}' = {0}", quoted(text));
        assert!(db.task_is(id, &kept).await, "{text}");
    }
    assert_eq!(unharmed(&db).await, before, "the schema has not changed");
}

fn quoted(text: &str) -> String {
    format!("E'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}

#[tokio::test]
async fn nothing_that_comes_from_outside_makes_a_line_of_the_log_or_colours_one() {
    let db = TestDb::new().await;
    let instance = Instance::start(&db, &[("RUST_LOG", "debug")]).await;
    eventually("it is healthy", async || instance.health().await["status"] == "healthy").await;
    let forged =
        "\n{\"severity\":\"CRITICAL\",\"message\":\"forged\"}\r\n\u{1b}[31mred\u{1b}[0m\u{7f}\u{85}\u{2028}";
    let context = json!({ "fail_permanently": forged }).to_string().replace('\'', "''");
    db.execute(&format!(
        "insert into agent_tasks (task_type, agent_type, context_json, trace_context, max_retries)
         values ('echo', 'x', '{context}', E'00-x\\n{{\"message\":\"forged\"}}', 0)"
    ))
    .await;
    let client = reqwest::Client::builder().no_proxy().build().expect("a client");
    for body in [
        json!({ "task_id": forged }),
        json!({ "type": "INSERT", "table": forged, "record": { "id": forged } }),
        json!({ "type": forged, "table": "agent_tasks" }),
    ] {
        let request = client.post(instance.url("/process-task%0aforged")).bearer_auth(KEY);
        assert_eq!(answer(request.json(&body)).await.0, 404);
        answer(client.post(instance.url("/process-task")).bearer_auth(KEY).json(&body)).await;
        answer(
            client
                .post(instance.url("/process-task"))
                .header("authorization", &b"Bearer \xe9\xff"[..])
                .json(&body),
        )
        .await;
    }
    db.eventually("it has failed", "select bool_and(status = 'failed') from agent_tasks").await;
    eventually("and the log says so", async || instance.log().contains("task fail")).await;
    for line in instance.log().lines() {
        let parsed: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line:?}"));
        assert_ne!(parsed["message"], "forged", "{line}");
        assert_ne!(parsed["severity"], "CRITICAL", "{line}");
        assert!(!line.chars().any(|c| c < ' '), "{line:?}");
    }
}
