//! Connections that send slowly, too much or nothing, and more of them than there is room for.

use std::time::Duration;

use serde_json::json;
use task_processor::handler::Registry;
use task_processor::handlers;
use task_processor::queue::NewTask;
use tokio::time::Instant;
use uuid::Uuid;

use crate::support::{Gate, Instance, KEY, TestApp, TestDb, Wire, connect, eventually, pass};

const HEALTH: &str = "GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n";

/// A service with room for so many connections.
async fn with_room_for(db: &TestDb, connections: usize, handlers: Registry) -> TestApp {
    let mut config = db.config(&[]);
    config.http.max_connections = connections;
    TestApp::start_with(config, handlers).await
}

/// Adds a task that is not due yet.
async fn add_for_later(app: &TestApp, task: NewTask) -> Uuid {
    let task = NewTask { delay: Duration::from_hours(1), ..task };
    app.queue().enqueue_one(task).await.expect("a task").id
}

#[tokio::test]
async fn who_sends_no_head_half_a_head_or_a_byte_now_and_then_is_not_waited_for() {
    let db = TestDb::new().await;
    let app = TestApp::start(&db, &[]).await;
    let mut silent = Wire::to(app.address).await;
    let mut half = Wire::to(app.address).await;
    half.say("GET /health HTTP/1.1\r\nHost: x\r\n").await;
    let mut idle = Wire::to(app.address).await;
    idle.say(HEALTH).await;
    idle.hear_until("alive").await;
    let mut dripping = Wire::to(app.address).await;
    dripping.say(HEALTH).await;
    dripping.hear_until("alive").await;
    // The server waits since it answered, or is about to. The clock leaps past the ten seconds, and a byte arrives with
    // each leap.
    let mut leaps = 0;
    while !dripping.is_closed().await {
        leaps += 1;
        assert!(leaps <= 5, "each byte buys more time");
        pass(Duration::from_secs(3)).await;
        dripping.say("G").await;
    }
    for (what, wire) in [("nothing", &mut silent), ("half a head", &mut half), ("an answer", &mut idle)] {
        assert!(wire.is_closed().await, "after {what}");
    }
    app.stop().await;
}

#[tokio::test]
async fn a_body_that_does_not_arrive_is_not_waited_for_and_half_a_body_does_nothing() {
    let db = TestDb::new().await;
    let app = TestApp::start(&db, &[]).await;
    let id = add_for_later(&app, NewTask::new("echo", json!({}))).await;
    // What has arrived would be a whole request.
    let body = json!({ "task_id": id }).to_string();
    let head = |length: usize| {
        format!(
            "POST /process-task HTTP/1.1\r\nAuthorization: Bearer {KEY}\r\nExpect: 100-continue\r\n\
             Content-Length: {length}\r\n\r\n"
        )
    };
    let mut slow = Wire::to(app.address).await;
    slow.say(head(body.len() + 1)).await;
    slow.hear_until("100 Continue").await;
    slow.say(&body).await;
    pass(Duration::from_secs(31)).await;
    let answer = slow.hear_until("in time").await;
    assert!(answer.contains(" 408 "), "{answer}");

    let mut gone = Wire::to(app.address).await;
    gone.say(head(body.len() + 1)).await;
    gone.hear_until("100 Continue").await;
    gone.say(&body).await;
    gone.hush().await;
    let answer = gone.hear().await;
    assert!(answer.is_empty() || answer.contains(" 400 "), "{answer}");
    assert!(db.task_is(id, "status = 'pending' and attempt = 0").await);
    assert_eq!(app.get("/health/live").await.0, 200);
    app.stop().await;
}

#[tokio::test]
async fn a_head_that_is_too_long_is_refused_before_it_has_arrived() {
    let db = TestDb::new().await;
    let app = TestApp::start(&db, &[]).await;
    let mut wire = Wire::to(app.address).await;
    wire.say(format!("GET /health HTTP/1.1\r\nX-Long: {}", "x".repeat(40_000))).await;
    let answer = wire.hear().await;
    assert!(answer.starts_with("HTTP/1.1 431 "), "{answer:?}");
    let mut wire = Wire::to(app.address).await;
    wire.say(format!("GET /health HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(200))).await;
    let answer = wire.hear().await;
    assert!(answer.starts_with("HTTP/1.1 431 "), "{answer:?}");
    app.stop().await;
}

#[tokio::test]
async fn when_all_places_are_taken_who_asks_for_nothing_gives_way_to_who_asks() {
    let db = TestDb::new().await;
    let app = with_room_for(&db, 10, handlers::all()).await;
    app.ready().await;
    let mut others = Vec::new();
    for number in 0..30 {
        let mut wire = Wire::to(app.address).await;
        match number % 3 {
            0 => {}
            1 => drop(wire.say("GET /health HTTP/1.1\r\n").await),
            _ => {
                wire.say(HEALTH).await;
                wire.hear_until("alive").await;
            }
        }
        others.push(wire);
    }
    let began = Instant::now();
    let mut newcomers = Vec::new();
    for _ in 0..20 {
        let mut wire = Wire::to(app.address).await;
        wire.say(HEALTH).await;
        wire.hear_until("alive").await;
        newcomers.push(wire);
    }
    assert!(began.elapsed() < Duration::from_secs(5), "nobody waits for somebody else's head");
    let mut closed = 0;
    for wire in &mut others {
        closed += usize::from(wire.is_closed().await);
    }
    assert_eq!(closed, 30, "all of them came before the last ten");
    app.stop().await;
}

#[tokio::test]
async fn a_request_under_way_keeps_its_place_and_the_next_to_be_answered_makes_room() {
    let db = TestDb::new().await;
    let gate = Gate::closed();
    let app = with_room_for(&db, 2, gate.among_all()).await;
    app.ready().await;
    let (one, other) = (add_for_later(&app, Gate::task()).await, add_for_later(&app, Gate::task()).await);
    let wait = async |id: Uuid| {
        let body = json!({ "task_id": id }).to_string();
        let mut wire = Wire::to(app.address).await;
        let head = format!("POST /process-task?wait=20 HTTP/1.1\r\nAuthorization: Bearer {KEY}\r\n");
        wire.say(format!("{head}Content-Length: {}\r\n\r\n{body}", body.len())).await;
        // It stays open: nobody but the server makes room.
        (wire.hear_until("released").await, wire)
    };
    let newcomers = async {
        db.eventually("both run", "select count(*) = 2 from agent_tasks where status = 'processing'").await;
        let mut wires = Vec::new();
        for _ in 0..4 {
            let mut wire = Wire::to(app.address).await;
            wire.say(HEALTH).await;
            wires.push(wire);
        }
        gate.open(1);
        wires.last_mut().expect("the fourth").hear_until("alive").await;
        gate.open(1);
    };
    let ((one, _its_wire), (other, _other_wire), ()) = tokio::join!(wait(one), wait(other), newcomers);
    for answer in [one, other] {
        assert!(answer.contains("\"succeeded\":1"), "{answer}");
    }
    app.stop().await;
}

#[tokio::test]
async fn connections_leave_the_queue_the_files_that_it_needs() {
    let db = TestDb::new().await;
    let instance = Instance::start_with_files(&db, 96, &[]).await;
    let address = ([127, 0, 0, 1], instance.port()).into();
    let mut silent = Vec::new();
    for _ in 0..200 {
        silent.push(Wire::to(address).await);
    }
    // Who comes after them is accepted after them.
    let mut last = Wire::to(address).await;
    last.say(HEALTH).await;
    last.hear_until("alive").await;
    // By a way of our own: a pooler may still hand out a connection that has been ended.
    let direct = connect(&db.direct_url()).await;
    let terminate = "select pg_terminate_backend(pid) from pg_stat_activity
         where datname = current_database() and pid <> pg_backend_pid()";
    direct.query_typed(terminate, &[]).await.expect("ended");
    let add = "insert into agent_tasks (task_type, agent_type, context_json) values ('echo', 't', '{}')";
    direct.batch_execute(add).await.expect("a task");
    let done = "select status = 'completed' from agent_tasks";
    eventually("it is done", async || direct.query_typed(done, &[]).await.expect("an answer")[0].get(0))
        .await;
    let files = "Too many open files";
    assert!(!instance.log().contains(files), "{}", instance.log());
}

#[tokio::test]
async fn requests_that_come_in_one_breath_are_answered_one_by_one_and_in_their_order() {
    let db = TestDb::new().await;
    let app = TestApp::start(&db, &[]).await;
    let mut wire = Wire::to(app.address).await;
    let requests = (0..100).map(|n| format!("GET /health/live HTTP/1.1\r\nX-Request-Id: n{n}\r\n\r\n"));
    wire.say(
        requests.collect::<String>() + "GET /x HTTP/1.1\r\nConnection: close\r\nX-Request-Id: n100\r\n\r\n",
    )
    .await;
    let answers = wire.hear().await;
    let ids: Vec<&str> = answers.lines().filter_map(|line| line.strip_prefix("x-request-id: n")).collect();
    assert_eq!(ids, (0..=100).map(|n| n.to_string()).collect::<Vec<_>>());
    app.stop().await;
}

#[tokio::test]
async fn no_request_is_smuggled_in_behind_another() {
    let db = TestDb::new().await;
    let app = TestApp::start(&db, &[]).await;
    let hidden = "GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n";
    let length = hidden.len();
    for (framing, status) in [
        (format!("Content-Length: {length}"), "401"),
        (format!("Content-Length: {length}\r\nContent-Length: 0"), "400"),
        (format!("Content-Length: 0, {length}"), "400"),
        (format!("Content-Length: +{length}"), "400"),
        (format!("Content-Length : {length}"), "400"),
        ("Transfer-Encoding: chunked, identity".to_owned(), "400"),
        ("Transfer-Encoding: identity".to_owned(), "400"),
        (format!("Content-Length: {length}\r\n Transfer-Encoding: chunked"), "400"),
    ] {
        let mut wire = Wire::to(app.address).await;
        wire.say(format!("POST /process-task HTTP/1.1\r\nHost: x\r\n{framing}\r\n\r\n{hidden}")).await;
        wire.hush().await;
        let answer = wire.hear().await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{framing}: {answer:?}");
        assert!(!answer.contains("/smuggled"), "{framing}: the body was taken for a request");
    }
    app.stop().await;
}
