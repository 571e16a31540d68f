//! Which tasks a claim takes, in which order, and what it costs.

use std::collections::BTreeSet;

use serde_json::json;
use std::time::Duration;
use task_processor::db::Lane;
use task_processor::queue::{Claimed, NewTask, NotClaimed, Queue};
use uuid::Uuid;

use crate::support::{TestDb, connect};

fn types(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

async fn claim_labels(queue: &Queue, names: &[&str], limit: usize) -> Vec<String> {
    labels_of(queue.claim(&types(names), limit).await.expect("a claim"))
}

fn labels_of(claimed: Vec<Claimed>) -> Vec<String> {
    let label = |claimed: Claimed| {
        claimed.task.expect("a readable task").context["label"].as_str().unwrap_or_default().to_owned()
    };
    claimed.into_iter().map(label).collect()
}

#[tokio::test]
async fn urgent_comes_before_high_medium_and_low_across_types_and_claims_and_the_oldest_first_within() {
    let db = TestDb::new().await;
    db.execute(
        "insert into agent_tasks (task_type, agent_type, priority, scheduled_for, context_json)
         select kind, 'test', priority, now() - age * interval '1 second',
             jsonb_build_object('label', coalesce(priority, 'null') || age)
         from (values ('low', 9), ('medium', 1), (null, 5), ('NORMAL', 3), ('high', 2), ('high', 8), ('urgent', 1),
             ('urgent', 4)) as tasks (priority, age)
         cross join (values ('a')) as kinds (kind)",
    )
    .await;
    db.execute("update agent_tasks set task_type = 'b' where context_json ->> 'label' in ('urgent1', 'high8', 'null5')")
        .await;
    let queue = db.queue("test", &[]);
    let mut order = claim_labels(&queue, &["a", "b"], 3).await;
    assert_eq!(order.len(), 3);
    order.extend(claim_labels(&queue, &["a", "b"], 100).await);
    assert_eq!(order, ["urgent4", "urgent1", "high8", "high2", "null5", "NORMAL3", "medium1", "low9"]);
}

#[tokio::test]
async fn of_many_large_inputs_a_claim_takes_the_first_that_a_worker_has_memory_for() {
    let db = TestDb::new().await;
    db.execute(
        "alter table agent_tasks alter context_json set storage external;
         insert into agent_tasks (task_type, agent_type, scheduled_for, context_json)
         select case when n < 11 then 'a' else 'b' end, 't', now() - n * interval '1 s',
             jsonb_build_object('label', n::text, 'pad', repeat('x', 1000000))
         from generate_series(1, 30) n",
    )
    .await;
    let queue = db.queue("test", &[]);
    let labels = |of: std::ops::RangeInclusive<u32>| of.rev().map(|n| n.to_string()).collect::<Vec<_>>();
    assert_eq!(claim_labels(&queue, &["a", "b"], 100).await, labels(23..=30));
    let few = queue.claim_few(&types(&["a", "b"]), 100, None).await.expect("a claim");
    assert_eq!(labels_of(few), labels(15..=22), "where little was expected, too");
    assert_eq!(claim_labels(&queue, &["a", "b"], 100).await, labels(7..=14));
    assert_eq!(claim_labels(&queue, &["a", "b"], 100).await, labels(1..=6));
}

#[tokio::test]
async fn only_due_tasks_of_known_types_that_are_not_paused_are_claimed() {
    let db = TestDb::new().await;
    db.execute(
        "insert into agent_tasks (task_type, agent_type, scheduled_for, status, context_json)
         values ('a', 't', now() + interval '1 hour', 'pending', '{\"label\": \"future\"}'),
             ('a', 't', 'infinity', 'pending', '{\"label\": \"never\"}'),
             ('a', 't', '-infinity', 'pending', '{\"label\": \"always\"}'),
             ('unknown', 't', now(), 'pending', '{\"label\": \"unknown\"}'),
             ('paused', 't', now(), 'pending', '{\"label\": \"paused\"}'),
             ('a', 't', now(), 'completed', '{\"label\": \"completed\"}'),
             ('a', 't', now(), 'rubbish', '{\"label\": \"rubbish\"}'),
             ('a', 't', now(), 'pending', '{\"label\": \"due\"}')",
    )
    .await;
    let queue = db.queue("test", &[]);
    queue.pause("paused").await.expect("paused");
    assert_eq!(claim_labels(&queue, &["a", "paused"], 100).await, ["always", "due"]);
    let due = queue.next_due(&types(&["a", "paused"])).await.expect("an answer");
    let hour = due.ordinary.expect("the future task").as_secs();
    assert!((3590..=3600).contains(&hour), "{hour} s");
    queue.resume("paused").await.expect("resumed");
    assert_eq!(claim_labels(&queue, &["a", "paused"], 100).await, ["paused"]);
    assert_eq!(queue.next_due(&types(&["nothing"])).await.expect("an answer").soonest(), None);
}

#[tokio::test]
async fn many_claimers_at_once_never_claim_a_task_twice_and_leave_none() {
    let db = TestDb::new().await;
    db.execute(
        "insert into agent_tasks (task_type, agent_type, context_json)
         select 'a', 't', '{}' from generate_series(1, 1000)",
    )
    .await;
    let claimers: Vec<_> = (0..4)
        .map(|number| {
            let queue = db.queue(&format!("claimer {number}"), &[]);
            tokio::spawn(async move {
                let mut ids = Vec::new();
                while queue.next_due(&types(&["a"])).await.expect("an answer").ordinary.is_some() {
                    let claimed = queue.claim(&types(&["a"]), 10).await.expect("a claim");
                    ids.extend(claimed.iter().map(|claimed| claimed.lease.id));
                }
                ids
            })
        })
        .collect();
    let mut all = Vec::new();
    for claimer in claimers {
        all.extend(claimer.await.expect("no panic"));
    }
    assert_eq!(all.len(), 1000);
    assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), 1000);
}

#[tokio::test]
async fn a_task_is_claimed_by_id_unless_it_is_unknown_ended_paused_future_or_running() {
    let db = TestDb::new().await;
    let queue = db.queue("test", &[]);
    let kinds = types(&["a", "paused"]);
    let add = async |kind: &str, delay| {
        let task = NewTask { delay: Duration::from_secs(delay), ..NewTask::new(kind, json!({})) };
        queue.enqueue_one(task).await.expect("a task").id
    };
    let (due, future, unknown, paused) =
        (add("a", 0).await, add("a", 60).await, add("b", 0).await, add("paused", 0).await);
    queue.pause("paused").await.expect("paused");
    let refusal = async |id, early| queue.claim_one(&kinds, id, early).await.expect("an answer").err();
    assert_eq!(refusal(unknown, true).await, Some(NotClaimed::Unroutable("b".into())));
    assert_eq!(refusal(paused, true).await, Some(NotClaimed::Paused("paused".into())));
    assert_eq!(refusal(future, false).await, Some(NotClaimed::NotDue));
    assert_eq!(refusal(uuid::Uuid::new_v4(), true).await, Some(NotClaimed::NotPending));
    assert_eq!(refusal(due, false).await, None);
    assert_eq!(refusal(due, true).await, Some(NotClaimed::NotPending), "it runs already");
    assert_eq!(refusal(future, true).await, None, "now means now");
}

#[tokio::test]
async fn where_little_was_expected_a_claim_takes_the_same() {
    let db = TestDb::new().await;
    db.execute(
        "insert into agent_tasks (task_type, agent_type, priority, scheduled_for, context_json)
         select kind, 't', priority, now() - age * interval '1 minute', jsonb_build_object('label', kind || priority || age)
         from unnest('{a,b,unknown,paused}'::text[]) as kinds (kind),
             unnest('{low,medium,high,urgent}'::text[]) as priorities (priority),
             unnest('{-1,1,2}'::integer[]) as ages (age)",
    )
    .await;
    let (queue, kinds) = (db.queue("test", &[]), types(&["a", "b", "paused"]));
    queue.pause("paused").await.expect("paused");
    let minute = Duration::from_mins(1);
    let recent = queue.claim_few(&kinds, 100, Some(minute + minute / 2)).await.expect("a claim");
    let expected = ["aurgent1", "burgent1", "ahigh1", "bhigh1", "amedium1", "bmedium1", "alow1", "blow1"];
    let mut recent = labels_of(recent);
    recent.chunks_mut(2).for_each(<[String]>::sort);
    assert_eq!(recent, expected);
    let first = labels_of(queue.claim_few(&kinds, 3, None).await.expect("a claim"));
    assert_eq!(first.len(), 3);
    assert!(
        first[..2].iter().all(|label| label.ends_with("urgent2")) && first[2].ends_with("high2"),
        "{first:?}"
    );

    db.execute(
        "insert into agent_tasks (task_type, agent_type, context_json) select 'a', 't', '{}' from generate_series(1, 190)",
    )
    .await;
    let next = labels_of(queue.claim_few(&kinds, 3, None).await.expect("a claim"));
    assert_eq!(next.len(), 3);
    assert!(next[0].ends_with("high2"), "in order, also where more is due than was expected: {next:?}");
    let holder = connect(&db.direct_url()).await;
    holder
        .batch_execute("begin; select 1 from agent_tasks where task_type = 'a' and context_json = '{}' limit 5 for update")
        .await
        .expect("five are held");
    db.execute("delete from agent_tasks where task_type = 'b' and status = 'pending'").await;
    assert_eq!(queue.claim_few(&kinds, 300, None).await.expect("a claim").len(), 190 - 5 + 1);
}

#[tokio::test]
async fn a_task_that_is_put_off_while_a_claim_is_under_way_is_not_claimed() {
    let db = TestDb::new().await;
    let ids: Vec<Uuid> = db
        .value(
            "with added as (
                 insert into agent_tasks (task_type, agent_type, scheduled_for, context_json)
                 select 'a', 't', now() - n * interval '1 minute', '{}' from generate_series(1, 2) n
                 returning id, scheduled_for)
             select array_agg(id order by scheduled_for) from added",
        )
        .await;
    let (first, second) = (ids[0], ids[1]);
    // Between the first task and the second the claim waits.
    db.execute(&format!(
        "create function wait() returns trigger language plpgsql as
             'begin perform pg_advisory_xact_lock(42); return new; end';
         create trigger wait before update on agent_tasks for each row when (new.id = '{first}') execute function wait()"
    ))
    .await;
    let holder = connect(&db.direct_url()).await;
    holder.batch_execute("select pg_advisory_lock(42)").await.expect("a lock");
    let queue = db.queue("test", &[]);
    let claim = tokio::spawn(async move { queue.claim_few(&types(&["a"]), 10, None).await });
    db.eventually(
        "the claim waits",
        "select exists (select from pg_locks where locktype = 'advisory' and not granted)",
    )
    .await;
    db.execute(&format!(
        "update agent_tasks set scheduled_for = now() + interval '1 hour' where id = '{second}'"
    ))
    .await;
    holder.batch_execute("select pg_advisory_unlock(42)").await.expect("unlocked");
    let claimed = claim.await.expect("no panic").expect("a claim");
    assert_eq!(claimed.iter().map(|claimed| claimed.lease.id).collect::<Vec<_>>(), [first]);
    assert!(db.task_is(second, "status = 'pending' and attempt = 0").await);
}

#[tokio::test]
async fn a_connection_that_is_given_up_in_the_middle_of_a_query_is_not_used_again() {
    let db = TestDb::new().await;
    let queue = db.queue("test", &[]);
    let database = queue.database();
    let slow = database.query(Lane::Work, Duration::from_millis(100), "select pg_sleep(20)::text", &[]).await;
    assert!(slow.expect_err("too slow").is_transient());
    let began = tokio::time::Instant::now();
    database.query(Lane::Work, Duration::from_secs(5), "select 1", &[]).await.expect("a fresh connection");
    assert!(began.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn heads_of_the_queue_that_others_hold_do_not_hide_the_rest() {
    let db = TestDb::new().await;
    db.execute(
        "insert into agent_tasks (task_type, agent_type, scheduled_for, context_json)
         select 'a', 't', now() - interval '1 day' + number * interval '1 s', '{}' from generate_series(1, 2000) number",
    )
    .await;
    let stranger = connect(&db.direct_url()).await;
    for (held, got) in [(150, 10), (1_500, 10), (1_960, 10), (2_000, 0)] {
        let lock = format!(
            "begin; select from agent_tasks where status = 'pending' order by scheduled_for limit {held} for update"
        );
        stranger.batch_execute(&lock).await.expect("locks");
        let claimed = db.queue("test", &[]).claim(&types(&["a"]), 10).await.expect("a claim");
        assert_eq!(claimed.len(), got, "{held} are held");
        let ids: BTreeSet<_> = claimed.iter().map(|claimed| claimed.lease.id).collect();
        assert_eq!(ids.len(), got);
        stranger.batch_execute("rollback").await.expect("no locks");
    }
}

#[tokio::test]
async fn no_look_at_the_queue_reads_the_finished_tasks() {
    let db = TestDb::new().await;
    db.execute(
        "insert into agent_tasks (task_type, agent_type, status, crash_count, context_json)
         select 'a', 't', case when number > 60 then 'completed' else 'pending' end, case when number > 55 then 2 else 0 end,
             '{}' from generate_series(1, 20060) number",
    )
    .await;
    db.execute("vacuum analyze agent_tasks").await;
    // Counted when a connection ends.
    let scans = "select seq_scan from pg_stat_user_tables where relname = 'agent_tasks'";
    let before: i64 = db.value(scans).await;
    let queue = db.queue("test", &[]);
    let kinds = types(&["a", "b"]);
    assert!(queue.next_due(&kinds).await.expect("an answer").suspect.is_some());
    assert_eq!(queue.count_due(&kinds).await.expect("a number"), 60);
    assert_eq!(queue.depths().await.expect("depths")[0].tasks, 60);
    assert_eq!(queue.claim(&kinds, 10).await.expect("a claim").len(), 10);
    let suspect = queue.reserve_suspect(&kinds).await.expect("an answer").expect("a suspect");
    assert!(queue.claim_reserved(suspect).await.expect("a claim").is_some());
    queue.database().close();
    let gone = "select not exists (select from pg_stat_activity where datname = current_database()
        and backend_type = 'client backend' and pid <> pg_backend_pid())";
    db.eventually("its connections are closed", gone).await;
    assert_eq!(db.value::<i64>(scans).await, before);
}

#[tokio::test]
async fn a_row_set_to_pending_by_hand_is_free_of_an_old_request_to_cancel() {
    let db = TestDb::new().await;
    let queue = db.queue("test", &[]);
    queue.enqueue_one(NewTask::new("a", json!({}))).await.expect("a task");
    db.execute("update agent_tasks set cancel_requested_at = now()").await;
    let mut lease = queue.claim(&types(&["a"]), 1).await.expect("a claim")[0].lease;
    let renewed = queue.renew(std::slice::from_mut(&mut lease)).await.expect("a renewal");
    assert_eq!(renewed.cancel_requested.get(&lease.token), Some(&false));
}

#[tokio::test]
async fn a_value_that_cannot_be_sent_is_no_reason_to_try_again() {
    let db = TestDb::new().await;
    let queue = db.queue("test", &[]);
    let number = 1_i32;
    let params = [(&number as _, tokio_postgres::types::Type::TEXT)];
    let result = queue.database().query(Lane::Shared, Duration::from_secs(5), "select $1", &params).await;
    let error = result.expect_err("an integer is no text");
    assert!(!error.is_transient() && !error.is_disconnect(), "{error}");
}

#[tokio::test]
async fn one_key_makes_one_task_whoever_adds_it_how_often_and_in_which_order() {
    let db = TestDb::new().await;
    db.execute(
        "create function refuse() returns trigger language plpgsql as $$ begin raise exception 'no update'; end $$;
         create trigger refuse before update on agent_tasks for each row execute function refuse()",
    )
    .await;
    let adders: Vec<_> = (0..6_usize)
        .map(|adder| {
            let queue = db.queue(&format!("adder {adder}"), &[]);
            tokio::spawn(async move {
                for round in 0..10 {
                    let mut tasks: Vec<NewTask> = (0..20)
                        .map(|key| NewTask {
                            unique_key: Some(format!("{round}-{key}")),
                            ..NewTask::new("a", json!({}))
                        })
                        .collect();
                    tasks.rotate_left(adder * 3);
                    tasks.push(NewTask::new("a", json!({})));
                    let added = queue.enqueue(&tasks).await.expect("no deadlock");
                    assert_eq!(added.len(), 21);
                    assert!(!added[20].existed, "a task without a key is always new");
                }
            })
        })
        .collect();
    for adder in adders {
        adder.await.expect("no panic");
    }
    let keys =
        "select count(*) filter (where unique_key is not null) = 200 and count(*) = 260 from agent_tasks";
    assert!(db.value::<bool>(keys).await);
}
