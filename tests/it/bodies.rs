//! Bodies that are too large, without an end, packed, or come twice at once.

use futures_util::future::join_all;
use serde_json::json;
use task_processor::queue::NewTask;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::{Instance, KEY, TestApp, TestDb, eventually};

const MEGABYTE: u64 = 1024 * 1024;
/// More than what lies in the buffers of a connection on its way.
const ENOUGH: u64 = 64 * MEGABYTE;

/// Sends a head and then pieces of a body, until that is so much or the server has had enough: its answer's first line,
/// and how much could be sent. An answer may be lost where so much was under way that the connection is reset: then once
/// more.
async fn send(port: u16, head: &str, piece: &[u8], enough: u64) -> (String, u64) {
    let mut tries = 0;
    loop {
        let (answer, sent) = try_to_send(port, head, piece, enough).await;
        tries += 1;
        if !answer.is_empty() || tries == 10 {
            return (answer, sent);
        }
    }
}

async fn try_to_send(port: u16, head: &str, piece: &[u8], enough: u64) -> (String, u64) {
    let (mut from, mut to) =
        TcpStream::connect(("127.0.0.1", port)).await.expect("a connection").into_split();
    let sending = async {
        let mut sent = 0;
        if to.write_all(head.as_bytes()).await.is_ok() {
            while sent < enough && to.write_all(piece).await.is_ok() {
                sent += piece.len() as u64;
            }
        }
        sent
    };
    let hearing = async {
        let mut answer = Vec::new();
        let _ = from.read_to_end(&mut answer).await;
        String::from_utf8_lossy(&answer).lines().next().unwrap_or_default().to_owned()
    };
    let (sent, answer) = tokio::join!(sending, hearing);
    (answer, sent)
}

#[tokio::test]
async fn a_body_without_an_end_is_cut_off_at_every_door_and_costs_no_memory() {
    let db = TestDb::new().await;
    let instance = Instance::start(&db, &[]).await;
    eventually("it is healthy", async || instance.health().await["status"] == "healthy").await;
    let before = instance.peak_memory();
    let key = format!("Authorization: Bearer {KEY}\r\n");
    let chunk = format!("10000\r\n{}\r\n", "[".repeat(0x1_0000));
    let chunked = "Transfer-Encoding: chunked\r\n";
    let announced = "Content-Length: 5368709120\r\n";
    for (door, key, status) in [
        ("POST /process-task", key.as_str(), "413"),
        ("POST /process-task", "", "401"),
        ("POST /trigger-poll", "", "401"),
        ("POST /trigger-poll", &key, "413"),
        ("GET /health", "", "200"),
        ("POST /no/such/route", "", "404"),
        ("PUT /process-task", &key, "405"),
    ] {
        for (framing, piece) in [(chunked, chunk.as_bytes()), (announced, &chunk.as_bytes()[7..])] {
            let head = format!("{door} HTTP/1.1\r\nHost: x\r\n{key}{framing}\r\n");
            let (answer, sent) = send(instance.port(), &head, piece, ENOUGH).await;
            let told = answer.starts_with(&format!("HTTP/1.1 {status} "));
            assert!(told, "{door} {framing}: {answer}");
            assert!(sent < ENOUGH, "{door} {framing}: the server took it all");
        }
    }
    let cost = instance.peak_memory() - before;
    assert!(cost < 24 * MEGABYTE, "it cost {} MB", cost / MEGABYTE);
    assert_eq!(instance.health().await["status"], "healthy");
}

#[tokio::test]
async fn what_two_megabytes_can_become_in_memory_is_let_go_at_once() {
    let db = TestDb::new().await;
    let instance = Instance::start(&db, &[]).await;
    eventually("it is healthy", async || instance.health().await["status"] == "healthy").await;
    let client = reqwest::Client::builder().no_proxy().build().expect("a client");
    let post = async |body: &str| {
        let head = format!(
            "POST /process-task HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\nConnection: close\r\n\
             Content-Length: {}\r\n\r\n",
            body.len()
        );
        send(instance.port(), &head, body.as_bytes(), body.len() as u64).await.0
    };
    let million = format!("[{}0]", "0,".repeat(1_000_000));
    let object = |keys: u32| {
        let fields: Vec<String> = (0..keys).map(|key| format!("\"{key}\":0")).collect();
        format!("{{{}}}", fields.join(","))
    };
    let parts = "--x\r\n\r\n1\r\n".repeat(100_000);
    assert!(post(&million).await.contains(" 400 "));
    let before = instance.peak_memory();
    for (body, status) in [
        (million, 400),
        (object(1_000_000), 413),
        (object(150_000), 400),
        (parts.clone(), 400),
        (parts + &"x".repeat(2_000_000), 413),
    ] {
        for _ in 0..3 {
            let answer = post(&body).await;
            assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{}: {answer}", &body[..20]);
        }
    }
    let cost = instance.peak_memory() - before;
    assert!(cost < 64 * MEGABYTE, "each request left something behind: {} MB", cost / MEGABYTE);

    // Nor is it kept for as long as a request waits.
    let before = instance.memory();
    let add = "insert into agent_tasks (task_type, agent_type, context_json, scheduled_for)
        select 'echo', 'x', '{\"sleep_ms\": 60000}', now() + interval '1 hour' from generate_series(1, 5)";
    db.execute(add).await;
    let waiting = db.rows("select id::text from agent_tasks").await.into_iter().map(|row| {
        let body =
            format!("{{\"x\": [{}0], \"task_id\": \"{}\"}}", "0,".repeat(1_000_000), row.get::<_, &str>(0));
        let request = client.post(instance.url("/process-task?wait=60")).bearer_auth(KEY).body(body);
        tokio::spawn(request.send())
    });
    let waiting: Vec<_> = waiting.collect();
    instance.runs(5).await;
    let kept = instance.memory().saturating_sub(before);
    assert!(kept < 64 * MEGABYTE, "{} MB for five requests that wait", kept / MEGABYTE);
    waiting.iter().for_each(tokio::task::JoinHandle::abort);
}

#[tokio::test]
async fn a_packed_body_is_refused_and_not_unpacked() {
    let db = TestDb::new().await;
    let app = TestApp::start(&db, &[]).await;
    let id = app.add(json!({ "sleep_ms": 0 })).await;
    let post = async |codings: &[&str], body: Vec<u8>| {
        let mut request = app.http.post(app.url("/process-task")).bearer_auth(KEY).body(body);
        for coding in codings {
            request = request.header("content-encoding", *coding);
        }
        request.send().await.expect("an answer")
    };
    // `{}`, packed.
    let packed = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3, 0xab, 0xae, 5, 0, 0x43, 0xbf, 0xa6, 0xa3, 2, 0, 0, 0];
    let plain = json!({ "task_id": id }).to_string().into_bytes();
    for (codings, body) in [
        (&["gzip"][..], packed.to_vec()),
        (&["x-gzip"], packed.to_vec()),
        (&["deflate"], plain.clone()),
        (&["br"], plain.clone()),
        (&["zstd"], plain.clone()),
        (&["gzip, identity"], packed.to_vec()),
        (&["identity", "gzip"], packed.to_vec()),
        (&["\u{e9}"], plain.clone()),
    ] {
        let response = post(codings, body).await;
        assert_eq!(response.status(), 415, "{codings:?}");
        assert_eq!(response.headers()["accept-encoding"], "identity", "what would be taken");
    }
    assert_eq!(post(&[], packed.to_vec()).await.status(), 400, "nor is it known by its first bytes");
    assert_ne!(post(&["Identity"], plain).await.status(), 415);
    app.stop().await;
}

#[tokio::test]
async fn a_webhook_that_comes_many_times_at_once_has_its_task_run_once() {
    let db = TestDb::new().await;
    let app = TestApp::start(&db, &[("POLL_MODE", "request"), ("DATABASE_POOL_SIZE", "10")]).await;
    app.ready().await;
    for round in 0..5 {
        let task = NewTask::new("echo", json!({ "sleep_ms": 20 }));
        let id = app.queue().enqueue_one(task).await.expect("a task").id;
        let webhook = json!({
            "type": "INSERT", "table": "agent_tasks", "schema": "public", "record": { "id": id }, "old_record": null,
        });
        let direct = json!({ "task_id": id });
        let calls = (0..20).map(|call| {
            let body = if call % 4 == 3 { &direct } else { &webhook };
            app.post("/process-task?wait=20", body)
        });
        let mut processed = 0;
        for (call, (status, body)) in join_all(calls).await.into_iter().enumerate() {
            let known = if call % 4 == 3 { [200, 404] } else { [200, 200] };
            assert!(known.contains(&status), "{status}: {body}");
            processed += body["processed"].as_u64().unwrap_or(0);
        }
        assert_eq!(processed, 1, "round {round}");
        assert!(db.task_is(id, "status = 'completed' and attempt = 1").await);
        let logged = format!("select count(*) from agent_actions_log where context_id = '{id}'");
        assert_eq!(db.value::<i64>(&logged).await, 1);
    }
    app.stop().await;
}
