//! A connection on which bytes are said that no HTTP client would say.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) struct Wire(TcpStream);

impl Wire {
    pub(crate) async fn to(address: SocketAddr) -> Self {
        Self(TcpStream::connect(address).await.expect("a connection"))
    }

    /// Whether it could still be said.
    pub(crate) async fn say(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        self.0.write_all(bytes.as_ref()).await.is_ok()
    }

    /// Nothing more will be said.
    pub(crate) async fn hush(&mut self) {
        let _ = self.0.shutdown().await;
    }

    /// All that is answered until the other side closes.
    pub(crate) async fn hear(&mut self) -> String {
        let mut answer = Vec::new();
        // A reset is an end, too: what was said was not read to its end.
        let _ = timeout(PATIENCE, self.0.read_to_end(&mut answer)).await.expect("closed in time");
        String::from_utf8_lossy(&answer).into_owned()
    }

    /// What is answered until it contains `end`.
    pub(crate) async fn hear_until(&mut self, end: &str) -> String {
        let mut answer = String::new();
        let mut buffer = [0; 4096];
        while !answer.contains(end) {
            let read = timeout(PATIENCE, self.0.read(&mut buffer)).await.expect("an answer in time");
            let size = read.unwrap_or(0);
            assert!(size > 0, "closed before {end:?}: {answer:?}");
            answer.push_str(&String::from_utf8_lossy(&buffer[..size]));
        }
        answer
    }

    /// Whether the other side has closed it by now. What it says meanwhile is lost.
    pub(crate) async fn is_closed(&mut self) -> bool {
        let mut buffer = [0; 4096];
        loop {
            match timeout(Duration::from_millis(20), self.0.read(&mut buffer)).await {
                Err(_) => return false,
                Ok(Ok(0) | Err(_)) => return true,
                Ok(Ok(_)) => {}
            }
        }
    }
}

/// Lets the process's clock leap.
pub(crate) async fn pass(time: Duration) {
    tokio::time::pause();
    tokio::time::advance(time).await;
    tokio::time::resume();
}
