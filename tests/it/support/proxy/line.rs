//! One connection through the wire, and how the wire treats it.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::watch;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::Wire;

/// How the wire treats what it is given.
#[derive(Clone, Default)]
pub(super) struct Conduct {
    /// Nothing gets through, either way; it waits.
    pub(super) stalled: bool,
    /// What the server says is lost; what it is told arrives.
    pub(super) muted: bool,
    /// Everything arrives this much later.
    pub(super) delay: Duration,
    pub(super) bytes_per_second: Option<u64>,
    /// The server may say so many bytes more, then all connections are cut.
    pub(super) left: Option<usize>,
    /// The statement at which the next connection that carries it stops.
    pub(super) hold: Option<(&'static str, Stop)>,
    /// That has happened.
    pub(super) held: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Stop {
    /// Before the server hears of it.
    Request,
    /// When the server has carried it out, before the client hears of that.
    Reply,
}

/// One connection.
pub(super) struct Line {
    conduct: Arc<watch::Sender<Conduct>>,
    /// Whether the client has asked for notifications.
    pub(super) listens: AtomicBool,
    /// What the server says from now on goes no further.
    holds_reply: AtomicBool,
    /// Cancelled to close it towards the server only.
    pub(super) half_open: CancellationToken,
    wire: Arc<Mutex<Wire>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Direction {
    Up,
    Down,
}

impl Line {
    /// An undisturbed one through `wire`.
    pub(super) fn new(conduct: Arc<watch::Sender<Conduct>>, wire: Arc<Mutex<Wire>>) -> Self {
        Self {
            conduct,
            listens: AtomicBool::new(false),
            holds_reply: AtomicBool::new(false),
            half_open: CancellationToken::new(),
            wire,
        }
    }

    /// Forwards until one side is gone.
    pub(super) async fn connect(&self, mut client: TcpStream, target: &Path) {
        let Some(_) = self.unless_stalled().await else { return };
        let Ok(server) = UnixStream::connect(target).await else { return };
        let _ = client.set_nodelay(true);
        {
            let ((from_client, to_client), (from_server, to_server)) = (client.split(), server.into_split());
            tokio::select! {
                () = self.pump(from_client, to_server, Direction::Up) => return,
                () = self.pump(from_server, to_client, Direction::Down) => return,
                () = self.half_open.cancelled() => {}
            }
        }
        std::future::pending::<()>().await;
    }

    async fn pump(
        &self,
        mut from: impl AsyncRead + Unpin,
        mut to: impl AsyncWrite + Unpin,
        direction: Direction,
    ) {
        let mut buffer = vec![0; 16 * 1024];
        while let Ok(size @ 1..) = from.read(&mut buffer).await {
            if direction == Direction::Up && self.is_stopped_by(&buffer[..size]) {
                self.conduct.send_modify(|conduct| conduct.held = true);
                // Until the client is gone. What else it says is swallowed with it.
                while let Ok(1..) = from.read(&mut buffer).await {}
                return;
            }
            let Some(conduct) = self.unless_stalled().await else { return };
            let transfer = conduct.bytes_per_second.map_or(Duration::ZERO, |rate| {
                Duration::from_secs(size as u64) / u32::try_from(rate).unwrap_or(u32::MAX).max(1)
            });
            if !(conduct.delay + transfer).is_zero() {
                self.count();
                sleep(conduct.delay + transfer).await;
            }
            let (allowed, over) = match direction {
                Direction::Up => (size, false),
                Direction::Down if self.is_lost() => {
                    self.count();
                    continue;
                }
                Direction::Down => self.allowance(size),
            };
            if to.write_all(&buffer[..allowed]).await.is_err() {
                return;
            }
            if over {
                self.count();
                self.wire.lock().unwrap().sever();
            }
        }
    }

    /// Waits while nothing gets through. None if nothing ever will.
    async fn unless_stalled(&self) -> Option<Conduct> {
        let mut conduct = self.conduct.subscribe();
        if conduct.borrow().stalled {
            self.count();
        }
        let flowing = conduct.wait_for(|conduct| !conduct.stalled).await;
        flowing.ok().map(|conduct| conduct.clone())
    }

    /// Something has just not gone its ordinary way.
    fn count(&self) {
        self.wire.lock().unwrap().disturbed += 1;
    }

    /// Takes note of what the client says: whether this connection stops at it.
    fn is_stopped_by(&self, piece: &[u8]) -> bool {
        let says = |text: &str| piece.windows(text.len()).any(|part| part == text.as_bytes());
        if says("listen ") {
            self.listens.store(true, Ordering::SeqCst);
        }
        let mut stop = None;
        self.conduct.send_if_modified(|conduct| {
            stop = conduct.hold.take_if(|(text, _)| says(text)).map(|(_, stop)| stop);
            false
        });
        if stop == Some(Stop::Reply) {
            self.holds_reply.store(true, Ordering::SeqCst);
        }
        stop == Some(Stop::Request)
    }

    /// Whether what the server has just said is lost.
    fn is_lost(&self) -> bool {
        let held = self.holds_reply.load(Ordering::SeqCst);
        if held {
            self.conduct.send_modify(|conduct| conduct.held = true);
        }
        held || self.conduct.borrow().muted
    }

    /// How much of what the server says gets through, and whether that is the last of it.
    fn allowance(&self, size: usize) -> (usize, bool) {
        let mut answer = (size, false);
        self.conduct.send_if_modified(|conduct| {
            if let Some(left) = conduct.left {
                answer = (size.min(left), size >= left);
                conduct.left = (!answer.1).then(|| left - size);
            }
            false
        });
        answer
    }
}
