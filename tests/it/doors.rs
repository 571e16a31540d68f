//! HTTP: shapes, errors, who is let in.

use std::time::Duration;

use aws_lc_rs::hmac;
use serde_json::{Value, json};
use task_processor::http::auth::{Need, ROUTES, mint};
use task_processor::queue::NewTask;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::sleep;
use uuid::Uuid;

use crate::support::{Gate, KEY, TestApp, TestDb, answer, eventually, now, token};

async fn add(app: &TestApp, task: NewTask) -> Uuid {
    app.queue().enqueue_one(task).await.expect("a task").id
}

async fn healthy(app: &TestApp) {
    eventually("the service is healthy", async || app.get("/health").await.1["status"] == "healthy").await;
}

#[tokio::test]
async fn health_has_the_documented_shape_and_counts_attempts() {
    let db = TestDb::new().await;
    let app = TestApp::start(&db, &[]).await;
    healthy(&app).await;
    let (status, body) = app.get("/health").await;
    assert_eq!(status, 200);
    assert_eq!(body["service"], "task-processor");
    let stats = &body["stats"];
    assert_eq!((&stats["tasksProcessed"], &stats["successRate"]), (&json!(0), &json!("N/A")));
    assert_eq!(stats["lastProcessedAt"], Value::Null);
    assert_eq!(
        (&body["polling"]["enabled"], &body["polling"]["maxTasksPerPoll"]),
        (&json!(true), &json!(10))
    );
    assert!(
        body["polling"]["intervalMs"].is_u64()
            && body["timestamp"].as_str().is_some_and(|at| at.ends_with('Z'))
    );

    add(&app, NewTask::new("echo", json!({}))).await;
    add(&app, NewTask::new("echo", json!({ "fail_permanently": true }))).await;
    eventually("both are counted", async || app.get("/health").await.1["stats"]["tasksProcessed"] == 2).await;
    let stats = app.get("/health").await.1["stats"].clone();
    assert_eq!((&stats["tasksSucceeded"], &stats["tasksFailed"]), (&json!(1), &json!(1)));
    assert_eq!(stats["successRate"], "50.0%");
    assert!(stats["lastProcessedAt"].as_str().is_some_and(|at| at.len() == 24 && at.ends_with('Z')));
    assert_eq!(app.get("/health/live").await.0, 200);
    assert_eq!(app.get("/health/ready").await, (200, json!({ "status": "ready" })));
    assert_eq!(app.stop().await, 0);
}

/// A service's token, signed with the secret, that is over at that time.
fn signed_until(secret: &str, exp: u64) -> String {
    let claims = json!({ "iss": "task-processor", "aud": "task-processor", "role": "service", "exp": exp });
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    token(&json!({ "alg": "HS256" }), &claims, |message| hmac::sign(&key, message).as_ref().to_vec())
}

#[tokio::test]
async fn every_route_asks_for_what_the_table_says_of_every_kind_of_caller() {
    let db = TestDb::new().await;
    let secret = "a-secret-of-more-than-thirty-two-characters";
    let app = TestApp::start(&db, &[("JWT_SECRET", secret)]).await;
    let minted = |secret: &str, role| {
        let token = mint(&secret.into(), "somebody", role, Duration::from_mins(1)).expect("a token");
        format!("Bearer {token}")
    };
    let (known, unknown, user) = (200, 401, 403);
    let expired = signed_until(secret, now() - 120);
    let callers: [(&str, Vec<String>, u16); 14] = [
        ("nobody", vec![], unknown),
        ("a service", vec![format!("Bearer {KEY}")], known),
        ("a service that spells the scheme small", vec![format!("bearer {KEY}")], known),
        ("a service with a token", vec![minted(secret, "service")], known),
        ("Supabase's service role", vec![minted(secret, "service_role")], known),
        ("a user", vec![minted(secret, "authenticated")], user),
        ("a service by another secret", vec![minted("another-secret", "service")], unknown),
        ("a service whose time is over", vec![format!("Bearer {expired}")], unknown),
        ("a wrong key", vec!["Bearer test-key-0123456789abcdeX".into()], unknown),
        ("half a key", vec!["Bearer test-key".into()], unknown),
        ("an empty key", vec!["Bearer ".into()], unknown),
        ("another scheme", vec![format!("Basic {KEY}")], unknown),
        ("two headers", vec!["Bearer x".into(), format!("Bearer {KEY}")], unknown),
        ("two headers, the right one first", vec![format!("Bearer {KEY}"), "Bearer x".into()], unknown),
    ];
    for (route, need) in ROUTES {
        let method = if *need == Need::Service { reqwest::Method::POST } else { reqwest::Method::GET };
        for (caller, headers, expected) in &callers {
            let mut request = app.http.request(method.clone(), app.url(route));
            for header in headers {
                request = request.header("authorization", header);
            }
            let (status, body) = answer(request).await;
            let expected = if *need == Need::Nothing { known } else { *expected };
            // What a caller gets who is let in is the route's own affair.
            let door = if [unknown, user].contains(&status) { status } else { known };
            assert_eq!(door, expected, "{caller} at {route}: {status}");
            match expected {
                401 => assert_eq!(body, json!({ "error": "A valid bearer token is required" })),
                403 => assert_eq!(body, json!({ "error": "Only a service may do this" })),
                _ => {}
            }
        }
    }
    app.stop().await;
}

#[tokio::test]
async fn without_any_key_the_doors_are_closed_and_metrics_can_be_opened() {
    let db = TestDb::new().await;
    let app = TestApp::start(&db, &[("API_KEYS", ""), ("METRICS_OPEN", "true")]).await;
    for path in ["/process-task", "/trigger-poll"] {
        for key in ["", KEY] {
            assert_eq!(answer(app.http.post(app.url(path)).bearer_auth(key)).await.0, 401);
        }
    }
    assert_eq!(app.get("/metrics").await.0, 200);
    app.stop().await;

    let app =
        TestApp::start(&db, &[("API_KEYS", ""), ("SUPABASE_SERVICE_KEY", "the-service-key-of-supabase")])
            .await;
    let request = app.http.post(app.url("/trigger-poll")).bearer_auth("the-service-key-of-supabase");
    assert_eq!(answer(request).await, (200, json!({ "success": true, "message": "Polling triggered" })));
    app.stop().await;
}

#[tokio::test]
async fn a_task_is_processed_now_even_before_it_is_due() {
    let db = TestDb::new().await;
    let app = TestApp::start(&db, &[]).await;
    healthy(&app).await;
    let id = add(&app, NewTask { delay: Duration::from_hours(1), ..NewTask::new("echo", json!({ "a": 1 })) })
        .await;
    let (status, body) = app.post("/process-task", &json!({ "task_id": id })).await;
    assert_eq!((status, body), (200, json!({ "success": true, "taskId": id })));
    db.eventually("it is done", &format!("select status = 'completed' from agent_tasks where id = '{id}'"))
        .await;
    let again = app.post("/process-task", &json!({ "task_id": id })).await;
    assert_eq!(again, (404, json!({ "error": "Task not found or not pending" })));
    app.stop().await;
}

#[tokio::test]
async fn waiting_for_a_task_tells_how_it_went_and_gives_back_what_is_not_done_in_time() {
    let db = TestDb::new().await;
    let app = TestApp::start(&db, &[]).await;
    healthy(&app).await;
    let hour = Duration::from_hours(1);
    let quick = add(&app, NewTask { delay: hour, ..NewTask::new("echo", json!({})) }).await;
    let (_, body) = app.post("/process-task?wait=20", &json!({ "task_id": quick })).await;
    assert_eq!(
        body,
        json!({ "success": true, "taskId": quick, "processed": 1, "succeeded": 1, "failed": 0, "released": 0 })
    );
    let slow =
        add(&app, NewTask { delay: hour, ..NewTask::new("echo", json!({ "sleep_ms": 60_000 })) }).await;
    let (_, body) = app.post("/process-task?wait=1", &json!({ "task_id": slow })).await;
    assert_eq!((&body["processed"], &body["released"]), (&json!(0), &json!(1)));
    let log =
        format!("select action_type = 'release_echo' from agent_actions_log where context_id = '{slow}'");
    assert!(db.value::<bool>(&log).await, "the row was pending again before the answer");
    app.stop().await;
}

#[tokio::test]
async fn a_triggered_poll_that_waits_drains_what_is_due_and_tells_when_the_next_task_is() {
    let db = TestDb::new().await;
    let app = TestApp::start(&db, &[("POLL_MODE", "request")]).await;
    healthy(&app).await;
    for number in 0..30 {
        add(&app, NewTask::new("echo", json!({ "number": number }))).await;
    }
    add(&app, NewTask::new("echo", json!({ "fail_permanently": true }))).await;
    add(&app, NewTask { delay: Duration::from_mins(10), ..NewTask::new("echo", json!({})) }).await;
    assert_eq!(db.value::<i64>("select count(*) from agent_tasks where status <> 'pending'").await, 0);
    let (status, body) = app.post("/trigger-poll?wait=20", &json!({})).await;
    assert_eq!(status, 200);
    assert_eq!(
        (&body["processed"], &body["succeeded"], &body["failed"]),
        (&json!(31), &json!(30), &json!(1))
    );
    assert_eq!((&body["released"], &body["remaining"]), (&json!(0), &json!(0)));
    assert!(body["nextDueAt"].as_str().is_some_and(|at| at.ends_with('Z')), "{body}");

    add(&app, NewTask::new("echo", json!({ "sleep_ms": 60_000 }))).await;
    let (_, body) = app.post("/trigger-poll?wait=1", &json!({})).await;
    assert_eq!(
        (&body["processed"], &body["released"], &body["remaining"]),
        (&json!(0), &json!(1), &json!(1))
    );
    assert_eq!(app.stop().await, 0);
}

#[tokio::test]
async fn in_request_mode_a_caller_that_leaves_takes_its_work_along_and_otherwise_it_goes_on() {
    let db = TestDb::new().await;
    for (mode, end) in [("request", "release_echo"), ("background", "process_echo")] {
        let app = TestApp::start(&db, &[("POLL_MODE", mode)]).await;
        healthy(&app).await;
        let task =
            NewTask { delay: Duration::from_hours(1), ..NewTask::new("echo", json!({ "sleep_ms": 1_500 })) };
        let id = add(&app, task).await;
        let body = json!({ "task_id": id });
        let call = app.post("/process-task?wait=20", &body);
        assert!(tokio::time::timeout(Duration::from_millis(500), call).await.is_err(), "the caller leaves");
        let sql = format!(
            "select exists (select from agent_actions_log where context_id = '{id}' and action_type = '{end}')"
        );
        db.eventually(mode, &sql).await;
        app.stop().await;
    }
}

#[tokio::test]
async fn a_caller_that_leaves_is_noticed_though_its_body_came_later_than_its_head() {
    let db = TestDb::new().await;
    let app = TestApp::start_with(db.config(&[("POLL_MODE", "request")]), Gate::closed().among_all()).await;
    healthy(&app).await;
    add(&app, Gate::task()).await;
    let mut caller = TcpStream::connect(app.address).await.expect("a connection");
    let head = format!(
        "POST /trigger-poll?wait=60 HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\n\
         Transfer-Encoding: chunked\r\n\r\n"
    );
    caller.write_all(head.as_bytes()).await.expect("sent");
    // As on a long way: the head is read before the body is there.
    sleep(Duration::from_millis(200)).await;
    caller.write_all(b"2\r\n{}\r\n0\r\n\r\n").await.expect("sent");
    eventually("it runs", async || app.worker.metrics().running.get() == 1).await;
    drop(caller);
    let released = "select exists (select from agent_actions_log where action_type = 'release_gate')";
    db.eventually("it is given back", released).await;
    app.stop().await;
}

#[tokio::test]
async fn tasks_of_a_request_that_waits_have_the_grace_period_when_the_process_stops() {
    let db = TestDb::new().await;
    for (grace, let_through, succeeded, released) in [("20", 1, 1, 0), ("1", 0, 0, 1)] {
        let gate = Gate::closed();
        let config = db.config(&[("POLL_MODE", "request"), ("SHUTDOWN_GRACE_SECONDS", grace)]);
        let app = TestApp::start_with(config, gate.among_all()).await;
        healthy(&app).await;
        add(&app, Gate::task()).await;
        let stopping = async {
            eventually("it runs", async || app.worker.metrics().running.get() == 1).await;
            app.shutdown.begin();
            eventually("it drains", async || app.get("/health").await.1["status"] == "draining").await;
            gate.open(let_through);
        };
        let any = json!({});
        let ((status, body), ()) = tokio::join!(app.post("/trigger-poll?wait=25", &any), stopping);
        assert_eq!(status, 200, "{body}");
        assert_eq!((&body["succeeded"], &body["released"]), (&json!(succeeded), &json!(released)), "{body}");
        assert_eq!(app.stop().await, 0);
    }
}

#[tokio::test]
async fn webhooks_run_a_new_task_if_it_is_due_and_are_never_answered_with_an_error_they_would_repeat() {
    let db = TestDb::new().await;
    let app = TestApp::start(&db, &[("POLL_MODE", "request")]).await;
    healthy(&app).await;
    let due = add(&app, NewTask::new("echo", json!({}))).await;
    let future =
        add(&app, NewTask { delay: Duration::from_hours(1), ..NewTask::new("echo", json!({})) }).await;
    let unknown = add(&app, NewTask::new("no_such_type", json!({}))).await;
    let envelope = |kind: &str, table: &str, id: Uuid| json!({ "type": kind, "table": table, "schema": "public", "record": { "id": id }, "old_record": null });
    let hook = async |body: Value| app.post("/process-task", &body).await;
    assert_eq!(hook(envelope("INSERT", "agent_tasks", future)).await.1["skipped"], "Task is not due yet");
    assert_eq!(
        hook(envelope("INSERT", "agent_tasks", unknown)).await.1["skipped"],
        "No handler for task type: no_such_type"
    );
    assert_eq!(hook(envelope("UPDATE", "agent_tasks", due)).await.1["skipped"], "UPDATE on agent_tasks");
    assert_eq!(hook(envelope("INSERT", "users", due)).await.1["skipped"], "INSERT on users");
    let (status, body) = hook(envelope("INSERT", "agent_tasks", due)).await;
    assert_eq!((status, &body["taskId"]), (200, &json!(due)));
    let (status, body) = hook(envelope("INSERT", "agent_tasks", due)).await;
    assert_eq!((status, &body["skipped"]), (200, &json!("Task not found or not pending")));

    let request =
        app.http.post(app.url("/process-task")).bearer_auth(KEY).header("X-CloudTasks-TaskName", "t");
    assert_eq!(answer(request.json(&json!({ "task_id": due }))).await.0, 200);
    let (status, body) = app.post("/process-task", &json!({ "task_id": unknown })).await;
    assert_eq!((status, &body["error"]), (422, &json!("No handler for task type: no_such_type")));
    app.stop().await;
}

#[tokio::test]
async fn bad_requests_get_a_clear_answer_and_leave_the_process_alive() {
    let db = TestDb::new().await;
    let app = TestApp::start(&db, &[]).await;
    healthy(&app).await;
    let post = async |path: &str, body: Vec<u8>| {
        answer(app.http.post(app.url(path)).bearer_auth(KEY).body(body)).await
    };
    let nested = |levels| ("[".repeat(levels) + &"]".repeat(levels)).into_bytes();
    let long = format!("{{\"task_id\": {}}}", "7".repeat(400)).into_bytes();
    for (body, status, error) in [
        (b"".to_vec(), 400, "Missing task_id"),
        (b"{}".to_vec(), 400, "Missing task_id"),
        (b"{\"task_id\": null}".to_vec(), 400, "Missing task_id"),
        (b"{\"task_id\": ".to_vec(), 400, "not valid JSON"),
        (b"{\"task_id\": 1e400}".to_vec(), 400, "not valid JSON"),
        (b"\xff\xfe".to_vec(), 400, "not valid JSON"),
        (nested(129), 400, "not valid JSON"),
        (nested(10_000), 400, "not valid JSON"),
        (nested(1_000_000), 400, "not valid JSON"),
        (nested(100), 400, "Missing task_id"),
        (b"{\"task_id\": 1e131071}".to_vec(), 400, "not valid JSON"),
        (long, 400, "not valid JSON"),
        (b"{\"task_id\": 9223372036854775808}".to_vec(), 404, "Task not found"),
        (b"{\"task_id\": -0}".to_vec(), 404, "Task not found"),
        (b"{\"task_id\": \"\\ud800\"}".to_vec(), 400, "not valid JSON"),
        (b"{\"task_id\": \"\\udc00\\ud800\"}".to_vec(), 400, "not valid JSON"),
        (b"{\"task_id\": \"\xed\xa0\x80\"}".to_vec(), 400, "not valid JSON"),
        (b"{\"task_id\": \"\xc0\xaf\"}".to_vec(), 400, "not valid JSON"),
        (b"{\"task_id\": \"\xf4\x90\x80\x80\"}".to_vec(), 400, "not valid JSON"),
        (b"\xef\xbb\xbf{}".to_vec(), 400, "not valid JSON"),
        (b"\xff\xfe{\0}\0".to_vec(), 400, "not valid JSON"),
        (b"{\"task_id\0\": 1}".to_vec(), 400, "not valid JSON"),
        (b"{\"task_id\\u0000\": 1}".to_vec(), 400, "Missing task_id"),
        (b"{\"task_id\": NaN}".to_vec(), 400, "not valid JSON"),
        (b"{\"task_id\": \"nonsense\"}".to_vec(), 404, "Task not found or not pending"),
        (b"{\"task_id\": 7}".to_vec(), 404, "Task not found or not pending"),
        (b"{\"task_id\": \"\\u0000\"}".to_vec(), 404, "Task not found or not pending"),
        (vec![b'x'; 10 * 1024 * 1024], 413, "too large"),
    ] {
        let what = String::from_utf8_lossy(&body[..body.len().min(40)]).into_owned();
        let (got, answer) = post("/process-task", body).await;
        assert_eq!(got, status, "{what}: {answer}");
        assert!(answer["error"].as_str().is_some_and(|text| text.contains(error)), "{what}: {answer}");
    }
    for wait in ["x", "-1", "1.5", "99999", ""] {
        assert_eq!(post(&format!("/trigger-poll?wait={wait}"), b"".to_vec()).await.0, 400, "{wait}");
    }
    assert_eq!(
        app.get("/no/such/route").await,
        (404, json!({ "error": "Not Found", "message": "Route GET /no/such/route not found" }))
    );
    let (status, body) = answer(app.http.get(app.url("/process-task")).bearer_auth(KEY)).await;
    assert_eq!((status, body), (405, json!({ "error": "GET is not allowed for /process-task" })));
    assert_eq!(app.get("/health").await.1["status"], "healthy");
    app.stop().await;
}

#[tokio::test]
async fn metrics_tell_what_waits_what_ended_and_how_long_it_took() {
    let db = TestDb::new().await;
    let app = TestApp::start(&db, &[("METRICS_OPEN", "true")]).await;
    healthy(&app).await;
    add(&app, NewTask::new("echo", json!({}))).await;
    add(&app, NewTask::new("no_such_type", json!({}))).await;
    db.eventually("it is done", "select exists (select from agent_tasks where status = 'completed')").await;
    eventually("the ending is counted", async || app.worker.counts().succeeded == 1).await;
    let text = app.http.get(app.url("/metrics")).send().await.expect("an answer").text().await.expect("text");
    for line in [
        "task_processor_claims_total 1",
        "task_processor_endings_total{task_type=\"echo\",ending=\"complete\"} 1",
        "task_processor_depth{task_type=\"no_such_type\",status=\"unroutable\"} 1",
        "task_processor_due_to_start_seconds_count{task_type=\"echo\"} 1",
        "task_processor_run_time_seconds_count{task_type=\"echo\"} 1",
        "task_processor_rescues_total 0",
        "task_processor_leases_lost_total 0",
        "task_processor_connections{lane=\"Work\"} 1",
    ] {
        assert!(text.contains(line), "{line} is missing in\n{text}");
    }
    assert!(text.ends_with("# EOF\n"));
    app.stop().await;
}

#[tokio::test]
async fn every_answer_has_a_request_id_and_the_callers_is_kept_if_it_is_one() {
    let db = TestDb::new().await;
    let app = TestApp::start(&db, &[]).await;
    let id_of = async |path: &str, given: Option<&str>| {
        let mut request = app.http.get(app.url(path));
        if let Some(given) = given {
            request = request.header("x-request-id", given);
        }
        let response = request.send().await.expect("an answer");
        response.headers()["x-request-id"].to_str().expect("text").to_owned()
    };
    assert_eq!(id_of("/health", Some("caller-1.a_b")).await, "caller-1.a_b");
    for forged in ["a b", "{\"x\":1}", &"x".repeat(65), ""] {
        let id = id_of("/no/such/route", Some(forged)).await;
        assert!(Uuid::parse_str(&id).is_ok(), "{id}");
    }
    assert_ne!(id_of("/metrics", None).await, id_of("/metrics", None).await);
    app.stop().await;
}

#[tokio::test]
async fn a_process_that_only_works_answers_probes_and_nothing_else() {
    let db = TestDb::new().await;
    let app =
        task_processor::app::App::build(db.config(&[]), task_processor::handlers::all()).expect("an app");
    let bound = app.bind(task_processor::app::Doors::Probes).await.expect("a port");
    let (address, shutdown) = (bound.address(), bound.shutdown().clone());
    let running = tokio::spawn(bound.run());
    let client = reqwest::Client::builder().no_proxy().build().expect("a client");
    let get = async |path: &str| answer(client.get(format!("http://{address}{path}"))).await.0;
    eventually("it is ready", async || get("/health/ready").await == 200).await;
    assert_eq!((get("/health").await, get("/health/live").await), (200, 200));
    let post = client.post(format!("http://{address}/trigger-poll")).bearer_auth(KEY);
    assert_eq!((answer(post).await.0, get("/metrics").await), (404, 404));
    let post = client.post(format!("http://{address}/health")).header("x-request-id", "caller-1");
    let response = post.send().await.expect("an answer");
    assert_eq!(
        (response.status().as_u16(), &response.headers()["x-request-id"]),
        (405, &"caller-1".parse().unwrap())
    );
    let body: Value = response.json().await.expect("the envelope");
    assert_eq!(body, json!({ "error": "POST is not allowed for /health" }));
    shutdown.begin();
    running.await.expect("no panic").expect("an orderly end");
}
