//! A private Postgres server, made of the programs found on this machine, that never outlives its owner.
//!
//! It listens on a Unix socket in a directory that only its user can enter. A [`Guardian`] starts it and takes it away
//! again, however the owner ends.

mod binaries;
mod guardian;
mod place;

use std::io::Error;
use std::path::{Path, PathBuf};
use std::process::ChildStdout;
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use tokio::time::{sleep, timeout};
use tokio_postgres::NoTls;

pub use guardian::{Guardian, Ward};
use place::Place;
pub use place::User;

/// How long a start may take; replaying the log of a crash counts.
const PATIENCE: Duration = Duration::from_mins(2);
const LOG_LINES_SHOWN: usize = 15;
/// Makes the data directory if need be, and starts the server. See `guardian.sh` for what it is run by.
const START: &str = include_str!("start.sh");

/// What kind of server is wanted.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where the data is kept; the next start finds it again. `None`: in a temporary directory, gone with the server.
    pub data_dir: Option<PathBuf>,
    /// Forgets what is kept there.
    pub fresh: bool,
    /// Whether a commit survives a crash of the machine. Off is faster.
    pub durable: bool,
    /// The server's `max_connections`.
    pub max_connections: u16,
    /// More settings of `postgresql.conf`. They win over ours.
    pub settings: Vec<(String, String)>,
}

impl Options {
    /// A durable server whose data stays in `data_dir`.
    #[must_use]
    pub fn kept(data_dir: impl Into<PathBuf>) -> Self {
        let data_dir = Some(data_dir.into());
        Self { data_dir, fresh: false, durable: true, max_connections: 100, settings: Vec::new() }
    }

    /// A fast server that leaves nothing behind.
    #[must_use]
    pub fn throw_away() -> Self {
        Self { data_dir: None, fresh: false, durable: false, max_connections: 200, settings: Vec::new() }
    }

    fn arguments(&self) -> Vec<String> {
        let mut settings = vec![
            ("listen_addresses", String::new()),
            ("port", "5432".to_owned()),
            ("timezone", "UTC".to_owned()),
            ("log_timezone", "UTC".to_owned()),
            ("max_connections", self.max_connections.to_string()),
        ];
        if !self.durable {
            for name in ["fsync", "synchronous_commit", "full_page_writes"] {
                settings.push((name, "off".to_owned()));
            }
        }
        let more = self.settings.iter().map(|(name, value)| (name.as_str(), value.clone()));
        settings
            .into_iter()
            .chain(more)
            .flat_map(|(name, value)| ["-c".to_owned(), format!("{name}={value}")])
            .collect()
    }
}

/// Why there is no server.
#[derive(Debug, thiserror::Error)]
pub enum PostgresError {
    /// No server programs anywhere.
    #[error(
        "PostgreSQL is not installed: apt-get install -y postgresql, or brew install postgresql, or set PG_BINDIR \
         to the directory that holds initdb and postgres"
    )]
    NotInstalled,
    /// `PG_BINDIR` names the wrong directory.
    #[error("PG_BINDIR is {}, which does not hold initdb and postgres", .0.display())]
    BadBinDir(PathBuf),
    /// We are root, which the server refuses to be run by, and there is nobody else.
    #[error("PostgreSQL does not run as root, and /etc/passwd has neither the user postgres nor nobody")]
    NoUser,
    /// Another process runs a server on this directory.
    #[error("{} is in use by another process", .0.display())]
    InUse(PathBuf),
    /// A directory that others can foresee is not ours.
    #[error("{} belongs to somebody else", .0.display())]
    NotOurs(PathBuf),
    /// The system refused something.
    #[error("{what}: {source}")]
    Io {
        /// What we were about to do, and with what.
        what: String,
        /// The system's words.
        source: std::io::Error,
    },
    /// The server did not come up.
    #[error("PostgreSQL did not start; its last words:\n{0}")]
    Start(String),
}

impl PostgresError {
    fn io(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let what = what.into();
        |source| Self::Io { what, source }
    }
}

/// A running server. Dropped, it is stopped and tidied away in the background, as it is when the process dies.
#[derive(Debug)]
pub struct EmbeddedPostgres {
    guardian: Guardian,
    place: Place,
}

impl EmbeddedPostgres {
    /// Starts a server and waits until it answers queries.
    pub async fn start(options: Options) -> Result<Self, PostgresError> {
        let binaries = binaries::find()?;
        let (place, lock) = Place::choose(options.data_dir.as_deref(), options.fresh).await?;
        let mut arguments = vec![binaries.into_os_string(), place.data_dir.clone().into_os_string()];
        arguments.extend(options.arguments().into_iter().map(Into::into));
        let (guardian, words) = Guardian::spawn(Ward {
            user: place.user,
            run_dir: &place.run_dir,
            // Waiting for a checkpoint is for data that somebody wants to see again.
            stop_signal: if options.data_dir.is_some() { "INT" } else { "QUIT" },
            start: START,
            arguments: &arguments,
            lock,
        })
        .map_err(PostgresError::io("starting sh"))?;
        let server = Self { guardian, place };
        server.ready(words).await?;
        Ok(server)
    }

    /// A connection string for the given database, for us as for psql.
    #[must_use]
    pub fn url(&self, database: &str) -> String {
        format!("postgres:///{database}?host={}&user=postgres", self.place.run_dir.display())
    }

    /// Where the data is. Not what was asked for, if the server's user cannot get there.
    #[must_use]
    pub fn data_dir(&self) -> &Path {
        &self.place.data_dir
    }

    /// Where the socket is.
    #[must_use]
    pub fn socket_dir(&self) -> &Path {
        &self.place.run_dir
    }

    /// The id of the server's first process.
    pub fn pid(&self) -> Result<u32, PostgresError> {
        let file = self.place.data_dir.join("cluster/postmaster.pid");
        let read = std::fs::read_to_string(&file);
        let pid = read.and_then(|text| text.lines().next().unwrap_or_default().parse().map_err(Error::other));
        pid.map_err(PostgresError::io(format!("reading {}", file.display())))
    }

    /// What the server writes about itself.
    #[must_use]
    pub fn log_file(&self) -> PathBuf {
        self.place.data_dir.join("server.log")
    }

    /// The user the server runs as, if it is not ours.
    #[must_use]
    pub fn user(&self) -> Option<User> {
        self.place.user
    }

    /// Stops the server, and waits until it and what is temporary of it are gone.
    pub async fn stop(mut self) -> Result<(), PostgresError> {
        self.guardian.stop().await.map_err(PostgresError::io("stopping PostgreSQL"))
    }

    async fn ready(&self, words: ChildStdout) -> Result<(), PostgresError> {
        let answered = async {
            while !self.answers().await {
                sleep(Duration::from_millis(20)).await;
            }
        };
        let last_words = tokio::select! {
            answered = timeout(PATIENCE, answered) => match answered {
                Ok(()) => return Ok(()),
                Err(_) => format!("no answer within {PATIENCE:?}\n"),
            },
            last_words = until_closed(words) => last_words?,
        };
        let log = std::fs::read_to_string(self.log_file()).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        let tail = &lines[lines.len().saturating_sub(LOG_LINES_SHOWN)..];
        Err(PostgresError::Start(last_words + &tail.join("\n")))
    }

    /// The socket appears before the server can be used, so only an answer counts.
    async fn answers(&self) -> bool {
        let Ok((client, connection)) = tokio_postgres::connect(&self.url("postgres"), NoTls).await else {
            return false;
        };
        tokio::select! {
            result = client.batch_execute("select 1") => result.is_ok(),
            _ = connection => false,
        }
    }
}

impl Drop for EmbeddedPostgres {
    fn drop(&mut self) {
        if self.place.data_dir != self.place.run_dir {
            // Failing, it only means that the next start in this process is told "in use" for a moment longer.
            let _ = place::let_go(&self.place.data_dir);
        }
    }
}

/// The pipe is held by the guardian until the server is started, and by the server until it ends.
async fn until_closed(words: ChildStdout) -> Result<String, PostgresError> {
    let mut said = String::new();
    let mut pipe =
        pipe::Receiver::from_owned_fd(words.into()).map_err(PostgresError::io("reading from sh"))?;
    pipe.read_to_string(&mut said).await.map_err(PostgresError::io("reading from sh"))?;
    Ok(said)
}
