//! Accepts connections, within limits: of their number, and of the patience with those that send slowly.

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;

use super::seats::{Seat, Seats};
use crate::config::HttpConfig;

/// A request's head must have arrived within this time, and an idle connection is closed after it.
const HEAD_WITHIN: Duration = Duration::from_secs(10);
/// The largest head, in bytes: so much of memory can each connection cost that sends one.
const MAX_HEAD: usize = 32 * 1024;
/// Answers under way when the server stops.
const LAST_ANSWERS: Duration = Duration::from_millis(500);

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
        Ok(Self { listener, max_connections: config.max_connections })
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
                let accepted = self.listener.accept().await;
                (accepted, seats.take().await)
            };
            let (accepted, seat) = tokio::select! {
                next = next => next,
                () = stop.cancelled() => break,
            };
            match accepted {
                Ok((stream, _)) => {
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

/// Serves one connection until it ends, or has to go.
async fn converse(stream: TcpStream, seat: Arc<Seat>, router: Router, stop: CancellationToken) {
    let _ = stream.set_nodelay(true);
    let service = service_fn(|request| {
        let (seat, router) = (seat.clone(), router.clone());
        async move {
            seat.asks();
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
            .serve_connection(TokioIo::new(stream), service)
    );
    tokio::select! {
        // What a client does to its connection is its own affair.
        _ = connection.as_mut() => return,
        () = seat.leave.cancelled() => {}
    }
    if stop.is_cancelled() || seat.was_answered() {
        connection.as_mut().graceful_shutdown();
        let _ = timeout(LAST_ANSWERS, connection).await;
    }
}
