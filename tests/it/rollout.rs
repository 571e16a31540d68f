//! Rollouts: migrations beside work, releases side by side, credentials that change, processes that come and go.

use std::process::{Command, Output, Stdio};
use std::time::Duration;

use futures_util::future::join_all;
use rustix::process::Signal;
use serde_json::{Value, json};
use task_processor::db::{Database, SchemaState, migrate, schema_state};
use task_processor::queue::{Ending, NewTask};
use tokio::time::Instant;
use uuid::Uuid;

use crate::support::{Instance, KEY, TestApp, TestDb, answer, connect, eventually, test_variable};

const ALL_DONE: &str = "select bool_and(status = 'completed') from agent_tasks";
/// Starts beyond the first are those that a process gave back, and each task ended once.
const NONE_TWICE: &str = "
    select bool_and(attempt = 1 + released and recovered = 0 and completed = 1)
    from agent_tasks task
    cross join lateral (
        select
            count(*) filter (where action_type = 'release_echo') as released,
            count(*) filter (where action_type = 'recover_echo') as recovered,
            count(*) filter (where action_type = 'process_echo') as completed
        from agent_actions_log log
        where log.context_id = task.id
    ) log";

async fn insert(db: &TestDb, tasks: u32, context: &str) {
    db.execute(&format!(
        "insert into agent_tasks (task_type, agent_type, context_json)
         select 'echo', 'test', '{context}' from generate_series(1, {tasks})"
    ))
    .await;
}

/// Runs a command of the given program to its end.
async fn run(program: &str, db: &TestDb, arguments: &[&str]) -> Output {
    let mut command = Command::new(program);
    let direct = db.direct_url();
    command.args(arguments).env_clear().envs(db.vars(&[("DATABASE_URL", &direct)])).stdin(Stdio::null());
    tokio::task::spawn_blocking(move || command.output()).await.expect("no panic").expect("the program")
}

#[tokio::test]
async fn claims_go_on_while_everything_is_migrated_anew_behind_a_long_reader() {
    let db = TestDb::new().await;
    db.execute(
        "insert into agent_tasks (task_type, agent_type, status, completed_at, context_json)
         select 'a', 'test', 'completed', now(), '{}' from generate_series(1, 20000);
         drop index agent_tasks_suspect;
         delete from task_processor_migrations",
    )
    .await;
    let queue = db.queue("test", &[]);
    let types = ["a".to_owned()];
    let config = db.config(&[("DATABASE_URL", &db.direct_url())]).database;
    let reader = connect(&db.direct_url()).await;
    reader.batch_execute("begin; select from agent_tasks limit 1").await.unwrap();
    let database = Database::new(&config).expect("a usable URL");
    let migrating = tokio::spawn(async move { migrate(&database).await.expect("no error").applied.len() });

    let waits = "select exists (select from pg_stat_activity where datname = current_database()
        and wait_event_type = 'Lock' and query like '%alter table agent_tasks%')";
    let (mut claims, mut met) = (Vec::new(), 0);
    let mut read = Some(reader);
    while !migrating.is_finished() || claims.len() < 100 {
        // The reader stays until claims have stood behind waiting DDL a few times.
        met += u32::from(read.is_some() && db.value::<bool>(waits).await);
        if met >= 5 {
            drop(read.take());
        }
        queue.enqueue_one(NewTask::new("a", json!({}))).await.expect("a task");
        let began = Instant::now();
        let claimed = queue.claim(&types, 1).await.expect("a claim");
        claims.push(began.elapsed());
        queue.end(&[Ending::complete(claimed[0].lease, Value::Null)]).await.expect("a verdict");
    }
    assert!(migrating.await.expect("no panic") > 10, "all of them");
    claims.sort_unstable();
    let (p99, slowest) = (claims[claims.len() * 99 / 100], claims[claims.len() - 1]);
    println!("{} claims, 99 % of them within {p99:?}, the slowest {slowest:?}", claims.len());
    assert!(slowest < Duration::from_secs(3), "{slowest:?}");
    assert_eq!(schema_state(queue.database()).await.unwrap(), SchemaState::Current);
}

#[tokio::test]
async fn from_one_process_to_eight_and_back_under_load_no_task_runs_twice_and_connections_stay_in_the_budget()
{
    const MORE: usize = 7;
    const WORK: &str = r#"{"sleep_ms": 100}"#;
    const LONG: &str = r#"{"sleep_ms": 3000}"#;
    let db = TestDb::new().await;
    let direct = db.direct_url();
    // Who is told to leave waits for nothing, so that there is something to give back.
    let settings =
        [("DATABASE_URL", direct.as_str()), ("DATABASE_POOL_SIZE", "3"), ("SHUTDOWN_GRACE_SECONDS", "0")];
    let first = Instance::start(&db, &settings).await;
    insert(&db, 300, WORK).await;
    let mut more = join_all((0..MORE).map(|_| Instance::start(&db, &settings))).await;
    // Requests would take more connections, if they could.
    let http = reqwest::Client::builder().no_proxy().build().expect("a client");
    let ask = async |url: String| {
        let nobody = json!({ "task_id": Uuid::new_v4() });
        answer(http.post(url).bearer_auth(KEY).json(&nobody)).await
    };
    let all = more.iter().chain([&first]);
    join_all(all.flat_map(|instance| (0..8).map(|_| ask(instance.url("/process-task"))))).await;
    let connections = "select count(*) from pg_stat_activity
        where datname = current_database() and application_name = 'task-processor'";
    let mut most: i64 = 0;
    eventually("each of them has worked", async || {
        insert(&db, 10, WORK).await;
        most = most.max(db.value(connections).await);
        let worked = join_all(more.iter().map(Instance::health)).await;
        worked.iter().all(|health| health["stats"]["tasksProcessed"].as_u64() > Some(0))
    })
    .await;
    insert(&db, 400, LONG).await;
    // More than half of them have some.
    let busy = "select count(*) > 50 from agent_tasks
        where status = 'processing' and context_json->>'sleep_ms' = '3000'";
    db.eventually("most of them are in the middle of long ones", busy).await;
    for instance in &more {
        instance.signal(Signal::TERM);
    }
    for instance in &mut more {
        assert_eq!(instance.exit_code().await, Some(0));
    }
    assert!(!db.value::<bool>(ALL_DONE).await, "they left in the middle");
    // Nobody has to wait for what has not begun again.
    db.execute("update agent_tasks set context_json = '{}' where status = 'pending'").await;
    db.eventually("all are done", ALL_DONE).await;
    assert!(db.value::<bool>(NONE_TWICE).await);
    let released = "select count(*) from agent_actions_log where action_type = 'release_echo'";
    assert!(db.value::<i64>(released).await > 0, "some were given back");
    let budget = (MORE + 1) * (3 + 1);
    println!("at most {most} connections of {budget}");
    assert!(usize::try_from(most).expect("a count") <= budget, "{most} connections, {budget} at the most");
    let left: i64 = db.value(connections).await;
    assert!(left <= 3 + 1, "{left} connections of one process");
}

/// An instance at `url`, which says that it does not listen, and whose poll finds the work.
async fn polls_only(db: &TestDb, url: &str, line: &str) -> Instance {
    let settings = [("DATABASE_URL", url), ("LISTEN_DATABASE_URL", ""), ("POLLING_INTERVAL_MS", "100")];
    let instance = Instance::start(db, &settings).await;
    eventually("it says so", async || instance.logged(line).is_some()).await;
    insert(db, 20, "{}").await;
    db.eventually("all are done", ALL_DONE).await;
    instance
}

#[tokio::test]
async fn through_a_transaction_pooler_nothing_listens_and_the_poll_finds_the_work() {
    let db = TestDb::new().await;
    let told = format!("{}&pgbouncer=true", db.url());
    let line = "the connection goes through a transaction pooler, which cannot LISTEN: polling only";
    let _instance = polls_only(&db, &told, line).await;
    let listeners =
        "select count(*) from pg_stat_activity where datname = current_database() and query ilike 'listen%'";
    assert_eq!(db.value::<i64>(listeners).await, 0);
}

#[tokio::test]
async fn a_transaction_pooler_that_the_url_does_not_tell_of_does_not_pass_for_a_connection_that_listens() {
    let db = TestDb::new().await;
    let Some(undeclared) = db.url().strip_suffix("&pgbouncer=true").map(str::to_owned) else {
        eprintln!("nothing was checked: TEST_POOLER names no pooler");
        return;
    };
    let line = "not listening for new tasks, polling until the connection is back";
    let instance = polls_only(&db, &undeclared, line).await;
    assert!(instance.log().contains("is a transaction pooler in between"), "{}", instance.log());
    assert_eq!(instance.health().await["polling"]["listening"], json!(false));
}

#[tokio::test]
async fn while_a_key_is_changed_the_old_one_and_the_new_one_open_the_door() {
    let db = TestDb::new().await;
    let (old, new) = ("the-old-key-of-16-characters", "the-new-key-of-16-characters");
    for (keys, old_opens) in [(format!("{old},{new}"), 200), (new.to_owned(), 401)] {
        let app = TestApp::start(&db, &[("API_KEYS", &keys)]).await;
        app.ready().await;
        let knock =
            async |key: &str| answer(app.http.post(app.url("/trigger-poll")).bearer_auth(key)).await.0;
        assert_eq!((knock(old).await, knock(new).await), (old_opens, 200));
        app.stop().await;
    }
}

#[tokio::test]
async fn a_role_that_may_not_log_in_for_a_while_costs_no_outcome() {
    let db = TestDb::new().await;
    db.execute("create role rotated login superuser").await;
    let (wire, url) = db.over_tcp().await;
    let url = url.replace("postgres@", "rotated@");
    let instance = Instance::start(&db, &[("DATABASE_URL", &url), ("LISTEN_DATABASE_URL", &url)]).await;
    wire.hold_request("agent_tasks_end_v1");
    insert(&db, 1, "{}").await;
    wire.holds().await;
    db.execute("alter role rotated nologin").await;
    wire.cut();
    db.lead(&wire);
    eventually("the outcome waits", async || instance.logged("endings wait for the database").is_some())
        .await;
    db.execute("alter role rotated login").await;
    db.eventually("it is done", ALL_DONE).await;
    assert!(db.value::<bool>(NONE_TWICE).await, "{}", instance.log());
    drop(instance);
    db.execute("drop role rotated").await;
}

/// `TEST_OLDER_BINARY=<path> cargo test --test it rollout::an_older -- --ignored --nocapture`
#[ignore = "needs the program of an older release: TEST_OLDER_BINARY"]
#[tokio::test]
async fn an_older_release_and_this_one_share_a_database_and_either_may_leave() {
    const WORK: &str = r#"{"sleep_ms": 20}"#;
    let older = test_variable("TEST_OLDER_BINARY").expect("TEST_OLDER_BINARY");
    let newer = env!("CARGO_BIN_EXE_task-processor");
    let db = TestDb::empty().await;
    assert!(run(&older, &db, &["migrate"]).await.status.success());
    let direct = db.direct_url();
    let settings = [("DATABASE_URL", direct.as_str())];
    let plan = run(newer, &db, &["migrate", "--dry-run", "--json"]).await;
    let plan: Value = serde_json::from_slice(&plan.stdout).expect("a plan");
    println!("the older schema lacks {}", plan["pending"]);

    let old = Instance::start_program(&older, &db, &settings).await;
    insert(&db, 500, WORK).await;
    let mut new = Instance::start(&db, &settings).await;
    if plan["pending"] != json!([]) {
        eventually("the newer one says what is missing", async || {
            new.log().contains("this database lacks") && new.log().contains("task-processor migrate")
        })
        .await;
        let once = run(newer, &db, &["once"]).await;
        assert!(
            !once.status.success() && String::from_utf8_lossy(&once.stderr).contains("lacks"),
            "{once:?}"
        );
        new.signal(Signal::TERM);
        new.exit_code().await;
    }
    assert!(run(newer, &db, &["migrate"]).await.status.success());
    let mut new = Instance::start(&db, &settings).await;
    let processed = async |instance: &Instance| instance.health().await["stats"]["tasksProcessed"].as_u64();
    let (before, began) = (processed(&old).await, Instant::now());
    eventually("both work", async || {
        insert(&db, 10, WORK).await;
        let (old, new) = (processed(&old).await, processed(&new).await);
        began.elapsed() > Duration::from_secs(20)
            && new > Some(100)
            && old > before.map(|before| before + 100)
    })
    .await;
    new.signal(Signal::TERM);
    assert_eq!(new.exit_code().await, Some(0));
    insert(&db, 100, WORK).await;
    db.eventually("the older one does the rest alone", ALL_DONE).await;
    assert!(db.value::<bool>(NONE_TWICE).await);
    let tasks: i64 = db.value("select count(*) from agent_tasks").await;
    println!("{tasks} tasks, {:?} by the older release", processed(&old).await);
}
