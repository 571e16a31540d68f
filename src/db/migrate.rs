//! Migrations: forward only, one process at a time, and never a long lock on a table that others write to.
//!
//! Files named `*.concurrent.sql` build one index each, outside a transaction, after an invalid leftover of an
//! earlier try has been dropped. All others hold only instant DDL, each in one transaction under a short
//! `lock_timeout`, repeated until it gets its lock: while DDL waits for a lock, everybody behind it waits too.
//!
//! Processes exclude each other by *polling* for a transaction-scoped advisory lock: it works through a transaction
//! pooler, and a waiting lock would hold a snapshot that a concurrent index build waits for, for ever.

use std::time::Duration;

use tokio::time::{Instant, sleep};
use tokio_postgres::types::Type;

use super::{Database, DbError, Lane, Session};

const LOCK_KEY: i64 = 0x7461_736b_7072_6f63; // "taskproc"
const LOCK_PATIENCE: Duration = Duration::from_mins(10);
const STATEMENT_PATIENCE: Duration = Duration::from_hours(24);
/// How long DDL may make others wait at a time, in milliseconds.
const LOCK_TIMEOUT_MS: u32 = 80;

macro_rules! migrations {
    ($($name:literal),* $(,)?) => {
        &[$(Migration { name: $name, sql: include_str!(concat!("../../migrations/", $name, ".sql")) }),*]
    };
}

/// In the order in which they are applied.
const MIGRATIONS: &[Migration] = migrations![
    "0001_tables",
    "0002_queue_columns",
    "0003_task_types",
    "0004_index_due.concurrent",
    "0005_index_suspect.concurrent",
    "0006_index_processing.concurrent",
    "0007_index_unique_key.concurrent",
    "0008_index_log_context.concurrent",
    "0009_due",
    "0010_take",
    "0011_end",
    "0012_announce",
    "0013_enqueue_task",
];

const HISTORY: &str = "
create table if not exists task_processor_migrations (
    name text primary key,
    applied_at timestamptz not null default now()
);
alter table task_processor_migrations enable row level security;
do $history$
declare
    api_role text;
begin
    for api_role in select rolname from pg_roles where rolname in ('anon', 'authenticated') loop
        execute format('revoke all on table task_processor_migrations from %I', api_role);
    end loop;
end
$history$;";

/// One file of `migrations/`.
#[derive(Clone, Copy, Debug)]
pub struct Migration {
    /// The file's name without `.sql`.
    pub name: &'static str,
    /// Its text.
    pub sql: &'static str,
}

impl Migration {
    fn is_concurrent(&self) -> bool {
        self.name.ends_with(".concurrent")
    }

    /// The index that a concurrent migration builds.
    fn index(&self) -> Option<&'static str> {
        let after = self.sql.split("if not exists ").nth(1)?;
        after.split_whitespace().next()
    }
}

/// What a run did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MigrationReport {
    /// The migrations applied by this run, in order.
    pub applied: Vec<&'static str>,
}

/// How far a database is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SchemaState {
    /// Nothing of ours and no `agent_tasks` of anybody: free to create everything.
    Empty,
    /// Tables exist and migrations are missing.
    Behind(Vec<&'static str>),
    /// All is in place, but this role may not see or change rows, and why.
    Blind(String),
    /// Ready for work.
    Current,
}

/// What there is, and what this role may do with it. Until there is a history nothing can be hidden from anybody.
const ACCESS: &str = "
with ours as (
    select to_regclass('task_processor_migrations')::oid as history, to_regclass('agent_tasks')::oid as tasks
),
closed as (
    select string_agg(proname, ', ' order by proname) as functions
    from ours
    join pg_class on pg_class.oid = tasks
    join pg_proc on pronamespace = relnamespace and proname ~ '^agent_tasks_[a-z_]+_v[0-9]+$'
    where not has_function_privilege(pg_proc.oid, 'execute')
)
select
    history is null and tasks is null,
    history is null
        or (has_table_privilege(history, 'select')
            and coalesce(has_table_privilege(tasks, 'select') and has_table_privilege(tasks, 'update'), true)),
    history is null or not (row_security_active(history) or coalesce(row_security_active(tasks), false)),
    current_user::text,
    functions
from ours, closed";

/// Looks how far the database is, without changing it.
pub async fn schema_state(database: &Database) -> Result<SchemaState, DbError> {
    let mut session = database.session(Lane::Shared, Duration::from_secs(5)).await?;
    let rows = session.query(ACCESS, &[]).await?;
    let (empty, granted, sees_rows): (bool, bool, bool) =
        (rows[0].try_get(0)?, rows[0].try_get(1)?, rows[0].try_get(2)?);
    let (role, closed): (String, Option<String>) = (rows[0].try_get(3)?, rows[0].try_get(4)?);
    if !granted || closed.is_some() {
        let execute = closed.map(|functions| format!("; grant execute on function {functions} to {role}"));
        return Ok(SchemaState::Blind(format!(
            "role {role} may not work on the queue; as the owner run: grant select, insert, update, delete on all \
             tables in schema public to {role}{}",
            execute.unwrap_or_default()
        )));
    }
    if !sees_rows {
        return Ok(SchemaState::Blind(format!(
            "row level security hides rows from role {role}; as a superuser run: alter role {role} bypassrls"
        )));
    }
    // Only now: from a blind role the history is hidden, too.
    let pending: Vec<_> = pending_in(&mut session).await?.iter().map(|migration| migration.name).collect();
    Ok(match pending.is_empty() {
        true => SchemaState::Current,
        false if empty => SchemaState::Empty,
        false => SchemaState::Behind(pending),
    })
}

/// The migrations that the database still lacks.
pub async fn pending_migrations(database: &Database) -> Result<Vec<Migration>, DbError> {
    pending_in(&mut database.session(Lane::Shared, Duration::from_secs(5)).await?).await
}

/// Applies what is missing. Harmless when repeated, and when several processes do it at once.
pub async fn migrate(database: &Database) -> Result<MigrationReport, DbError> {
    let mut lock = database.session(Lane::Work, Duration::from_secs(10)).await?;
    let held = take_lock(&mut lock).await;
    let result = match held {
        Ok(()) => apply_pending(database).await,
        Err(error) => Err(error),
    };
    // Discarded, not committed: the lock goes with the connection, whatever happened.
    lock.discard();
    result
}

async fn take_lock(session: &mut Session) -> Result<(), DbError> {
    // The role's limits must not end the transaction that holds the lock while an index is built.
    let limits = "set local statement_timeout = 0; set local idle_in_transaction_session_timeout = 0";
    session.batch(&format!("begin; {limits}")).await?;
    let began = Instant::now();
    loop {
        let sql = "select pg_try_advisory_xact_lock($1)";
        let rows = session.query(sql, &[(&LOCK_KEY, Type::INT8)]).await?;
        // The answered query's portal still holds a snapshot, which a concurrent index build would wait for, for ever:
        // ours or, if the lock was refused, the other process's. The next simple query closes it.
        session.batch("set local lock_timeout = 0").await?;
        if rows[0].try_get(0)? {
            return Ok(());
        }
        if began.elapsed() > LOCK_PATIENCE {
            return Err(DbError::Timeout(LOCK_PATIENCE));
        }
        sleep(Duration::from_millis(200)).await;
    }
}

async fn apply_pending(database: &Database) -> Result<MigrationReport, DbError> {
    let mut session = database.session(Lane::Shared, STATEMENT_PATIENCE).await?;
    if !database.target().transaction_pooler {
        // An index is built outside a transaction, so only the session can be freed of the role's limit. Through a
        // transaction pooler that would be somebody else's session.
        session.batch("set statement_timeout = 0").await?;
    }
    let result = apply_all(&mut session).await;
    // Discarded even after a success: nobody shall inherit it without its limit.
    session.discard();
    result
}

async fn apply_all(session: &mut Session) -> Result<MigrationReport, DbError> {
    let mut report = MigrationReport::default();
    for migration in pending_in(session).await? {
        match migration.is_concurrent() {
            true => build_index(session, &migration).await?,
            false => apply(session, &migration).await?,
        }
        tracing::info!(migration = migration.name, "migrated");
        report.applied.push(migration.name);
    }
    Ok(report)
}

async fn pending_in(session: &mut Session) -> Result<Vec<Migration>, DbError> {
    let exists = session.query("select to_regclass('task_processor_migrations') is not null", &[]).await?;
    let applied: Vec<String> = match exists[0].try_get(0)? {
        true => session
            .query("select name from task_processor_migrations", &[])
            .await?
            .iter()
            .map(|row| row.try_get(0))
            .collect::<Result<_, _>>()?,
        false => Vec::new(),
    };
    Ok(MIGRATIONS.iter().filter(|known| !applied.iter().any(|name| name == known.name)).copied().collect())
}

/// One transaction, repeated while others hold the locks it needs.
async fn apply(session: &mut Session, migration: &Migration) -> Result<(), DbError> {
    let Migration { name, sql } = migration;
    let transaction = format!(
        "begin; set local statement_timeout = 0; set local lock_timeout = {LOCK_TIMEOUT_MS}; {HISTORY} {sql};
         insert into task_processor_migrations (name) values ('{name}') on conflict do nothing; commit"
    );
    let began = Instant::now();
    loop {
        match session.batch(&transaction).await {
            Err(error) if error.is_lock_timeout() && began.elapsed() < LOCK_PATIENCE => {
                session.batch("rollback").await?;
                sleep(Duration::from_millis(250)).await;
            }
            result => return result,
        }
    }
}

async fn build_index(session: &mut Session, migration: &Migration) -> Result<(), DbError> {
    let index = migration.index().expect("a concurrent migration names its index");
    outlive_orphan(session, index).await?;
    let sql = "select exists (select from pg_index where indexrelid = to_regclass($1) and not indisvalid)";
    let leftover = session.query(sql, &[(&index, Type::TEXT)]).await?;
    if leftover[0].try_get(0)? {
        session.batch(&format!("drop index concurrently {index}")).await?;
    }
    session.batch(migration.sql).await?;
    let sql = "insert into task_processor_migrations (name) values ($1) on conflict do nothing";
    session.query(sql, &[(&migration.name, Type::TEXT)]).await?;
    Ok(())
}

/// The server goes on with the build of a process that was killed. To drop that index would wait for the build, whose
/// end waits for whoever is older: one of the two would be ended as a deadlock. So it is waited for by polling.
async fn outlive_orphan(session: &mut Session, index: &'static str) -> Result<(), DbError> {
    let sql = "
        select exists (
            select from pg_stat_progress_create_index build
            join pg_index on indrelid = build.relid
            where indexrelid = to_regclass($1) and build.pid <> pg_backend_pid()
        )";
    while session.query(sql, &[(&index, Type::TEXT)]).await?[0].try_get(0)? {
        tracing::info!(index, "waiting for a build on the same table that is under way");
        sleep(Duration::from_secs(1)).await;
    }
    Ok(())
}
