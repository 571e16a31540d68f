//! Who may call what. One table; a route that is not in it is closed.

mod keys;

use std::sync::Arc;

use axum::extract::{MatchedPath, Request, State};
use axum::http::header::AUTHORIZATION;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::error::ApiError;
use crate::config::HttpConfig;
use keys::Keys;

/// What a route asks of its caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Nothing.
    Nothing,
    /// A service's key.
    Service,
    /// A service's key, unless `METRICS_OPEN` is set.
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

/// Lets callers in, or not.
pub(super) struct Doorkeeper {
    keys: Keys,
    metrics_open: bool,
    open: bool,
}

impl Doorkeeper {
    pub(super) fn new(config: &HttpConfig) -> Self {
        let open = config.open && config.host.is_loopback();
        if config.keys.is_empty() && !open {
            tracing::warn!(
                "no API_KEYS and no SUPABASE_SERVICE_KEY: /process-task and /trigger-poll are closed"
            );
        }
        Self { keys: Keys::new(&config.keys), metrics_open: config.metrics_open, open }
    }

    fn allows(&self, need: Need, request: &Request) -> bool {
        match need {
            Need::Nothing => true,
            Need::Metrics if self.metrics_open => true,
            Need::Service | Need::Metrics => {
                self.open || bearer(request).is_some_and(|key| self.keys.contain(key))
            }
        }
    }
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
    if doorkeeper.allows(need, &request) {
        next.run(request).await
    } else {
        ApiError::unauthorized().into_response()
    }
}

fn need(path: &str) -> Need {
    ROUTES.iter().find(|(route, _)| *route == path).map_or(Need::Service, |(_, need)| *need)
}

/// The token of the one `Authorization: Bearer` header. Two such headers are nobody's.
fn bearer(request: &Request) -> Option<&str> {
    let mut values = request.headers().get_all(AUTHORIZATION).iter();
    let value = values.next()?.to_str().ok()?;
    if values.next().is_some() {
        return None;
    }
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
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
