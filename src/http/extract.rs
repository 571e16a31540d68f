//! What a request brings, checked, with errors in our own envelope.

use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, Query, Request};
use axum::http::StatusCode;
use axum::http::header::CONTENT_ENCODING;
use axum::http::request::Parts;
use serde::Deserialize;
use serde_json::Value;
use tokio::time::timeout;

use super::error::ApiError;

/// A body must have arrived within this time.
const BODY_WITHIN: Duration = Duration::from_secs(30);
/// The longest `?wait=`: no platform keeps a request open for longer.
const MAX_WAIT: u64 = 3_600;

/// A body as JSON, whatever its content type says: Cloud Tasks and database triggers often say nothing sensible.
/// No body at all is null.
pub(super) struct JsonBody(pub(super) Value);

/// A body that nobody looks at. It is read all the same: as long as some of it is to come, it would not be noticed that
/// the caller hangs up.
pub(super) struct AnyBody;

impl<S: Send + Sync> FromRequest<S> for AnyBody {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        read(request, state).await.map(|_| Self)
    }
}

impl<S: Send + Sync> FromRequest<S> for JsonBody {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        // Nothing is unpacked here: a kilobyte could become a gigabyte.
        let codings = request.headers().get_all(CONTENT_ENCODING).iter();
        if !codings.into_iter().all(|coding| coding.as_bytes().eq_ignore_ascii_case(b"identity")) {
            return Err(ApiError::packed());
        }
        let bytes = read(request, state).await?;
        if bytes.trim_ascii().is_empty() {
            return Ok(Self(Value::Null));
        }
        serde_json::from_slice(&bytes)
            .map(Self)
            .map_err(|error| ApiError::bad_request(format!("The body is not valid JSON: {error}")))
    }
}

/// A body, within the limits of size and time.
async fn read<S: Send + Sync>(request: Request, state: &S) -> Result<Bytes, ApiError> {
    match timeout(BODY_WITHIN, Bytes::from_request(request, state)).await {
        Err(_) => Err(ApiError::new(StatusCode::REQUEST_TIMEOUT, "The body did not arrive in time")),
        Ok(Err(rejection)) if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE => {
            Err(ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "The body is too large"))
        }
        Ok(Err(_)) => Err(ApiError::bad_request("The body could not be read")),
        Ok(Ok(bytes)) => Ok(bytes),
    }
}

/// `?wait=SECONDS`: do the work inside the request.
pub(super) struct Wait(pub(super) Option<Duration>);

#[derive(Deserialize)]
struct WaitQuery {
    wait: Option<String>,
}

impl<S: Send + Sync> FromRequestParts<S> for Wait {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let invalid =
            || ApiError::bad_request(format!("wait must be a whole number of seconds, 0 to {MAX_WAIT}"));
        let Query(query) =
            Query::<WaitQuery>::from_request_parts(parts, state).await.map_err(|_| invalid())?;
        let Some(text) = query.wait else { return Ok(Self(None)) };
        match text.parse::<u64>() {
            Ok(seconds) if seconds <= MAX_WAIT => Ok(Self(Some(Duration::from_secs(seconds)))),
            _ => Err(invalid()),
        }
    }
}
