//! Whatever is said to the doors, nobody panics, no answer is a server error, and refusals name what is wrong.

use std::time::Duration;

use chrono::{DateTime, Utc};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseError, TestRunner};
use serde_json::{Value, json};
use task_processor::queue::{NewTask, QueueError};
use tokio::runtime::Handle;
use tokio::task::block_in_place;

use crate::support::{KEY, TestApp, TestDb, answer, token};

/// Runs an asynchronous test on so many values, and on ever simpler ones once it fails.
fn check<S: Strategy>(cases: u32, values: S, test: impl AsyncFn(S::Value) -> Result<(), TestCaseError>) {
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    let result = TestRunner::new(config)
        .run(&values, |value| block_in_place(|| Handle::current().block_on(test(value))));
    if let Err(failure) = result {
        panic!("{failure}");
    }
}

/// Values, mostly with the names that mean something.
fn body() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".*".prop_map(Value::from),
        Just(json!("INSERT")),
        Just(json!("agent_tasks")),
        any::<u128>().prop_map(|id| json!(uuid::Uuid::from_u128(id))),
        "[0-9a-fA-F{}-]{30,40}".prop_map(Value::from),
    ];
    let name = prop_oneof!["task_id|type|table|record|id|schema|old_record", ".*"];
    leaf.prop_recursive(4, 32, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((name.clone(), inner), 0..6)
                .prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_body_gets_a_server_error() {
    let db = TestDb::new().await;
    let app = TestApp::start(&db, &[]).await;
    app.ready().await;
    let post = async |bytes: Vec<u8>| {
        let what = String::from_utf8_lossy(&bytes).into_owned();
        let request = app.http.post(app.url("/process-task")).bearer_auth(KEY).body(bytes);
        let (status, answer) = answer(request).await;
        match status {
            200 => prop_assert!(answer["skipped"].is_string(), "{}: {}", what, answer),
            400 | 404 => {
                prop_assert!(answer["error"].as_str().is_some_and(|text| text.len() > 5), "{}", answer);
            }
            _ => {
                prop_assert!(false, "{}: {}: {}", what, status, answer);
            }
        }
        Ok(())
    };
    check(200, body(), async |body| post(body.to_string().into_bytes()).await);
    check(100, prop::collection::vec(any::<u8>(), 0..200), post);
    let nearly = (body(), any::<prop::sample::Index>(), any::<u8>()).prop_map(|(body, at, byte)| {
        let mut bytes = body.to_string().into_bytes();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        bytes
    });
    check(100, nearly, post);
    assert_eq!(app.get("/health").await.1["status"], "healthy");
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_query_and_no_path_gets_a_server_error() {
    let db = TestDb::new().await;
    let app = TestApp::start(&db, &[]).await;
    app.ready().await;
    let query = prop_oneof![
        ".*",
        "wait=[-+0-9.eE]{0,25}",
        "wait=%[0-9a-fA-F]{2}",
        "(wait=[1-9]x&){1,3}",
        "[a-z=&%;+]{0,30}",
    ];
    check(200, query, async |query| {
        let mut url = url::Url::parse(&app.url("/process-task")).expect("a URL");
        url.set_query(Some(&query));
        let request = app.http.post(url).bearer_auth(KEY).json(&json!({ "task_id": "nobody's" }));
        let (status, body) = answer(request).await;
        prop_assert!([400, 404].contains(&status), "{:?}: {}: {}", query, status, body);
        if status == 400 {
            prop_assert!(body["error"].as_str().is_some_and(|text| text.starts_with("wait ")), "{}", body);
        }
        Ok(())
    });
    check(100, "/[-a-z0-9./%;\\\\?*~]{0,40}", async |path| {
        let (status, body) = answer(app.http.post(app.url(&path))).await;
        prop_assert!([400, 401, 404, 405].contains(&status), "{}: {}: {}", path, status, body);
        Ok(())
    });
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_token_opens_a_door_by_luck() {
    let db = TestDb::new().await;
    let secret = "a-secret-of-more-than-thirty-two-characters";
    let app = TestApp::start(&db, &[("JWT_SECRET", secret), ("SUPABASE_URL", "http://127.0.0.1:1")]).await;
    let knock = async |credential: String| {
        let request =
            app.http.post(app.url("/trigger-poll")).header("authorization", format!("Bearer {credential}"));
        // Of an issuer that is known and cannot be reached nobody can say.
        let (status, body) = answer(request).await;
        prop_assert!([401, 503].contains(&status), "{}: {}: {}", credential, status, body);
        Ok(())
    };
    check(100, "[!-~]{0,200}", knock);
    let parts = "[A-Za-z0-9_=-]{0,60}";
    check(100, (parts, parts, parts).prop_map(|(a, b, c)| format!("{a}.{b}.{c}")), knock);
    let name = |names: &'static str| prop_oneof![3 => names, 1 => "[a-z]{1,5}"];
    let algorithm = prop_oneof![
        Just(json!("none")),
        "HS256|HS512|RS256|ES256|EdDSA|NONE|nOnE|None|".prop_map(Value::from),
        body()
    ];
    let header = (algorithm, prop::collection::vec((name("kid|typ|cty|crit|jku|x5u|jwk|zip"), body()), 0..4));
    let claims = prop::collection::vec((name("iss|aud|sub|role|exp|nbf|iat|email"), body()), 0..8);
    let issuer = prop::option::of(Just("http://127.0.0.1:1/auth/v1"));
    let tokens = (header, claims, issuer, prop::collection::vec(any::<u8>(), 0..80)).prop_map(
        |((algorithm, more), claims, issuer, signature)| {
            let mut header: Value = more.into_iter().collect();
            let mut claims: Value = claims.into_iter().collect();
            header["alg"] = algorithm;
            if let Some(issuer) = issuer {
                claims["iss"] = json!(issuer);
            }
            token(&header, &claims, |_| signature)
        },
    );
    check(200, tokens, knock);
    assert_eq!(answer(app.http.post(app.url("/trigger-poll")).bearer_auth(KEY)).await.0, 200);
    app.stop().await;
}

/// Tasks with mostly fitting fields.
fn task() -> impl Strategy<Value = NewTask> {
    let date = prop_oneof![
        (-8_000_000_000_000_i64..8_000_000_000_000)
            .prop_map(|s| DateTime::<Utc>::from_timestamp(s, 0).unwrap_or_default()),
        (0_i64..4_000_000_000).prop_map(|s| DateTime::<Utc>::from_timestamp(s, 0).unwrap_or_default()),
        Just(DateTime::<Utc>::MAX_UTC),
        Just(DateTime::<Utc>::MIN_UTC),
    ];
    let delay =
        prop_oneof![Just(Duration::MAX), any::<u64>().prop_map(Duration::from_secs), Just(Duration::ZERO)];
    let priority = prop_oneof![3 => "urgent|high|medium|low", 1 => ".{0,12}"];
    let text = || prop_oneof![3 => "[a-z]{1,9}", 1 => ".{0,60}", 1 => "\\PC*\u{0}?"];
    (
        (text(), text(), prop::option::of(text()), prop::option::of(text()), prop::option::of(text())),
        (body(), priority, prop::option::of(date), delay),
        (prop::option::of(-3..40_i32), prop::option::of(any::<i32>())),
    )
        .prop_map(
            |(
                (task_type, agent_type, context_type, created_by, unique_key),
                (context, priority, at, delay),
                (retries, timeout),
            )| NewTask {
                agent_type,
                context_type,
                created_by,
                unique_key,
                priority,
                scheduled_for: at,
                delay,
                max_retries: retries,
                timeout_seconds: timeout,
                ..NewTask::new(task_type, context)
            },
        )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_task_is_stored_as_it_is_or_refused_by_the_name_of_a_field() {
    let db = TestDb::new().await;
    let queue = db.queue("test", &[]);
    let fields = [
        "task_type",
        "agent_type",
        "context_type",
        "created_by",
        "unique_key",
        "priority",
        "max_retries",
        "timeout_seconds",
        "scheduled_for",
        "context_json",
    ];
    check(200, task(), async |task| {
        match queue.enqueue_one(task.clone()).await {
            Ok(added) => {
                let row = queue.get(added.id).await.expect("an answer").expect("a task");
                prop_assert_eq!(&row["task_type"], &json!(task.task_type));
                prop_assert_eq!(&row["priority"], &json!(task.priority));
                prop_assert_eq!(&row["status"], "pending");
            }
            Err(QueueError::Invalid(invalid)) => prop_assert!(fields.contains(&invalid.field), "{}", invalid),
            Err(QueueError::Database(error)) => prop_assert!(false, "{}: {:?}", error, task),
        }
        Ok(())
    });
}
