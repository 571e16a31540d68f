//! The commands, as an operator types them.

use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::{Instance, TestApp, TestDb, answer, eventually};

fn run_with(vars: Vec<(String, String)>, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_task-processor"))
        .args(arguments)
        .env_clear()
        .envs(vars)
        .stdin(Stdio::null())
        .output()
        .expect("the binary")
}

/// Runs a command that must succeed: its JSON.
async fn run(db: &TestDb, arguments: &[&str]) -> Value {
    let output = try_run(db, arguments).await;
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{arguments:?}: {error}: {output:?}"))
}

async fn try_run(db: &TestDb, arguments: &[&str]) -> Output {
    let vars = db.vars(&[]);
    let arguments: Vec<String> =
        arguments.iter().chain(&["--json"]).map(|argument| (*argument).to_owned()).collect();
    tokio::task::spawn_blocking(move || {
        run_with(vars, &arguments.iter().map(String::as_str).collect::<Vec<_>>())
    })
    .await
    .expect("no panic")
}

#[test]
fn a_wrong_environment_ends_with_78_and_names_every_problem() {
    let vars = vec![("PORT".to_owned(), "x".to_owned()), ("CONCURRENCY".to_owned(), "-1".to_owned())];
    for command in ["serve", "worker", "once", "migrate", "doctor", "check-config", "list"] {
        let output = run_with(vars.clone(), &[command]);
        assert_eq!(output.status.code(), Some(78), "{command}");
        let text = String::from_utf8_lossy(&output.stderr);
        for variable in ["DATABASE_URL", "PORT", "CONCURRENCY"] {
            assert!(text.contains(variable), "{command}: {text}");
        }
    }
}

#[test]
fn a_url_that_cannot_be_used_is_refused_before_anything_starts_and_without_its_password() {
    let wrong = "postgres://user:hunter2@db.example.com/x?sslmode=prefer";
    let right = "postgres://user:hunter2@db.example.com/x";
    for (url, listen_url, named) in [(wrong, "", "DATABASE_URL"), (right, wrong, "LISTEN_DATABASE_URL")] {
        let vars = [("DATABASE_URL", url), ("LISTEN_DATABASE_URL", listen_url)];
        let vars = vars.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
        for command in ["check-config", "doctor", "serve"] {
            let output = run_with(vars.clone(), &[command]);
            assert_eq!(output.status.code(), Some(78), "{command}");
            let text = String::from_utf8_lossy(&output.stderr);
            let told = text.contains(&format!("{named} has sslmode=prefer")) && !text.contains("hunter2");
            assert!(told, "{command}: {text}");
        }
    }
}

#[tokio::test]
async fn a_task_is_enqueued_listed_shown_paused_resumed_cancelled_and_retried() {
    let db = TestDb::new().await;
    let id =
        run(&db, &["enqueue", "echo", "{\"a\": 1}", "--priority", "high", "--unique-key", "k"]).await["id"]
            .clone();
    let again = run(&db, &["enqueue", "echo", "{\"a\": 2}", "--unique-key", "k"]).await;
    assert_eq!(again, json!({ "id": id, "existed": true }));
    let id = id.as_str().expect("an id");

    let tasks = run(&db, &["list", "--status", "pending", "--type", "echo"]).await["tasks"].clone();
    assert_eq!((tasks.as_array().map(Vec::len), &tasks[0]["priority"]), (Some(1), &json!("high")));
    assert_eq!(run(&db, &["pause", "echo"]).await, json!({ "taskType": "echo", "paused": true }));
    assert_eq!(run(&db, &["once"]).await["processed"], 0, "it is paused");
    run(&db, &["resume", "echo"]).await;
    assert_eq!(
        run(&db, &["once"]).await,
        json!({ "processed": 1, "succeeded": 1, "failed": 0, "released": 0 })
    );

    let shown = run(&db, &["show", id]).await;
    assert_eq!(
        (&shown["task"]["status"], &shown["task"]["result_json"]),
        (&json!("completed"), &json!({ "a": 1 }))
    );
    assert_eq!(shown["history"][0]["action_type"], "process_echo");
    assert!(shown["task"].get("lease_token").is_none(), "a token is nobody's business");

    assert_eq!(run(&db, &["retry", id, id]).await, json!({ "asked": 1, "retried": [id] }));
    let cancelled = run(&db, &["cancel", id, "--reason", "enough", id]).await;
    assert_eq!(cancelled, json!({ "asked": 1, "cancelled": 1, "stopping": 0 }));
    assert_eq!(run(&db, &["show", id]).await["task"]["result_json"]["reason"], "enough");
    let late = try_run(&db, &["cancel", id]).await;
    assert_eq!(late.status.code(), Some(1), "nothing was cancelled");
    let unknown = try_run(&db, &["show", &Uuid::new_v4().to_string()]).await;
    assert!(String::from_utf8_lossy(&unknown.stderr).contains("there is no task"));
}

#[tokio::test]
async fn many_tasks_are_changed_only_after_their_number_was_told_and_agreed_to() {
    let db = TestDb::new().await;
    for _ in 0..3 {
        run(&db, &["enqueue", "echo", "{\"fail_permanently\": true}"]).await;
    }
    assert_eq!(run(&db, &["once"]).await["failed"], 3);
    let asked = try_run(&db, &["retry", "--status", "failed", "--type", "echo"]).await;
    assert!(!asked.status.success());
    let question = String::from_utf8_lossy(&asked.stderr).into_owned();
    assert!(
        question.contains("Retry 3 failed tasks of type echo?") && question.contains("--yes"),
        "{question}"
    );
    assert_eq!(run(&db, &["list", "--status", "pending"]).await["tasks"], json!([]));
    let retried = run(&db, &["retry", "--type", "echo", "--yes"]).await;
    assert_eq!(retried["retried"].as_array().map(Vec::len), Some(3));
    assert_eq!(run(&db, &["cancel", "--type", "echo", "--yes"]).await["cancelled"], 3);
}

#[tokio::test]
async fn bad_input_is_refused_with_the_name_of_its_field() {
    let db = TestDb::new().await;
    for (arguments, field) in [
        (&["enqueue", "echo", "{"][..], "not valid JSON"),
        (&["enqueue", "", "{}"], "task_type"),
        (&["enqueue", &"x".repeat(101), "{}"], "task_type"),
        (&["enqueue", "echo", "{}", "--priority", "soon"], "priority"),
        (&["enqueue", "echo", "{\"a\": \"\\u0000\"}"], "context_json"),
        (&["enqueue", "echo", "{\"a\": 1e400}"], "not valid JSON"),
        (&["enqueue", "echo", "{}", "--delay", "999999999999"], "scheduled_for"),
        (&["enqueue", "echo", "{}", "--at", "soon"], "--at"),
        (&["enqueue", "echo", "{}", "--max-retries", "99"], "max_retries"),
        (&["enqueue", "echo", "{}", "--timeout", "0"], "timeout_seconds"),
        (&["retry"], "required"),
        (&["list", "--status", "rubbish"], "possible values: pending, processing"),
        (&["retry", "--status", "rubbish"], "possible values: pending, processing"),
        (&["cancel", "no-uuid"], "no-uuid"),
    ] {
        let output = try_run(&db, arguments).await;
        assert!(!output.status.success(), "{arguments:?}");
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(text.contains(field), "{arguments:?}: {text}");
    }
    assert_eq!(db.value::<i64>("select count(*) from agent_tasks").await, 0);
    run(&db, &["enqueue", "echo", r#"{"path": "C:\\u0000"}"#]).await;
    let empty = TestDb::empty().await;
    for arguments in [&["list"][..], &["enqueue", "echo", "{}"], &["pause", "echo"]] {
        let output = try_run(&empty, arguments).await;
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(text.contains("run `task-processor migrate`"), "{arguments:?}: {text}");
    }
}

#[tokio::test]
async fn migrate_says_what_it_would_do_and_does_it_once() {
    let db = TestDb::empty().await;
    let plan = run(&db, &["migrate", "--dry-run"]).await["pending"].clone();
    assert_eq!(plan[0], "0001_tables");
    assert_eq!(db.value::<i64>("select count(*) from pg_tables where schemaname = 'public'").await, 0);
    assert_eq!(run(&db, &["migrate"]).await["applied"], plan);
    assert_eq!(run(&db, &["migrate"]).await["applied"], json!([]));
    let config = run(&db, &["check-config"]).await;
    assert_eq!(config["keys"], 1);
}

#[tokio::test]
async fn what_a_command_has_to_say_beside_its_answer_goes_to_standard_error() {
    let db = TestDb::empty().await;
    let says = async |arguments: &[&str], message: &str| {
        let output = try_run(&db, arguments).await;
        let answer = serde_json::from_slice::<Value>(&output.stdout);
        assert!(output.status.success() && answer.is_ok_and(|answer| answer.is_object()), "{output:?}");
        let lines = String::from_utf8_lossy(&output.stderr).into_owned();
        let mut lines = lines.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let said = lines.any(|line| line["message"].as_str().is_some_and(|text| text.contains(message)));
        assert!(said, "{arguments:?}: {output:?}");
    };
    says(&["migrate"], "migrated").await;
    db.execute(
        "create function refuse() returns trigger language plpgsql as $$ begin raise exception 'no'; end $$;
         create trigger refuse before insert on agent_actions_log for each row execute function refuse()",
    )
    .await;
    run(&db, &["enqueue", "echo"]).await;
    says(&["cancel", "--type", "echo", "--yes"], "agent_actions_log refuses rows").await;
    // It has nothing to warn of here.
    let vars = db.vars(&[("RUST_LOG", "debug")]);
    let output = tokio::task::spawn_blocking(move || run_with(vars, &["doctor", "--json"])).await.unwrap();
    let lines = String::from_utf8_lossy(&output.stderr);
    assert!(lines.contains("\"severity\":\"DEBUG\""), "{lines}");
    assert!(serde_json::from_slice::<Value>(&output.stdout).is_ok_and(|answer| answer.is_object()));
}

#[test]
fn check_config_tells_by_which_credentials_the_doors_open_here() {
    let url = ("DATABASE_URL", "postgres://user:password@localhost:5432/db");
    let credentials = |vars: &[(&str, &str)]| {
        let vars = vars.iter().chain([&url]).map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let output = run_with(vars.collect(), &["check-config", "--json"]);
        serde_json::from_slice::<Value>(&output.stdout).expect("an object")["credentials"].clone()
    };
    let behind_iam = ("AUTH_MODE", "cloud_run_iam");
    assert_eq!(credentials(&[]), json!([]));
    assert_eq!(credentials(&[behind_iam]), json!([]), "nobody checks tokens here");
    let on_cloud_run = [behind_iam, ("K_SERVICE", "task-processor")];
    assert_eq!(credentials(&on_cloud_run), json!(["whom Cloud Run lets through"]));
}

#[tokio::test]
async fn healthcheck_asks_the_running_process() {
    let db = TestDb::new().await;
    let instance = Instance::start(&db, &[]).await;
    eventually("it is healthy", async || instance.health().await["status"] == "healthy").await;
    let port = instance.port().to_string();
    let check = |port: String| {
        tokio::task::spawn_blocking(move || run_with(vec![("PORT".to_owned(), port)], &["healthcheck"]))
    };
    for spelt in [port.clone(), format!(" +{port}\n")] {
        let output = check(spelt).await.expect("no panic");
        assert!(output.status.success(), "{output:?}");
        assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "healthy");
    }
    let wrong = check("http".to_owned()).await.expect("no panic");
    assert!(!wrong.status.success() && String::from_utf8_lossy(&wrong.stderr).contains("PORT is not"));
    assert!(!check("1".to_owned()).await.expect("no panic").status.success(), "nobody is there");
}

#[tokio::test]
async fn a_token_that_was_made_opens_the_door_and_without_a_secret_none_is_made() {
    let db = TestDb::new().await;
    let secret = ("JWT_SECRET", "a-secret-of-more-than-thirty-two-characters");
    let output = run_with(db.vars(&[secret]), &["token", "a-webhook"]);
    assert!(output.status.success(), "{output:?}");
    let token = String::from_utf8(output.stdout).expect("text");
    let app = TestApp::start(&db, &[secret]).await;
    let knock =
        async |token: &str| answer(app.http.post(app.url("/trigger-poll")).bearer_auth(token)).await.0;
    assert_eq!(knock(token.trim()).await, 200);
    let user = run_with(db.vars(&[secret]), &["token", "a-user", "--role", "authenticated"]).stdout;
    assert_eq!(knock(String::from_utf8_lossy(&user).trim()).await, 403);
    app.stop().await;

    let refused = run_with(db.vars(&[]), &["token", "a-webhook"]);
    let text = String::from_utf8_lossy(&refused.stderr);
    assert!(refused.status.code() == Some(1) && text.contains("JWT_SECRET is not set"), "{text}");
}
