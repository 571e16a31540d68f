//! A stretch of wire between the service and Postgres that can be cut, muted, stalled, slowed down and led elsewhere, and
//! that can stop at one statement.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

/// How long it may take until what is to be held comes.
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
    conduct: Arc<Conduct>,
}

/// How the wire treats what is on it.
#[derive(Default)]
struct Conduct {
    /// What the server says is lost; what it is told arrives.
    muted: watch::Sender<bool>,
    /// Nothing gets through, and nobody is told.
    stalled: watch::Sender<bool>,
    /// How long each piece takes, in either direction.
    delay: Mutex<Duration>,
    hold: Mutex<Option<Hold>>,
    held: watch::Sender<bool>,
}

/// A statement at which the next connection that carries it stops.
struct Hold {
    text: &'static str,
    stop: Stop,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stop {
    /// Before the server hears of it.
    Request,
    /// When the server has carried it out, before the client hears of that.
    Reply,
}

impl Proxy {
    /// To the server whose socket lies in `directory`.
    pub(crate) async fn to(directory: &Path) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let wire = Wire { target: None, cut: CancellationToken::new(), conduct: Arc::default() };
        let proxy = Self { address, wire: Arc::new(Mutex::new(wire)) };
        proxy.lead_to(directory);
        let wire = proxy.wire.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (target, cut, conduct) = {
                    let wire = wire.lock().unwrap();
                    (wire.target.clone(), wire.cut.clone(), wire.conduct.clone())
                };
                // Without a target the connection is accepted and closed, as by a server that is gone.
                let Some(target) = target else { continue };
                tokio::spawn(async move {
                    tokio::select! {
                        () = connect(client, &target, &conduct) => {}
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
        std::mem::take(&mut wire.cut).cancel();
    }

    /// Lets new connections through, undisturbed, to the server whose socket lies in `directory`.
    pub(crate) fn lead_to(&self, directory: &Path) {
        let mut wire = self.wire.lock().unwrap();
        wire.target = Some(directory.join(".s.PGSQL.5432"));
        wire.conduct = Arc::default();
    }

    /// From now on what the server answers is lost on the way, on the connections that there are.
    pub(crate) fn mute(&self) {
        self.conduct().muted.send_replace(true);
    }

    /// From now on nothing gets through, on these connections and on new ones: a route that swallows everything.
    pub(crate) fn stall(&self) {
        self.conduct().stalled.send_replace(true);
    }

    /// The end of that. What was swallowed arrives now.
    pub(crate) fn flow(&self) {
        self.conduct().stalled.send_replace(false);
    }

    /// From now on everything takes this long, in either direction.
    pub(crate) fn delay(&self, delay: Duration) {
        *self.conduct().delay.lock().unwrap() = delay;
    }

    /// The next statement with this text goes no further: the server does not hear of it.
    pub(crate) fn hold_request(&self, text: &'static str) {
        self.hold(Hold { text, stop: Stop::Request });
    }

    /// The reply to the next statement with this text goes no further: the server has carried it out, and the client
    /// does not hear of it.
    pub(crate) fn hold_reply(&self, text: &'static str) {
        self.hold(Hold { text, stop: Stop::Reply });
    }

    /// Waits until what was to be held is held.
    pub(crate) async fn holds(&self) {
        let mut held = self.conduct().held.subscribe();
        let caught = timeout(PATIENCE, held.wait_for(|held| *held)).await;
        assert!(caught.is_ok(), "nothing came that was to be held");
    }

    fn hold(&self, hold: Hold) {
        let conduct = self.conduct();
        conduct.held.send_replace(false);
        *conduct.hold.lock().unwrap() = Some(hold);
    }

    fn conduct(&self) -> Arc<Conduct> {
        self.wire.lock().unwrap().conduct.clone()
    }
}

impl Conduct {
    /// Waits until this piece may go on.
    async fn pass(&self) {
        let _ = self.stalled.subscribe().wait_for(|stalled| !stalled).await;
        let delay = *self.delay.lock().unwrap();
        if !delay.is_zero() {
            sleep(delay).await;
        }
    }

    /// Where the connection has to stop that carries this piece.
    fn catch(&self, piece: &[u8]) -> Option<Stop> {
        let mut hold = self.hold.lock().unwrap();
        hold.take_if(|hold| piece.windows(hold.text.len()).any(|part| part == hold.text.as_bytes()))
            .map(|hold| hold.stop)
    }
}

async fn connect(client: TcpStream, target: &Path, conduct: &Conduct) {
    let _ = conduct.stalled.subscribe().wait_for(|stalled| !stalled).await;
    let Ok(server) = UnixStream::connect(target).await else { return };
    let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
    let holds_reply = watch::Sender::new(false);
    tokio::select! {
        () = ask(from_client, to_server, conduct, &holds_reply) => {}
        () = answer(from_server, to_client, conduct, &holds_reply) => {}
    }
}

async fn ask(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    conduct: &Conduct,
    holds_reply: &watch::Sender<bool>,
) {
    let mut buffer = vec![0; 16 * 1024];
    while let Ok(size @ 1..) = from.read(&mut buffer).await {
        let piece = &buffer[..size];
        match conduct.catch(piece) {
            Some(Stop::Request) => {
                conduct.held.send_replace(true);
                // Until the client is gone. What else it says is swallowed with it.
                while let Ok(1..) = from.read(&mut buffer).await {}
                return;
            }
            Some(Stop::Reply) => {
                holds_reply.send_replace(true);
            }
            None => {}
        }
        conduct.pass().await;
        if to.write_all(piece).await.is_err() {
            return;
        }
    }
}

async fn answer(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    conduct: &Conduct,
    holds_reply: &watch::Sender<bool>,
) {
    let mut buffer = vec![0; 16 * 1024];
    while let Ok(size @ 1..) = from.read(&mut buffer).await {
        conduct.pass().await;
        if *holds_reply.borrow() {
            conduct.held.send_replace(true);
        } else if !*conduct.muted.borrow() && to.write_all(&buffer[..size]).await.is_err() {
            return;
        }
    }
}
