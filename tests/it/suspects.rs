//! Tasks that must run with no other in their process: who reserves them, and what may come in between.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::json;
use task_processor::db::Lane;
use task_processor::queue::{Ending, NewTask, Queue};
use tokio::time::sleep;
use uuid::Uuid;

use crate::support::{Gate, TestApp, TestDb, eventually};

/// Adds tasks whose process died under them twice, the first of them the oldest.
async fn add_suspects(db: &TestDb, tasks: u32) -> Vec<Uuid> {
    let sql = format!(
        "insert into agent_tasks (task_type, agent_type, crash_count, scheduled_for, context_json)
         select 'echo', 'suspect', 2, now() - interval '1 hour' + number * interval '1 minute',
             jsonb_build_object('number', number)
         from generate_series(1, {tasks}) number
         returning id"
    );
    db.rows(&sql).await.iter().map(|row| row.get(0)).collect()
}

async fn reserve(queue: &Queue) -> Option<Uuid> {
    queue.reserve_suspect(&["echo".to_owned()]).await.expect("an answer")
}

#[tokio::test]
async fn what_is_reserved_is_what_is_claimed_and_only_by_who_reserved_it() {
    let db = TestDb::new().await;
    let (ours, theirs) = (db.queue("ours", &[]), db.queue("theirs", &[]));
    let tasks = add_suspects(&db, 2).await;
    assert_eq!((reserve(&ours).await, reserve(&theirs).await), (Some(tasks[0]), Some(tasks[1])));
    assert_eq!(reserve(&ours).await, None, "both are reserved");
    assert!(theirs.claim_reserved(tasks[0]).await.expect("an answer").is_none());
    assert!(ours.keep_reserved(tasks[0]).await.expect("an answer"));
    let claimed = ours.claim_reserved(tasks[0]).await.expect("an answer").expect("the task");
    assert_eq!(claimed.lease.id, tasks[0]);
    assert!(theirs.give_up_reserved(tasks[1]).await.expect("an answer"));
    assert_eq!(reserve(&ours).await, Some(tasks[1]), "it is due again");
}

#[tokio::test]
async fn a_reservation_that_others_or_an_operator_went_over_is_none() {
    let db = TestDb::new().await;
    let (ours, theirs) = (db.queue("ours", &[]), db.queue("theirs", &[]));
    let tasks = add_suspects(&db, 2).await;
    for task in &tasks {
        assert_eq!(reserve(&ours).await, Some(*task));
    }
    // Our reservation of the first is over before we come back; they run it, and it has to wait for its retry.
    db.execute(&format!("update agent_tasks set scheduled_for = now() where id = '{}'", tasks[0])).await;
    assert_eq!(reserve(&theirs).await, Some(tasks[0]));
    let theirs_now = theirs.claim_reserved(tasks[0]).await.expect("an answer").expect("the task").lease;
    theirs.end(&[Ending::retry(theirs_now, "no luck", Duration::from_secs(30))]).await.expect("a verdict");
    ours.reschedule(tasks[1], Duration::from_hours(1)).await.expect("an answer");
    let dates = "select string_agg(scheduled_for::text, ' ' order by id) from agent_tasks";
    let before: String = db.value(dates).await;
    for task in tasks {
        assert!(ours.claim_reserved(task).await.expect("an answer").is_none());
        assert!(!ours.keep_reserved(task).await.expect("an answer"));
        assert!(!ours.give_up_reserved(task).await.expect("an answer"));
    }
    assert_eq!(db.value::<String>(dates).await, before);
}

#[tokio::test]
async fn a_suspect_that_cannot_be_changed_hides_neither_the_next_nor_other_tasks() {
    for refusal in [
        "create function refuse() returns trigger language plpgsql as
         $$ begin if new.context_json ->> 'number' = '1' then raise exception 'no'; end if; return new; end $$;
         create trigger refuse before update on agent_tasks for each row execute function refuse()",
        "alter table agent_tasks add check (status = 'pending' or context_json ->> 'number' <> '1')",
    ] {
        let db = TestDb::new().await;
        db.execute(refusal).await;
        let tasks = add_suspects(&db, 2).await;
        let app = TestApp::start(&db, &[]).await;
        db.task_becomes(tasks[1], "status = 'completed'").await;
        let ordinary = app.add(json!({ "number": 3 })).await;
        db.task_becomes(ordinary, "status = 'completed'").await;
        assert!(db.task_is(tasks[0], "status = 'pending'").await);
        app.stop().await;
    }
}

#[tokio::test]
async fn requests_that_overlap_do_not_keep_a_suspect_waiting() {
    let db = TestDb::new().await;
    let app = Arc::new(TestApp::start(&db, &[]).await);
    app.ready().await;
    let over = Arc::new(AtomicBool::new(false));
    let requests = tokio::spawn({
        let (app, over) = (app.clone(), over.clone());
        async move {
            while !over.load(Ordering::SeqCst) {
                let task = NewTask {
                    delay: Duration::from_hours(1),
                    ..NewTask::new("echo", json!({ "sleep_ms": 900 }))
                };
                let task = app.queue().enqueue_one(task).await.expect("a task").id;
                assert_eq!(app.post("/process-task", &json!({ "task_id": task })).await.0, 200);
                sleep(Duration::from_millis(100)).await;
            }
        }
    });
    db.eventually("some run", "select count(*) > 3 from agent_tasks where status = 'processing'").await;
    let task = add_suspects(&db, 1).await[0];
    db.task_becomes(task, "status = 'completed'").await;
    over.store(true, Ordering::SeqCst);
    requests.await.expect("no panic");
    db.eventually("the requests are served", "select bool_and(status = 'completed') from agent_tasks").await;
    Arc::into_inner(app).expect("ours alone").stop().await;
}

#[tokio::test]
async fn a_suspect_that_is_wanted_now_is_made_due() {
    let db = TestDb::new().await;
    let task = add_suspects(&db, 1).await[0];
    db.execute("update agent_tasks set scheduled_for = now() + interval '1 hour'").await;
    let app = TestApp::start(&db, &[]).await;
    app.ready().await;
    let answer = app.post("/process-task", &json!({ "task_id": task })).await;
    assert_eq!(answer, (200, json!({ "success": true, "taskId": task })));
    db.task_becomes(task, "status = 'completed'").await;
    app.stop().await;
}

#[tokio::test]
async fn where_no_loop_would_take_them_suspects_and_whoever_meets_one_are_refused_and_left_as_they_are() {
    let db = TestDb::new().await;
    let gate = Gate::closed();
    let suspect = add_suspects(&db, 1).await[0];
    db.execute("update agent_tasks set task_type = 'gate', scheduled_for = now() + interval '1 hour'").await;
    let app = TestApp::start_with(db.config(&[("POLL_MODE", "request")]), gate.among_all()).await;
    app.ready().await;
    let later = NewTask { delay: Duration::from_hours(1), ..NewTask::new("echo", json!({})) };
    let other = app.queue().enqueue_one(later).await.expect("a task").id;
    let is_refused = async |task: Uuid| {
        let answer = app.post("/process-task", &json!({ "task_id": task })).await;
        assert_eq!(answer, (409, json!({ "error": "Task cannot run beside the others now" })));
        assert!(
            db.task_is(task, "status = 'pending' and scheduled_for > now() + interval '50 minutes'").await
        );
    };
    is_refused(suspect).await;
    db.execute(&format!("update agent_tasks set scheduled_for = now() where id = '{suspect}'")).await;
    let webhook = json!({ "type": "INSERT", "table": "agent_tasks", "record": { "id": suspect } });
    let answer = app.post("/process-task", &webhook).await.1;
    assert_eq!(answer["skipped"], "Task cannot run beside the others now");
    let meeting = async {
        eventually("it runs alone", async || app.worker.metrics().running.get() == 1).await;
        is_refused(other).await;
        gate.open(1);
    };
    let any = json!({});
    let ((_, drained), ()) = tokio::join!(app.post("/trigger-poll?wait=20", &any), meeting);
    assert_eq!(drained["succeeded"], 1, "{drained}");
    let (_, answer) = app.post("/process-task", &json!({ "task_id": other })).await;
    assert_eq!(answer["succeeded"], 1, "{answer}");
    app.stop().await;
}

#[tokio::test]
async fn suspects_that_come_one_after_another_do_not_bring_everything_else_to_a_halt() {
    let db = TestDb::new().await;
    let suspects = add_suspects(&db, 3).await;
    // Longer than the interval after which a busy worker looks for suspects before anything else.
    db.execute("update agent_tasks set context_json = '{\"sleep_ms\": 1500}'").await;
    db.execute(
        "insert into agent_tasks (task_type, agent_type, context_json)
         select 'echo', 'ordinary', '{\"sleep_ms\": 300}' from generate_series(1, 40)",
    )
    .await;
    let app = TestApp::start(&db, &[("CONCURRENCY", "2"), ("POLLING_INTERVAL_MS", "1000")]).await;
    for suspect in suspects {
        db.task_becomes(suspect, "status = 'completed'").await;
    }
    assert_eq!(gaps_others_used(&db).await, 2, "others have their turn");
    app.stop().await;
}

#[tokio::test]
async fn a_suspect_that_begins_in_an_idle_process_is_not_followed_by_the_next_at_once() {
    let db = TestDb::new().await;
    let suspects = add_suspects(&db, 2).await;
    db.execute("update agent_tasks set context_json = '{\"sleep_ms\": 1500}'").await;
    let app = TestApp::start(&db, &[("CONCURRENCY", "2"), ("POLLING_INTERVAL_MS", "1000")]).await;
    db.task_becomes(suspects[0], "status = 'processing'").await;
    db.execute(
        "insert into agent_tasks (task_type, agent_type, context_json) values ('echo', 'ordinary', '{}')",
    )
    .await;
    db.task_becomes(suspects[1], "status = 'completed'").await;
    assert_eq!(gaps_others_used(&db).await, 1, "what has come in meanwhile has its turn");
    app.stop().await;
}

/// How often an ordinary task was started between one suspect and the next.
async fn gaps_others_used(db: &TestDb) -> i64 {
    let sql = "with suspects as (
            select completed_at as ended, lead(last_attempted_at) over (order by last_attempted_at) as next
            from agent_tasks where agent_type = 'suspect'
        )
        select count(*) from suspects where next is not null and exists (
            select from agent_tasks
            where agent_type = 'ordinary' and last_attempted_at between suspects.ended and suspects.next
        )";
    db.value(sql).await
}

#[tokio::test]
async fn the_loop_waits_for_no_connection_that_handlers_have() {
    let db = TestDb::new().await;
    let app = TestApp::start(&db, &[("DATABASE_POOL_SIZE", "3"), ("CONCURRENCY", "100")]).await;
    app.ready().await;
    let held =
        app.queue().database().session(Lane::Shared, Duration::from_secs(1)).await.expect("the only one");
    let task = add_suspects(&db, 1).await[0];
    db.task_becomes(task, "status = 'completed'").await;
    db.execute(
        "insert into agent_tasks (task_type, agent_type, context_json) select 'echo', 't', '{}' from generate_series(1, 100)",
    )
    .await;
    db.eventually("it is quiet", "select quiet_until > '-infinity' from agent_tasks_wake").await;
    drop(held);
    app.stop().await;
}
