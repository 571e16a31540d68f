//! Adoption: `migrate` on a customer's live tables, with their writers beside it, their roles, and a kill half-way.

use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use task_processor::db::{Database, SchemaState, migrate, pending_migrations, schema_state};
use tokio::time::Instant;

use crate::migrations::CUSTOMERS_TABLE;
use crate::support::{TestDb, connect, eventually};

const ENQUEUE: &str =
    "insert into agent_tasks (task_type, agent_type, context_json) values ('echo', 'theirs', '{}')";

/// A customer's database: their table, with so many rows that are done and a few that are not.
async fn customers(rows: u64) -> TestDb {
    let db = TestDb::empty().await;
    db.execute(CUSTOMERS_TABLE).await;
    db.execute(&format!(
        "insert into agent_tasks (task_type, agent_type, status, completed_at, context_json, scheduled_for)
         select
            'type_' || number % 20, 'theirs', case when number % 100 = 0 then 'pending' else 'completed' end, now(),
            jsonb_build_object('number', number), now() + make_interval(days => 1, secs => number)
         from generate_series(1, {rows}) number"
    ))
    .await;
    db
}

fn program(db: &TestDb, arguments: &[&str]) -> Command {
    let direct = db.direct_url();
    let mut command = Command::new(env!("CARGO_BIN_EXE_task-processor"));
    command.args(arguments).env_clear().envs(db.vars(&[("DATABASE_URL", &direct)])).stdin(Stdio::null());
    command
}

fn start_migrate(db: &TestDb) -> Child {
    program(db, &["migrate"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("the binary")
}

async fn ends(mut child: Child) -> bool {
    let mut status = None;
    eventually("`migrate` ends", async || {
        status = child.try_wait().expect("our child");
        status.is_some()
    })
    .await;
    status.expect("it ended").success()
}

fn database(db: &TestDb) -> Database {
    let config = db.config(&[("DATABASE_URL", &db.direct_url())]);
    Database::new(&config.database).expect("a usable URL")
}

/// Inserts as fast as it can, each insert with a limit to the time it waits for locks.
struct Inserter {
    inserts: Arc<AtomicU64>,
    slowest_us: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    task: tokio::task::JoinHandle<()>,
}

impl Inserter {
    async fn start(db: &TestDb, lock_timeout_ms: u32) -> Self {
        let client = connect(&db.direct_url()).await;
        client.batch_execute(&format!("set lock_timeout = {lock_timeout_ms}")).await.unwrap();
        let inserts = Arc::new(AtomicU64::new(0));
        let slowest_us = Arc::new(AtomicU64::new(0));
        let stop = Arc::new(AtomicBool::new(false));
        let (count, slowest, stopped) = (inserts.clone(), slowest_us.clone(), stop.clone());
        let task = tokio::spawn(async move {
            while !stopped.load(Ordering::Relaxed) {
                let began = Instant::now();
                client.batch_execute(ENQUEUE).await.expect("no insert waits for longer than the limit");
                let took = u64::try_from(began.elapsed().as_micros()).expect("not that long");
                slowest.fetch_max(took, Ordering::Relaxed);
                count.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        });
        Self { inserts, slowest_us, stop, task }
    }

    /// Inserts done, and how long the slowest took. Panics if one waited for a lock for too long.
    async fn stop(self) -> (u64, Duration) {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await.expect("no insert fails");
        (self.inserts.load(Ordering::Relaxed), Duration::from_micros(self.slowest_us.load(Ordering::Relaxed)))
    }
}

/// Migrates a table of so many rows, beside an inserter whose locks may take so long, and a reader whose transaction
/// stays open until DDL has given way to it twice.
async fn adopt(rows: u64, lock_timeout_ms: u32) -> (Duration, u64, Duration) {
    let db = customers(rows).await;
    let inserter = Inserter::start(&db, lock_timeout_ms).await;
    let reader = connect(&db.direct_url()).await;
    reader.batch_execute("begin; select from agent_tasks limit 1").await.unwrap();

    let began = Instant::now();
    let migrating = start_migrate(&db);
    let waits = "select coalesce(max(query_start), '-infinity') from pg_stat_activity
        where datname = current_database() and wait_event_type = 'Lock' and query like '%alter table agent_tasks%'
            and application_name = 'task-processor'";
    let mut tries = Vec::new();
    eventually("DDL tried three times", async || {
        let since: String = db.value(&format!("select ({waits})::text")).await;
        if since != "-infinity" && !tries.contains(&since) {
            tries.push(since);
        }
        tries.len() == 3
    })
    .await;
    reader.batch_execute("commit").await.unwrap();
    assert!(ends(migrating).await);
    let took = began.elapsed();
    let (inserts, slowest) = inserter.stop().await;

    assert_eq!(schema_state(&database(&db)).await.unwrap(), SchemaState::Current);
    let kept: i64 = db.value("select count(*) from agent_tasks").await;
    assert_eq!(
        kept.unsigned_abs(),
        1 + rows + inserts,
        "their row, the others, and what was added meanwhile"
    );
    (took, inserts, slowest)
}

#[tokio::test]
async fn no_insert_waits_for_a_migration_of_a_large_table_even_behind_a_long_reader() {
    let (_, inserts, _) = adopt(200_000, 400).await;
    assert!(inserts > 100, "the inserter was at work: {inserts}");
}

/// The figures of docs/DEPLOYMENT.md: `cargo test --test it adoption::a_million -- --ignored --nocapture`.
#[tokio::test]
#[ignore = "takes a while; the suite has a smaller one"]
async fn a_million_rows_are_adopted_and_no_insert_waits_for_a_tenth_of_a_second() {
    let (took, inserts, slowest) = adopt(1_000_000, 100).await;
    println!("migrated in {took:?}, beside {inserts} inserts, the slowest of which took {slowest:?}");
    assert!(slowest < Duration::from_millis(100), "{slowest:?}");
}

#[tokio::test]
async fn a_migration_killed_while_it_builds_an_index_leaves_no_invalid_one_when_it_is_repeated() {
    let db = customers(2_000).await;
    migrate(&database(&db)).await.unwrap();
    db.execute(
        "drop index agent_tasks_due; delete from task_processor_migrations where name = '0004_index_due.concurrent'",
    )
    .await;
    // A concurrent build waits for a transaction that has written to the table: time enough to kill whoever asked for it.
    let writer = connect(&db.direct_url()).await;
    writer.batch_execute(&format!("begin; {ENQUEUE}")).await.unwrap();
    let building =
        "select exists (select from pg_stat_progress_create_index where datname = current_database()
        and phase like 'waiting for writers%')";
    let invalid = "select count(*) from pg_index where not indisvalid";
    let migrating = start_migrate(&db);
    db.eventually("an index is being built", building).await;
    kill_process(Pid::from_child(&migrating), Signal::KILL).unwrap();
    assert!(!ends(migrating).await);
    assert_eq!(db.value::<i64>(invalid).await, 1, "half-built");

    let again = start_migrate(&db);
    // The server goes on with the build of whoever was killed. The next one meets it, and waits without a lock or a
    // snapshot: each would wait for the other.
    let meets =
        "select exists (select from pg_stat_activity where datname = current_database() and state = 'idle'
        and application_name = 'task-processor' and query like '%pg_stat_progress_create_index build%')
        and exists (select from pg_stat_progress_create_index where datname = current_database())";
    db.eventually("the next one waits", meets).await;
    writer.batch_execute("commit").await.unwrap();
    assert!(ends(again).await);
    assert_eq!(db.value::<i64>(invalid).await, 0);
    assert_eq!(schema_state(&database(&db)).await.unwrap(), SchemaState::Current);
}

#[tokio::test]
async fn four_processes_that_adopt_a_table_at_once_apply_each_migration_once() {
    let db = customers(2_000).await;
    let pending = pending_migrations(&database(&db)).await.unwrap();
    let processes = [start_migrate(&db), start_migrate(&db), start_migrate(&db), start_migrate(&db)];
    for process in processes {
        assert!(ends(process).await);
    }
    let applied: i64 = db.value("select count(*) from task_processor_migrations").await;
    assert_eq!(applied.unsigned_abs(), pending.len() as u64);
    assert_eq!(db.value::<i64>("select count(*) from pg_index where not indisvalid").await, 0);
    assert_eq!(schema_state(&database(&db)).await.unwrap(), SchemaState::Current);
}

#[tokio::test]
async fn a_dry_run_prints_each_missing_migration_with_its_sql_and_changes_nothing() {
    let db = customers(10).await;
    let everything = "select coalesce(string_agg(relname || ' ' || relkind::text || ' ' || relnatts, ',' order by oid), '')
        from pg_class where relnamespace = 'public'::regnamespace";
    let before: String = db.value(everything).await;
    let answer = |arguments: &'static [&str]| {
        let mut command = program(&db, arguments);
        async move { tokio::task::spawn_blocking(move || command.output()).await.unwrap().expect("the binary") }
    };
    let text = String::from_utf8(answer(&["migrate", "--dry-run"]).await.stdout).unwrap();
    let pending = pending_migrations(&database(&db)).await.unwrap();
    assert!(pending.len() > 10, "all of them");
    for migration in &pending {
        assert!(text.contains(&format!("-- {}\n", migration.name)), "{}", migration.name);
        assert!(text.contains(migration.sql.trim_end()), "{}", migration.name);
    }
    assert_eq!(db.value::<String>(everything).await, before);

    migrate(&database(&db)).await.unwrap();
    assert_eq!(answer(&["migrate", "--dry-run"]).await.stdout, b"-- nothing to do\n");
    db.execute("drop index agent_tasks_due").await;
    let text = String::from_utf8(answer(&["migrate", "--dry-run"]).await.stdout).unwrap();
    assert!(
        text.contains("-- drift: index agent_tasks_due") && text.contains("task-processor doctor"),
        "{text}"
    );
}

/// Supabase's, as far as they concern us: `postgres` is no superuser there but owns what is in `public`, whatever it
/// makes there is granted to the API roles, and extensions have a schema of their own.
async fn as_on_supabase(owner: &str) -> TestDb {
    let db = TestDb::empty().await;
    db.execute(&format!(
        "do $$ begin create role service_role nologin bypassrls; exception when duplicate_object then null; end $$;
         create role {owner} login createrole createdb bypassrls;
         grant anon, authenticated, service_role to {owner};
         alter schema public owner to {owner};
         create schema extensions;
         create extension pgcrypto schema extensions;
         grant usage on schema extensions to {owner};
         alter default privileges for role {owner} in schema public grant all on tables to anon, authenticated, service_role;
         alter default privileges for role {owner} in schema public grant all on functions to anon, authenticated, service_role;
         alter role {owner} set search_path = '$user', public, extensions;
         alter role {owner} set statement_timeout = '4s';
         alter role {owner} set idle_in_transaction_session_timeout = '60s';
         grant pg_read_all_stats to {owner}"
    ))
    .await;
    db
}

#[tokio::test]
async fn a_customers_database_on_supabase_is_adopted_by_its_owner_who_is_no_superuser() {
    let owner = "adoption_owner";
    let db = as_on_supabase(owner).await;
    let url = db.direct_url().replace("user=postgres", &format!("user={owner}"));
    let theirs = connect(&url).await;
    theirs.batch_execute(CUSTOMERS_TABLE).await.unwrap();
    theirs
        .batch_execute(
            "alter table agent_tasks enable row level security;
             create policy own on agent_tasks for select to authenticated using (true)",
        )
        .await
        .unwrap();

    let run = async |arguments: &[&str]| {
        let mut command = program(&db, arguments);
        command.env("DATABASE_URL", &url).env("LISTEN_DATABASE_URL", &url);
        tokio::task::spawn_blocking(move || command.output()).await.unwrap().expect("the binary")
    };
    let output = run(&["migrate"]).await;
    assert!(output.status.success(), "{output:?}");
    let output = run(&["doctor", "--json"]).await;
    let answer: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(answer, serde_json::json!({ "healthy": true, "findings": [] }));

    // What writes through PostgREST with the service key, and may not see what is ours alone.
    theirs.batch_execute(&format!("set role service_role; {ENQUEUE}; reset role")).await.unwrap();
    let output = run(&["once", "--json"]).await;
    let answer: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(answer["succeeded"], 1, "{output:?}");
    let open = "
        select string_agg(relname || ' ' || role, ', ')
        from pg_class, unnest(array['anon', 'authenticated']) role
        where relnamespace = 'public'::regnamespace and relkind = 'r' and relname <> 'agent_tasks'
            and has_table_privilege(role, pg_class.oid, 'select, insert, update, delete, truncate')";
    assert_eq!(db.value::<Option<String>>(open).await, None, "tables that the internet may use");
}

#[tokio::test]
async fn an_older_binary_and_the_customers_own_statements_work_on_a_newer_schema() {
    let db = customers(10).await;
    migrate(&database(&db)).await.unwrap();
    // A later release: a migration that this program does not know, with a column and a function in a new version.
    db.execute(
        "alter table agent_tasks add column of_a_later_release text, add column another integer not null default 0;
         create function agent_tasks_due_v9() returns integer language sql as 'select 1';
         insert into task_processor_migrations (name) values ('9999_of_a_later_release')",
    )
    .await;
    assert_eq!(schema_state(&database(&db)).await.unwrap(), SchemaState::Current);
    assert!(migrate(&database(&db)).await.unwrap().applied.is_empty());
    db.execute(ENQUEUE).await;
    let mut command = program(&db, &["once", "--json"]);
    let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap().expect("the binary");
    let answer: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(answer["succeeded"], 1, "{output:?}");

    // The Node service's: take, complete, fail, and the agents' cancel.
    db.execute(
        "insert into agent_tasks (task_type, agent_type, context_json) values ('theirs', 'node', '{}');
         update agent_tasks set status = 'processing', last_attempted_at = now()
         where task_type = 'theirs' and status = 'pending';
         update agent_tasks set status = 'completed', completed_at = now(), result_json = '{}' where task_type = 'theirs';
         update agent_tasks set status = 'pending', retry_count = retry_count + 1, error_log = 'x',
             scheduled_for = now() + interval '2 minutes' where task_type = 'type_1';
         update agent_tasks set status = 'cancelled', result_json = '{\"reason\": \"replaced\"}' where task_type = 'type_2'",
    )
    .await;
    let done: i64 = db
        .value("select count(*) from agent_tasks where task_type = 'theirs' and status = 'completed'")
        .await;
    assert_eq!(done, 1);
}
