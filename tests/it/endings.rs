//! How attempts end: verdicts, rows and log rows.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use task_processor::Services;
use task_processor::db::DbError;
use task_processor::queue::{Claimed, Ending, Lease, NewTask, Prunable, Queue, Usage, Verdict};
use task_processor::services::Fence;
use tokio::time::Instant;
use uuid::Uuid;

use crate::support::TestDb;

struct Bench {
    db: TestDb,
    queue: Queue,
}

impl Bench {
    async fn new() -> Self {
        let db = TestDb::new().await;
        let queue = db.queue("test", &[("RETRY_BASE_SECONDS", "60")]);
        Self { db, queue }
    }

    async fn claim(&self, tasks: usize) -> Vec<Claimed> {
        let new: Vec<NewTask> =
            (0..tasks).map(|number| NewTask::new("a", json!({ "number": number }))).collect();
        self.queue.enqueue(&new).await.expect("tasks");
        self.queue.claim(&["a".to_owned()], tasks).await.expect("a claim")
    }

    async fn claim_one(&self) -> Lease {
        self.claim(1).await[0].lease
    }

    async fn end(&self, ending: Ending) -> Verdict {
        self.queue.end(&[ending]).await.expect("a verdict")[0]
    }

    /// One column of the task's row.
    async fn task<T: tokio_postgres::types::FromSqlOwned>(&self, lease: Lease, column: &str) -> T {
        self.db.value(&format!("select {column} from agent_tasks where id = '{}'", lease.id)).await
    }

    /// One column of the task's only log row.
    async fn log<T: tokio_postgres::types::FromSqlOwned>(&self, lease: Lease, column: &str) -> T {
        self.db
            .value(&format!("select {column} from agent_actions_log where context_id = '{}'", lease.id))
            .await
    }
}

#[tokio::test]
async fn completing_stores_the_result_and_one_log_row_with_what_it_cost() {
    let bench = Bench::new().await;
    let lease = bench.claim_one().await;
    let usage = Usage {
        model: Some("model-1".into()),
        input_tokens: Some(12),
        output_tokens: Some(34),
        cost_usd: Some(0.5),
        quality_score: Some(0.9),
    };
    let ending = Ending::complete(lease, json!({ "x": 1 }))
        .after(Duration::from_millis(1234))
        .with_usage(Some(&usage));
    assert_eq!(bench.end(ending).await, Verdict::Accepted);
    assert_eq!(bench.task::<String>(lease, "status::text").await, "completed");
    assert_eq!(bench.task::<Value>(lease, "result_json").await, json!({ "x": 1 }));
    assert!(
        bench
            .task::<bool>(lease, "completed_at is not null and cost_usd = 0.5 and quality_score = 0.9")
            .await
    );
    let expected = "agent_type = 'task_processor' and action_type = 'process_a' and context_type = 'agent_task'
        and latency_ms = 1234 and input_data = '{\"number\": 0}' and output_data = '{\"x\": 1}' and error is null
        and attempt = 1 and model_used = 'model-1' and input_tokens = 12 and output_tokens = 34 and cost_usd = 0.5";
    assert!(bench.log::<bool>(lease, expected).await);
    assert!(bench.log::<bool>(lease, &format!("lease_token = '{}'", lease.token)).await);
}

#[tokio::test]
async fn a_result_of_nothing_says_success() {
    let bench = Bench::new().await;
    let lease = bench.claim_one().await;
    bench.end(Ending::complete(lease, Value::Null)).await;
    assert_eq!(bench.task::<Value>(lease, "result_json").await, json!({ "success": true }));
}

#[tokio::test]
async fn a_retry_waits_spends_one_retry_and_keeps_the_error() {
    let bench = Bench::new().await;
    let lease = bench.claim_one().await;
    assert_eq!(bench.end(Ending::retry(lease, "no luck", Duration::from_mins(2))).await, Verdict::Accepted);
    let expected = "status = 'pending' and retry_count = 1 and error_log = 'no luck' and result_json is null
        and scheduled_for between now() + interval '115 s' and now() + interval '121 s' and lease_expires_at is null";
    assert!(bench.task::<bool>(lease, expected).await);
    assert!(
        bench
            .log::<bool>(lease, "action_type = 'process_a' and error = 'no luck' and output_data is null")
            .await
    );
}

#[tokio::test]
async fn a_failure_for_good_stores_the_error_as_the_result() {
    let bench = Bench::new().await;
    let lease = bench.claim_one().await;
    assert_eq!(bench.end(Ending::fail(lease, "hopeless")).await, Verdict::Accepted);
    assert!(
        bench
            .task::<bool>(lease, "status = 'failed' and error_log = 'hopeless' and completed_at is not null")
            .await
    );
    assert_eq!(bench.task::<Value>(lease, "result_json").await, json!({ "error": "hopeless" }));
}

#[tokio::test]
async fn snoozing_and_releasing_cost_nothing_and_cancelling_ends() {
    let bench = Bench::new().await;
    let leases: Vec<Lease> = bench.claim(3).await.iter().map(|claimed| claimed.lease).collect();
    let endings = [
        Ending::snooze(leases[0], Duration::from_hours(1), "later"),
        Ending::release(leases[1]),
        Ending::cancel(leases[2], "no longer wanted"),
    ];
    assert_eq!(bench.queue.end(&endings).await.expect("verdicts"), [Verdict::Accepted; 3]);
    let later = "status = 'pending' and retry_count = 0 and scheduled_for > now() + interval '59 minutes'";
    assert!(bench.task::<bool>(leases[0], later).await);
    let at_once = "status = 'pending' and retry_count = 0 and scheduled_for <= now() and attempt = 1";
    assert!(bench.task::<bool>(leases[1], at_once).await);
    assert!(bench.task::<bool>(leases[2], "status = 'cancelled' and completed_at is not null").await);
    for (lease, action) in leases.iter().zip(["snooze_a", "release_a", "cancel_a"]) {
        assert_eq!(bench.log::<String>(*lease, "action_type::text").await, action);
    }
}

#[tokio::test]
async fn a_repeated_ending_is_recognised_and_another_attempts_token_is_stale() {
    let bench = Bench::new().await;
    let lease = bench.claim_one().await;
    let stranger = Lease { id: lease.id, token: Uuid::new_v4() };
    assert_eq!(bench.end(Ending::complete(stranger, json!(1))).await, Verdict::Stale);
    assert_eq!(bench.end(Ending::complete(lease, json!(1))).await, Verdict::Accepted);
    assert_eq!(bench.end(Ending::complete(lease, json!(1))).await, Verdict::Already);
    assert_eq!(bench.end(Ending::fail(lease, "late")).await, Verdict::Stale, "it ended otherwise");
    assert_eq!(bench.end(Ending::complete(stranger, json!(1))).await, Verdict::Stale);
    let gone = Lease { id: Uuid::new_v4(), token: Uuid::new_v4() };
    assert_eq!(bench.end(Ending::complete(gone, json!(1))).await, Verdict::Stale);
    assert_eq!(bench.log::<i32>(lease, "attempt").await, 1, "one row, whatever was tried");
}

#[tokio::test]
async fn an_expired_lease_is_good_until_somebody_rescues_the_task() {
    let bench = Bench::new().await;
    let leases: Vec<Lease> = bench.claim(2).await.iter().map(|claimed| claimed.lease).collect();
    bench.db.execute("update agent_tasks set lease_expires_at = now() - interval '1 s'").await;
    assert_eq!(bench.end(Ending::complete(leases[0], json!(1))).await, Verdict::Accepted);
    let rescued = bench.queue.rescue(Duration::ZERO).await.expect("a look");
    assert_eq!((rescued.tasks, rescued.poisoned, rescued.due), (1, 0, true));
    for late in [
        Ending::complete(leases[1], json!(1)),
        Ending::release(leases[1]),
        Ending::retry(leases[1], "late", Duration::ZERO),
    ] {
        assert_eq!(bench.end(late).await, Verdict::Stale);
    }
    let expected = "lease_token is null and status = 'pending' and crash_count = 1 and retry_count = 0 and scheduled_for <= now()";
    assert!(bench.task::<bool>(leases[1], expected).await);
    assert_eq!(bench.log::<String>(leases[1], "action_type::text").await, "recover_a");
}

#[tokio::test]
async fn who_has_just_come_takes_back_only_what_has_been_overdue_for_a_lease() {
    let bench = Bench::new().await;
    bench.claim(1).await;
    bench.db.execute("update agent_tasks set lease_expires_at = now() - interval '30 s'").await;
    let rescued = async |overdue| bench.queue.rescue(overdue).await.expect("a look").tasks;
    assert_eq!(rescued(Duration::from_mins(1)).await, 0, "it has not been overdue for long enough");
    bench.db.execute("update agent_tasks set lease_expires_at = now() - interval '2 days'").await;
    assert_eq!(rescued(Duration::from_hours(24)).await, 0, "the server has not been up for long enough");
    assert_eq!(rescued(Duration::from_millis(1)).await, 1);
}

#[tokio::test]
async fn what_one_look_cannot_take_back_is_looked_for_at_once() {
    let bench = Bench::new().await;
    bench.claim(250).await;
    bench.db.execute("update agent_tasks set lease_expires_at = now() - interval '1 s'").await;
    let rescued = async || bench.queue.rescue(Duration::ZERO).await.expect("a look");
    let first = rescued().await;
    assert_eq!((first.tasks, first.next_expiry), (200, Some(Duration::ZERO)));
    let second = rescued().await;
    assert_eq!((second.tasks, second.next_expiry), (50, None));
}

#[tokio::test]
async fn the_third_crash_in_a_row_is_poison_and_any_other_ending_starts_the_count_anew() {
    let bench = Bench::new().await;
    let mut lease = bench.claim_one().await;
    for crash in 1..=3 {
        bench.db.execute("update agent_tasks set lease_expires_at = now() - interval '1 s'").await;
        let rescued = bench.queue.rescue(Duration::ZERO).await.expect("a look");
        assert_eq!((rescued.tasks, rescued.poisoned), (1, u64::from(crash == 3)), "crash {crash}");
        if crash < 3 {
            let kinds = ["a".to_owned()];
            let suspect = bench.queue.next_due(&kinds).await.expect("an answer").suspect.is_some();
            assert_eq!(suspect, crash == 2);
            let claimed = match crash {
                1 => bench.queue.claim(&kinds, 1).await.expect("a claim").pop(),
                _ => {
                    assert!(
                        bench.queue.claim(&kinds, 1).await.expect("a claim").is_empty(),
                        "it must run alone"
                    );
                    let reserved = bench.queue.reserve_suspect(&kinds).await.expect("an answer");
                    bench.queue.claim_reserved(reserved.expect("a suspect")).await.expect("a claim")
                }
            };
            lease = claimed.expect("the task").lease;
        }
    }
    assert!(bench.task::<bool>(lease, "status = 'failed' and error_log like 'poison%'").await);
    assert_eq!(
        bench.end(Ending::fail(lease, "late")).await,
        Verdict::Stale,
        "it failed without that attempt"
    );
    assert!(bench.task::<bool>(lease, "result_json ->> 'error' like 'poison%' and retry_count = 0").await);

    let lease = bench.claim_one().await;
    bench.db.execute("update agent_tasks set crash_count = 2 where status = 'processing'").await;
    bench.end(Ending::retry(lease, "alive", Duration::ZERO)).await;
    assert_eq!(bench.task::<i32>(lease, "crash_count").await, 0);
}

#[tokio::test]
async fn a_running_task_is_cancelled_by_its_worker_and_is_not_put_back_meanwhile() {
    let bench = Bench::new().await;
    let lease = bench.claim_one().await;
    let asked = bench.queue.cancel(&[lease.id], "enough").await.expect("an answer");
    assert!(!asked[0].done);
    assert!(bench.queue.renew(&mut [lease]).await.expect("a renewal").cancel_requested[&lease.token]);
    assert_eq!(bench.end(Ending::retry(lease, "failed", Duration::ZERO)).await, Verdict::Accepted);
    assert!(bench.task::<bool>(lease, "status = 'cancelled' and completed_at is not null").await);
    assert_eq!(bench.end(Ending::retry(lease, "failed", Duration::ZERO)).await, Verdict::Already);
    assert!(bench.queue.cancel(&[lease.id], "again").await.expect("an answer").is_empty(), "it has ended");
    assert_eq!(bench.queue.redrive(&[lease.id]).await.expect("an answer"), [lease.id]);
    let fresh =
        "status = 'pending' and cancel_requested_at is null and result_json is null and completed_at is null";
    assert!(bench.task::<bool>(lease, fresh).await);
}

#[tokio::test]
async fn content_that_postgres_refuses_is_made_storable_and_never_blocks_the_others() {
    let bench = Bench::new().await;
    let claimed = bench.claim(100).await;
    let endings: Vec<Ending> = claimed
        .iter()
        .enumerate()
        .map(|(number, claimed)| match number {
            7 => Ending::complete(claimed.lease, json!({ "nul\0": "a\0b" })),
            8 => Ending::fail(claimed.lease, "nul \0 in an error"),
            // A number that fits no column of the log: the one thing our own checks let through.
            9 => Ending::complete(claimed.lease, json!("fine"))
                .with_usage(Some(&Usage { cost_usd: Some(1e300), ..Usage::default() })),
            number => Ending::complete(claimed.lease, json!(number)),
        })
        .collect();
    assert_eq!(bench.queue.end(&endings).await.expect("verdicts"), [Verdict::Accepted; 100]);
    assert!(
        bench
            .task::<bool>(claimed[7].lease, "result_json = jsonb_build_object('nul\u{FFFD}', 'a\u{FFFD}b')")
            .await
    );
    assert_eq!(bench.task::<String>(claimed[8].lease, "error_log").await, "nul \u{FFFD} in an error");
    assert!(bench.task::<bool>(claimed[9].lease, "status = 'completed'").await);
    assert_eq!(bench.db.value::<i64>("select count(*) from agent_actions_log").await, 100);
    assert!(!bench.queue.log_is_refused());
}

#[tokio::test]
async fn a_log_that_refuses_rows_does_not_stop_an_ending() {
    let bench = Bench::new().await;
    let claimed = bench.claim(4).await;
    bench
        .db
        .execute(
            "create function refuse() returns trigger language plpgsql as
             $$ begin if new.context_id = (select id from agent_tasks order by id limit 1)
                then raise exception 'no'; end if; return new; end $$;
             create trigger refuse before insert on agent_actions_log for each row execute function refuse()",
        )
        .await;
    let endings: Vec<Ending> =
        claimed.iter().map(|claimed| Ending::complete(claimed.lease, json!({ "kept": true }))).collect();
    assert_eq!(bench.queue.end(&endings).await.expect("verdicts"), [Verdict::Accepted; 4]);
    assert_eq!(
        bench.db.value::<i64>("select count(*) from agent_actions_log").await,
        3,
        "only the refused row is lost"
    );
    let kept = "select bool_and(status = 'completed' and result_json = '{\"kept\": true}') from agent_tasks";
    assert!(bench.db.value::<bool>(kept).await);

    bench.db.execute("drop table agent_actions_log").await;
    let lease = bench.claim_one().await;
    assert_eq!(bench.end(Ending::complete(lease, json!(1))).await, Verdict::Accepted);
    assert!(bench.queue.log_is_refused());
}

#[tokio::test]
async fn a_table_that_refuses_every_ending_costs_its_neighbours_nothing() {
    let bench = Bench::new().await;
    let claimed = bench.claim(3).await;
    bench
        .db
        .execute(
            "create function refuse() returns trigger language plpgsql as
             $$ begin if new.context_json ->> 'number' = '1' then raise exception 'no'; end if; return new; end $$;
             create trigger refuse before update on agent_tasks for each row execute function refuse()",
        )
        .await;
    let endings: Vec<Ending> =
        claimed.iter().map(|claimed| Ending::complete(claimed.lease, json!(1))).collect();
    let verdicts = bench.queue.end(&endings).await.expect("verdicts");
    assert_eq!(verdicts, [Verdict::Accepted, Verdict::Refused, Verdict::Accepted]);
}

#[tokio::test]
async fn a_large_input_is_not_copied_into_the_log() {
    let bench = Bench::new().await;
    let text = "x".repeat(10_000);
    bench.queue.enqueue_one(NewTask::new("a", json!({ "text": text }))).await.expect("a task");
    let claimed = bench.queue.claim(&["a".to_owned()], 1).await.expect("a claim").remove(0);
    bench.end(Ending::complete(claimed.lease, json!(1)).with_oversize(claimed.terms.oversize)).await;
    let input: Value = bench.log(claimed.lease, "input_data").await;
    assert_eq!(input, json!({ "truncated": true, "sizeBytes": 10_012 }));
}

#[tokio::test]
async fn what_was_claimed_without_our_learning_of_it_is_given_back() {
    let bench = Bench::new().await;
    let leases: Vec<Lease> = bench.claim(2).await.iter().map(|claimed| claimed.lease).collect();
    let known = [leases[0].token];
    let now = bench.queue.database_time().await.expect("a time");
    assert_eq!(
        bench.queue.release_unknown(&now, &known).await.expect("a look"),
        0,
        "its reply may still come"
    );
    bench.db.execute("update agent_tasks set last_attempted_at = now() - interval '6 s'").await;
    assert_eq!(bench.queue.release_unknown(&now, &known).await.expect("a look"), 1);
    assert!(bench.task::<bool>(leases[0], "status = 'processing'").await);
    assert!(
        bench.task::<bool>(leases[1], "status = 'pending' and crash_count = 0 and retry_count = 0").await
    );
    assert_eq!(bench.end(Ending::complete(leases[1], json!(1))).await, Verdict::Stale);
}

#[tokio::test]
async fn renewing_extends_the_leases_that_are_ours_and_leaves_out_the_lost() {
    let bench = Bench::new().await;
    let mut leases: Vec<Lease> = bench.claim(2).await.iter().map(|claimed| claimed.lease).collect();
    bench.db.execute("update agent_tasks set lease_expires_at = now() + interval '1 s'").await;
    let lost = leases[1];
    bench.db.execute(&format!("update agent_tasks set lease_token = null where id = '{}'", lost.id)).await;
    let renewed = bench.queue.renew(&mut leases).await.expect("a renewal");
    assert_eq!(renewed.cancel_requested.len(), 1);
    assert!(!renewed.cancel_requested.contains_key(&lost.token));
    let extended = "select count(*) from agent_tasks where lease_expires_at > now() + interval '25 s'";
    assert_eq!(bench.db.value::<i64>(extended).await, 1);
}

#[tokio::test]
async fn rows_that_an_older_processor_left_running_are_adopted_only_while_they_are_young() {
    let bench = Bench::new().await;
    bench
        .db
        .execute(
            "insert into agent_tasks (task_type, agent_type, status, context_json, last_attempted_at, scheduled_for)
             values ('a', 'running', 'processing', '{}', now() - interval '1 minute', now() - interval '2 hours'),
                 ('a', 'young', 'processing', '{}', now() - interval '10 minutes', now() - interval '2 hours'),
                 ('a', 'old', 'processing', '{}', now() - interval '2 hours', now() - interval '3 hours'),
                 ('a', 'no time', 'processing', '{}', null, now() - interval '20 minutes')",
        )
        .await;
    assert_eq!(bench.queue.rescue(Duration::ZERO).await.expect("a look").tasks, 2);
    let adopted =
        "select string_agg(agent_type, ', ' order by agent_type) from agent_tasks where status = 'pending'";
    assert_eq!(bench.db.value::<String>(adopted).await, "no time, young");
}

#[tokio::test]
async fn pruning_deletes_only_what_ended_before_its_time() {
    let bench = Bench::new().await;
    bench
        .db
        .execute(
            "insert into agent_tasks (task_type, agent_type, status, context_json, completed_at, created_at)
             select 'a', status, status, '{}', case when ended then now() - age * interval '1 day' end,
                 now() - interval '1 year'
             from (values ('completed', true), ('failed', true), ('cancelled', true), ('pending', false),
                 ('processing', false)) as statuses (status, ended)
             cross join (values (1), (10)) as ages (age)",
        )
        .await;
    let mut sweep = bench.queue.sweep(Prunable::Tasks, Duration::from_hours(24 * 5)).await.expect("a sweep");
    assert_eq!(bench.queue.prune(&mut sweep).await.expect("a step"), 3);
    assert!(sweep.is_over());
    assert_eq!(bench.db.value::<i64>("select count(*) from agent_tasks").await, 7);
}

#[tokio::test]
async fn rows_that_another_table_refers_to_keep_no_other_from_being_deleted() {
    let bench = Bench::new().await;
    bench
        .db
        .execute(
            "insert into agent_tasks (task_type, agent_type, status, context_json, completed_at)
             select 'a', 'a', 'completed', '{}', now() - interval '10 days' from generate_series(1, 3000);
             create table notes (task_id uuid references agent_tasks);
             insert into notes select id from agent_tasks where ctid in ('(3,1)', '(20,2)', '(20,5)')",
        )
        .await;
    let mut rows = 0;
    for _round in 0..2 {
        let old = Duration::from_hours(24 * 5);
        let mut sweep = bench.queue.sweep(Prunable::Tasks, old).await.expect("a sweep");
        let mut steps = 0;
        while !sweep.is_over() {
            rows += bench.queue.prune(&mut sweep).await.expect("a step");
            steps += 1;
        }
        assert!(steps < 80, "{steps} steps past three rows");
    }
    // Of a page those that come before the first of them go, too.
    let kept: i64 =
        bench.db.value("select count(*) from agent_tasks where (ctid::text::point)[0] in (3, 20)").await;
    assert_eq!((rows + kept, bench.db.value("select count(*) from agent_tasks").await), (3000, kept));
}

#[tokio::test]
async fn an_attempt_without_a_lease_may_not_touch_the_customers_tables() {
    let bench = Bench::new().await;
    let insert = "insert into events (event_type, payload) values ('e', '{}')";
    let in_a_minute = Instant::now() + Duration::from_mins(1);
    for (until, rows) in [(Instant::now(), 0), (in_a_minute, 1)] {
        let fence = Arc::new(Fence::until(until));
        // Too late for one that has fallen.
        fence.extend(in_a_minute);
        let result = Services::new(bench.queue.clone()).fenced(fence).query(insert, &[]).await;
        assert_eq!(matches!(result, Err(DbError::LeaseOver)), rows == 0, "{result:?}");
        assert_eq!(bench.db.value::<i64>("select count(*) from events").await, rows);
    }
}
