//! All verbs at once on the same few rows, and a database whose clock is set.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use task_processor::config::Config;
use task_processor::db::Database;
use task_processor::queue::{Claimed, Ending, Queue, Verdict};
use task_processor::telemetry::metrics::Metrics;
use tokio::time::Instant;
use uuid::Uuid;

use crate::random::Random;
use crate::server::Server;

/// A server in a directory of its own.
struct Place {
    dir: PathBuf,
    server: Server,
    url: String,
}

impl Place {
    async fn new(name: &str) -> Self {
        let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("chaos-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&dir).expect("a directory");
        let server = Server::start(&dir).await;
        let url = server.url().await;
        Self { dir, server, url }
    }

    fn queue(&self, worker: &str) -> Queue {
        let config = Config::from_vars([("DATABASE_URL", &self.url)]).expect("valid");
        let database = Database::new(&config.database).expect("a usable URL");
        Queue::new(database, worker, &config.worker, Arc::new(Metrics::new()))
    }

    async fn add(&self, tasks: usize) {
        let sql = format!(
            "insert into agent_tasks (task_type, agent_type, context_json)
             select 'echo', 'test', '{{}}' from generate_series(1, {tasks}) returning id"
        );
        assert_eq!(self.server.rows(&sql).await.expect("added").len(), tasks);
    }

    async fn forget(self) {
        self.server.forget().await;
        std::fs::remove_dir_all(&self.dir).expect("ours");
    }
}

async fn claim(queue: &Queue, limit: usize) -> Vec<Claimed> {
    queue.claim(&["echo".to_owned()], limit).await.expect("an answer")
}

/// What one of the clients does, again and again: any verb, on whatever rows it meets, in whatever order it has them.
async fn torment(queue: Queue, mut random: Random, ids: Vec<Uuid>, until: Instant) -> usize {
    let mut leases = Vec::new();
    let mut done = 0;
    while Instant::now() < until {
        let mut some = ids.clone();
        random.shuffle(&mut some);
        some.truncate(20);
        match random.index(7) {
            0 | 1 => leases.extend(claim(&queue, 20).await.into_iter().map(|claimed| claimed.lease)),
            2 => {
                queue.renew(&mut leases.clone()).await.expect("an answer");
            }
            3 => {
                random.shuffle(&mut leases);
                let endings: Vec<Ending> = leases.drain(..).map(Ending::release).collect();
                queue.end(&endings).await.expect("an answer");
            }
            4 => {
                queue.cancel(&some, "tormented").await.expect("an answer");
            }
            5 => {
                queue.redrive(&some).await.expect("an answer");
            }
            _ => {
                queue.rescue(Duration::ZERO).await.expect("an answer");
            }
        }
        done += 1;
    }
    done
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn eight_clients_with_all_verbs_on_the_same_rows_never_deadlock() {
    let place = Place::new("torment").await;
    place.add(50).await;
    let rows = place.server.rows("select id from agent_tasks").await.expect("an answer");
    let ids: Vec<Uuid> = rows.iter().map(|row| row.get(0)).collect();
    let until = Instant::now() + Duration::from_secs(4);
    let clients: Vec<_> = (0..8)
        .map(|number| {
            let (queue, random) = (place.queue(&format!("w{number}")), Random::new(number));
            tokio::spawn(torment(queue, random, ids.clone(), until))
        })
        .collect();
    // Their leases are over all the time.
    while Instant::now() < until {
        let sql = "update agent_tasks set lease_expires_at = now() - interval '1 s' where id in (
                select id from agent_tasks where status = 'processing' order by id limit 10 for update skip locked
            ) returning id";
        place.server.rows(sql).await.expect("an answer");
    }
    for client in clients {
        assert!(client.await.expect("no verb fails") > 10, "it came to nothing");
    }
    let deadlocks = "select deadlocks from pg_stat_database where datname = current_database()";
    assert_eq!(place.server.value::<i64>(deadlocks).await, Some(0));
    assert!(!place.server.stop().await.contains("deadlock detected"));
    place.forget().await;
}

/// What stands in the rows is all that a clock is compared with, so a step of the clock is a step of the rows the other way.
async fn step_the_clock(place: &Place, by: &str) {
    let sql = format!(
        "update agent_tasks set lease_expires_at = lease_expires_at - interval '{by}',
             scheduled_for = scheduled_for - interval '{by}' returning id"
    );
    assert!(!place.server.rows(&sql).await.expect("an answer").is_empty());
}

#[tokio::test]
async fn a_clock_that_jumps_ten_minutes_costs_second_starts_or_time_and_no_task() {
    let place = Place::new("clock").await;
    let (ours, theirs) = (place.queue("ours"), place.queue("theirs"));
    place.add(500).await;
    let first = claim(&ours, 500).await;
    assert_eq!(first.len(), 500);

    step_the_clock(&place, "-10 minutes").await;
    assert_eq!(ours.rescue(Duration::ZERO).await.expect("an answer").tasks, 0, "back: leases last longer");
    step_the_clock(&place, "10 minutes").await;
    assert_eq!(ours.rescue(Duration::ZERO).await.expect("an answer").tasks, 0, "as before");

    step_the_clock(&place, "10 minutes").await;
    let mut looks = Vec::new();
    while let found @ 1.. = theirs.rescue(Duration::ZERO).await.expect("an answer").tasks {
        looks.push(found);
    }
    assert_eq!(looks, [200, 200, 100], "forward: all leases are over, and taken back in steps");
    let second = claim(&theirs, 500).await;
    assert_eq!(second.len(), 500, "none is lost");
    let complete = |claimed: &[Claimed]| -> Vec<Ending> {
        claimed.iter().map(|claimed| Ending::complete(claimed.lease, serde_json::Value::Null)).collect()
    };
    let late = ours.end(&complete(&first)).await.expect("an answer");
    assert!(late.iter().all(|verdict| *verdict == Verdict::Stale), "who was overtaken writes nothing");
    let in_time = theirs.end(&complete(&second)).await.expect("an answer");
    assert!(in_time.iter().all(|verdict| *verdict == Verdict::Accepted));
    let done = "select bool_and(status = 'completed' and attempt = 2 and retry_count = 0) from agent_tasks";
    assert_eq!(place.server.value(done).await, Some(true));
    place.forget().await;
}
