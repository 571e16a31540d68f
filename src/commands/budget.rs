//! How many connections a process opens, and where it listens.

use crate::config::{Config, PollMode};
use crate::db::{Database, Target, TargetError};

/// Revisions overlap during every rollout: for a moment there are twice as many instances.
pub(super) const OVERLAP: usize = 2;

/// What one instance takes of the server.
pub(super) struct Budget {
    /// Connections, with the one that listens.
    pub(super) connections: usize,
    /// Where it would listen.
    pub(super) listen: Target,
    /// Whether it does.
    pub(super) listens: bool,
}

impl Budget {
    pub(super) fn of(config: &Config, database: &Database) -> Result<Self, TargetError> {
        let listen = match &config.database.listen_url {
            Some(url) => Target::named("LISTEN_DATABASE_URL", url)?,
            None => database.target().clone(),
        };
        let listens = listen.can_listen() && config.worker.poll_mode == PollMode::Background;
        Ok(Self { connections: config.database.pool_size + usize::from(listens), listen, listens })
    }
}
