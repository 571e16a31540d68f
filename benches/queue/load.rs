//! The tasks that are worked off, and the proof that they were.

use anyhow::ensure;

use crate::db::Db;

/// Marks the tasks that are counted; whatever else is in the table is scenery.
pub(crate) const BENCH: &str = "bench";

/// Rows to be added by one statement. Its fields are SQL expressions over `n`, which counts from 1.
#[derive(Clone, Copy)]
pub(crate) struct Rows<'a> {
    pub(crate) task_type: &'a str,
    pub(crate) created_by: &'a str,
    pub(crate) scheduled_for: &'a str,
    pub(crate) priority: &'a str,
    pub(crate) status: &'a str,
    pub(crate) context: &'a str,
}

/// About 200 bytes, the peers' payload.
pub(crate) const SMALL: &str = "jsonb_build_object('n', n, 'kind', 'bench', 'pad', repeat('x', 160))";

/// Due now, medium, done by `echo`.
pub(crate) const DUE: Rows<'static> = Rows {
    task_type: "'echo'",
    created_by: "'bench'",
    scheduled_for: "now()",
    priority: "'medium'",
    status: "'pending'",
    context: SMALL,
};

/// Ended, and not counted.
pub(crate) const ENDED: Rows<'static> = Rows { created_by: "'others'", status: "'completed'", ..DUE };

/// A tenth urgent, two high, six medium, one low.
pub(crate) const MIXED: &str = "case n % 10
    when 0 then 'urgent' when 1 then 'high' when 2 then 'high' when 3 then 'low' else 'medium' end";

/// Words that do not compress, so many bytes of them.
pub(crate) fn incompressible(bytes: u32) -> String {
    let words = bytes.div_ceil(32);
    format!(
        "jsonb_build_object('n', n, 'kind', 'bench', 'pad', \
         (select string_agg(md5(n || ' ' || word), '') from generate_series(1, {words}) word))"
    )
}

impl Rows<'_> {
    /// The statement that adds so many, the first of which has this number.
    pub(crate) fn insert(&self, first: u32, count: u32) -> String {
        let Self { task_type, created_by, scheduled_for, priority, status, context } = self;
        format!(
            "insert into agent_tasks (
                 task_type, agent_type, created_by, scheduled_for, priority, status, context_json, completed_at
             )
             select {task_type}, 'bench', {created_by}, {scheduled_for}, {priority}, {status}, {context},
                 case when {status} = 'completed' then {scheduled_for} end
             from generate_series({first}, {first} + {count} - 1) as n"
        )
    }
}

/// Adds rows in the order of `n`, ten thousand at once. None is announced: nobody listens yet.
pub(crate) async fn fill(db: &Db, rows: &Rows<'_>, count: u32) -> anyhow::Result<()> {
    const AT_ONCE: u32 = 10_000;
    db.execute("set synchronous_commit = off").await?;
    for first in (1..=count).step_by(AT_ONCE as usize) {
        db.execute(&rows.insert(first, AT_ONCE.min(count + 1 - first))).await?;
    }
    db.execute("set synchronous_commit = on").await
}

/// The task that is served last of those that are counted: while it is pending nobody need count the rest.
pub(crate) async fn last(db: &Db) -> anyhow::Result<uuid::Uuid> {
    db.value(&format!(
        "select id
         from agent_tasks
         where created_by = '{BENCH}'
         order by case priority when 'urgent' then 0 when 'high' then 1 when 'low' then 3 else 2 end desc,
             scheduled_for desc, id desc
         limit 1"
    ))
    .await
}

/// How many of those that are counted have not ended.
pub(crate) async fn unfinished(db: &Db) -> anyhow::Result<i64> {
    db.value(&format!(
        "select count(*) from agent_tasks where created_by = '{BENCH}' and status in ('pending', 'processing')"
    ))
    .await
}

/// That all are completed by their first attempt, and have one log row each. A figure is worth nothing otherwise.
pub(crate) async fn verify(db: &Db, tasks: u32) -> anyhow::Result<()> {
    let row = db
        .row(&format!(
            "select count(*), count(*) filter (where status = 'completed' and attempt = 1)
             from agent_tasks
             where created_by = '{BENCH}'"
        ))
        .await?;
    let (all, once): (i64, i64) = (row.try_get(0)?, row.try_get(1)?);
    ensure!(
        (all, once) == (tasks.into(), tasks.into()),
        "{tasks} tasks: {all} there, {once} completed at once"
    );
    let row = db
        .row(&format!(
            "select count(*), count(distinct log.context_id)
             from agent_actions_log log
             join agent_tasks task on task.id = log.context_id
             where task.created_by = '{BENCH}'"
        ))
        .await?;
    let (rows, logged): (i64, i64) = (row.try_get(0)?, row.try_get(1)?);
    ensure!(
        (rows, logged) == (tasks.into(), tasks.into()),
        "{tasks} tasks: {rows} log rows for {logged} of them"
    );
    Ok(())
}
