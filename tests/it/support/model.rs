//! A language model that says what it is told to say, in both shapes of API.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use axum::{Json, Router};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::Notify;

pub(crate) const MODEL_KEY: &str = "sk-very-secret-0123456789";

/// What comes next.
#[derive(Clone, Debug)]
pub(crate) enum Says {
    Text(&'static str),
    /// The same, but only when told to.
    WhenTold(&'static str),
    Status(u16),
    /// With a `Retry-After`.
    Later(u16, &'static str),
    Raw(&'static str),
    /// To another place on the same server.
    Redirect,
    /// So many bytes.
    Bytes(usize),
}

/// What it was asked.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Value,
}

#[derive(Default)]
struct Inner {
    script: Mutex<VecDeque<Says>>,
    asked: Mutex<Vec<Asked>>,
    told: Notify,
}

/// A server on the loopback address; what is not in the script is answered with the last of it.
pub(crate) struct FakeModel {
    url: String,
    inner: Arc<Inner>,
}

impl FakeModel {
    pub(crate) async fn start(script: impl IntoIterator<Item = Says>) -> Self {
        let inner = Arc::new(Inner { script: Mutex::new(script.into_iter().collect()), ..Inner::default() });
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let router = Router::new().fallback(answer).with_state(inner.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { url, inner }
    }

    /// Variables for a provider, at three dollars and fifteen a million tokens.
    pub(crate) fn vars<'a>(&'a self, provider: &'a str) -> Vec<(&'a str, &'a str)> {
        vec![
            ("LLM_PROVIDER", provider),
            ("LLM_BASE_URL", &self.url),
            ("LLM_API_KEY", MODEL_KEY),
            ("LLM_MODEL", "test-model"),
            ("LLM_INPUT_USD_PER_MILLION", "3"),
            ("LLM_OUTPUT_USD_PER_MILLION", "15"),
        ]
    }

    /// Lets it say what it says only when told to.
    pub(crate) fn tell(&self) {
        self.inner.told.notify_one();
    }

    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.inner.asked.lock().unwrap().clone()
    }
}

impl Inner {
    fn next(&self) -> Says {
        let mut script = self.script.lock().unwrap();
        let says = if script.len() > 1 { script.pop_front() } else { script.front().cloned() };
        says.unwrap_or(Says::Text("ok"))
    }
}

async fn answer(State(inner): State<Arc<Inner>>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let body: Bytes = axum::body::to_bytes(body, usize::MAX).await.unwrap_or_default();
    let path = head.uri.path().to_owned();
    let asked = Asked {
        path: path.clone(),
        headers: head.headers,
        body: serde_json::from_slice(&body).unwrap_or_default(),
    };
    inner.asked.lock().unwrap().push(asked);
    let says = match inner.next() {
        Says::WhenTold(text) => {
            inner.told.notified().await;
            Says::Text(text)
        }
        says => says,
    };
    match says {
        Says::WhenTold(_) => unreachable!("told above"),
        Says::Text(text) if path.ends_with("/v1/messages") => Json(json!({
            "model": "test-model-20260101",
            "content": [{ "type": "text", "text": text }],
            "usage": { "input_tokens": 1000, "output_tokens": 100 },
        }))
        .into_response(),
        Says::Text(text) => Json(json!({
            "model": "test-model-20260101",
            "choices": [{ "message": { "role": "assistant", "content": text } }],
            "usage": { "prompt_tokens": 1000, "completion_tokens": 100 },
        }))
        .into_response(),
        Says::Status(status) => with_status(status).body(Body::from(MODEL_KEY)).unwrap(),
        Says::Later(status, when) => {
            with_status(status).header("retry-after", when).body(Body::empty()).unwrap()
        }
        Says::Raw(body) => body.into_response(),
        Says::Redirect => with_status(307).header("location", "/elsewhere").body(Body::empty()).unwrap(),
        Says::Bytes(count) => vec![b' '; count].into_response(),
    }
}

fn with_status(status: u16) -> axum::http::response::Builder {
    Response::builder().status(status)
}
