//! A stretch of wire before Postgres that can be cut, muted, stalled, slowed down and led elsewhere.

#![allow(dead_code, reason = "the integration tests and the fault harness each use a part of it")]

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::watch;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

/// Forwards connections to a Unix socket of Postgres.
pub(crate) struct Proxy {
    address: SocketAddr,
    wire: Arc<Mutex<Wire>>,
}

struct Wire {
    /// Where to; nowhere while it is cut.
    target: Option<PathBuf>,
    /// Cancelled to cut all connections.
    cut: CancellationToken,
    conduct: Arc<watch::Sender<Conduct>>,
    lines: Vec<Weak<Line>>,
}

/// How the wire treats what it is given.
#[derive(Clone, Default)]
struct Conduct {
    /// Nothing gets through, either way; it waits.
    stalled: bool,
    /// What the server says is lost; what it is told arrives.
    muted: bool,
    /// Everything arrives this much later.
    delay: Duration,
    bytes_per_second: Option<u64>,
    /// The server may say so many bytes more, then all connections are cut.
    left: Option<usize>,
}

/// One connection.
struct Line {
    conduct: Arc<watch::Sender<Conduct>>,
    /// Whether the client has asked for notifications.
    listens: AtomicBool,
    /// Cancelled to close it towards the server only.
    half_open: CancellationToken,
    wire: Arc<Mutex<Wire>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Direction {
    Up,
    Down,
}

impl Proxy {
    /// To the server whose socket lies in `directory`.
    pub(crate) async fn to(directory: &Path) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let wire = Arc::new(Mutex::new(Wire {
            target: None,
            cut: CancellationToken::new(),
            conduct: Arc::new(watch::Sender::default()),
            lines: Vec::new(),
        }));
        let proxy = Self { address, wire: wire.clone() };
        proxy.lead_to(directory);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                // Without a target the connection is accepted and closed, as by a server that is gone.
                let Some((target, cut, line)) = Wire::line(&wire) else { continue };
                tokio::spawn(async move {
                    tokio::select! {
                        () = line.connect(client, &target) => {}
                        () = cut.cancelled() => {}
                    }
                });
            }
        });
        proxy
    }

    pub(crate) fn url(&self, database: &str) -> String {
        format!("postgres://postgres@{}/{database}", self.address)
    }

    /// Cuts all connections and lets no new ones through.
    pub(crate) fn cut(&self) {
        let mut wire = self.wire.lock().unwrap();
        wire.target = None;
        wire.sever();
    }

    /// Cuts all connections: how many there were. New ones get through.
    pub(crate) fn sever(&self) -> usize {
        self.wire.lock().unwrap().sever()
    }

    /// Cuts all connections as soon as the server has said so many bytes more.
    pub(crate) fn sever_after(&self, bytes: usize) {
        self.change(|conduct| conduct.left = Some(bytes));
    }

    /// Whether that is still to come.
    pub(crate) fn is_about_to_be_severed(&self) -> bool {
        self.wire.lock().unwrap().conduct.borrow().left.is_some()
    }

    /// Lets new connections through, to the server whose socket lies in `directory`. Those that there are stay as they
    /// are.
    pub(crate) fn lead_to(&self, directory: &Path) {
        let mut wire = self.wire.lock().unwrap();
        wire.target = Some(directory.join(".s.PGSQL.5432"));
        wire.conduct = Arc::default();
    }

    /// From now on what the server answers is lost on the way, on the connections that there are.
    pub(crate) fn mute(&self) {
        self.change(|conduct| conduct.muted = true);
    }

    /// From now on nothing gets through and nothing is lost, on the connections that there are and on new ones.
    pub(crate) fn stall(&self) {
        self.change(|conduct| conduct.stalled = true);
    }

    /// From now on everything comes late.
    pub(crate) fn delay(&self, delay: Duration) {
        self.change(|conduct| conduct.delay = delay);
    }

    /// From now on everything comes slowly.
    pub(crate) fn throttle(&self, bytes_per_second: u64) {
        self.change(|conduct| conduct.bytes_per_second = Some(bytes_per_second));
    }

    /// An ordinary wire again.
    pub(crate) fn flow(&self) {
        self.change(|conduct| *conduct = Conduct::default());
    }

    /// Closes towards the server the connections that listen, and keeps them open towards the client: how many.
    pub(crate) fn half_open_listeners(&self) -> usize {
        let wire = self.wire.lock().unwrap();
        let lines = wire.lines.iter().filter_map(Weak::upgrade);
        lines
            .filter(|line| line.listens.load(Ordering::SeqCst) && !line.half_open.is_cancelled())
            .map(|line| line.half_open.cancel())
            .count()
    }

    fn change(&self, change: impl FnOnce(&mut Conduct)) {
        self.wire.lock().unwrap().conduct.send_modify(change);
    }
}

impl Wire {
    fn line(this: &Arc<Mutex<Self>>) -> Option<(PathBuf, CancellationToken, Arc<Line>)> {
        let mut wire = this.lock().unwrap();
        let target = wire.target.clone()?;
        let line = Arc::new(Line {
            conduct: wire.conduct.clone(),
            listens: AtomicBool::new(false),
            half_open: CancellationToken::new(),
            wire: this.clone(),
        });
        wire.lines.retain(|line| line.strong_count() > 0);
        wire.lines.push(Arc::downgrade(&line));
        Some((target, wire.cut.clone(), line))
    }

    fn sever(&mut self) -> usize {
        std::mem::take(&mut self.cut).cancel();
        self.lines.drain(..).filter(|line| line.strong_count() > 0).count()
    }
}

impl Line {
    async fn connect(&self, mut client: TcpStream, target: &Path) {
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
        let mut conduct = self.conduct.subscribe();
        while let Ok(size @ 1..) = from.read(&mut buffer).await {
            if direction == Direction::Up && buffer[..size].windows(7).any(|words| words == b"listen ") {
                self.listens.store(true, Ordering::SeqCst);
            }
            let Ok(now) = conduct.wait_for(|conduct| !conduct.stalled).await.map(|now| now.clone()) else {
                return;
            };
            let transfer = now.bytes_per_second.map_or(Duration::ZERO, |rate| {
                Duration::from_secs(size as u64) / u32::try_from(rate).unwrap_or(u32::MAX).max(1)
            });
            if !(now.delay + transfer).is_zero() {
                sleep(now.delay + transfer).await;
            }
            if direction == Direction::Down && self.conduct.borrow().muted {
                continue;
            }
            let (allowed, over) = match direction {
                Direction::Up => (size, false),
                Direction::Down => self.allowance(size),
            };
            if to.write_all(&buffer[..allowed]).await.is_err() {
                return;
            }
            if over {
                self.wire.lock().unwrap().sever();
            }
        }
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
