//! Rows that others hold, and rows that the database refuses: what they cost their neighbours.

use std::sync::Arc;

use serde_json::json;
use task_processor::db::Database;
use task_processor::queue::{Ending, Lease, NewTask, Queue, Verdict};
use task_processor::telemetry::metrics::Metrics;

use crate::support::{TestDb, connect};

struct Bench {
    db: TestDb,
    queue: Queue,
}

impl Bench {
    async fn new() -> Self {
        let db = TestDb::new().await;
        let config = db.config(&[]);
        let database = Database::new(&config.database).expect("a usable URL");
        let queue = Queue::new(database, "test", &config.worker, Arc::new(Metrics::new()));
        Self { db, queue }
    }

    async fn enqueue(&self, tasks: usize) {
        let new: Vec<NewTask> =
            (0..tasks).map(|number| NewTask::new("a", json!({ "number": number }))).collect();
        self.queue.enqueue(&new).await.expect("tasks");
    }

    async fn claim(&self, tasks: usize) -> Vec<Lease> {
        self.enqueue(tasks).await;
        let claimed = self.queue.claim(&["a".to_owned()], tasks).await.expect("a claim");
        claimed.iter().map(|claimed| claimed.lease).collect()
    }

    async fn end(&self, leases: &[Lease]) -> Vec<Verdict> {
        let endings: Vec<Ending> =
            leases.iter().map(|lease| Ending::complete(*lease, json!({ "done": true }))).collect();
        self.queue.end(&endings).await.expect("verdicts")
    }
}

#[tokio::test]
async fn a_row_that_somebody_holds_keeps_neither_endings_nor_renewals_of_the_others_waiting() {
    let bench = Bench::new().await;
    let mut leases = bench.claim(3).await;
    leases.sort_unstable();
    let stranger = connect(&bench.db.direct_url()).await;
    let lock = format!("begin; select from agent_tasks where id = '{}' for update", leases[1].id);
    stranger.batch_execute(&lock).await.expect("a lock");

    let renewed = bench.queue.renew(&mut leases).await.expect("a renewal");
    let extended = |lease: &Lease| renewed.cancel_requested.contains_key(&lease.token);
    assert_eq!([extended(&leases[0]), extended(&leases[1]), extended(&leases[2])], [true, false, true]);
    assert_eq!(renewed.locked, [leases[1].token].into());
    assert_eq!(bench.end(&leases).await, [Verdict::Accepted, Verdict::Locked, Verdict::Accepted]);
    assert_eq!(bench.end(&leases).await, [Verdict::Already, Verdict::Locked, Verdict::Already]);

    stranger.batch_execute("rollback").await.expect("no lock");
    assert_eq!(bench.queue.renew(&mut leases[1..2]).await.expect("a renewal").cancel_requested.len(), 1);
    assert_eq!(bench.end(&leases[1..2]).await, [Verdict::Accepted]);
}

#[tokio::test]
async fn a_foreign_key_to_a_task_is_in_nobodys_way() {
    let bench = Bench::new().await;
    bench.enqueue(1).await;
    let stranger = connect(&bench.db.direct_url()).await;
    stranger.batch_execute("begin; select from agent_tasks for key share").await.expect("a lock");
    let claimed = bench.queue.claim(&["a".to_owned()], 1).await.expect("a claim");
    let mut leases: Vec<Lease> = claimed.iter().map(|claimed| claimed.lease).collect();
    assert_eq!(leases.len(), 1);
    assert_eq!(bench.queue.renew(&mut leases).await.expect("a renewal").cancel_requested.len(), 1);
    assert_eq!(bench.end(&leases).await, [Verdict::Accepted]);
    assert_eq!(bench.queue.redrive(&[leases[0].id]).await.expect("an answer").len(), 1);
    assert_eq!(bench.queue.cancel(&[leases[0].id], "enough").await.expect("an answer").len(), 1);
}

#[tokio::test]
async fn an_update_that_a_trigger_swallows_is_refused_and_not_asked_for_again() {
    let bench = Bench::new().await;
    let leases = bench.claim(1).await;
    bench
        .db
        .execute(
            "create function swallow() returns trigger language plpgsql as $$ begin return null; end $$;
             create trigger swallow before update on agent_tasks for each row execute function swallow()",
        )
        .await;
    assert_eq!(bench.end(&leases).await, [Verdict::Refused]);
}
