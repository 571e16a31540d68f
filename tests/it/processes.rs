//! The service as processes: killed, stopped, frozen, and what their tasks suffer.

use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::Signal;
use tokio::time::{Instant, sleep};

use crate::support::{Instance, TestDb, eventually};

async fn insert(db: &TestDb, tasks: usize, context: &str) {
    db.execute(&format!(
        "insert into agent_tasks (task_type, agent_type, context_json)
         select 'echo', 'test', '{context}' from generate_series(1, {tasks})"
    ))
    .await;
}

const ALL_DONE: &str = "select bool_and(status = 'completed') from agent_tasks";

#[tokio::test]
async fn two_processes_share_a_thousand_tasks_without_doing_one_twice() {
    let db = TestDb::new().await;
    insert(&db, 1000, "{}").await;
    let (_one, _two) = (Instance::start(&db, &[]).await, Instance::start(&db, &[]).await);
    db.eventually("all are done", ALL_DONE).await;
    assert!(db.value::<bool>("select bool_and(attempt = 1) from agent_tasks").await, "one start each");
    let logged = "select count(*) = 1000 and count(distinct context_id) = 1000 from agent_actions_log";
    assert!(db.value::<bool>(logged).await, "one log row each");
}

#[tokio::test]
async fn the_tasks_of_a_killed_process_are_taken_over_and_none_runs_twice_at_the_same_time() {
    let db = TestDb::new().await;
    let settings = [("CONCURRENCY", "50"), ("LEASE_SECONDS", "3")];
    let mut victim = Instance::start(&db, &settings).await;
    insert(&db, 50, r#"{"sleep_ms": 2000}"#).await;
    db.eventually("all run", "select bool_and(status = 'processing') from agent_tasks").await;
    victim.signal(Signal::KILL);
    victim.exit_code().await;
    let killed = Instant::now();
    let _heir = Instance::start(&db, &settings).await;
    db.eventually("all are done", ALL_DONE).await;
    assert!(killed.elapsed() < Duration::from_secs(10), "{:?}", killed.elapsed());
    assert!(
        db.value::<bool>(
            "select bool_and(attempt = 2 and retry_count = 0 and crash_count = 0) from agent_tasks"
        )
        .await
    );
    let recoveries = "select count(*) = 50 and count(distinct context_id) = 50 from agent_actions_log
        where action_type = 'recover_echo'";
    assert!(db.value::<bool>(recoveries).await, "one recovery row each");
    // The second start came after the first lease had ended: recovery lies between the two.
    let apart = "select bool_and(task.last_attempted_at >= recovery.created_at)
        from agent_tasks task join agent_actions_log recovery on recovery.context_id = task.id
        where recovery.action_type = 'recover_echo'";
    assert!(db.value::<bool>(apart).await);
}

#[tokio::test]
async fn a_task_that_takes_its_process_down_every_time_ends_as_poison_and_no_other_does() {
    let db = TestDb::new().await;
    let settings = [("LEASE_SECONDS", "2"), ("CONCURRENCY", "5")];
    insert(&db, 1, r#"{"abort": true}"#).await;
    insert(&db, 8, r#"{"sleep_ms": 300}"#).await;
    let mut deaths = 0;
    let mut instance = Instance::start(&db, &settings).await;
    let began = Instant::now();
    loop {
        let over: bool =
            db.value("select bool_and(status in ('completed', 'failed')) from agent_tasks").await;
        if over {
            break;
        }
        assert!(began.elapsed() < Duration::from_mins(1), "no end: {}", instance.log());
        if !instance.is_running() {
            deaths += 1;
            instance = Instance::start(&db, &settings).await;
        }
        sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(deaths, 3, "process deaths");
    let poison = "select bool_and((status = 'failed') = (context_json ? 'abort')) and
        bool_or(error_log like 'poison%' and attempt = 3) from agent_tasks";
    assert!(db.value::<bool>(poison).await);
    // When it ran for the third time nothing else was in the process.
    let alone = "select count(*) from agent_actions_log log join agent_tasks task on task.id = log.context_id
        where log.error = 'the lease expired, crash 3' and not task.context_json ? 'abort'";
    assert_eq!(db.value::<i64>(alone).await, 0);
}

#[tokio::test]
async fn a_process_that_was_frozen_past_its_leases_writes_nothing_for_them() {
    let db = TestDb::new().await;
    let settings = [("LEASE_SECONDS", "2")];
    let frozen = Instance::start(&db, &settings).await;
    insert(&db, 5, r#"{"sleep_ms": 3000}"#).await;
    frozen.runs(5).await;
    frozen.signal(Signal::STOP);
    let _heir = Instance::start(&db, &settings).await;
    db.eventually(
        "the other has them",
        "select bool_and(attempt = 2 and status = 'processing') from agent_tasks",
    )
    .await;
    frozen.signal(Signal::CONT);
    db.eventually("all are done", ALL_DONE).await;
    eventually("the frozen one holds nothing", async || frozen.health().await["inHand"] == 0).await;
    let health = frozen.health().await;
    assert_eq!(health["stats"]["tasksProcessed"], 0, "its endings were refused: {health}");
    let log =
        "select count(*) = 10 and count(*) filter (where action_type = 'process_echo' and attempt = 2) = 5
        from agent_actions_log";
    assert!(db.value::<bool>(log).await, "five recoveries and five endings of the second attempt");
    assert!(db.value::<bool>("select bool_and(attempt = 2) from agent_tasks").await);
}

#[tokio::test]
async fn a_process_that_is_told_to_stop_gives_a_long_task_back_and_another_starts_it_at_once() {
    let db = TestDb::new().await;
    let mut leaving = Instance::start(&db, &[("SHUTDOWN_GRACE_SECONDS", "7")]).await;
    insert(&db, 1, r#"{"sleep_ms": 60000}"#).await;
    leaving.runs(1).await;
    let _other = Instance::start(&db, &[]).await;
    let told = Instant::now();
    leaving.signal(Signal::TERM);
    eventually("it is draining", async || leaving.health().await["status"] == "draining").await;
    assert_eq!(leaving.exit_code().await, Some(0), "{}", leaving.log());
    let took = told.elapsed();
    assert!(took > Duration::from_secs(6) && took < Duration::from_secs(9), "{took:?}");
    db.eventually("the other runs it", "select status = 'processing' and attempt = 2 from agent_tasks").await;
    let restarted: f64 = db
        .value(
            "select extract(epoch from task.last_attempted_at - log.created_at)::float8
             from agent_tasks task join agent_actions_log log on log.context_id = task.id
             where log.action_type = 'release_echo'",
        )
        .await;
    assert!((0.0..2.0).contains(&restarted), "started {restarted} s after its release");
    assert!(db.value::<bool>("select retry_count = 0 and crash_count = 0 from agent_tasks").await);
}

#[tokio::test]
async fn tasks_that_end_within_the_grace_period_are_finished_and_a_second_signal_ends_it() {
    let db = TestDb::new().await;
    let mut leaving = Instance::start(&db, &[("SHUTDOWN_GRACE_SECONDS", "7")]).await;
    insert(&db, 3, r#"{"sleep_ms": 1500}"#).await;
    leaving.runs(3).await;
    leaving.signal(Signal::TERM);
    assert_eq!(leaving.exit_code().await, Some(0));
    assert!(db.value::<bool>("select bool_and(status = 'completed' and attempt = 1) from agent_tasks").await);

    let mut hurried = Instance::start(&db, &[("SHUTDOWN_GRACE_SECONDS", "7")]).await;
    insert(&db, 1, r#"{"sleep_ms": 60000}"#).await;
    hurried.runs(1).await;
    let told = Instant::now();
    hurried.signal(Signal::INT);
    eventually("it is draining", async || hurried.health().await["status"] == "draining").await;
    hurried.signal(Signal::INT);
    assert_eq!(hurried.exit_code().await, Some(0));
    assert!(told.elapsed() < Duration::from_secs(4), "{:?}", told.elapsed());
    assert!(db.value::<bool>("select bool_and(status <> 'processing') from agent_tasks").await);
}

#[tokio::test]
async fn code_that_will_not_stop_keeps_its_lease_and_ends_its_process() {
    let db = TestDb::new().await;
    let mut stuck = Instance::start(&db, &[("LEASE_SECONDS", "4"), ("SHUTDOWN_GRACE_SECONDS", "1")]).await;
    insert(&db, 1, r#"{"block_ms": 60000}"#).await;
    stuck.runs(1).await;
    stuck.signal(Signal::TERM);
    assert_eq!(stuck.exit_code().await, Some(70), "{}", stuck.log());
    assert!(
        db.value::<bool>("select status = 'processing' and lease_token is not null from agent_tasks").await
    );
    assert_eq!(db.value::<i64>("select count(*) from agent_actions_log").await, 0, "never released");
}

#[tokio::test]
async fn a_handler_that_blocks_a_thread_past_its_timeout_makes_the_process_end_and_no_other_lease_is_lost() {
    let db = TestDb::new().await;
    let mut stuck = Instance::start(&db, &[("LEASE_SECONDS", "2"), ("TASK_TIMEOUT_SECONDS", "2")]).await;
    insert(&db, 2, r#"{"block_ms": 60000}"#).await;
    db.eventually("they run", "select bool_and(status = 'processing') from agent_tasks").await;
    sleep(Duration::from_secs(5)).await;
    let alive = "select bool_and(lease_expires_at > now()) from agent_tasks";
    assert!(db.value::<bool>(alive).await, "both threads are blocked and the leases still renewed");
    assert_eq!(stuck.exit_code().await, Some(70), "{}", stuck.log());
    assert!(stuck.log().contains("a handler blocks its thread"), "{}", stuck.log());
}

#[tokio::test]
async fn a_process_whose_log_nobody_reads_any_more_works_on() {
    let db = TestDb::new().await;
    insert(&db, 10, "{}").await;
    insert(&db, 1, r#"{"panic": true}"#).await;
    for format in ["json", "pretty"] {
        let mut child = Command::new(env!("CARGO_BIN_EXE_task-processor"))
            .arg("once")
            .env_clear()
            .envs(db.vars(&[("LOG_FORMAT", format)]))
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary");
        drop(child.stderr.take());
        assert_eq!(child.wait().expect("our child").code(), Some(0), "{format}");
        let ended = "select bool_and((status = 'completed') <> (context_json ? 'panic')) from agent_tasks";
        assert!(db.value::<bool>(ended).await, "{format}");
        db.execute("update agent_tasks set status = 'pending'").await;
    }
}
