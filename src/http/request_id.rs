//! Gives every request an id: the caller gets it back, and every log line of the request carries it, and the trace that
//! the caller named.

use axum::extract::Request;
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::middleware::Next;
use axum::response::Response;
use tracing::Instrument;

use crate::telemetry::trace::Trace;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// W3C's, and Google's older one.
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const CLOUD_TRACE_CONTEXT: HeaderName = HeaderName::from_static("x-cloud-trace-context");
const LONGEST: usize = 64;

/// Middleware: outermost, so that no answer goes without.
pub(super) async fn identify(request: Request, next: Next) -> Response {
    let id = callers_id(request.headers()).unwrap_or_else(|| uuid::Uuid::new_v4().to_string());
    let traceparent = callers_trace(request.headers()).map(|trace| trace.to_string());
    let span = tracing::info_span!(
        "request",
        request_id = id,
        method = %request.method(),
        path = request.uri().path(),
        traceparent,
    );
    let mut response = next.run(request).instrument(span).await;
    if let Ok(value) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(REQUEST_ID, value);
    }
    response
}

/// The trace that the caller, or the platform, says the request belongs to.
fn callers_trace(headers: &HeaderMap) -> Option<Trace> {
    let text = |name| headers.get(name)?.to_str().ok();
    let traceparent = text(TRACEPARENT).and_then(|text| text.parse().ok());
    traceparent.or_else(|| Trace::from_cloud_trace_context(text(CLOUD_TRACE_CONTEXT)?).ok())
}

/// The caller's own id, if it is one: it ends up in our log.
fn callers_id(headers: &HeaderMap) -> Option<String> {
    let id = headers.get(REQUEST_ID)?.to_str().ok()?;
    let valid = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    ((1..=LONGEST).contains(&id.len()) && id.bytes().all(valid)).then(|| id.to_owned())
}
