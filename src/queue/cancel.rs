//! Cancels tasks, waiting or running.

use tokio_postgres::types::Type;
use uuid::Uuid;

use super::{Queue, deadline};
use crate::db::{DbError, Lane};

const CANCEL: &str =
    concat!(include_str!("cancel.sql"), include_str!("log.sql"), include_str!("cancel_answer.sql"));
const CANCEL_WITHOUT_LOG: &str = concat!(include_str!("cancel.sql"), include_str!("cancel_answer.sql"));

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
        let rows = match self.db.query(Lane::Shared, deadline::REQUEST, CANCEL, &params).await {
            Err(error) if error.is_refusal() => {
                let rows =
                    self.db.query(Lane::Shared, deadline::REQUEST, CANCEL_WITHOUT_LOG, &params).await?;
                self.log_lost(rows.len(), &error);
                rows
            }
            result => result?,
        };
        rows.iter().map(|row| Ok(Cancelled { id: row.try_get(0)?, done: row.try_get(1)? })).collect()
    }
}
