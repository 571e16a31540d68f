//! What a handler may use.

use std::time::Duration;

use tokio_postgres::Row;
use uuid::Uuid;

use crate::db::{Database, DbError, Lane, Param};
use crate::queue::Queue;

/// A handler's query may take this long.
const QUERY_DEADLINE: Duration = Duration::from_secs(15);

/// The outside world, as handlers reach it. Cheap to clone.
#[derive(Clone)]
pub struct Services {
    queue: Queue,
}

impl Services {
    /// Over the given queue and its database.
    #[must_use]
    pub fn new(queue: Queue) -> Self {
        Self { queue }
    }

    /// Runs one statement on the customer's tables. Several acts that belong together go into one statement.
    pub async fn query(&self, sql: &str, params: &[Param<'_>]) -> Result<Vec<Row>, DbError> {
        self.database()
            .query(Lane::Shared, QUERY_DEADLINE, sql, params)
            .await
    }

    /// The queue, to add further tasks.
    #[must_use]
    pub fn queue(&self) -> &Queue {
        &self.queue
    }

    fn database(&self) -> &Database {
        self.queue.database()
    }
}

/// The key of one outward act of one task: the same for every attempt, so that the act can be done once.
///
/// Use it as the primary key of the row that the act inserts (`on conflict do nothing`), and as the `Idempotency-Key`
/// of a request to somebody else.
#[must_use]
pub fn effect_key(task_id: Uuid, effect: &str) -> Uuid {
    Uuid::new_v5(&task_id, effect.as_bytes())
}
