//! Cancels tasks, waiting or running.

use tokio_postgres::types::Type;
use uuid::Uuid;

use super::{Queue, deadline};
use crate::db::{DbError, Lane};

const CANCEL: [&str; 2] = [
    concat!(include_str!("cancel.sql"), include_str!("log.sql"), include_str!("cancel_answer.sql")),
    concat!(include_str!("cancel.sql"), include_str!("cancel_answer.sql")),
];

/// What became of a cancellation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cancelled {
    /// The task.
    pub id: Uuid,
    /// False for a running task: its process has been asked to stop it.
    pub done: bool,
}

impl Queue {
    /// Cancels those of `ids` that have not ended. The others are missing from the answer.
    pub async fn cancel(&self, ids: &[Uuid], reason: &str) -> Result<Vec<Cancelled>, DbError> {
        let params = [(&ids as _, Type::UUID_ARRAY), (&reason as _, Type::TEXT)];
        let (rows, refused) = self.query_logged(Lane::Request, deadline::REQUEST, CANCEL, &params).await?;
        let cancelled = rows
            .iter()
            .map(|row| Ok(Cancelled { id: row.try_get(0)?, done: row.try_get(1)? }))
            .collect::<Result<Vec<_>, DbError>>()?;
        if let Some(error) = refused {
            self.log_lost(cancelled.iter().filter(|task| task.done).count(), &error);
        }
        Ok(cancelled)
    }
}
