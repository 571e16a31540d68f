//! Accepts connections, within limits: of their number, and of the patience with those that send slowly.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::config::HttpConfig;

/// Connections at a time; further ones wait in the system's queue.
const MAX_CONNECTIONS: usize = 2_048;
/// A request's head must have arrived within this time, and an idle connection is closed after it.
const HEAD_WITHIN: Duration = Duration::from_secs(10);
/// Answers under way when the server stops.
const LAST_ANSWERS: Duration = Duration::from_millis(500);

/// A bound listener.
pub struct Server {
    listener: TcpListener,
}

impl Server {
    /// Binds the configured address.
    pub async fn bind(config: &HttpConfig) -> std::io::Result<Self> {
        let address = SocketAddr::new(config.host, config.port);
        Ok(Self { listener: TcpListener::bind(address).await? })
    }

    /// Where it listens.
    pub fn address(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until cancelled, then finishes what is being answered.
    pub async fn serve(self, router: Router, stop: CancellationToken) {
        let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        let graceful = GracefulShutdown::new();
        loop {
            let next = async {
                let place = places.clone().acquire_owned().await.expect("never closed");
                (place, self.listener.accept().await)
            };
            let (place, accepted) = tokio::select! {
                next = next => next,
                () = stop.cancelled() => break,
            };
            let stream = match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    // Out of file descriptors, mostly: some will be free in a moment.
                    tracing::warn!(%error, "cannot accept a connection");
                    sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            let _ = stream.set_nodelay(true);
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD_WITHIN)
                .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router.clone()));
            let watched = graceful.watch(connection);
            tokio::spawn(async move {
                // What a client does to its connection is its own affair.
                let _ = watched.await;
                drop(place);
            });
        }
        let _ = timeout(LAST_ANSWERS, graceful.shutdown()).await;
    }
}
