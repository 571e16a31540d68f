//! Who adds the tasks of a run, and cancels some: a task counts as added when its acknowledgement is on the disk.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use task_processor::config::Config;
use task_processor::db::Database;
use task_processor::queue::{NewTask, Queue};
use task_processor::telemetry::metrics::Metrics;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_postgres::types::Type;
use tokio_postgres::{Client, NoTls};
use uuid::Uuid;

use crate::journal::{self, Journal};
use crate::load::{Batch, DOORS, Door, Fate, Planned, Volume};
use crate::random::Random;
use crate::world::World;

/// Who gets no answer within this time asks again.
const ANSWER_WITHIN: Duration = Duration::from_secs(8);
/// Every so many batches are added once more, under the same keys.
const REPEATED: usize = 20;

const INSERT: &str = "
    insert into agent_tasks (task_type, agent_type, context_json, priority, max_retries, scheduled_for)
    select type, 'chaos', context::jsonb, priority, retries, clock_timestamp() + make_interval(secs => due)
    from unnest($1::text[], $2::text[], $3::text[], $4::int4[], $5::float8[]) as t (type, context, priority, retries, due)
    returning id";
const FUNCTION: &str = "
    select enqueue_task(
        type, context::jsonb, 'chaos', priority, clock_timestamp() + make_interval(secs => due),
        max_retries => retries, unique_key => key
    )
    from unnest($1::text[], $2::text[], $3::text[], $4::int4[], $5::float8[], $6::text[])
        as t (type, context, priority, retries, due, key)";

/// What the callers have in common.
pub(crate) struct Callers {
    world: Arc<World>,
    url: String,
    queue: Queue,
    acknowledged: Journal,
    count: AtomicUsize,
    unwanted: mpsc::UnboundedSender<Uuid>,
}

/// Adds a run's tasks by all doors. Answers how many were acknowledged.
pub(crate) async fn add_all(world: &Arc<World>, volume: Volume, random: &Random) -> usize {
    let url = world.callers.url("postgres");
    let config = Config::from_vars([("DATABASE_URL", &url)]).expect("valid");
    let database = Database::new(&config.database).expect("a usable URL");
    let (unwanted, to_cancel) = mpsc::unbounded_channel();
    let callers = Arc::new(Callers {
        world: world.clone(),
        url,
        queue: Queue::new(database, "callers", &config.worker, Arc::new(Metrics::new())),
        acknowledged: Journal::open(&world.dir.join("acknowledged")),
        count: AtomicUsize::new(0),
        unwanted,
    });
    let began = Instant::now();
    let adding = DOORS.map(|door| {
        let (callers, batches) = (callers.clone(), volume.by(door, random));
        tokio::spawn(async move { callers.add(door, batches, began).await })
    });
    let cancelling =
        tokio::spawn(cancel(callers.queue.clone(), Journal::open(&world.dir.join("cancelled")), to_cancel));
    for added in adding {
        added.await.expect("no panic");
    }
    let count = callers.count.load(Ordering::Relaxed);
    drop(callers);
    cancelling.await.expect("no panic");
    count
}

impl Callers {
    async fn add(&self, door: Door, batches: Vec<Batch>, began: Instant) {
        let mut connection = None;
        for (number, Batch { at, tasks }) in batches.into_iter().enumerate() {
            sleep_until(began + at).await;
            let keys: Vec<String> =
                (0..tasks.len()).map(|task| format!("{door:?}/{number}/{task}")).collect();
            let Some(ids) = self.until_known(door, &tasks, &keys, &mut connection).await else { continue };
            self.acknowledge(door, &ids, &tasks, &keys);
            if door != Door::Insert && number % REPEATED == 0 {
                let again = self.until_known(door, &tasks, &keys, &mut connection).await;
                if again.as_ref() != Some(&ids) {
                    self.world.complain(format!("the same keys named other tasks: {ids:?}, then {again:?}"));
                }
            }
        }
    }

    /// Adds them; under keys as often as it takes to know the outcome.
    async fn until_known(
        &self,
        door: Door,
        tasks: &[Planned],
        keys: &[String],
        connection: &mut Option<Client>,
    ) -> Option<Vec<Uuid>> {
        loop {
            let added = match door {
                Door::Insert | Door::Function => self.by_sql(door, tasks, keys, connection).await,
                Door::Library => self.by_library(tasks, keys).await,
            };
            if added.is_some() || door == Door::Insert {
                return added;
            }
            sleep(Duration::from_millis(50)).await;
        }
    }

    async fn by_sql(
        &self,
        door: Door,
        tasks: &[Planned],
        keys: &[String],
        connection: &mut Option<Client>,
    ) -> Option<Vec<Uuid>> {
        let client = match connection.take() {
            Some(client) => client,
            None => self.connect().await?,
        };
        let types: Vec<&str> = tasks.iter().map(|task| task.task_type).collect();
        let contexts: Vec<String> = tasks.iter().map(|task| task.context.to_string()).collect();
        let priorities: Vec<&str> = tasks.iter().map(|task| task.priority).collect();
        let retries: Vec<i32> = tasks.iter().map(|task| task.max_retries).collect();
        let dues: Vec<f64> = tasks.iter().map(|task| task.due.as_secs_f64()).collect();
        let params: [(&(dyn tokio_postgres::types::ToSql + Sync), Type); 6] = [
            (&types, Type::TEXT_ARRAY),
            (&contexts, Type::TEXT_ARRAY),
            (&priorities, Type::TEXT_ARRAY),
            (&retries, Type::INT4_ARRAY),
            (&dues, Type::FLOAT8_ARRAY),
            (&keys, Type::TEXT_ARRAY),
        ];
        let (sql, params) = match door {
            Door::Insert => (INSERT, &params[..5]),
            _ => (FUNCTION, &params[..]),
        };
        let rows = timeout(ANSWER_WITHIN, client.query_typed(sql, params)).await.ok()?.ok()?;
        // Only a connection that has answered is used again.
        *connection = Some(client);
        Some(rows.iter().map(|row| row.get(0)).collect())
    }

    async fn connect(&self) -> Option<Client> {
        let connecting = tokio_postgres::connect(&self.url, NoTls);
        let (client, connection) = timeout(ANSWER_WITHIN, connecting).await.ok()?.ok()?;
        tokio::spawn(connection);
        Some(client)
    }

    async fn by_library(&self, tasks: &[Planned], keys: &[String]) -> Option<Vec<Uuid>> {
        let tasks: Vec<NewTask> = tasks
            .iter()
            .zip(keys)
            .map(|(task, key)| NewTask {
                delay: task.due,
                priority: task.priority.to_owned(),
                max_retries: Some(task.max_retries),
                unique_key: Some(key.clone()),
                ..NewTask::new(task.task_type, task.context.clone())
            })
            .collect();
        let added = self.queue.enqueue(&tasks).await.ok()?;
        Some(added.iter().map(|task| task.id).collect())
    }

    fn acknowledge(&self, door: Door, ids: &[Uuid], tasks: &[Planned], keys: &[String]) {
        let line = |(id, key): (&Uuid, &String)| match door {
            Door::Insert => format!("{id}\n"),
            _ => format!("{id} {key}\n"),
        };
        self.acknowledged.append_durably(&ids.iter().zip(keys).map(line).collect::<String>());
        self.count.fetch_add(ids.len(), Ordering::Relaxed);
        for (id, task) in ids.iter().zip(tasks) {
            if task.fate == Fate::Unwanted {
                self.unwanted.send(*id).expect("somebody cancels");
            }
        }
    }
}

/// Cancels what is no longer wanted, each as often as it takes to know the outcome.
async fn cancel(queue: Queue, journal: Journal, mut unwanted: mpsc::UnboundedReceiver<Uuid>) {
    while let Some(id) = unwanted.recv().await {
        // Some have been started by then.
        sleep(Duration::from_millis(200)).await;
        let cancelled = loop {
            match queue.cancel(&[id], "no longer wanted").await {
                Ok(cancelled) => break cancelled,
                Err(_) => sleep(Duration::from_millis(50)).await,
            }
        };
        for task in cancelled {
            let how = if task.done { "done" } else { "requested" };
            journal.append_durably(&format!("{id} {how} {}\n", journal::now()));
        }
    }
}
