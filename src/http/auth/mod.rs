//! Who may call what. One table; a route that is not in it is closed.

mod claims;
mod key_set;
mod keys;
mod tokens;

use std::sync::Arc;

use axum::extract::{MatchedPath, Request, State};
use axum::http::header::AUTHORIZATION;
use axum::http::{HeaderMap, HeaderName};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::error::ApiError;
use crate::config::{AuthMode, HttpConfig};
use keys::Keys;
use tokens::Tokens;

pub use tokens::mint;

/// Where a caller puts the token for Cloud Run that needs `Authorization` for us.
const SERVERLESS_AUTHORIZATION: HeaderName = HeaderName::from_static("x-serverless-authorization");

/// What a route asks of its caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Nothing.
    Nothing,
    /// To be a service.
    Service,
    /// To be a service, unless `METRICS_OPEN` is set.
    Metrics,
}

/// Every route and what it needs.
pub const ROUTES: &[(&str, Need)] = &[
    ("/health", Need::Nothing),
    ("/health/live", Need::Nothing),
    ("/health/ready", Need::Nothing),
    ("/metrics", Need::Metrics),
    ("/process-task", Need::Service),
    ("/trigger-poll", Need::Service),
];

/// What a caller is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    /// Somebody who is signed in. No route of today is for them.
    Viewer,
    /// A program of the operator's.
    Service,
}

/// Who calls.
struct Caller {
    subject: String,
    role: Role,
}

/// Why somebody is not let in.
enum Refusal {
    /// Nobody we know, and what is wrong with the token.
    Unknown(&'static str),
    /// Somebody we know, who may not do this.
    Forbidden,
    /// Nobody can say: the keys that would tell cannot be fetched.
    Unavailable,
}

/// Lets callers in, or not.
pub(super) struct Doorkeeper {
    keys: Keys,
    tokens: Tokens,
    metrics_open: bool,
    open: bool,
}

impl Doorkeeper {
    pub(super) fn new(config: &HttpConfig) -> Self {
        let open = config.open && config.host.is_loopback();
        let tokens = Tokens::new(&config.tokens);
        if config.keys.is_empty() && tokens.are_unknown() && !open {
            tracing::warn!("/process-task and /trigger-poll are closed: set API_KEYS, or another credential");
        }
        if tokens.are_checked_by_platform() {
            tracing::warn!(
                "AUTH_MODE=cloud_run_iam: Google's tokens are believed without a signature. If this service allows \
                 unauthenticated invocations, anybody can forge one"
            );
        } else if config.tokens.mode == AuthMode::CloudRunIam {
            tracing::warn!("AUTH_MODE=cloud_run_iam has no effect: this is not a Cloud Run service");
        }
        Self { keys: Keys::new(&config.keys), tokens, metrics_open: config.metrics_open, open }
    }

    fn is_open(&self, need: Need) -> bool {
        self.open || need == Need::Nothing || (need == Need::Metrics && self.metrics_open)
    }

    async fn admit(&self, offered: Offered) -> Result<(), Refusal> {
        let caller = self.identify(offered).await?;
        if caller.role == Role::Service {
            return Ok(());
        }
        tracing::debug!(subject = caller.subject, "a caller was refused: not a service");
        Err(Refusal::Forbidden)
    }

    async fn identify(&self, offered: Offered) -> Result<Caller, Refusal> {
        let to_us = match (offered.to_us?, offered.to_platform?) {
            (Some(token), to_platform) => {
                // Cloud Run checks one header only: beside the other it has not looked at this one.
                let checked = if to_platform.is_none() { self.tokens.read(&token) } else { None };
                match checked {
                    Some(caller) => return caller,
                    None => token,
                }
            }
            (None, Some(token)) => {
                return self.tokens.read(&token).unwrap_or(Err(Refusal::Unknown("no token for us")));
            }
            (None, None) => return Err(Refusal::Unknown("no token")),
        };
        if self.keys.contain(&to_us) {
            return Ok(Caller { subject: "a key".to_owned(), role: Role::Service });
        }
        self.tokens.verify(&to_us).await
    }
}

/// The tokens that came with a request.
struct Offered {
    to_us: Result<Option<String>, Refusal>,
    to_platform: Result<Option<String>, Refusal>,
}

/// Middleware: before anything of a request but its head is read.
pub(super) async fn check(
    State(doorkeeper): State<Arc<Doorkeeper>>,
    request: Request,
    next: Next,
) -> Response {
    let need = match request.extensions().get::<MatchedPath>() {
        Some(path) => need(path.as_str()),
        // No such route: there is nothing to protect, and 404 tells nothing.
        None => Need::Nothing,
    };
    if doorkeeper.is_open(need) {
        return next.run(request).await;
    }
    let offered = Offered {
        to_us: bearer(request.headers(), &AUTHORIZATION),
        to_platform: match doorkeeper.tokens.are_checked_by_platform() {
            true => bearer(request.headers(), &SERVERLESS_AUTHORIZATION),
            false => Ok(None),
        },
    };
    match doorkeeper.admit(offered).await {
        Ok(()) => next.run(request).await,
        Err(Refusal::Unknown(why)) => {
            tracing::debug!(why, "a caller was refused");
            ApiError::unauthorized().into_response()
        }
        Err(Refusal::Forbidden) => ApiError::forbidden().into_response(),
        Err(Refusal::Unavailable) => {
            ApiError::unavailable("The keys that tokens are signed with cannot be fetched").into_response()
        }
    }
}

fn need(path: &str) -> Need {
    ROUTES.iter().find(|(route, _)| *route == path).map_or(Need::Service, |(_, need)| *need)
}

/// The token of the one `Bearer` header of that name. Two such headers are nobody's.
fn bearer(headers: &HeaderMap, name: &HeaderName) -> Result<Option<String>, Refusal> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else { return Ok(None) };
    let token = value.to_str().ok().and_then(|value| value.split_once(' '));
    match token {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") && values.next().is_none() => {
            Ok(Some(token.trim().to_owned()))
        }
        _ => Err(Refusal::Unknown("not one bearer token")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_route_that_is_not_in_the_table_is_closed() {
        assert_eq!(need("/a/route/of/tomorrow"), Need::Service);
        assert_eq!(need("/health"), Need::Nothing);
    }
}
