//! What work costs the database, in counts: statements, rows written, rows read. A regression shows without a clock.

use std::time::Duration;

use task_processor::queue::read::TaskFilter;
use tokio::time::{Instant, sleep};
use tokio_postgres::Client;
use tokio_postgres::types::Type;
use uuid::Uuid;

use crate::support::{TestApp, TestDb, connect, eventually};

const TASKS: i64 = 4_000;
/// Enough for a statement that reads the whole table to be a mistake.
const FINISHED: i64 = 60_000;

/// The server's own counts for this database.
#[derive(Clone, Copy, Debug)]
struct Counts {
    transactions: i64,
    tasks_updated: i64,
    log_rows: i64,
    rows_read_in_sequence: i64,
    rows_fetched_by_index: i64,
}

impl Counts {
    async fn read(client: &Client) -> Self {
        let sql = "
            select xact_commit,
                (select n_tup_upd from pg_stat_user_tables where relname = 'agent_tasks'),
                (select n_tup_ins from pg_stat_user_tables where relname = 'agent_actions_log'),
                (select seq_tup_read from pg_stat_user_tables where relname = 'agent_tasks'),
                (select idx_tup_fetch from pg_stat_user_tables where relname = 'agent_tasks')
            from pg_stat_database where datname = current_database()";
        let row = client.query_one(sql, &[]).await.expect("counts");
        Self {
            transactions: row.get(0),
            tasks_updated: row.get(1),
            log_rows: row.get(2),
            rows_read_in_sequence: row.get(3),
            rows_fetched_by_index: row.get(4),
        }
    }

    /// Every session hands in its counts when it ends at the latest, and those of the service have ended.
    async fn settled(client: &Client) -> Self {
        eventually("the service has left", async || {
            let others = "select count(*) from pg_stat_activity
                where datname = current_database() and pid <> pg_backend_pid() and backend_type = 'client backend'";
            client.query_one(others, &[]).await.expect("a count").get::<_, i64>(0) == 0
        })
        .await;
        client.batch_execute("select pg_stat_force_next_flush()").await.expect("flushed");
        Self::read(client).await
    }
}

#[tokio::test]
async fn a_drained_task_costs_two_row_versions_one_log_row_and_a_small_part_of_a_statement() {
    let db = TestDb::new().await;
    let client = connect(&db.direct_url()).await;
    client
        .batch_execute(&format!(
            "insert into agent_tasks (task_type, agent_type, context_json)
             select 'echo', 't', '{{}}' from generate_series(1, {TASKS});
             insert into agent_tasks (task_type, agent_type, context_json, status)
             select 'echo', 't', '{{}}', 'completed' from generate_series(1, {FINISHED});
             analyze agent_tasks"
        ))
        .await
        .expect("tasks");
    let before = Counts::settled(&client).await;
    // Wide from the start, so that the machine's speed does not decide how many statements there are.
    let app = TestApp::start(&db, &[("CONCURRENCY", "400"), ("MAX_TASKS_PER_POLL", "400")]).await;
    eventually("all are done", async || app.get("/health").await.1["stats"]["tasksProcessed"] == TASKS).await;
    app.stop().await;
    if db.url() != db.direct_url() {
        return; // A pooler's sessions do not end with the service.
    }
    let after = Counts::settled(&client).await;
    let spent = |of: fn(&Counts) -> i64| of(&after) - of(&before);
    assert_eq!(spent(|counts| counts.tasks_updated), 2 * TASKS, "one claim, one ending");
    assert_eq!(spent(|counts| counts.log_rows), TASKS);
    // By the claim's index to be picked, by the primary key to be locked for the ending. The rest goes by place.
    let fetched = spent(|counts| counts.rows_fetched_by_index);
    assert!(fetched <= 4 * TASKS, "{fetched} rows fetched by index for {TASKS} tasks");
    let read = spent(|counts| counts.rows_read_in_sequence);
    assert!(read < FINISHED, "{read} rows read in sequence: some statement reads the whole table");
    let transactions = spent(|counts| counts.transactions);
    assert!(transactions <= TASKS / 20, "{transactions} transactions for {TASKS} tasks");
}

/// A database, and a connection that asks what it has done. None behind a pooler, whose sessions do not end with the
/// service: what they have done is counted when they end.
async fn counted() -> Option<(TestDb, Client)> {
    let db = TestDb::new().await;
    if db.url() != db.direct_url() {
        return None;
    }
    let client = connect(&db.direct_url()).await;
    Some((db, client))
}

#[tokio::test]
async fn deleting_what_is_old_reads_the_table_once_however_much_of_it_is_young() {
    let Some((db, client)) = counted().await else { return };
    client
        .batch_execute(&format!(
            "insert into agent_tasks (task_type, agent_type, context_json, status, completed_at)
             select 'echo', 't', '{{}}', 'completed', now() - case when n > {FINISHED} then interval '2 days' else '0' end
             from generate_series(1, {FINISHED} + 5000) n;
             analyze agent_tasks"
        ))
        .await
        .expect("tasks");
    let old = "select array_agg(id) from agent_tasks where completed_at < now() - interval '1 day'";
    let old: Vec<Uuid> = client.query_typed(old, &[]).await.expect("ids")[0].get(0);
    let before = Counts::settled(&client).await;
    let app = TestApp::start(&db, &[("RETENTION_DAYS", "1")]).await;
    let left = "select not exists (select from agent_tasks where id = any ($1))";
    eventually("they are gone", async || {
        client.query_typed(left, &[(&old, Type::UUID_ARRAY)]).await.expect("an answer")[0].get(0)
    })
    .await;
    app.stop().await;
    let read = Counts::settled(&client).await.rows_read_in_sequence - before.rows_read_in_sequence;
    assert!(read < 2 * FINISHED, "{read} rows read");
}

#[tokio::test]
async fn what_operators_ask_of_unfinished_tasks_reads_none_of_those_that_have_ended() {
    let Some((db, client)) = counted().await else { return };
    // The statistics are of a time when all were pending. The rows have the size of real ones: a table hardly larger than
    // the index of the pending tasks, still as wide as the backlog was, may well be read instead of it.
    let finished = format!(
        "alter table agent_tasks set (autovacuum_enabled = off);
         insert into agent_tasks (task_type, agent_type, context_json)
         select 'echo', 't', jsonb_build_object('note', repeat('x', 200)) from generate_series(1, {FINISHED});
         analyze agent_tasks;
         update agent_tasks set status = 'completed'"
    );
    let unfinished = "
        insert into agent_tasks (task_type, agent_type, context_json, status, crash_count)
        values ('echo', 't', '{}', 'pending', 0), ('echo', 't', '{}', 'pending', 2), ('odd', 't', '{}', 'pending', 0),
            ('echo', 't', '{}', 'processing', 0)";
    for sql in [finished.as_str(), "vacuum agent_tasks", unfinished] {
        client.batch_execute(sql).await.expect("tasks");
    }
    for statistics in ["old", "new"] {
        let before = Counts::settled(&client).await;
        let queue = db.queue("operator", &[]);
        // Sorted by an age that no index knows: with such statistics reading the table is the right plan.
        for (status, tasks) in [("pending", 3), ("processing", 1)].into_iter().filter(|_| statistics == "new")
        {
            let filter =
                TaskFilter { status: Some(status.to_owned()), limit: 1_000, ..TaskFilter::default() };
            assert_eq!(queue.ids(&filter).await.expect("ids").len(), tasks, "{status}");
            assert_eq!(queue.list(&filter).await.expect("tasks").len(), tasks, "{status}");
        }
        let types = ["echo".to_owned()];
        assert_eq!(queue.count_due(&types).await.expect("a count"), 2);
        assert_eq!(queue.depths().await.expect("depths").len(), 3);
        assert_eq!(queue.unroutable(&types).await.expect("types").len(), 1);
        assert!(queue.strays().await.expect("strays").is_none());
        drop(queue);
        let after = Counts::settled(&client).await;
        let read = after.rows_read_in_sequence - before.rows_read_in_sequence;
        assert_eq!(read, 0, "{statistics} statistics");
        client.batch_execute("analyze agent_tasks").await.expect("statistics");
    }
}

#[tokio::test]
async fn the_poll_of_an_idle_queue_is_one_statement() {
    let Some((db, client)) = counted().await else { return };
    let before = Counts::settled(&client).await;
    let began = Instant::now();
    let app = TestApp::start(&db, &[("POLLING_INTERVAL_MS", "100")]).await;
    sleep(Duration::from_secs(6)).await;
    app.stop().await;
    let polls = i64::try_from(began.elapsed().as_millis() / 100).expect("few");
    let spent = Counts::settled(&client).await.transactions - before.transactions;
    // Besides: the start, the end, a look for expired leases, our own questions.
    assert!((polls / 4..polls + 40).contains(&spent), "{spent} transactions in {polls} polls");
}

#[tokio::test]
async fn every_index_of_a_fresh_queue_is_one_that_a_statement_of_ours_needs() {
    let db = TestDb::new().await;
    let indexes = db
        .value::<String>(
            "select string_agg(indexname, ' ' order by tablename, indexname) from pg_indexes
             where tablename in ('agent_tasks', 'agent_actions_log')",
        )
        .await;
    assert_eq!(
        indexes,
        "agent_actions_log_context agent_actions_log_pkey \
         agent_tasks_due agent_tasks_pkey agent_tasks_processing agent_tasks_suspect agent_tasks_unique_key",
        "each costs every task; see migrations/ for what they are for"
    );
}

#[tokio::test]
async fn a_look_at_what_is_recent_passes_over_what_an_old_snapshot_keeps() {
    let db = TestDb::new().await;
    let (client, holder) = (connect(&db.direct_url()).await, connect(&db.direct_url()).await);
    holder
        .batch_execute("begin isolation level repeatable read; select count(*) from agent_tasks")
        .await
        .expect("a snapshot");
    let insert =
        "insert into agent_tasks (task_type, agent_type, scheduled_for, context_json) select 'a', 't', ";
    client
        .batch_execute(&format!(
            "{insert} now() - interval '1 minute', '{{}}' from generate_series(1, 20000);
             update agent_tasks set status = 'completed';
             {insert} now(), '{{}}' from generate_series(1, 100)"
        ))
        .await
        .expect("a long queue worked off");
    for function in
        ["agent_tasks_due_v1('{a}', 10,", "agent_tasks_few_v1('{a}', 10,", "agent_tasks_next_v1('{a}', '{}',"]
    {
        let buffers = async |reach| db.buffers_of(&format!("{function} {reach})")).await;
        buffers("null").await;
        let (all, recent) = (buffers("null").await, buffers("30").await);
        assert!(all > 1_000, "{function} {all} buffers: there is nothing to pass over");
        assert!(recent < 400, "{function} {recent} buffers for what is recent, {all} for all");
    }
}

#[tokio::test]
async fn future_unroutable_paused_and_finished_tasks_cost_a_claim_nothing() {
    let db = TestDb::new().await;
    let fill = "insert into agent_tasks (task_type, agent_type, priority, status, scheduled_for, context_json) select ";
    db.execute(&format!("{fill} 'a', 't', 'medium', 'pending', now(), '{{}}' from generate_series(1, 500)"))
        .await;
    db.execute("insert into task_types (task_type, paused) values ('paused', true); analyze agent_tasks")
        .await;
    let costs = async || {
        let mut costs = Vec::new();
        for function in [
            "agent_tasks_due_v1('{a,paused}', 10, null)",
            "agent_tasks_few_v1('{a,paused}', 10, null)",
            "agent_tasks_next_v1('{a,paused}', '{}', null)",
        ] {
            db.buffers_of(function).await;
            costs.push((function, db.buffers_of(function).await));
        }
        costs
    };
    let before = costs().await;
    for rest in [
        "'a', 't', 'urgent', 'pending', now() + interval '1 day', '{}' from generate_series(1, 20000)",
        "'unknown', 't', 'urgent', 'pending', now() - interval '1 day', '{}' from generate_series(1, 20000)",
        "'a', 't', 'urgent', 'completed', now() - interval '1 day', '{}' from generate_series(1, 20000)",
        "'paused', 't', 'urgent', 'pending', now() - interval '1 day', '{}' from generate_series(1, 20000)",
        "'a', 't', 'low', 'pending', now() - interval '1 day', '{}' from generate_series(1, 20000)",
    ] {
        db.execute(&format!("{fill} {rest}")).await;
        // Statistics of before, and then of now: neither may matter.
        let stale = costs().await;
        db.execute("analyze agent_tasks").await;
        let fresh = costs().await;
        for ((function, before), (_, after)) in before.iter().cycle().zip(stale.iter().chain(&fresh)) {
            assert!(
                *after <= before + 40,
                "{function}: {before} buffers, {after} with 20,000 more of {rest}"
            );
        }
    }
}
