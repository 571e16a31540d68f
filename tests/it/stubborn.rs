//! Rows that others hold, and rows that the database refuses: what they cost their neighbours.

use std::time::Duration;

use serde_json::json;
use task_processor::db::{Database, DbError, Lane};
use task_processor::queue::{Ending, Lease, NewTask, Queue, Usage, Verdict};

use crate::support::{TestDb, connect};

struct Bench {
    db: TestDb,
    queue: Queue,
}

impl Bench {
    async fn new() -> Self {
        let db = TestDb::new().await;
        let queue = db.queue("test", &[]);
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

/// A trigger that refuses to let the row with this number change.
const REFUSE: &str = "
    create function refuse() returns trigger language plpgsql as
    $$ begin if new.context_json ->> 'number' = '0' then raise exception 'no'; end if; return new; end $$;
    create trigger refuse before update on agent_tasks for each row execute function refuse();";

#[tokio::test]
async fn a_row_that_cannot_be_claimed_costs_its_neighbours_nothing() {
    for refusal in
        [REFUSE, "alter table agent_tasks add check (status = 'pending' or context_json ->> 'number' <> '0')"]
    {
        let bench = Bench::new().await;
        bench.enqueue(10).await;
        // The first of them all, in every way.
        bench
            .db
            .execute("update agent_tasks set priority = 'urgent' where context_json ->> 'number' = '0'")
            .await;
        bench.db.execute(refusal).await;
        let kinds = ["a".to_owned()];
        assert_eq!(
            bench.queue.claim(&kinds, 1).await.expect("a claim").len(),
            1,
            "it is not all that is picked"
        );
        assert_eq!(bench.queue.claim(&kinds, 10).await.expect("a claim").len(), 8);
        assert_eq!(
            bench.queue.next_due(&kinds).await.expect("an answer").soonest(),
            None,
            "there is time to sleep"
        );
        assert_eq!(
            bench.db.value::<i64>("select count(*) from agent_tasks where status = 'pending'").await,
            1
        );
    }
}

#[tokio::test]
async fn a_row_that_cannot_be_rescued_costs_its_neighbours_nothing() {
    let bench = Bench::new().await;
    bench.claim(10).await;
    bench.db.execute("update agent_tasks set lease_expires_at = now() - interval '1 s'").await;
    bench.db.execute(REFUSE).await;
    let rescued = bench.queue.rescue(Duration::ZERO).await.expect("a look");
    assert_eq!((rescued.tasks, rescued.due), (9, true));
    let rescued = bench.queue.rescue(Duration::ZERO).await.expect("a look");
    assert_eq!(rescued.tasks, 0);
    assert_eq!(bench.db.value::<i64>("select count(*) from agent_actions_log").await, 9);
}

#[tokio::test]
async fn counters_at_their_end_stand_still() {
    let bench = Bench::new().await;
    bench.enqueue(2).await;
    bench.db.execute("update agent_tasks set attempt = 2147483647, retry_count = 2147483647").await;
    let claimed = bench.queue.claim(&["a".to_owned()], 2).await.expect("a claim");
    assert_eq!(claimed.len(), 2);
    let ending = Ending::retry(claimed[0].lease, "no luck", Duration::ZERO);
    assert_eq!(bench.queue.end(&[ending]).await.expect("a verdict"), [Verdict::Accepted]);
    bench
        .db
        .execute("update agent_tasks set crash_count = 2147483647, lease_expires_at = now() - interval '1 s' where status = 'processing'")
        .await;
    assert_eq!(bench.queue.rescue(Duration::ZERO).await.expect("a look").poisoned, 1);
}

#[tokio::test]
async fn an_input_of_many_megabytes_is_not_carried_about_and_its_task_fails_alone() {
    let bench = Bench::new().await;
    bench.enqueue(2).await;
    bench
        .db
        .execute("update agent_tasks set context_json = jsonb_build_object('x', repeat('x', 20000000)) where context_json ->> 'number' = '0'")
        .await;
    let claimed = bench.queue.claim(&["a".to_owned()], 2).await.expect("a claim");
    let errors: Vec<String> =
        claimed.iter().filter_map(|claimed| claimed.task.as_ref().err()).map(ToString::to_string).collect();
    assert_eq!(
        errors,
        ["column context_json cannot be read: 20000009 bytes, at most 16777216 can be worked on"]
    );
    assert_eq!(
        (claimed.len(), claimed.iter().filter_map(|claimed| claimed.terms.oversize).sum::<i64>()),
        (2, 20_000_009)
    );
}

#[tokio::test]
async fn a_log_that_refuses_a_row_costs_the_task_neither_its_result_nor_its_error() {
    let bench = Bench::new().await;
    bench
        .db
        .execute(
            "alter table agent_actions_log alter column error type varchar(30);
             alter table agent_actions_log add check (output_data is null)",
        )
        .await;
    let leases = bench.claim(2).await;
    let usage = Usage { cost_usd: Some(0.5), ..Usage::default() };
    let error = "an error that is longer than thirty characters";
    let endings = [
        Ending::complete(leases[0], json!({ "done": true })).with_usage(Some(&usage)),
        Ending::fail(leases[1], error),
    ];
    assert_eq!(bench.queue.end(&endings).await.expect("verdicts"), [Verdict::Accepted; 2]);
    let whole = "result_json = '{\"done\": true}' and cost_usd = 0.5 and status = 'completed'";
    assert!(bench.db.task_is(leases[0].id, whole).await);
    assert!(
        bench
            .db
            .task_is(leases[1].id, &format!("error_log = '{error}' and result_json ->> 'error' = error_log"))
            .await
    );
    assert!(bench.queue.log_is_refused());
}

#[tokio::test]
async fn a_cost_that_fits_no_column_costs_the_task_neither_its_result_nor_its_log_row() {
    let bench = Bench::new().await;
    let leases = bench.claim(1).await;
    let usage = Usage { cost_usd: Some(1e300), ..Usage::default() };
    let ending = Ending::complete(leases[0], json!({ "done": true })).with_usage(Some(&usage));
    assert_eq!(bench.queue.end(&[ending]).await.expect("a verdict"), [Verdict::Accepted]);
    assert!(bench.db.task_is(leases[0].id, "result_json = '{\"done\": true}' and cost_usd is null").await);
    let logged = "select count(*) from agent_actions_log where output_data = '{\"done\": true}' and input_data is not null";
    assert_eq!(bench.db.value::<i64>(logged).await, 1);
}

#[tokio::test]
async fn neither_a_task_nor_an_error_quotes_the_row_that_was_refused() {
    let bench = Bench::new().await;
    bench.db.execute("alter table agent_tasks add check (result_json ->> 'secret' is null)").await;
    let leases = bench.claim(1).await;
    let ending = Ending::complete(leases[0], json!({ "secret": "hunter2" }));
    assert_eq!(bench.queue.end(&[ending]).await.expect("a verdict"), [Verdict::Accepted]);
    let note =
        "result_json = '{\"note\": \"the result could not be stored: the database refused it (23514)\"}'";
    assert!(bench.db.task_is(leases[0].id, note).await);

    let insert =
        "insert into agent_tasks (task_type, agent_type, context_json) values ('hunter2', 'x', null)";
    let error = bench.queue.database().query(Lane::Shared, Duration::from_secs(5), insert, &[]).await;
    let error = anyhow::Error::from(error.expect_err("a null"));
    assert_eq!(
        format!("{error:#}"),
        "ERROR: null value in column \"context_json\" of relation \"agent_tasks\" violates not-null constraint (23502)"
    );
}

#[tokio::test]
async fn a_statement_that_nobody_waits_for_is_stopped_on_the_server_and_no_outage() {
    let db = TestDb::new().await;
    // Directly: through a pooler nothing is cancelled.
    let config = db.config(&[("DATABASE_URL", &db.direct_url())]);
    let database = Database::new(&config.database).expect("a usable URL");
    database.query(Lane::Shared, Duration::from_secs(5), "select 1", &[]).await.expect("an answer");
    let slow = "select pg_sleep(120)::text";
    let result = database.query(Lane::Work, Duration::from_millis(200), slow, &[]).await;
    assert!(matches!(result, Err(DbError::Timeout(_))));
    assert!(database.unbroken_for().is_some(), "the server is there, only slow");
    let stopped = "select not exists (
        select from pg_stat_activity where datname = current_database() and query like '%pg_sleep(120)::%'
            and state = 'active' and pid <> pg_backend_pid())";
    db.eventually("the statement is stopped", stopped).await;
}

#[tokio::test]
async fn no_wait_is_longer_than_a_year() {
    let bench = Bench::new().await;
    let leases = bench.claim(2).await;
    let endings = [
        Ending::snooze(leases[0], Duration::MAX, "for ever"),
        Ending::retry(leases[1], "no luck", Duration::MAX),
    ];
    assert_eq!(bench.queue.end(&endings).await.expect("verdicts"), [Verdict::Accepted; 2]);
    for lease in leases {
        let in_a_year = "scheduled_for between now() + interval '364 days' and now() + interval '367 days'";
        assert!(bench.db.task_is(lease.id, in_a_year).await);
    }
}
