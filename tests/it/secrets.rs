//! Secrets, planted in every variable that holds one: whatever goes wrong, neither the log nor an answer shows them.

use std::process::{Command, Stdio};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};
use task_processor::config::VARIABLES;

use crate::support::{FakeModel, FakeSmtp, Instance, Says, TestDb, answer, eventually, now, token};

/// In every secret. As it stands in none of our own texts.
const MARK: &str = "h7nter2";

/// The mark as it stands, and what of it stands in any base64 of a text that holds it, wherever in there it begins.
fn faces() -> Vec<String> {
    let packed = (0..3).map(|before| {
        let packed = BASE64_STANDARD.encode([&b"xxx"[..before], MARK.as_bytes()].concat());
        packed[(before * 8).div_ceil(6)..(before + MARK.len()) * 8 / 6].to_owned()
    });
    packed.chain([MARK.to_owned()]).collect()
}

/// Every variable that is a secret or holds one, with the mark in it, for a service that cannot reach most of what it
/// is told to.
fn planted(database: &str, model: &str, smtp: &str) -> Vec<(&'static str, String)> {
    let database = database.replace("postgres@", &format!("postgres:{MARK}-db@"));
    vec![
        ("DATABASE_URL", database.clone()),
        ("LISTEN_DATABASE_URL", database),
        ("SUPABASE_DB_PASSWORD", format!("{MARK}-supabase-password")),
        ("SUPABASE_SERVICE_KEY", format!("{MARK}-service-key-of-supabase")),
        ("SUPABASE_URL", "http://127.0.0.1:1".to_owned()),
        ("API_KEYS", format!("{MARK}-key-0123456789,{MARK}-another-0123456789")),
        ("JWT_SECRET", format!("{MARK}-secret-of-more-than-thirty-two-characters")),
        ("LLM_PROVIDER", "openai-compatible".to_owned()),
        ("LLM_MODEL", "m".to_owned()),
        ("LLM_BASE_URL", model.to_owned()),
        ("LLM_API_KEY", format!("sk-{MARK}")),
        ("SMTP_URL", smtp.replace("smtp://", &format!("smtp://{MARK}-user:{MARK}-password@"))),
        ("MAIL_FROM", "a@example.com".to_owned()),
    ]
}

/// Tasks for a model that refuses us and a mail server that does.
const TASKS: &str = "
    insert into users (id, phone_number) values ('00000000-0000-4000-8000-0000000000a1', '+1');
    insert into conversations (id, user_id) values
        ('00000000-0000-4000-8000-0000000000c1', '00000000-0000-4000-8000-0000000000a1');
    insert into messages (conversation_id, user_id, role, content, direction)
        select '00000000-0000-4000-8000-0000000000c1', '00000000-0000-4000-8000-0000000000a1', 'user', 'x', 'inbound'
        from generate_series(1, 30);
    update users set email = 'ada@example.com';
    insert into intro_opportunities (id, connector_user_id, prospect_name, innovator_name, status) values
        ('00000000-0000-4000-8000-0000000000b1', '00000000-0000-4000-8000-0000000000a1', 'Tony', 'Rob', 'accepted');
    insert into agent_tasks (task_type, agent_type, user_id, context_json, max_retries) values
        ('send_introduction', 'x', null, '{\"introOpportunityId\": \"00000000-0000-4000-8000-0000000000b1\"}', 0),
        ('create_conversation_summary', 'x', null, '{\"conversation_id\": \"00000000-0000-4000-8000-0000000000c1\"}', 0),
        ('echo', 'x', null, '{\"fail_permanently\": true}', 0),
        ('echo', 'x', null, '{\"panic\": true}', 0);";

#[tokio::test]
async fn no_secret_comes_out_by_the_log_or_an_answer_whatever_goes_wrong() {
    let db = TestDb::new().await;
    let (wire, url) = db.over_tcp().await;
    let model = FakeModel::start([Says::Status(401)]).await;
    let smtp = FakeSmtp::start("250 ok").await;
    let base = model.vars("openai-compatible")[1].1.to_owned();
    let vars = planted(&url, &base, smtp.vars()[0].1);
    let vars: Vec<(&str, &str)> = vars.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let mut instance = Instance::start(&db, &[&vars[..], &[("RUST_LOG", "trace")]].concat()).await;
    eventually("it is healthy", async || instance.health().await["status"] == "healthy").await;

    db.execute(TASKS).await;
    db.eventually("the tasks have failed", "select bool_and(status = 'failed') from agent_tasks").await;
    assert_eq!(model.asked().len(), 1, "the key was sent where it belongs");
    let login = BASE64_STANDARD.encode(format!("\0{MARK}-user\0{MARK}-password"));
    assert_eq!(smtp.credentials(), [format!("AUTH PLAIN {login}")], "and the password");
    let faces = faces();
    assert!(
        faces.iter().filter(|face| login.contains(*face)).count() > 1,
        "packed, it is known in any place"
    );
    let client = reqwest::Client::builder().no_proxy().build().expect("a client");
    let mut answers = String::new();
    let key = format!("{MARK}-key-0123456789");
    let issuer = "http://127.0.0.1:1/auth/v1";
    let header = json!({ "alg": "ES256", "kid": "x" });
    let claims = json!({ "iss": issuer, "aud": "authenticated", "exp": now() + 60 });
    let unreachable = token(&header, &claims, |_| vec![0; 64]);
    for credential in [&key, &format!("{MARK}-guess"), &format!("{MARK}.{MARK}.{MARK}"), &unreachable] {
        for (path, body) in [
            ("/process-task", json!({ "task_id": uuid::Uuid::new_v4() })),
            ("/process-task", json!("rubbish")),
            ("/trigger-poll?wait=x", Value::Null),
            ("/no/such/route", Value::Null),
        ] {
            let request = client.post(instance.url(path)).bearer_auth(credential).json(&body);
            answers += &answer(request).await.1.to_string();
        }
    }
    for path in ["/health", "/health/ready", "/metrics"] {
        let request = client.get(instance.url(path)).bearer_auth(&key);
        answers += &request.send().await.expect("an answer").text().await.expect("text");
    }
    // The database goes away, with all that this is told of.
    wire.cut();
    let request = client.post(instance.url("/process-task")).bearer_auth(&key);
    answers += &answer(request.json(&json!({ "task_id": uuid::Uuid::new_v4() }))).await.1.to_string();
    eventually("the outage is noticed", async || instance.log().contains("\"severity\":\"WARNING\"")).await;
    instance.signal(rustix::process::Signal::TERM);
    instance.exit_code().await;

    let log = instance.log();
    assert!(log.lines().count() > 50 && answers.len() > 500, "the test no longer sees anything");
    for text in log.lines().chain(answers.lines()) {
        assert!(!faces.iter().any(|face| text.contains(face)), "{text}");
    }
    let stored = format!("select count(*) from agent_tasks t where t::text like '%{MARK}%'");
    assert_eq!(db.value::<i64>(&stored).await, 0);
    let logged = format!("select count(*) from agent_actions_log t where t::text like '%{MARK}%'");
    assert_eq!(db.value::<i64>(&logged).await, 0);
}

/// The variables that may be printed as they stand.
const NO_SECRETS: usize = 33;

#[tokio::test]
async fn no_command_shows_a_secret_neither_a_right_nor_a_wrong_one() {
    let right = planted(
        "postgres://postgres@127.0.0.1:1/x?connect_timeout=1",
        "http://127.0.0.1:1",
        "smtp://127.0.0.1:1",
    );
    let with = |name: &'static str, value: &str| {
        let mut vars = right.clone();
        vars.retain(|(other, _)| *other != name);
        vars.push((name, value.to_owned()));
        vars
    };
    let mut environments = vec![right.clone()];
    for (name, value) in [
        ("DATABASE_URL", "mysql://u:h7nter2@db/x"),
        ("DATABASE_URL", "postgres://u:h7nter2@db/x?sslmode=rubbish"),
        ("DATABASE_URL", "postgres://u:h7nter2@[/x"),
        ("LISTEN_DATABASE_URL", "u:h7nter2@db"),
        ("API_KEYS", "h7nter2"),
        ("JWT_SECRET", "h7nter2"),
        ("LLM_BASE_URL", "https://u:h7nter2@models.example"),
        ("LLM_BASE_URL", "https://models.example/?key=h7nter2"),
        ("SMTP_URL", "http://u:h7nter2@mail.example"),
        ("SMTP_URL", "smtp://u:h7nter2@mail.example"),
        ("SMTP_URL", "smtps://u:h7nter2@[mail"),
        ("SUPABASE_URL", "http://u:h7nter2@example.com"),
        ("SUPABASE_URL", "https:u:h7nter2@"),
        ("DATABASE_CA_CERT", "-----BEGIN PRIVATE KEY-----\nh7nter2\n-----END PRIVATE KEY-----"),
    ] {
        environments.push(with(name, value));
    }
    // All commands read the environment in one way.
    let checks = environments.iter().map(|vars| ("check-config", vars));
    for (command, vars) in checks.chain([("doctor", &right), ("list", &right)]) {
        let output = Command::new(env!("CARGO_BIN_EXE_task-processor"))
            .arg(command)
            .env_clear()
            .env("RUST_LOG", "trace")
            .envs(vars.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .output()
            .expect("the binary");
        let told = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert!(!told.trim().is_empty(), "{command} says nothing");
        assert!(!told.contains(MARK), "{command} of {vars:?}: {told}");
    }
    let secret: Vec<_> =
        right.iter().filter(|(_, value)| value.contains(MARK)).map(|(name, _)| *name).collect();
    assert_eq!(VARIABLES.len(), secret.len() + NO_SECRETS, "is a new variable a secret? then plant one");
}
