//! One connection that listens: heals itself, proves every half minute that it still hears.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::{StreamExt, stream};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};
use tokio_postgres::types::Type;
use tokio_postgres::{AsyncMessage, Client, Connection, NoTls};
use tokio_util::sync::CancellationToken;

use super::target::{SslMode, Target, TargetError};
use super::{Database, DbError, tls};

const PROBE_EVERY: Duration = Duration::from_secs(30);
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
const BACKOFF: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(15));

/// What came in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// The connection was made, perhaps again: anything may have been missed meanwhile.
    Connected,
    /// A notification.
    Notice {
        /// Its channel.
        channel: String,
        /// Its payload, often empty.
        payload: String,
    },
}

/// Whether notifications arrive at the moment.
#[derive(Clone, Default)]
pub struct ListenerStatus(Arc<AtomicBool>);

impl ListenerStatus {
    /// True while a listening connection is known to work.
    #[must_use]
    pub fn is_listening(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// The listening connection, before it runs.
pub struct Listener {
    database: Database,
    target: Target,
    channels: &'static [&'static str],
    probe: String,
    heard: mpsc::Sender<Heard>,
    status: ListenerStatus,
}

impl Listener {
    /// A listener on the given channels. It connects to `target` or else to where `database` does.
    #[must_use]
    pub fn new(
        database: &Database,
        target: Option<Target>,
        channels: &'static [&'static str],
    ) -> (Self, mpsc::Receiver<Heard>, ListenerStatus) {
        let (heard, receiver) = mpsc::channel(256);
        let status = ListenerStatus::default();
        let listener = Self {
            database: database.clone(),
            target: target.unwrap_or_else(|| database.target().clone()),
            channels,
            // Of its own for every process: another's probe must not pass for ours.
            probe: format!("task_processor_probe_{}", uuid::Uuid::new_v4().simple()),
            heard,
            status: status.clone(),
        };
        (listener, receiver, status)
    }

    /// Listens until cancelled. Failures are logged once per outage; workers go on polling meanwhile.
    pub async fn run(self, stop: CancellationToken) {
        if !self.target.can_listen() {
            tracing::info!(
                "the connection goes through a transaction pooler, which cannot LISTEN: polling only"
            );
            return;
        }
        let mut wait = BACKOFF.0;
        loop {
            let began = Instant::now();
            let result = tokio::select! {
                () = stop.cancelled() => return,
                result = self.listen() => result,
            };
            if self.status.0.swap(false, Ordering::Relaxed) || wait == BACKOFF.0 {
                let reason = result.err().map_or_else(|| "closed".to_owned(), |error| error.to_string());
                tracing::warn!(reason, "not listening for new tasks, polling until the connection is back");
            }
            if began.elapsed() > PROBE_EVERY {
                wait = BACKOFF.0;
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = sleep(wait) => wait = (wait * 2).min(BACKOFF.1),
            }
        }
    }

    /// Whether a notification sent on another connection is heard on this one, and if not, why. `heard` is the listener's
    /// receiver.
    pub async fn probe(self, mut heard: mpsc::Receiver<Heard>) -> Result<(), String> {
        tokio::select! {
            // A connection was made, and its first probe came back.
            Some(Heard::Connected) = heard.recv() => Ok(()),
            result = self.listen() => Err(match result {
                Ok(()) => "the connection was closed".to_owned(),
                Err(error) => format!("{error:#}"),
            }),
        }
    }

    async fn listen(&self) -> anyhow::Result<()> {
        match self.target.ssl {
            SslMode::Disable => {
                let (client, connection) =
                    timeout(ANSWER_WITHIN * 2, self.target.postgres.connect(NoTls)).await??;
                self.converse(client, connection).await
            }
            mode => {
                let connector = tls::connector(mode, self.database.ca_cert())
                    .map_err(|TargetError(what)| anyhow::anyhow!("LISTEN connection: {what}"))?;
                let (client, connection) =
                    timeout(ANSWER_WITHIN * 2, self.target.postgres.connect(connector)).await??;
                self.converse(client, connection).await
            }
        }
    }

    /// Drives the connection from here, so that what it says is seen, and asks for a sign of life now and then.
    async fn converse<S, T>(&self, client: Client, mut connection: Connection<S, T>) -> anyhow::Result<()>
    where
        S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
        T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
    {
        let mut messages = stream::poll_fn(move |context| connection.poll_message(context));
        let (probe_heard, mut probes) = mpsc::channel(1);
        let read = async {
            while let Some(message) = messages.next().await {
                if let AsyncMessage::Notification(notice) = message? {
                    if notice.channel() == self.probe {
                        let _ = probe_heard.try_send(());
                        continue;
                    }
                    let (channel, payload) = (notice.channel().to_owned(), notice.payload().to_owned());
                    self.heard.send(Heard::Notice { channel, payload }).await?;
                }
            }
            anyhow::bail!("the server closed the connection")
        };
        let speak = async {
            let probe = self.probe.as_str();
            let channels = self.channels.iter().chain([&probe]);
            let listens: Vec<String> = channels.map(|name| format!("listen {name}")).collect();
            timeout(ANSWER_WITHIN, client.batch_execute(&listens.join("; "))).await??;
            // At first sent on another connection: through a transaction pooler one's own words may come back, and no others.
            self.send_probe().await?;
            Self::hear(&mut probes).await?;
            self.database.has_sessions(&self.target);
            self.status.0.store(true, Ordering::Relaxed);
            self.heard.send(Heard::Connected).await?;
            loop {
                sleep(PROBE_EVERY).await;
                // From now on on this one, which also shows that it lives, and is not idle.
                let notify = format!("notify {probe}");
                timeout(ANSWER_WITHIN, client.batch_execute(&notify)).await??;
                Self::hear(&mut probes).await?;
            }
        };
        tokio::select! {
            result = read => result,
            result = speak => result,
        }
    }

    async fn send_probe(&self) -> Result<(), DbError> {
        let mut session = self.database.claim_session(ANSWER_WITHIN).await?;
        session.query("select pg_notify($1, '')", &[(&self.probe, Type::TEXT)]).await?;
        Ok(())
    }

    async fn hear(probes: &mut mpsc::Receiver<()>) -> anyhow::Result<()> {
        let heard = timeout(ANSWER_WITHIN, probes.recv()).await;
        anyhow::ensure!(
            heard.is_ok(),
            "LISTEN was accepted but nothing is heard: is a transaction pooler in between, or LISTEN_DATABASE_URL another database?"
        );
        Ok(())
    }
}
