//! Rows whose update the database refuses, by a trigger or a constraint of the customer's: they must not stop the others.
//!
//! A statement over many rows that is refused is repeated for ever smaller parts of them, until the row at fault is
//! alone. It is then left out for a minute, so that it costs the others that much once a minute and not with every claim.

use std::collections::{HashMap, VecDeque};
use std::sync::Mutex;
use std::time::Duration;

use tokio::time::Instant;
use tokio_postgres::Row;
use tokio_postgres::types::Type;
use uuid::Uuid;

use super::Queue;
use super::claim::{Asked, CLAIM_PICKED, PICK};
use super::task::Claimed;
use crate::db::{DbError, Lane, Param};

/// How long a row is left out before it is tried again: somebody may have mended it.
const LEFT_OUT_FOR: Duration = Duration::from_mins(1);
/// Rows that are remembered. Where more are refused, the table as a whole is in trouble.
const MOST: usize = 1_000;
/// How long one call may look for the rows at fault. A claim that is answered much later is thrown away.
pub(super) const BUDGET: Duration = Duration::from_secs(2);

/// The rows that are left out for now.
#[derive(Default)]
pub(super) struct Stubborn(Mutex<HashMap<Uuid, Instant>>);

impl Stubborn {
    /// The rows to leave out.
    pub(super) fn ids(&self) -> Vec<Uuid> {
        let rows = self.0.lock().expect("never poisoned");
        rows.iter().filter(|(_, until)| **until > Instant::now()).map(|(id, _)| *id).collect()
    }

    /// Leaves a row out from now on, and says so the first time.
    fn leave_out(&self, id: Uuid, error: &DbError) {
        let mut rows = self.0.lock().expect("never poisoned");
        if rows.len() >= MOST {
            rows.retain(|_, until| *until > Instant::now());
        }
        if rows.len() < MOST && rows.insert(id, Instant::now() + LEFT_OUT_FOR).is_none() {
            tracing::error!(task_id = %id, %error, "the database refuses to change this task; it is left out");
        }
    }
}

/// The database refused the statement for what is in the rows, and would do so again.
pub(super) fn is_for_the_rows(error: &DbError) -> bool {
    !error.is_transient() && !error.is_refusal()
}

impl Queue {
    /// Claims at most `limit` due tasks of `types`, leaving out the rows that the database refuses to change.
    pub(super) async fn claim_around(&self, types: &[String], limit: usize) -> Result<Vec<Claimed>, DbError> {
        let began = Instant::now();
        let mut claimed = Vec::new();
        // Again, if all that was picked was refused: what comes behind it may be claimable.
        while claimed.is_empty() && began.elapsed() < BUDGET {
            let left_out = self.stubborn.ids();
            let most = i32::try_from(limit.saturating_add(left_out.len())).unwrap_or(i32::MAX);
            let rows = self.query_at_once(PICK, &[(&types, Type::TEXT_ARRAY), (&most, Type::INT4)]).await?;
            let mut ids: Vec<Uuid> =
                rows.iter().map(|row| row.try_get(0)).collect::<Result<_, tokio_postgres::Error>>()?;
            ids.retain(|id| !left_out.contains(id));
            ids.truncate(limit);
            if ids.is_empty() {
                break;
            }
            let claim_ids = |ids: Vec<Uuid>| async move {
                self.claim_by(Asked::Seldom, CLAIM_PICKED, &[(&ids, Type::UUID_ARRAY)]).await
            };
            let (parts, ended) = self.around_stubborn(ids, began + BUDGET, claim_ids).await;
            // Whatever was claimed before: of a reply that was lost the caller must hear, and have it all given back.
            ended?;
            claimed.extend(parts.into_iter().flatten());
        }
        Ok(claimed)
    }

    /// Runs a statement over `ids`, in ever smaller parts where the database refuses it, and leaves out the rows at
    /// fault. Answers what the parts answered, and the error that ended the search, if one did.
    pub(super) async fn around_stubborn<T, F>(
        &self,
        ids: Vec<Uuid>,
        until: Instant,
        mut statement: impl FnMut(Vec<Uuid>) -> F,
    ) -> (Vec<T>, Result<(), DbError>)
    where
        F: Future<Output = Result<T, DbError>>,
    {
        let mut done = Vec::new();
        let mut parts = VecDeque::from([ids]);
        while let Some(mut part) = parts.pop_front() {
            match statement(part.clone()).await {
                Ok(answer) => done.push(answer),
                Err(error) if is_for_the_rows(&error) => match part.as_slice() {
                    [id] => self.stubborn.leave_out(*id, &error),
                    _ => {
                        let rest = part.split_off(part.len() / 2);
                        parts.push_front(rest);
                        parts.push_front(part);
                    }
                },
                Err(error) => return (done, Err(error)),
            }
            if Instant::now() > until {
                break;
            }
        }
        (done, Ok(()))
    }

    /// A statement that writes log rows and, should the database refuse it, the same without them: the work outranks
    /// its log. Answers the rows and, if the log is missing, why.
    pub(super) async fn query_logged(
        &self,
        lane: Lane,
        deadline: Duration,
        [logged, unlogged]: [&str; 2],
        params: &[Param<'_>],
    ) -> Result<(Vec<Row>, Option<DbError>), DbError> {
        match self.db.query(lane, deadline, logged, params).await {
            Err(error) if !error.is_transient() => {
                Ok((self.db.query(lane, deadline, unlogged, params).await?, Some(error)))
            }
            result => Ok((result?, None)),
        }
    }
}
