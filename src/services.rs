//! What a handler may use.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::Duration;

use tokio::time::Instant;
use tokio_postgres::Row;
use uuid::Uuid;

use crate::clients::{Clients, Mailer, Model};
use crate::db::{DbError, Lane, Param};
use crate::queue::Queue;

/// A handler's query may take this long.
const QUERY_DEADLINE: Duration = Duration::from_secs(15);

/// The outside world, as handlers reach it. Cheap to clone.
#[derive(Clone)]
pub struct Services {
    queue: Arc<Queue>,
    clients: Clients,
    fence: Option<Arc<Fence>>,
}

/// Until when an attempt may act, by this process's monotonic clock.
#[derive(Debug)]
pub struct Fence(Mutex<Instant>);

impl Services {
    /// Over the given queue and its database, without language model and mail server.
    #[must_use]
    pub fn new(queue: Queue) -> Self {
        Self { queue: Arc::new(queue), clients: Clients::default(), fence: None }
    }

    /// The same, with what the clients reach.
    #[must_use]
    pub fn with_clients(self, clients: Clients) -> Self {
        Self { clients, ..self }
    }

    /// The same, for an attempt that may act only as long as the fence is up.
    #[must_use]
    pub fn fenced(&self, fence: Arc<Fence>) -> Self {
        Self { fence: Some(fence), ..self.clone() }
    }

    /// Runs one statement on the customer's tables. Several acts that belong together go into one statement.
    ///
    /// Fails without asking the database once the attempt's lease has run out: another process may have the task.
    pub async fn query(&self, sql: &str, params: &[Param<'_>]) -> Result<Vec<Row>, DbError> {
        if self.fence.as_ref().is_some_and(|fence| !fence.is_up()) {
            return Err(DbError::LeaseOver);
        }
        self.queue.database().query(Lane::Shared, QUERY_DEADLINE, sql, params).await
    }

    /// The language model, where one is configured.
    #[must_use]
    pub fn model(&self) -> Option<&Model> {
        self.clients.model()
    }

    /// The mail server, where one is configured.
    #[must_use]
    pub fn mailer(&self) -> Option<&Mailer> {
        self.clients.mailer()
    }

    /// The domain of the addresses that introductions get.
    #[must_use]
    pub fn intro_domain(&self) -> &str {
        self.clients.intro_domain()
    }

    /// The queue, to add further tasks.
    #[must_use]
    pub fn queue(&self) -> &Queue {
        &self.queue
    }
}

impl Fence {
    /// A fence that falls at the given moment.
    #[must_use]
    pub fn until(moment: Instant) -> Self {
        Self(Mutex::new(moment))
    }

    /// Lets it fall later. One that has fallen stays down: what stood behind it has been stopped.
    pub fn extend(&self, moment: Instant) {
        let mut until = self.0.lock().expect("never poisoned");
        if Instant::now() < *until {
            *until = moment.max(*until);
        }
    }

    /// When it falls.
    #[must_use]
    pub fn falls_at(&self) -> Instant {
        *self.0.lock().expect("never poisoned")
    }

    /// Whether the attempt may still act.
    #[must_use]
    pub fn is_up(&self) -> bool {
        Instant::now() < self.falls_at()
    }

    /// Runs code for as long as the fence is up. Then it gets no further, whatever it waited for: in a process that was
    /// frozen all waits are over at once when it goes on.
    pub(crate) async fn within<T>(&self, code: impl Future<Output = T>) -> T {
        let mut code = pin!(code);
        poll_fn(|context| match self.is_up() {
            true => code.as_mut().poll(context),
            // Whoever watches the attempt drops it.
            false => Poll::Pending,
        })
        .await
    }

    /// Waits until it has fallen.
    pub async fn fallen(&self) {
        while self.is_up() {
            tokio::time::sleep_until(self.falls_at()).await;
        }
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
