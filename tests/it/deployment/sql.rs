//! The SQL of the documents, run as it stands there.

use super::read;
use crate::support::{Instance, TestDb, connect};

/// The `sql` block of a document that holds these words.
fn block(document: &str, words: &str) -> String {
    let text = read(document);
    let mut blocks = text.split("```").skip(1).step_by(2).filter_map(|block| block.strip_prefix("sql\n"));
    blocks
        .find(|block| block.contains(words))
        .unwrap_or_else(|| panic!("{document}: no SQL with {words}"))
        .to_owned()
}

#[tokio::test]
async fn the_role_of_the_readme_can_do_all_that_a_worker_does() {
    let db = TestDb::new().await;
    db.execute(&block("README.md", "create role task_processor")).await;
    let url = db.direct_url().replace("user=postgres", "user=task_processor");
    let vars = [
        ("DATABASE_URL", url.as_str()),
        ("LISTEN_DATABASE_URL", &url),
        ("LEASE_SECONDS", "2"),
        ("LOG_RETENTION_DAYS", "1"),
        ("RETENTION_DAYS", "1"),
    ];
    let worker = Instance::start(&db, &vars).await;
    db.execute(
        r#"insert into agent_tasks (task_type, agent_type, context_json) values
           ('echo', 'test', '{"sleep_ms": 1500}'), ('echo', 'test', '{"fail_times": 1}'),
           ('echo', 'test', '{"fail_permanently": true}'), ('echo', 'test', '{"snooze_ms": 10}'),
           ('echo', 'test', '{"cancel": true}')"#,
    )
    .await;
    db.eventually(
        "all have ended",
        "select bool_and(status in ('completed', 'failed', 'cancelled')) from agent_tasks",
    )
    .await;
    assert_eq!(db.value::<i64>("select count(*) from agent_tasks where status = 'completed'").await, 3);
    assert_eq!(worker.health().await["status"], "healthy", "{}", worker.log());
    assert!(!worker.log().contains("permission denied"), "{}", worker.log());
}

/// What Supabase has: `pg_net`, the vault and `pg_cron`, as far as the documents use them.
const SUPABASE: &str = "
    create schema net; create schema vault; create schema cron;
    create table net.calls (url text, body jsonb, headers jsonb, timeout integer);
    create function net.http_post(
        url text, body jsonb default '{}', params jsonb default '{}', headers jsonb default '{}',
        timeout_milliseconds integer default 5000
    ) returns bigint language sql as
        'insert into net.calls values (url, body, headers, timeout_milliseconds) returning 1::bigint';
    create view vault.decrypted_secrets as select 'task_processor_key' as name, 'the-key' as decrypted_secret;
    create function cron.schedule(name text, schedule text, command text) returns bigint language plpgsql as
        'begin execute command; return 1; end'";

#[tokio::test]
async fn the_webhook_calls_once_a_statement_with_the_key_and_never_costs_an_insert() {
    let db = TestDb::new().await;
    db.execute(SUPABASE).await;
    let trigger = block("docs/DEPLOYMENT.md", "create or replace trigger");
    db.execute(&trigger).await;
    db.execute(&trigger).await;
    let insert = "insert into agent_tasks (task_type, agent_type, context_json)
        select 'echo', 'test', '{}' from generate_series(1, 3)";
    db.execute(insert).await;
    let called = "select count(*) = 1 and bool_and(url like '%/trigger-poll' and headers->>'Authorization' = 'Bearer the-key')
        from net.calls";
    assert!(db.value::<bool>(called).await);
    db.execute("drop function net.http_post").await;
    db.execute(insert).await;
    assert_eq!(db.value::<i64>("select count(*) from agent_tasks").await, 6);
}

#[tokio::test]
async fn the_schedule_of_the_database_waits_longer_than_the_work() {
    let db = TestDb::new().await;
    db.execute(SUPABASE).await;
    db.rows(&block("docs/DEPLOYMENT.md", "cron.schedule").replace(';', "")).await;
    let called = "select timeout > 1000 * substring(url from 'wait=([0-9]+)')::integer
        and headers->>'Authorization' = 'Bearer the-key' from net.calls";
    assert!(db.value::<bool>(called).await);
}

#[tokio::test]
async fn the_wrapper_of_the_readme_lets_a_signed_in_user_add_one_type_of_task_once_a_day() {
    let db = TestDb::new().await;
    let user = "00000000-0000-4000-8000-0000000000a1";
    db.execute(&format!("insert into users (id, phone_number) values ('{user}', '+1555')")).await;
    db.execute(
        "create schema auth; grant usage on schema auth to anon, authenticated;
        create function auth.uid() returns uuid language sql as
            $$ select nullif(current_setting('test.caller', true), '')::uuid $$",
    )
    .await;
    db.execute(&block("README.md", "create function request_greeting")).await;
    let call = async |role: &str, user: &str| {
        let client = connect(&db.direct_url()).await;
        let who = format!("set role {role}; set test.caller = '{user}'");
        client.batch_execute(&who).await.expect("a role");
        client
            .query_typed("select request_greeting('Ada')::text", &[])
            .await
            .map(|rows| rows[0].get::<_, Option<String>>(0))
    };
    let first = call("authenticated", user).await.expect("a task");
    let again = call("authenticated", user).await.expect("the same task");
    assert!(first.is_some() && first == again);
    assert_eq!(call("authenticated", "").await.expect("no task"), None, "nobody is signed in");
    call("anon", user).await.expect_err("not for strangers");
    let row = format!(
        "select count(*) = 1 and bool_and(task_type = 'greet' and user_id = '{user}' and context_json = '{{\"name\": \"Ada\"}}')
        from agent_tasks"
    );
    assert!(db.value::<bool>(&row).await);
}
