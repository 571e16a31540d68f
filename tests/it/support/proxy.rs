//! A stretch of wire between the service and Postgres that can be cut, muted and led elsewhere.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixStream};
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
    /// What the server says is lost; what it is told arrives.
    muted: Arc<AtomicBool>,
}

impl Proxy {
    /// To the server whose socket lies in `directory`.
    pub(crate) async fn to(directory: &Path) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let wire = Wire { target: None, cut: CancellationToken::new(), muted: Arc::default() };
        let proxy = Self { address, wire: Arc::new(Mutex::new(wire)) };
        proxy.lead_to(directory);
        let wire = proxy.wire.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (target, cut, muted) = {
                    let wire = wire.lock().unwrap();
                    (wire.target.clone(), wire.cut.clone(), wire.muted.clone())
                };
                // Without a target the connection is accepted and closed, as by a server that is gone.
                let Some(target) = target else { continue };
                tokio::spawn(async move {
                    tokio::select! {
                        () = connect(client, &target, &muted) => {}
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

    /// Lets new connections through, to the server whose socket lies in `directory`.
    pub(crate) fn lead_to(&self, directory: &Path) {
        let mut wire = self.wire.lock().unwrap();
        wire.target = Some(directory.join(".s.PGSQL.5432"));
        wire.muted = Arc::default();
    }

    /// From now on what the server answers is lost on the way, on the connections that there are.
    pub(crate) fn mute(&self) {
        self.wire.lock().unwrap().muted.store(true, Ordering::SeqCst);
    }
}

async fn connect(client: TcpStream, target: &Path, muted: &AtomicBool) {
    let Ok(server) = UnixStream::connect(target).await else { return };
    let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
    let never = AtomicBool::new(false);
    tokio::select! {
        () = pump(from_client, to_server, &never) => {}
        () = pump(from_server, to_client, muted) => {}
    }
}

async fn pump(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin, muted: &AtomicBool) {
    let mut buffer = vec![0; 16 * 1024];
    while let Ok(size @ 1..) = from.read(&mut buffer).await {
        if !muted.load(Ordering::SeqCst) && to.write_all(&buffer[..size]).await.is_err() {
            return;
        }
    }
}
