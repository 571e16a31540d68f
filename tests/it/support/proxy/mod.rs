//! A stretch of wire before Postgres that can be cut, muted, stalled, slowed down and led elsewhere, and that can stop at
//! one statement.

#![allow(dead_code, reason = "the integration tests and the fault harness each use a part of it")]

mod line;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use line::{Conduct, Line, Stop};

/// How long [`Proxy::holds`] waits.
const PATIENCE: Duration = Duration::from_secs(30);

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
    /// How many pieces of traffic came late, were lost, waited, or were the last before a cut.
    disturbed: usize,
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
            disturbed: 0,
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

    /// How many pieces of traffic it has not let through as an ordinary wire does, but late, after a wait, in part or not at
    /// all. What dies with a severed connection is not among them.
    pub(crate) fn disturbed(&self) -> usize {
        self.wire.lock().unwrap().disturbed
    }

    /// Lets new connections through, undisturbed, to the server whose socket lies in `directory`. Those that there are stay
    /// as they are.
    pub(crate) fn lead_to(&self, directory: &Path) {
        let mut wire = self.wire.lock().unwrap();
        wire.target = Some(directory.join(".s.PGSQL.5432"));
        wire.conduct = Arc::default();
    }

    /// From now on what the server answers is lost on the way.
    pub(crate) fn mute(&self) {
        self.change(|conduct| conduct.muted = true);
    }

    /// From now on nothing gets through, on the connections that there are and on new ones: a route that swallows everything.
    /// What was swallowed arrives when that is over.
    pub(crate) fn stall(&self) {
        self.change(|conduct| conduct.stalled = true);
    }

    /// From now on everything comes late, in either direction.
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

    /// The next statement with this text goes no further: the server does not hear of it.
    pub(crate) fn hold_request(&self, text: &'static str) {
        self.change(|conduct| (conduct.hold, conduct.held) = (Some((text, Stop::Request)), false));
    }

    /// The reply to the next statement with this text goes no further: the server has carried it out, and the client
    /// does not hear of it.
    pub(crate) fn hold_reply(&self, text: &'static str) {
        self.change(|conduct| (conduct.hold, conduct.held) = (Some((text, Stop::Reply)), false));
    }

    /// Waits until what was to be held is held.
    pub(crate) async fn holds(&self) {
        let mut conduct = self.conduct().subscribe();
        let held = timeout(PATIENCE, conduct.wait_for(|conduct| conduct.held)).await;
        held.expect("the wire holds it").expect("the wire is there");
    }

    fn change(&self, change: impl FnOnce(&mut Conduct)) {
        self.conduct().send_modify(change);
    }

    fn conduct(&self) -> Arc<watch::Sender<Conduct>> {
        self.wire.lock().unwrap().conduct.clone()
    }
}

impl Wire {
    fn line(this: &Arc<Mutex<Self>>) -> Option<(PathBuf, CancellationToken, Arc<Line>)> {
        let mut wire = this.lock().unwrap();
        let target = wire.target.clone()?;
        let line = Arc::new(Line::new(wire.conduct.clone(), this.clone()));
        wire.lines.retain(|line| line.strong_count() > 0);
        wire.lines.push(Arc::downgrade(&line));
        Some((target, wire.cut.clone(), line))
    }

    fn sever(&mut self) -> usize {
        std::mem::take(&mut self.cut).cancel();
        self.lines.drain(..).filter(|line| line.strong_count() > 0).count()
    }
}
