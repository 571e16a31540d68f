//! A stretch of wire between the service and Postgres that can be cut, held up and led elsewhere.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, UnixStream};
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
}

impl Proxy {
    /// To the server whose socket lies in `directory`.
    pub(crate) async fn to(directory: &std::path::Path) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let wire = Arc::new(Mutex::new(Wire { target: None, cut: CancellationToken::new() }));
        let proxy = Self { address, wire: wire.clone() };
        proxy.lead_to(directory);
        tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                let (target, cut) = {
                    let wire = wire.lock().unwrap();
                    (wire.target.clone(), wire.cut.clone())
                };
                // Without a target the connection is accepted and closed, as by a server that is gone.
                let Some(target) = target else { continue };
                tokio::spawn(async move {
                    if let Ok(mut server) = UnixStream::connect(target).await {
                        tokio::select! {
                            _ = copy_bidirectional(&mut client, &mut server) => {}
                            () = cut.cancelled() => {}
                        }
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
    pub(crate) fn lead_to(&self, directory: &std::path::Path) {
        self.wire.lock().unwrap().target = Some(directory.join(".s.PGSQL.5432"));
    }
}
