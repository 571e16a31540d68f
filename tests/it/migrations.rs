//! Migrations: on nothing, on a customer's tables, again, and by several processes at once.

use std::time::Duration;

use futures_util::future::join_all;
use secrecy::SecretString;
use task_processor::db::{Database, Lane, SchemaState, migrate, pending_migrations, schema_state};

use crate::support::TestDb;

/// `agent_tasks` as the customer's own migrations made it, with a row of theirs.
pub(crate) const CUSTOMERS_TABLE: &str = "
    create table agent_tasks (
        id uuid primary key default gen_random_uuid(),
        task_type varchar(100) not null,
        agent_type varchar(50) not null,
        user_id uuid,
        context_id uuid,
        context_type varchar(50),
        scheduled_for timestamptz not null default now(),
        priority varchar(20) default 'medium',
        status varchar(50) default 'pending',
        retry_count integer default 0,
        max_retries integer default 3,
        last_attempted_at timestamptz,
        context_json jsonb not null,
        result_json jsonb,
        error_log text,
        created_at timestamptz default now(),
        created_by varchar(100),
        completed_at timestamptz
    );
    insert into agent_tasks (task_type, agent_type, priority, status, retry_count, context_json, created_by)
    values ('schedule_followup', 'bouncer', null, 'completed', null, '{\"days\": 3}', 'conversation');";

fn database(db: &TestDb) -> Database {
    Database::new(&db.config(&[]).database).expect("a usable URL")
}

/// A connection as a role of that name, which is made with the given options.
async fn database_as(db: &TestDb, role: &str, options: &str) -> Database {
    db.execute(&format!("create role {role} login {options}")).await;
    let mut config = db.config(&[]).database;
    config.url = SecretString::from(db.direct_url().replace("user=postgres", &format!("user={role}")));
    Database::new(&config).expect("a usable URL")
}

#[tokio::test]
async fn an_empty_database_becomes_current() {
    let db = TestDb::empty().await;
    let database = database(&db);
    assert_eq!(schema_state(&database).await.unwrap(), SchemaState::Empty);
    let wanted: Vec<_> = pending_migrations(&database).await.unwrap().iter().map(|file| file.name).collect();
    assert_eq!(migrate(&database).await.unwrap().applied, wanted);
    assert_eq!(schema_state(&database).await.unwrap(), SchemaState::Current);
}

#[tokio::test]
async fn migrating_again_changes_nothing() {
    let db = TestDb::new().await;
    let history = "select string_agg(name || applied_at, ',' order by name) from task_processor_migrations";
    let before: String = db.value(history).await;
    assert!(migrate(&database(&db)).await.unwrap().applied.is_empty());
    assert_eq!(db.value::<String>(history).await, before);
    assert_eq!(schema_state(&database(&db)).await.unwrap(), SchemaState::Current);
}

#[tokio::test]
async fn of_four_processes_at_once_each_migration_is_applied_by_one() {
    let db = TestDb::empty().await;
    let mut wanted: Vec<_> =
        pending_migrations(&database(&db)).await.unwrap().iter().map(|file| file.name).collect();
    let reports = join_all((0..4).map(async |_| migrate(&database(&db)).await.unwrap())).await;
    let mut applied: Vec<_> = reports.into_iter().flat_map(|report| report.applied).collect();
    applied.sort_unstable();
    wanted.sort_unstable();
    assert_eq!(applied, wanted);
    assert_eq!(schema_state(&database(&db)).await.unwrap(), SchemaState::Current);
}

#[tokio::test]
async fn an_index_left_half_built_is_built_anew() {
    let db = TestDb::new().await;
    let name = "0004_index_due.concurrent";
    let oid = "select 'agent_tasks_due'::regclass::oid";
    let before: u32 = db.value(oid).await;
    db.execute("update pg_index set indisvalid = false where indexrelid = 'agent_tasks_due'::regclass").await;
    db.execute(&format!("delete from task_processor_migrations where name = '{name}'")).await;
    let behind = SchemaState::Behind(vec![name]);
    assert_eq!(schema_state(&database(&db)).await.unwrap(), behind);

    assert_eq!(migrate(&database(&db)).await.unwrap().applied, [name]);
    assert_ne!(db.value::<u32>(oid).await, before, "another index of the same name");
    let valid = "select indisvalid from pg_index where indexrelid = 'agent_tasks_due'::regclass";
    assert!(db.value::<bool>(valid).await);
}

#[tokio::test]
async fn a_customers_table_and_its_rows_are_kept() {
    let db = TestDb::empty().await;
    db.execute(CUSTOMERS_TABLE).await;
    let before: String = db.value("select to_jsonb(agent_tasks)::text from agent_tasks").await;
    let state = schema_state(&database(&db)).await.unwrap();
    assert!(matches!(state, SchemaState::Behind(_)), "{state:?}");

    db.execute("alter table agent_tasks alter column status drop default").await;
    migrate(&database(&db)).await.unwrap();
    let default = "select column_default like '''pending''%' from information_schema.columns
        where table_name = 'agent_tasks' and column_name = 'status'";
    assert!(db.value::<bool>(default).await);
    let unchanged = format!("select to_jsonb(agent_tasks) @> $json${before}$json$ from agent_tasks");
    assert!(db.value::<bool>(&unchanged).await);
    let secured = "select relrowsecurity from pg_class where oid = 'agent_tasks'::regclass";
    assert!(!db.value::<bool>(secured).await, "what we did not create is left as it is");
    assert_eq!(schema_state(&database(&db)).await.unwrap(), SchemaState::Current);
}

#[tokio::test]
async fn the_roles_that_supabase_shows_the_internet_can_do_nothing() {
    let db = TestDb::empty().await;
    // As on Supabase, where whatever is created in `public` is theirs at first.
    db.execute(
        "alter default privileges in schema public grant all on tables to anon, authenticated;
         alter default privileges in schema public grant all on functions to anon, authenticated",
    )
    .await;
    migrate(&database(&db)).await.unwrap();

    let open = "
        select relname::text from pg_class
        where relnamespace = 'public'::regnamespace and relkind = 'r' and not relrowsecurity";
    assert_eq!(names(&db, open).await, [""; 0], "tables without row level security");
    let granted = "
        select distinct relname || ' ' || role
        from pg_class, unnest(array['anon', 'authenticated']) role
        where relnamespace = 'public'::regnamespace and relkind = 'r'
            and has_table_privilege(role, pg_class.oid, 'select, insert, update, delete, truncate')";
    assert_eq!(names(&db, granted).await, [""; 0], "tables they may use");
    let executable = "
        select proname || ' ' || role
        from pg_proc, unnest(array['anon', 'authenticated']) role
        where pronamespace = 'public'::regnamespace and has_function_privilege(role, pg_proc.oid, 'execute')";
    assert_eq!(names(&db, executable).await, [""; 0], "functions they may call");
}

async fn names(db: &TestDb, sql: &str) -> Vec<String> {
    db.rows(sql).await.iter().map(|row| row.get(0)).collect()
}

#[tokio::test]
async fn a_role_without_grants_or_behind_row_level_security_is_told_what_to_do() {
    let db = TestDb::new().await;
    let database = database_as(&db, "hidden_from", "").await;
    let SchemaState::Blind(advice) = schema_state(&database).await.unwrap() else {
        panic!("a role that may not even read the table is not blind")
    };
    assert!(advice.contains("grant select, insert, update, delete"), "{advice}");

    let (_, grants) = advice.split_once("as the owner run: ").expect("a remedy");
    db.execute(grants).await;
    let SchemaState::Blind(advice) = schema_state(&database).await.unwrap() else {
        panic!("a role that row level security shows no rows is not blind")
    };
    assert!(advice.contains("alter role hidden_from bypassrls"), "{advice}");

    db.execute("alter role hidden_from bypassrls").await;
    assert_eq!(schema_state(&database).await.unwrap(), SchemaState::Current);
}

#[tokio::test]
async fn the_limit_that_a_database_sets_to_statements_does_not_stop_a_migration() {
    let db = TestDb::empty().await;
    db.execute(CUSTOMERS_TABLE).await;
    db.execute(
        "insert into agent_tasks (task_type, agent_type, context_json)
         select 'a', 't', '{}' from generate_series(1, 20000);
         do $$ begin execute format('alter database %I set statement_timeout = %L', current_database(), '5ms'); end $$",
    )
    .await;
    // An index is built without the limit on a session of our own only, not on a transaction pooler's.
    let config = db.config(&[("DATABASE_URL", &db.direct_url())]);
    let database = Database::new(&config.database).expect("a usable URL");
    migrate(&database).await.unwrap();
    let limit =
        database.query(Lane::Shared, Duration::from_secs(5), "show statement_timeout", &[]).await.unwrap();
    assert_eq!(limit[0].get::<_, String>(0), "5ms", "everything else keeps its limit");
}
