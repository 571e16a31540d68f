//! `doctor`: it finds each fault that is planted, its remedies mend them, and of a healthy database it says nothing.

use std::process::{Command, Stdio};
use std::time::Duration;

use futures_util::future::join_all;
use serde::Deserialize;
use task_processor::db::inspect::{EXPECTED_SCHEMA, schema_lines};
use task_processor::db::{Database, migrate};
use task_processor::queue::Prunable;

use crate::support::{TestDb, connect, eventually, test_variable};

#[derive(Debug, Deserialize)]
struct Finding {
    check: String,
    severity: String,
    what: String,
    remedy: String,
}

struct Diagnosis {
    exit_code: Option<i32>,
    findings: Vec<Finding>,
}

impl Diagnosis {
    /// The checks that found something, with how bad it is.
    fn found(&self) -> Vec<String> {
        let mut all: Vec<String> =
            self.findings.iter().map(|finding| format!("{} {}", finding.severity, finding.check)).collect();
        all.dedup();
        all
    }

    /// The only finding.
    fn only(&self) -> &Finding {
        assert_eq!(self.findings.len(), 1, "{:#?}", self.findings);
        &self.findings[0]
    }
}

/// A migrated database with the limits that the README gives a role, here for all roles.
async fn healthy() -> TestDb {
    let db = TestDb::new().await;
    limit(&db).await;
    db
}

async fn limit(db: &TestDb) {
    db.execute(
        "do $$ begin
            execute format('alter database %I set statement_timeout = %L', current_database(), '4s');
            execute format('alter database %I set idle_in_transaction_session_timeout = %L', current_database(), '60s');
        end $$",
    )
    .await;
}

/// Asks `doctor`, on a direct connection unless `extra` has another.
async fn doctor(db: &TestDb, extra: &[(&str, &str)]) -> Diagnosis {
    let direct = db.direct_url();
    let defaults = [("DATABASE_URL", direct.as_str()), ("LISTEN_DATABASE_URL", direct.as_str())];
    let vars = db.vars(&[defaults.as_slice(), extra].concat());
    let output = tokio::task::spawn_blocking(move || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_task-processor"));
        command.args(["doctor", "--json"]).env_clear().envs(vars).stdin(Stdio::null()).output()
    });
    let output = output.await.expect("no panic").expect("the binary");
    let mut answer: serde_json::Value =
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"));
    assert_eq!(answer["healthy"], output.status.success());
    let findings = serde_json::from_value(answer["findings"].take()).expect("findings");
    Diagnosis { exit_code: output.status.code(), findings }
}

/// Does what a remedy says, as the tables' owner.
async fn follow(db: &TestDb, remedy: &str) {
    for part in remedy.split(';').map(str::trim) {
        match part.split(' ').next().unwrap_or_default() {
            "select" | "alter" | "grant" | "revoke" | "drop" | "delete" | "rollback" => {
                db.execute(part).await;
            }
            _ if part.contains("task-processor migrate") => {
                let config = db.config(&[("DATABASE_URL", &db.direct_url())]);
                migrate(&Database::new(&config.database).expect("a usable URL")).await.expect("migrated");
            }
            _ => {}
        }
    }
}

/// Plants a fault, sees that it is the one that is found, does what the remedies say, and sees that it is gone.
async fn is_found_and_mended(plant: &str, check: &str, says: &str) {
    let db = healthy().await;
    db.execute(plant).await;
    let diagnosis = doctor(&db, &[]).await;
    assert_eq!(diagnosis.found(), [check], "{plant}: {:#?}", diagnosis.findings);
    assert_eq!(diagnosis.exit_code, Some(i32::from(check.starts_with("fault"))), "{plant}");
    let said = diagnosis.findings.iter().any(|finding| finding.what.contains(says));
    assert!(said, "{plant}: nothing says {says}: {:#?}", diagnosis.findings);
    for finding in &diagnosis.findings {
        follow(&db, &finding.remedy).await;
    }
    let after = doctor(&db, &[]).await;
    assert!(after.findings.is_empty(), "{plant}, mended by {:#?}: {:#?}", diagnosis.findings, after.findings);
}

#[tokio::test]
async fn of_a_healthy_database_it_says_nothing() {
    let db = healthy().await;
    db.execute("insert into agent_tasks (task_type, agent_type, context_json) values ('echo', 'a', '{}')")
        .await;
    let diagnosis = doctor(&db, &[]).await;
    assert!(diagnosis.findings.is_empty(), "{:#?}", diagnosis.findings);
    assert_eq!(diagnosis.exit_code, Some(0));
}

/// `UPDATE_SCHEMA=1 cargo test --test it doctor::` writes the file anew after a migration was added.
#[tokio::test]
async fn what_it_expects_is_what_the_migrations_make() {
    let db = TestDb::new().await;
    let config = db.config(&[]);
    let made = schema_lines(&Database::new(&config.database).expect("a usable URL")).await.unwrap();
    if test_variable("UPDATE_SCHEMA").is_some() {
        std::fs::write(concat!(env!("CARGO_MANIFEST_DIR"), "/src/db/inspect/schema.txt"), &made).unwrap();
        return;
    }
    let missing: Vec<&str> =
        made.lines().filter(|line| !EXPECTED_SCHEMA.lines().any(|known| known == *line)).collect();
    let unknown: Vec<&str> =
        EXPECTED_SCHEMA.lines().filter(|line| !made.lines().any(|known| known == *line)).collect();
    assert!(
        missing.is_empty() && unknown.is_empty(),
        "made, not expected: {missing:#?}; expected, not made: {unknown:#?}"
    );
}

/// What is done to the schema, the check that finds it, and a part of what that says.
const SCHEMA_FAULTS: &[(&str, &str, &str)] = &[
    (
        "alter table agent_tasks drop column trace_context",
        "fault drift",
        "column agent_tasks.trace_context is missing",
    ),
    (
        "alter table agent_actions_log drop column attempt",
        "fault drift",
        "agent_actions_log.attempt is missing",
    ),
    (
        "alter table agent_tasks alter column claimed_by type varchar(20)",
        "fault drift",
        "agent_tasks.claimed_by is of type character varying(20) instead of text",
    ),
    ("drop index agent_tasks_due", "fault drift", "index agent_tasks_due is missing"),
    (
        "drop index agent_tasks_processing; create index agent_tasks_processing on agent_tasks (status)",
        "fault drift",
        "index agent_tasks_processing is not the one",
    ),
    (
        "update pg_index set indisvalid = false where indexrelid = 'agent_tasks_suspect'::regclass",
        "fault drift",
        "index agent_tasks_suspect is invalid",
    ),
    ("drop function agent_tasks_next_v1", "fault drift", "function agent_tasks_next_v1 is missing"),
    (
        "create or replace function agent_tasks_announce() returns trigger language plpgsql as
                'begin return null; end'",
        "fault drift",
        "function agent_tasks_announce is not the one of this release",
    ),
    ("drop trigger agent_tasks_announce on agent_tasks", "fault drift", "agent_tasks_announce is missing"),
    ("alter table agent_tasks disable trigger agent_tasks_announce", "fault drift", "is disabled"),
    ("alter table agent_tasks alter column status drop default", "fault drift", "default agent_tasks.status"),
    ("drop table agent_tasks_wake", "fault drift", "table agent_tasks_wake is missing"),
    ("drop table intro_opportunities", "warning drift", "table intro_opportunities is missing; handlers"),
    ("alter table users drop column company", "warning drift", "column users.company is missing; handlers"),
    (
        "alter table agent_tasks drop column priority cascade",
        "fault drift",
        "column agent_tasks.priority is missing",
    ),
    ("delete from task_processor_migrations where name = '0010_take'", "fault migrations", "lacks 0010_take"),
    (
        "grant select on agent_tasks to anon; alter table agent_tasks disable row level security",
        "warning exposed",
        "anon",
    ),
];

#[tokio::test]
async fn a_part_of_the_schema_that_was_lost_or_changed_is_found_and_made_anew() {
    join_all(SCHEMA_FAULTS.iter().map(|(plant, check, says)| is_found_and_mended(plant, check, says))).await;
}

/// As `pg_cron` has it, as far as it concerns us.
const CRON: &str = "
    create schema cron;
    create table cron.job (
        jobid bigint, schedule text, command text, database text default current_database(), active boolean default true
    );
    create function cron.unschedule(id bigint) returns boolean language sql as
        'delete from cron.job where jobid = id returning true';";

/// The customer's batch function, in short.
const BATCH: &str = "
    create function process_tasks_batch() returns void language plpgsql as $$
    begin
        update public.agent_tasks set status = 'processing', last_attempted_at = now()
        where status = 'pending' and scheduled_for <= now();
    end $$;";

#[tokio::test]
async fn whatever_else_takes_tasks_is_found_and_ended() {
    let calls = format!(
        "{CRON} {BATCH} insert into cron.job values (7, '*/2 * * * *', 'select process_tasks_batch()')"
    );
    let db = healthy().await;
    db.execute(&calls).await;
    let diagnosis = doctor(&db, &[]).await;
    let finding = diagnosis.only();
    assert_eq!((finding.check.as_str(), finding.severity.as_str()), ("rivals", "fault"), "{finding:?}");
    assert_eq!((finding.remedy.as_str(), diagnosis.exit_code), ("select cron.unschedule(7)", Some(1)));
    follow(&db, &finding.remedy).await;
    // The function is left, and somebody else may call it.
    let diagnosis = doctor(&db, &[]).await;
    let finding = diagnosis.only();
    assert_eq!((finding.severity.as_str(), diagnosis.exit_code), ("warning", Some(0)), "{finding:?}");
    assert!(finding.remedy.contains("drop function public.process_tasks_batch"), "{finding:?}");

    let by_itself = format!(
        "{CRON} insert into cron.job values (8, '30 seconds',
            'UPDATE agent_tasks SET status = ''processing'' WHERE status = ''pending''')"
    );
    is_found_and_mended(&by_itself, "fault rivals", "pg_cron job 8").await;
}

#[tokio::test]
async fn jobs_that_add_tasks_wake_us_or_are_inactive_are_no_rivals() {
    let db = healthy().await;
    let jobs = "
        insert into cron.job (jobid, schedule, command, active) values
            (1, '* * * * *', 'insert into agent_tasks (task_type, agent_type, context_json) values (''echo'', ''a'', ''{}'')', true),
            (2, '30 seconds', 'select net.http_post(url := ''https://x/trigger-poll'')', true),
            (3, '@daily', 'delete from agent_tasks where status = ''completed''', true),
            (4, '* * * * *', 'update agent_tasks set status = ''processing''', false)";
    db.execute(&format!("{CRON} {jobs}")).await;
    let diagnosis = doctor(&db, &[]).await;
    assert!(diagnosis.findings.is_empty(), "{:#?}", diagnosis.findings);
}

#[tokio::test]
async fn tasks_that_nobody_will_do_are_counted_by_type() {
    let db = healthy().await;
    db.execute(
        "insert into agent_tasks (task_type, agent_type, context_json, scheduled_for)
         select task_type, 'a', '{}', now() + interval '1 year'
         from unnest(array['echo', 'aaa', 'zzz', 'aaa']) task_type",
    )
    .await;
    let diagnosis = doctor(&db, &[]).await;
    assert_eq!((diagnosis.found(), diagnosis.exit_code), (vec!["warning unroutable".to_owned()], Some(0)));
    let what: Vec<&str> = diagnosis.findings.iter().map(|finding| finding.what.as_str()).collect();
    assert!(what.len() == 2 && what[0].starts_with("2 pending tasks are of type aaa"), "{what:?}");
    assert!(what[1].starts_with("1 pending tasks are of type zzz"), "{what:?}");
}

#[tokio::test]
async fn old_rows_that_another_program_left_running_are_counted_with_the_statements_that_settle_them() {
    let insert = |age: &str| {
        format!(
            "insert into agent_tasks (task_type, agent_type, context_json, status, last_attempted_at)
             values ('echo', 'a', '{{}}', 'processing', now() - interval '{age}')"
        )
    };
    for (choice, becomes) in [("to have it done again: ", "pending"), ("to close them: ", "cancelled")] {
        let db = healthy().await;
        for age in ["3 days", "2 hours", "50 minutes"] {
            db.execute(&insert(age)).await;
        }
        let diagnosis = doctor(&db, &[("ADOPT_WINDOW_HOURS", "1")]).await;
        let finding = diagnosis.only();
        assert!(finding.check == "strays" && finding.what.starts_with("2 tasks are"), "{finding:?}");
        let statement = finding.remedy.split_once(choice).expect("a statement").1.split(';').next().unwrap();
        db.execute(statement).await;
        let settled: i64 =
            db.value(&format!("select count(*) from agent_tasks where status = '{becomes}'")).await;
        assert_eq!(settled, 2, "{statement}");
        assert!(doctor(&db, &[]).await.findings.is_empty());
    }
}

#[tokio::test]
async fn a_transaction_that_is_older_than_an_attempt_may_be_is_named_with_what_ends_it() {
    let db = healthy().await;
    let client = connect(&db.direct_url()).await;
    client.batch_execute("begin; select count(*) from agent_tasks").await.unwrap();
    let mut remedy = String::new();
    eventually("the transaction is old", async || {
        let diagnosis = doctor(&db, &[("TASK_TIMEOUT_SECONDS", "1")]).await;
        assert_eq!(diagnosis.exit_code, Some(0));
        let finding = diagnosis.findings.first();
        finding.is_some_and(|finding| {
            assert!(
                finding.check == "transactions" && finding.what.contains("idle in transaction"),
                "{finding:?}"
            );
            remedy.clone_from(&finding.remedy);
            true
        })
    })
    .await;
    assert!(doctor(&db, &[]).await.findings.is_empty(), "by default an attempt may take longer");
    db.execute(&remedy).await;
    eventually("it is ended", async || client.is_closed()).await;
    assert!(doctor(&db, &[("TASK_TIMEOUT_SECONDS", "1")]).await.findings.is_empty());
}

#[tokio::test]
async fn a_database_that_is_empty_read_only_or_away_is_told_apart() {
    let db = TestDb::empty().await;
    limit(&db).await;
    let diagnosis = doctor(&db, &[]).await;
    assert_eq!((diagnosis.found(), diagnosis.exit_code), (vec!["fault migrations".to_owned()], Some(1)));
    follow(&db, &diagnosis.only().remedy).await;
    assert!(doctor(&db, &[]).await.findings.is_empty());

    let name: String = db.value("select current_database()::text").await;
    db.execute(&format!("alter database {name} set default_transaction_read_only = on")).await;
    let diagnosis = doctor(&db, &[]).await;
    assert_eq!((diagnosis.only().check.as_str(), diagnosis.exit_code), ("writable", Some(1)));

    let url = db.direct_url();
    for (wrong, says) in [
        (url.replace(&name, "no_such_database"), "right name"),
        (url.replace("user=postgres", "user=nobody_at_all"), "user and password"),
        ("postgres://u@127.0.0.1:1/x".to_owned(), "host, port"),
    ] {
        let diagnosis = doctor(&db, &[("DATABASE_URL", &wrong)]).await;
        let finding = diagnosis.only();
        assert_eq!((finding.check.as_str(), diagnosis.exit_code), ("reachable", Some(1)), "{finding:?}");
        assert!(finding.remedy.contains(says), "{finding:?}");
    }
}

#[tokio::test]
async fn notifications_are_tried_out() {
    let db = healthy().await;
    let declared = db.direct_url() + "&pgbouncer=true";
    let diagnosis = doctor(&db, &[("DATABASE_URL", &declared), ("LISTEN_DATABASE_URL", "")]).await;
    assert_eq!((diagnosis.found(), diagnosis.exit_code), (vec!["warning listen".to_owned()], Some(0)));
    assert!(diagnosis.only().remedy.contains("LISTEN_DATABASE_URL"));
    let asked = [("DATABASE_URL", declared.as_str()), ("LISTEN_DATABASE_URL", ""), ("POLL_MODE", "request")];
    assert!(doctor(&db, &asked).await.findings.is_empty(), "it works only when asked to");

    let diagnosis = doctor(&db, &[("LISTEN_DATABASE_URL", "postgres://u@127.0.0.1:1/x")]).await;
    assert_eq!((diagnosis.found(), diagnosis.exit_code), (vec!["fault listen".to_owned()], Some(1)));
}

#[tokio::test]
async fn a_transaction_pooler_that_the_url_does_not_tell_of_is_found() {
    let db = healthy().await;
    let Some(undeclared) = db.url().strip_suffix("&pgbouncer=true").map(str::to_owned) else {
        eprintln!("nothing was checked: TEST_POOLER names no pooler");
        return;
    };
    let diagnosis = doctor(&db, &[("DATABASE_URL", &undeclared), ("LISTEN_DATABASE_URL", "")]).await;
    assert_eq!(
        (diagnosis.found().join(", "), diagnosis.exit_code),
        ("fault pooler, fault listen".to_owned(), Some(1))
    );
    let told = format!("{undeclared}&pgbouncer=true");
    let diagnosis = doctor(&db, &[("DATABASE_URL", &told)]).await;
    assert!(diagnosis.findings.is_empty(), "{:#?}", diagnosis.findings);
}

/// The URL of a fresh role with these options.
async fn role(db: &TestDb, name: &str, options: &str) -> String {
    db.execute(&format!("create role {name} login {options}")).await;
    db.direct_url().replace("user=postgres", &format!("user={}", name.trim_matches('"')))
}

#[tokio::test]
async fn a_role_is_led_from_nothing_to_all_it_needs() {
    let db = healthy().await;
    let url = role(&db, "\"doctor-led\"", "connection limit 6").await;
    let vars = [("DATABASE_URL", url.as_str()), ("LISTEN_DATABASE_URL", url.as_str())];
    db.execute("revoke execute on all functions in schema public from public").await;
    let diagnosis = doctor(&db, &vars).await;
    assert_eq!(
        diagnosis.found(),
        ["fault connections", "fault grants", "fault rls", "warning transactions"],
        "{:#?}",
        diagnosis.findings
    );
    for finding in &diagnosis.findings {
        follow(&db, &finding.remedy).await;
    }
    let diagnosis = doctor(&db, &vars).await;
    assert!(diagnosis.findings.is_empty(), "{:#?}", diagnosis.findings);
    for retention in ["RETENTION_DAYS", "LOG_RETENTION_DAYS"] {
        let pruning = [vars.as_slice(), &[(retention, "1")]].concat();
        let diagnosis = doctor(&db, &pruning).await;
        assert_eq!(diagnosis.found(), ["fault grants"], "it may not delete");
        follow(&db, &diagnosis.only().remedy).await;
        assert!(doctor(&db, &pruning).await.findings.is_empty(), "{retention}");
    }
    db.execute(
        "insert into agent_tasks (task_type, agent_type, status, context_json, completed_at)
         values ('a', 'a', 'completed', '{}', now() - interval '2 days');
         insert into agent_actions_log (agent_type, action_type, created_at)
         values ('task_processor', 'a', now() - interval '2 days')",
    )
    .await;
    let queue = db.queue("led", &vars);
    for what in [Prunable::Tasks, Prunable::LogRows] {
        let mut sweep = queue.sweep(what, Duration::from_hours(24)).await.expect("a sweep");
        assert_eq!(queue.prune(&mut sweep).await.expect("a step"), 1, "{what:?}");
    }
}

#[tokio::test]
async fn a_table_in_a_schema_where_the_role_does_not_look_is_found() {
    let db = healthy().await;
    let url = role(&db, "doctor_lost", "superuser").await;
    let elsewhere = "
        create schema tasks;
        alter table agent_tasks set schema tasks;
        alter table agent_actions_log set schema tasks";
    db.execute(elsewhere).await;
    let diagnosis = doctor(&db, &[("DATABASE_URL", &url), ("LISTEN_DATABASE_URL", &url)]).await;
    let finding = diagnosis.only();
    assert!(finding.check == "search_path" && finding.what.contains("in schema tasks"), "{finding:?}");
}

#[tokio::test]
async fn the_limits_of_a_role_are_judged_one_by_one() {
    let db = TestDb::new().await;
    let url = role(&db, "doctor_limits", "superuser").await;
    let vars = [("DATABASE_URL", url.as_str()), ("LISTEN_DATABASE_URL", url.as_str())];
    let settings = [
        ("statement_timeout = 0", "warning limits", "statement_timeout"),
        ("statement_timeout = '1h'", "warning limits", "statement_timeout"),
        ("statement_timeout = '500ms'", "fault limits", "statement_timeout"),
        ("lock_timeout = '5ms'", "warning limits", "lock_timeout"),
        ("idle_in_transaction_session_timeout = 0", "warning limits", "idle_in_transaction_session_timeout"),
        ("idle_session_timeout = '5s'", "warning limits", "idle_session_timeout"),
    ];
    let good = "
        alter role doctor_limits set statement_timeout = '4s';
        alter role doctor_limits set idle_in_transaction_session_timeout = '60s'";
    db.execute(good).await;
    for (setting, found, name) in settings {
        db.execute(&format!("alter role doctor_limits set {setting}")).await;
        let diagnosis = doctor(&db, &vars).await;
        assert_eq!(diagnosis.found(), [found], "{setting}");
        assert!(diagnosis.only().what.starts_with(name), "{setting}: {:?}", diagnosis.only());
        follow(&db, &diagnosis.only().remedy).await;
        assert!(doctor(&db, &vars).await.findings.is_empty(), "{setting}");
    }
}

#[tokio::test]
async fn connections_that_do_not_suffice_are_found() {
    let db = healthy().await;
    let name: String = db.value("select current_database()::text").await;
    db.execute(&format!("alter database {name} connection limit 9")).await;
    let diagnosis = doctor(&db, &[]).await;
    assert_eq!(diagnosis.found(), ["fault connections"]);
    follow(&db, &diagnosis.only().remedy).await;
    assert!(doctor(&db, &[]).await.findings.is_empty());
}
