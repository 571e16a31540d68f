//! Accepts connections, within limits: of their number, and of the patience with those that send slowly.

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::HeaderValue;
use axum::http::header::CONNECTION;
use axum::response::IntoResponse;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustix::process::{Resource, getrlimit};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;

use super::error::ApiError;
use super::seats::{Seat, Seats};
use super::taken::Taken;
use crate::config::HttpConfig;

/// A request's head must have arrived within this time, and an idle connection is closed after it.
const HEAD_WITHIN: Duration = Duration::from_secs(10);
/// The largest head, in bytes: so much of memory can each connection cost that sends one.
const MAX_HEAD: usize = 32 * 1024;
/// Answers under way when the server stops, or when the connection has to go.
const LAST_ANSWERS: Duration = Duration::from_millis(500);
/// Room for so many connections there is in any case.
const FEWEST: usize = 16;

/// A bound listener.
pub struct Server {
    listener: TcpListener,
    max_connections: usize,
}

impl Server {
    /// Binds the configured address.
    pub async fn bind(config: &HttpConfig) -> std::io::Result<Self> {
        let address = SocketAddr::new(config.host, config.port);
        let listener = TcpListener::bind(address).await?;
        let max_connections = affordable(config.max_connections, getrlimit(Resource::Nofile).current);
        if max_connections < config.max_connections {
            tracing::warn!(max_connections, "room for fewer connections: the limit of open files is low");
        }
        Ok(Self { listener, max_connections })
    }

    /// Where it listens.
    pub fn address(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until cancelled, then finishes what is being answered.
    pub async fn serve(self, router: Router, stop: CancellationToken) {
        let seats = Seats::new(self.max_connections, stop.clone());
        let connections = TaskTracker::new();
        loop {
            let next = async {
                let (stream, _) = self.listener.accept().await?;
                std::io::Result::Ok((stream, seats.take().await))
            };
            let next = tokio::select! {
                next = next => next,
                () = stop.cancelled() => break,
            };
            match next {
                Ok((stream, seat)) => {
                    let _ = stream.set_nodelay(true);
                    connections.spawn(converse(stream, seat, router.clone(), stop.clone()));
                }
                Err(error) => {
                    // Out of file descriptors, mostly.
                    tracing::warn!(%error, "cannot accept a connection");
                    seats.make_room();
                    sleep(Duration::from_millis(100)).await;
                }
            }
        }
        connections.close();
        let _ = timeout(LAST_ANSWERS, connections.wait()).await;
    }
}

/// As many connections as are wanted, or as half of the files that may be open: the other half is for the database, for
/// models and for mail.
fn affordable(wanted: usize, open_files: Option<u64>) -> usize {
    let open_files = open_files.and_then(|files| usize::try_from(files).ok()).unwrap_or(usize::MAX);
    wanted.min((open_files / 2).max(FEWEST))
}

/// Serves one connection until it ends, or has to go.
async fn converse<S>(stream: S, seat: Arc<Seat>, router: Router, stop: CancellationToken)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let service = service_fn(|request| {
        let (seat, router) = (seat.clone(), router.clone());
        async move {
            if !seat.asks() {
                // Once begun it could be cut off in the middle.
                let mut refusal =
                    ApiError::unavailable("There is no room for this connection").into_response();
                refusal.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
                return Ok(refusal);
            }
            let answer = router.oneshot(request).await;
            seat.is_answered();
            answer
        }
    });
    let mut connection = pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_WITHIN)
            .max_buf_size(MAX_HEAD)
            .serve_connection(TokioIo::new(Taken::new(stream)), service)
    );
    tokio::select! {
        // A request that is there already gets an answer, be it a refusal.
        biased;
        // What a client does to its connection is its own affair.
        _ = connection.as_mut() => return,
        () = seat.leave.cancelled() => {}
    }
    // Nobody waits for the place until those have read who never do.
    let farewell = seat.give_up();
    if stop.is_cancelled() || farewell.is_some() {
        connection.as_mut().graceful_shutdown();
        let _ = timeout(LAST_ANSWERS, connection).await;
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use axum::body::Body;
    use axum::routing::get;
    use futures_util::FutureExt;
    use futures_util::stream::once;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

    use super::*;

    const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n";
    /// More than `BUFFER` takes.
    const BODY: usize = 64 * 1024;
    const BUFFER: usize = 1024;

    /// A client that has sent two requests in one breath and reads nothing, so that the answer to the first is stuck.
    async fn stuck(seats: &Arc<Seats>, stop: &CancellationToken) -> DuplexStream {
        let (mut client, stream) = duplex(BUFFER);
        let router = Router::new().route("/", get(async || "x".repeat(BODY)));
        client.write_all(&REQUEST.repeat(2)).await.expect("room for two requests");
        tokio::spawn(converse(stream, seats.take().await, router, stop.clone()));
        client.read_u8().await.expect("the answer begins");
        client
    }

    #[tokio::test(start_paused = true)]
    async fn who_does_not_read_the_answer_is_not_waited_for() {
        let stop = CancellationToken::new();
        let seats = Seats::new(1, stop.clone());
        let mut client = stuck(&seats, &stop).await;
        for _ in 0..4 {
            sleep(Duration::from_secs(15)).await;
            client.read_exact(&mut [0; BUFFER]).await.expect("who reads slowly reads");
        }
        sleep(Duration::from_secs(21)).await;
        let mut rest = Vec::new();
        let end = timeout(Duration::from_secs(1), client.read_to_end(&mut rest)).await;
        assert!(end.is_ok() && rest.len() < BODY, "closed with {} bytes", rest.len());
        assert!(seats.take().now_or_never().is_some(), "the place is free");
    }

    #[tokio::test(start_paused = true)]
    async fn who_does_not_read_gives_way_at_once() {
        let stop = CancellationToken::new();
        let seats = Seats::new(10, stop.clone());
        let mut clients = Vec::new();
        for _ in 0..10 {
            clients.push(stuck(&seats, &stop).await);
        }
        let began = tokio::time::Instant::now();
        for _ in 0..10 {
            clients.push(stuck(&seats, &stop).await);
        }
        assert!(began.elapsed() < LAST_ANSWERS, "newcomers waited for {:?}", began.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn who_has_to_go_gives_up_the_place_and_may_still_read_the_answer() {
        let stop = CancellationToken::new();
        let seats = Seats::new(1, stop.clone());
        let mut client = stuck(&seats, &stop).await;
        let _next = seats.take().await;
        let mut heard = String::new();
        client.read_to_string(&mut heard).await.expect("an end");
        assert!(heard.ends_with(&"x".repeat(BODY)), "{} bytes", heard.len());
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_that_comes_up_after_the_connection_was_told_to_go_is_refused() {
        let stop = CancellationToken::new();
        let seats = Seats::new(1, stop.clone());
        let (mut client, stream) = duplex(BUFFER);
        client.write_all(&REQUEST.repeat(2)).await.expect("room for two requests");
        // While the first answer is written somebody else needs the place.
        let room = seats.clone();
        let answer = async move || {
            Body::from_stream(once(async move { Ok::<_, Infallible>(room.make_room().to_string()) }))
        };
        let router = Router::new().route("/", get(answer));
        converse(stream, seats.take().await, router, stop).await;
        let mut heard = String::new();
        client.read_to_string(&mut heard).await.expect("an end");
        let (_, second) = heard.split_once("\r\ntrue\r\n0\r\n\r\n").expect("the whole first answer");
        assert!(second.starts_with("HTTP/1.1 503 "), "{heard}");
        assert!(second.contains("connection: close") && second.contains("retry-after: 5"), "{second}");
        assert!(!seats.make_room(), "a connection that has gone still rests");
    }

    #[tokio::test(start_paused = true)]
    async fn who_has_asked_before_the_connection_was_served_is_told_that_there_is_no_room() {
        let stop = CancellationToken::new();
        let seats = Seats::new(1, stop.clone());
        for _ in 0..20 {
            let (mut client, stream) = duplex(BUFFER);
            client.write_all(REQUEST).await.expect("room for a request");
            let seat = seats.take().await;
            assert!(seats.make_room());
            converse(stream, seat, Router::new(), stop.clone()).await;
            let mut heard = String::new();
            client.read_to_string(&mut heard).await.expect("an end");
            assert!(heard.starts_with("HTTP/1.1 503 "), "{heard:?}");
        }
    }

    #[test]
    fn connections_take_at_most_half_of_the_files_that_may_be_open() {
        assert_eq!(affordable(2_048, Some(1_024)), 512);
        assert_eq!(affordable(2_048, Some(1_048_576)), 2_048);
        assert_eq!(affordable(2_048, None), 2_048);
        assert_eq!(affordable(2_048, Some(8)), FEWEST);
        assert_eq!(affordable(10, Some(8)), 10);
    }
}
