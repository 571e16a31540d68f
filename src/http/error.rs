//! One place where failures become status codes. A client sees a sentence; the log sees the cause.

use axum::Json;
use axum::http::header::{ACCEPT_ENCODING, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderName, HeaderValue, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use crate::db::DbError;
use crate::queue::QueueError;

/// A request that failed, as the processor's face tells it: `{"error": …}`.
#[derive(Debug)]
pub(super) struct ApiError {
    status: StatusCode,
    body: Value,
    header: Option<(HeaderName, HeaderValue)>,
}

impl ApiError {
    pub(super) fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, body: json!({ "error": message.into() }), header: None }
    }

    pub(super) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    pub(super) fn unauthorized() -> Self {
        let mut error = Self::new(StatusCode::UNAUTHORIZED, "A valid bearer token is required");
        error.header = Some((WWW_AUTHENTICATE, HeaderValue::from_static("Bearer")));
        error
    }

    /// A caller whom we know, and who may not.
    pub(super) fn forbidden() -> Self {
        Self::new(StatusCode::FORBIDDEN, "Only a service may do this")
    }

    /// A body that would have to be unpacked.
    pub(super) fn packed() -> Self {
        let mut error = Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "The body must not be compressed");
        error.header = Some((ACCEPT_ENCODING, HeaderValue::from_static("identity")));
        error
    }

    /// Not now; a caller may repeat the request.
    pub(super) fn unavailable(message: &str) -> Self {
        let mut error = Self::new(StatusCode::SERVICE_UNAVAILABLE, message);
        error.header = Some((RETRY_AFTER, HeaderValue::from_static("5")));
        error
    }
}

impl From<DbError> for ApiError {
    fn from(error: DbError) -> Self {
        if error.is_transient() {
            tracing::warn!(%error, "a request needs the database, which does not answer");
            return Self::unavailable("The database cannot be reached");
        }
        if error.is_refusal() {
            tracing::error!(%error, "a request needs what this database lacks");
            return Self::unavailable("The database is not ready: see /health/ready");
        }
        tracing::error!(%error, "a request failed");
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "Internal server error")
    }
}

impl From<QueueError> for ApiError {
    fn from(error: QueueError) -> Self {
        match error {
            QueueError::Invalid(invalid) => Self::new(StatusCode::UNPROCESSABLE_ENTITY, invalid.to_string()),
            QueueError::Database(error) => error.into(),
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(self.body)).into_response();
        response.headers_mut().extend(self.header);
        response
    }
}

/// Any route that does not exist.
pub(super) async fn not_found(method: Method, uri: Uri) -> Response {
    let message = format!("Route {method} {} not found", uri.path());
    (StatusCode::NOT_FOUND, Json(json!({ "error": "Not Found", "message": message }))).into_response()
}

/// A route that exists, with another method. Axum adds the `Allow` header.
pub(super) async fn method_not_allowed(method: Method, uri: Uri) -> Response {
    let error = format!("{method} is not allowed for {}", uri.path());
    ApiError::new(StatusCode::METHOD_NOT_ALLOWED, error).into_response()
}

/// A request handler that panicked. The panic itself is in the log already.
pub(super) fn panicked(_: Box<dyn std::any::Any + Send>) -> Response {
    ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "Internal server error").into_response()
}
