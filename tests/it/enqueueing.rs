//! Adding tasks: from many callers at once, by a connection of theirs, by SQL.

use std::time::Duration;

use chrono::{DateTime, Utc};
use futures_util::future::{join_all, poll_immediate};
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use serde_json::json;
use task_processor::db;
use task_processor::db::Database;
use task_processor::queue::{NewTask, QueueError, enqueue_in};
use tokio_postgres::error::SqlState;
use uuid::Uuid;

use crate::support::{TestDb, connect};

fn task() -> NewTask {
    NewTask::new("a", json!({}))
}

#[tokio::test]
async fn calls_at_the_same_time_share_statements() {
    let db = TestDb::new().await;
    let queue = db.queue("test", &[]);
    let added = join_all((0..60).map(|_| queue.enqueue_one(task()))).await;
    let mut ids: Vec<Uuid> = added.into_iter().map(|added| added.expect("a task").id).collect();
    ids.sort_unstable();
    ids.dedup();
    let stored: Vec<Uuid> = db.value("select array_agg(id order by id) from agent_tasks").await;
    assert_eq!(ids, stored, "each caller learns of a task of its own");
    let transactions: i64 = db.value("select count(distinct xmin::text) from agent_tasks").await;
    assert!(transactions <= 3, "{transactions} transactions for calls made in one breath");
}

#[tokio::test]
async fn a_row_that_a_trigger_leaves_out_is_an_error_for_its_caller_alone() {
    let db = TestDb::new().await;
    db.execute(
        "create function leave_out() returns trigger language plpgsql as
         $$ begin return case when new.context_json ? 'unwanted' then null else new end; end $$;
         create trigger leave_out before insert on agent_tasks for each row execute function leave_out()",
    )
    .await;
    let queue = db.queue("test", &[]);
    let numbered = |n: usize| {
        let context = if n.is_multiple_of(3) { json!({ "unwanted": n }) } else { json!({ "n": n }) };
        NewTask::new("a", context)
    };
    let added = join_all((0..9).map(|n| queue.enqueue_one(numbered(n)))).await;
    for (n, added) in added.into_iter().enumerate() {
        if n.is_multiple_of(3) {
            assert!(matches!(added, Err(QueueError::Invalid(invalid)) if invalid.field == "task"), "{n}");
        } else {
            let id = added.expect("a task").id;
            assert!(db.task_is(id, &format!("context_json = '{{\"n\": {n}}}'")).await, "{n}");
        }
    }
    let several = queue.enqueue(&[numbered(1), numbered(3)]).await;
    assert!(matches!(several, Err(QueueError::Invalid(invalid)) if invalid.field == "task"));
}

/// Tasks with an odd field here and there, right and wrong.
fn odd_task() -> impl Strategy<Value = NewTask> {
    let odd_text = || prop_oneof!["\\PC{0,120}", "[\\x00-\\x1f\u{feff}\u{ffff} ]{0,5}"];
    let text = || prop_oneof![6 => Just("a".to_owned()), 1 => odd_text()];
    let number = || {
        select(vec![
            None,
            None,
            None,
            None,
            Some(i32::MIN),
            Some(-1),
            Some(0),
            Some(1),
            Some(30),
            Some(i32::MAX),
        ])
    };
    let odd_time = select(vec![
        DateTime::<Utc>::MIN_UTC,
        DateTime::<Utc>::MAX_UTC,
        DateTime::from_timestamp(-210_895_056_001, 0).expect("before Postgres's first"),
        DateTime::UNIX_EPOCH,
    ]);
    let odd_delay = select(vec![Duration::from_nanos(1), Duration::from_hours(24 * 365), Duration::MAX]);
    let (time, delay) =
        (option::weighted(0.2, odd_time), prop_oneof![4 => Just(Duration::ZERO), 1 => odd_delay]);
    let known = select(vec!["urgent", "high", "medium", "low"]).prop_map(str::to_owned);
    let priority = prop_oneof![6 => known, 1 => odd_text()];
    ((text(), text(), priority, option::of(text())), (number(), number()), (time, delay), text()).prop_map(
        |(
            (task_type, agent_type, priority, unique_key),
            (max_retries, timeout_seconds),
            (scheduled_for, delay),
            input,
        )| {
            let context = json!({ "input": input });
            let rest = NewTask { scheduled_for, delay, unique_key, ..NewTask::new(task_type, context) };
            NewTask { agent_type, priority, max_retries, timeout_seconds, ..rest }
        },
    )
}

#[tokio::test]
async fn of_odd_tasks_each_is_taken_or_refused_by_the_name_of_a_field_and_never_by_the_database() {
    let db = TestDb::new().await;
    let queue = db.queue("test", &[]);
    let mut runner = TestRunner::default();
    let (mut taken, mut refused) = (0, 0);
    for _ in 0..300 {
        let task = odd_task().new_tree(&mut runner).expect("nothing is filtered out").current();
        match queue.enqueue_one(task.clone()).await {
            Ok(_) => taken += 1,
            Err(QueueError::Invalid(_)) => refused += 1,
            Err(error) => panic!("{task:?}: {error}"),
        }
    }
    assert!(taken > 10 && refused > 10, "{taken} taken, {refused} refused");
}

#[tokio::test]
async fn a_task_that_the_database_refuses_costs_its_neighbours_nothing() {
    let db = TestDb::new().await;
    let queue = db.queue("test", &[]);
    let calls = (0..20).map(|n| {
        let nobody = (n == 7).then(Uuid::new_v4);
        queue.enqueue_one(NewTask { user_id: nobody, ..task() })
    });
    let added = join_all(calls).await;
    let refused: Vec<usize> = (0..20).filter(|n| added[*n].is_err()).collect();
    assert_eq!(refused, [7], "whose user does not exist");
    assert_eq!(db.value::<i64>("select count(*) from agent_tasks").await, 19);
}

#[tokio::test]
async fn a_caller_that_goes_away_leaves_nobody_waiting() {
    let db = TestDb::new().await;
    let queue = db.queue("test", &[]);
    // The first call begins the round that the second one depends on.
    let gone = poll_immediate(Box::pin(queue.enqueue_one(task()))).await;
    assert!(gone.is_none(), "it was under way when its caller left");
    let stays = queue.enqueue_one(task());
    tokio::time::timeout(Duration::from_secs(10), stays).await.expect("an answer").expect("a task");
    db.eventually("both are there", "select count(*) = 2 from agent_tasks").await;
}

#[tokio::test]
async fn what_is_added_in_a_transaction_is_there_once_it_is_committed_and_a_key_counts_as_ever() {
    let db = TestDb::new().await;
    let mut client = connect(&db.direct_url()).await;
    let keyed = NewTask { unique_key: Some("k".into()), ..task() };
    let transaction = client.transaction().await.expect("a transaction");
    let added = enqueue_in(&transaction, &[keyed.clone(), task()]).await.expect("two tasks");
    assert_eq!(db.value::<i64>("select count(*) from agent_tasks").await, 0, "not yet");
    transaction.commit().await.expect("an answer");
    assert_eq!(db.value::<i64>("select count(*) from agent_tasks").await, 2);
    let again = enqueue_in(&client, &[keyed]).await.expect("the same task");
    assert!(again[0].id == added[0].id && again[0].existed);
    let refused = enqueue_in(&client, &[NewTask::new(" ", json!({}))]).await.expect_err("no type");
    assert!(refused.to_string().contains("task_type"), "{refused}");
}

#[tokio::test]
async fn the_sql_example_adds_what_it_says() {
    let db = TestDb::new().await;
    let example = include_str!("../../examples/enqueue.sql");
    db.execute(example).await;
    db.execute(example).await;
    assert_eq!(db.value::<i64>("select count(*) from agent_tasks").await, 9, "one has a key");
    let said = "priority = 'high' and max_retries = 5 and timeout_seconds = 60 and agent_type = 'billing'
        and scheduled_for between now() + interval '4 minutes' and now() + interval '5 minutes'
        and context_json = '{\"hello\": 2}' and created_by = 'billing' and status = 'pending'";
    assert!(
        db.value::<bool>(&format!("select {said} from agent_tasks where unique_key = 'invoice-17'")).await
    );
    let plain = "select count(*) = 2 and bool_and(priority = 'medium' and max_retries is null
        and scheduled_for <= clock_timestamp()) from agent_tasks where context_json = '{\"hello\": 1}'";
    assert!(db.value::<bool>(plain).await, "due now, and the process's defaults hold");
}

#[tokio::test]
async fn the_sql_function_refuses_what_the_queue_refuses_and_names_the_field() {
    let db = TestDb::new().await;
    let client = connect(&db.direct_url()).await;
    for (field, arguments) in [
        ("task_type", "null".to_owned()),
        ("task_type", "'  '".to_owned()),
        ("task_type", format!("'{}'", "x".repeat(101))),
        ("agent_type", "'a', agent_type => ''".to_owned()),
        ("context_type", format!("'a', context_type => '{}'", "x".repeat(51))),
        ("created_by", "'a', created_by => ''".to_owned()),
        ("unique_key", format!("'a', unique_key => '{}'", "x".repeat(256))),
        ("priority", "'a', priority => 'soon'".to_owned()),
        ("priority", "'a', priority => null".to_owned()),
        ("max_retries", "'a', max_retries => 31".to_owned()),
        ("timeout_seconds", "'a', timeout_seconds => 0".to_owned()),
        ("scheduled_for", "'a', scheduled_for => now() + interval '6 years'".to_owned()),
        ("scheduled_for", "'a', scheduled_for => '-infinity'".to_owned()),
        ("context_json", "'a', to_jsonb(repeat('x', 1048576))".to_owned()),
    ] {
        let sql = format!("select enqueue_task({arguments})");
        let error = client.query_typed(&sql, &[]).await.expect_err(&sql);
        let error = error.as_db_error().expect("the server's words");
        assert_eq!(error.code(), &SqlState::INVALID_PARAMETER_VALUE, "{sql}: {error}");
        assert!(error.message().starts_with(field), "{sql}: {error}");
    }
    assert_eq!(db.value::<i64>("select count(*) from agent_tasks").await, 0);
}

#[tokio::test]
async fn the_sql_function_is_for_the_service_role_and_never_for_those_on_the_internet() {
    let db = TestDb::new().await;
    db.execute("grant select, insert on agent_tasks to service_role").await;
    let may = async |role: &str| {
        let client = connect(&db.direct_url()).await;
        client.batch_execute(&format!("set role {role}")).await.expect("a role");
        let error = client.query_typed("select enqueue_task('a')", &[]).await.err();
        error.is_none_or(|error| {
            assert_eq!(error.code(), Some(&SqlState::INSUFFICIENT_PRIVILEGE), "{error:?}");
            false
        })
    };
    assert!(may("service_role").await);
    for role in ["anon", "authenticated"] {
        db.execute(&format!("grant select, insert on agent_tasks to {role}")).await;
        assert!(!may(role).await, "{role}");
    }
    db.execute("revoke insert on agent_tasks from service_role").await;
    assert!(!may("service_role").await, "the function lends its caller no rights");
}

#[tokio::test]
async fn a_function_of_that_name_that_a_customer_has_is_left_alone() {
    let db = TestDb::empty().await;
    db.execute("create function enqueue_task(what text) returns text language sql as 'select what'").await;
    let database = Database::new(&db.config(&[]).database).expect("a usable URL");
    db::migrate(&database).await.expect("migrations");
    assert_eq!(db.value::<String>("select enqueue_task('theirs')").await, "theirs");
    assert_eq!(db.value::<i64>("select count(*) from pg_proc where proname = 'enqueue_task'").await, 1);
}
