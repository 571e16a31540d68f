//! Requests that pretend to be others: by verb, by path, by header, by where they put a credential.

use serde_json::json;
use task_processor::http::auth::{Need, ROUTES};

use crate::support::{KEY, TestApp, TestDb, Wire, answer};

/// Sends one request as it stands: the whole answer.
async fn said(app: &TestApp, request: impl AsRef<[u8]>) -> String {
    let mut wire = Wire::to(app.address).await;
    wire.say(request).await;
    wire.hear().await
}

fn status(answer: &str) -> u16 {
    let code = answer.split(' ').nth(1).and_then(|code| code.parse().ok());
    code.unwrap_or_else(|| panic!("no answer: {answer:?}"))
}

#[tokio::test]
async fn no_other_verb_does_what_a_route_does_and_none_is_echoed() {
    let db = TestDb::new().await;
    let app = TestApp::start(&db, &[("POLL_MODE", "request")]).await;
    app.ready().await;
    let id = app.add(json!({})).await;
    let body = json!({ "task_id": id }).to_string();
    let verbs = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "LINK", "post"];
    for (route, need) in ROUTES {
        let own = if *need == Need::Service { &["POST"][..] } else { &["GET", "HEAD"] };
        for verb in verbs.iter().filter(|verb| !own.contains(verb)) {
            for key in ["", KEY] {
                let head = format!(
                    "{verb} {route}?wait=1 HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX-Secret: echoed\r\n\
                     X-HTTP-Method-Override: POST\r\nX-HTTP-Method: POST\r\nX-Method-Override: POST\r\n\
                     Authorization: Bearer {key}\r\n"
                );
                let answer = said(&app, format!("{head}Content-Length: {}\r\n\r\n{body}", body.len())).await;
                let closed = *need != Need::Nothing && key.is_empty();
                assert_eq!(status(&answer), if closed { 401 } else { 405 }, "{verb} {route}: {answer}");
                assert!(!answer.contains("echoed"), "{answer}");
            }
        }
    }
    assert!(db.task_is(id, "status = 'pending' and attempt = 0").await);
    app.stop().await;
}

#[tokio::test]
async fn a_path_that_is_not_a_routes_own_leads_nowhere_or_to_its_door() {
    let db = TestDb::new().await;
    let app = TestApp::start(&db, &[]).await;
    for path in [
        "/process-task",
        "/process-task/",
        "//process-task",
        "/./process-task",
        "/health/../process-task",
        "/health/..;/process-task",
        "/health/%2e%2e/process-task",
        "/health%2f..%2fprocess-task",
        "/process%2Dtask",
        "/PROCESS-TASK",
        "/process-task;x=/health",
        "/process-task%00",
        "/process-task%20",
        "/process-task\\",
        "/..%5cprocess-task",
        "/health?/../process-task",
        "/health/live/process-task",
        "http://x/process-task",
        "http://health/process-task",
        "/etc/passwd",
        "/../../etc/passwd",
        "/%",
        "*",
        "process-task",
        "x:443",
    ] {
        for key in ["", KEY] {
            let answer = said(
                &app,
                format!(
                    "POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\nConnection: close\r\n\
                     Content-Length: 2\r\n\r\n{{}}"
                ),
            )
            .await;
            let whole =
                matches!(path, "/process-task" | "http://x/process-task" | "http://health/process-task");
            let known = match (whole, key) {
                (true, "") => 401,
                (true, _) => 400,
                (false, _) if path.starts_with("/health?") => 405,
                (false, _) => 404,
            };
            let refused = status(&answer);
            assert!(refused == known || (!whole && refused == 400), "{path}: {answer}");
            assert!(!answer.contains("root:"), "{answer}");
        }
    }
    app.stop().await;
}

#[tokio::test]
async fn no_page_of_another_origin_is_let_in_and_no_host_is_believed() {
    let db = TestDb::new().await;
    let app = TestApp::start(&db, &[]).await;
    for (verb, path, known) in
        [("OPTIONS", "/process-task", 401), ("GET", "/health", 200), ("GET", "/no/such/route", 404)]
    {
        let answer = said(
            &app,
            format!(
                "{verb} {path} HTTP/1.1\r\nHost: evil.example\r\nX-Forwarded-Host: evil.example\r\n\
                 Forwarded: host=evil.example\r\nX-Forwarded-For: 127.0.0.1\r\nX-Original-URL: /health\r\n\
                 X-Rewrite-URL: /health\r\nOrigin: https://evil.example\r\nConnection: close\r\n\
                 Access-Control-Request-Method: POST\r\nAccess-Control-Request-Headers: authorization\r\n\r\n"
            ),
        )
        .await;
        let text = answer.to_ascii_lowercase();
        assert!(!text.contains("access-control") && !text.contains("evil"), "{answer}");
        assert_eq!(status(&answer), known, "{verb} {path}");
    }
    app.stop().await;
}

#[tokio::test]
async fn a_credential_opens_a_door_only_whole_and_in_its_place() {
    let db = TestDb::new().await;
    let other = "another-key-0123456789";
    let app = TestApp::start(&db, &[("API_KEYS", &format!("{KEY},{other}"))]).await;
    for (route, _) in ROUTES.iter().filter(|(_, need)| *need != Need::Nothing) {
        let verb = if *route == "/metrics" { "GET" } else { "POST" };
        let knock = async |head: &str| {
            let request = format!("{verb} {route}{head}Content-Length: 0\r\nConnection: close\r\n\r\n");
            status(&said(&app, request).await)
        };
        for head in [
            &format!("?key={KEY}&access_token={KEY}&apikey={KEY} HTTP/1.1\r\n"),
            &format!(" HTTP/1.1\r\nX-API-Key: {KEY}\r\nApiKey: {KEY}\r\n"),
            &format!(" HTTP/1.1\r\nCookie: authorization=Bearer {KEY}; token={KEY}\r\n"),
            &format!(" HTTP/1.1\r\nProxy-Authorization: Bearer {KEY}\r\n"),
            &format!(" HTTP/1.1\r\nX-Serverless-Authorization: Bearer {KEY}\r\n"),
            &format!(" HTTP/1.1\r\nX-Forwarded-Authorization: Bearer {KEY}\r\n"),
            &format!(" HTTP/1.1\r\nAuthorization: {KEY}\r\n"),
            &format!(" HTTP/1.1\r\nAuthorization: Bearer{KEY}\r\n"),
            &format!(" HTTP/1.1\r\nAuthorization: Bearer\t{KEY}\r\n"),
            &format!(" HTTP/1.1\r\nAuthorization: Bearer {KEY},{other}\r\n"),
            &format!(" HTTP/1.1\r\nAuthorization: Bearer {KEY}.\r\n"),
            &format!(" HTTP/1.1\r\nAuthorization: Bearer \"{KEY}\"\r\n"),
            &format!(" HTTP/1.1\r\nAuthorization: Bearer {}\r\n", KEY.to_uppercase()),
            &format!(" HTTP/1.1\r\nAuthorization: Bearer {}\r\n", "x".repeat(20_000)),
            &format!(" HTTP/1.1\r\nAuthorization: Bearer {KEY}\r\nAuthorization:\r\n"),
            &format!(" HTTP/1.1\r\nAuthorization:\r\nAuthorization: Bearer {KEY}\r\n"),
            " HTTP/1.1\r\nAuthorization:\r\n",
            " HTTP/1.1\r\nAuthorization: Bearer\r\n",
            " HTTP/1.1\r\nAuthorization: Bearer \u{e9}\u{0}x\r\n",
        ] {
            let code = knock(head).await;
            // A byte that no header may have makes the whole request malformed.
            assert!(code == 401 || (code == 400 && head.contains('\0')), "{route}{head}: {code}");
        }
        for key in [KEY, other] {
            let code = knock(&format!(" HTTP/1.1\r\nAuthorization: Bearer {key}\r\n")).await;
            assert!(code == 200 || code == 400, "{route}: {code}");
        }
    }
    app.stop().await;

    let app = TestApp::start(&db, &[("API_KEYS", other)]).await;
    let knock = async |key: &str| answer(app.http.post(app.url("/trigger-poll")).bearer_auth(key)).await.0;
    assert_eq!((knock(KEY).await, knock(other).await), (401, 200), "a key that was taken out of the list");
    app.stop().await;
}
