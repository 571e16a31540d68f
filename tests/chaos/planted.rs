//! The invariants themselves: none fires after a run that went well, and each does when something is wrong.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::Signal;
use tokio::time::{sleep, timeout};
use tokio_postgres::{Client, SimpleQueryMessage};

use crate::calm;
use crate::load::Volume;
use crate::process::Program;
use crate::random::Random;
use crate::run;
use crate::schedule::{Fault, Planned};
use crate::verdict;
use crate::world::{Settings, World};

/// The invariants that must fire, and a corruption that makes them.
const CORRUPTIONS: [(&[&str], &str); 33] = [
    (&["I01"], "update agent_tasks set completed_at = null where id = (select id from done)"),
    (&["I02"], "update agent_tasks set lease_token = gen_random_uuid() where id = (select id from done)"),
    (
        &["I03"],
        "insert into agent_actions_log (agent_type, action_type, context_id, attempt, lease_token, output_data, created_at)
         select agent_type, action_type, context_id, attempt, lease_token, output_data, created_at
         from agent_actions_log where action_type like 'snooze%' limit 1",
    ),
    (
        &["I04"],
        "update chaos.effects effect set at = at - interval '1 hour' from rescued
         where effect.task_id = rescued.task_id and effect.attempt = rescued.attempt + 1 and phase = 'start'",
    ),
    (
        &["I04"],
        "update chaos.effects effect set at = at + interval '1 hour' from done where effect.task_id = done.id and phase = 'finish'",
    ),
    // A handler that is still there for a millisecond when the next attempt has started.
    (
        &["I04"],
        "insert into chaos.effects select task_id, attempt, 'beat', next_start + interval '1 ms', 'w9.9' from rescued",
    ),
    (
        &["I04"],
        "insert into chaos.effects select task_id, attempt, 'dropped', next_start + interval '1 ms', 'w9.9' from rescued",
    ),
    // What started without anybody's asking, long after the attempt was over.
    (&["I04"], "insert into chaos.effects select id, attempt, 'start', now(), 'w9.9' from echoed"),
    // Somebody who was frozen goes on once, at once, and notices; not twice, and not later.
    (
        &[],
        "with thawed as (
            insert into chaos.frozen select 'w9.9', next_start, next_start + interval '3 s' from rescued returning *
         )
         insert into chaos.effects select task_id, attempt, 'beat', thawed + interval '1 ms', thawed.process from rescued, thawed",
    ),
    (
        &["I04"],
        "with thawed as (
            insert into chaos.frozen select 'w9.9', next_start, next_start + interval '3 s' from rescued returning *
         )
         insert into chaos.effects select task_id, attempt, 'beat', thawed + late * interval '1 ms', thawed.process
         from rescued, thawed, generate_series(1, 2) late",
    ),
    (
        &["I04"],
        "with thawed as (
            insert into chaos.frozen select 'w9.9', next_start, next_start + interval '3 s' from rescued returning *
         )
         insert into chaos.effects select task_id, attempt, 'beat', thawed + interval '1 s', thawed.process from rescued, thawed",
    ),
    // What runs keeps a queue from being drained, too.
    (
        &["I05", "I19"],
        "insert into agent_tasks (task_type, agent_type, context_json, status, attempt, lease_token, claimed_by, lease_expires_at)
         values ('chaos', 'planted', '{}', 'processing', 1, gen_random_uuid(), 'w9.9/x', now() - interval '1 minute')",
    ),
    (&["I06"], "update agent_tasks set retry_count = 1 where id = (select id from done)"),
    (
        &["I06"],
        "update agent_tasks set crash_count = 1 where id = (select id from done)",
    ),
    (
        &["I07"],
        "update agent_actions_log log set created_at = next_start - interval '0.99 s' from failed
         where log.context_id = failed.task_id and log.attempt = failed.attempt",
    ),
    (
        &["I08"],
        "update agent_tasks set context_json = context_json - 'fail_permanently' where context_json ? 'fail_permanently'",
    ),
    (&["I09"], "insert into chaos.acknowledged values (gen_random_uuid(), null)"),
    (&["I10"], "insert into chaos.told select id, attempt, 'snooze', 'w9.9' from done"),
    (
        &["I10"],
        "insert into chaos.cancelled select task_id, 'requested', created_at - interval '1 ms' from rescued",
    ),
    (
        &["I11"],
        "update chaos.effects effect set phase = 'finish' from failed
         where effect.task_id = failed.task_id and effect.attempt = failed.attempt and phase = 'fail'",
    ),
    (
        &["I11"],
        "update chaos.effects effect set phase = 'finish' from agent_tasks
         where phase = 'cancel' and id = task_id and context_json ->> 'fate' = 'cancelled'",
    ),
    // It came to its end and was given back, though nobody had told its process to stop.
    (
        &["I11"],
        "with given_back as (
            update agent_actions_log log set action_type = 'release_chaos' from rescued
            where log.context_id = rescued.task_id and log.attempt = rescued.attempt
         )
         insert into chaos.effects select task_id, attempt, 'finish', created_at - interval '1 ms', process from rescued",
    ),
    (&["I11"], "insert into chaos.effects select id, attempt, 'finish', last_attempted_at, 'w9.9' from done"),
    (&["I12"], "insert into chaos.effects select id, attempt + 1, 'start', now(), 'w9.9' from done"),
    (&["I13"], "update pg_index set indisvalid = false where indrelid = 'agent_actions_log'::regclass"),
    (
        &["I14"],
        "update agent_actions_log log set created_at = rescued.created_at - interval '1 ms' from rescued
         where log.context_id = rescued.task_id and log.attempt = rescued.attempt + 1 and log.action_type like 'process%'",
    ),
    (&["I19"], "insert into agent_tasks (task_type, agent_type, context_json) values ('echo', 'planted', '{}')"),
    (&["I20"], "select pg_advisory_lock(42)"),
    (&["I21"], "create sequence planted as integer; select from pg_sequences where sequencename = 'planted'"),
    (&["S01"], "insert into chaos.exits values ('w0.1', 'signal_6', now())"),
    (&["S01"], "insert into chaos.exits values ('w9.9', 'signal_9', now())"),
    (&["S01"], "insert into chaos.exits values ('w9.9', 'code_0', now())"),
    (
        &["S01"],
        "insert into chaos.exits select process, 'code_70', at from chaos.told_to_stop order by at desc limit 1",
    ),
];

/// Tasks that corruptions are done to: two that were done at once, the end of an attempt that was cut short by a kill, the one
/// that was over soonest when it was tried again, and that of one that failed and was tried again.
const VICTIMS: &str = "
    create temporary view done as
        select id, attempt, last_attempted_at from agent_tasks
        where status = 'completed' and task_type = 'chaos' and attempt = 1 order by id limit 1;
    create temporary table echoed as
        select id, attempt from agent_tasks
        where status = 'completed' and task_type = 'echo' and attempt = 1
            and completed_at < clock_timestamp() - interval '2 s'
        order by id limit 1;
    create temporary table again as
        select ends.task_id, ends.attempt, ends.kind, ends.created_at, next.at as next_start,
            after.created_at as next_end, after.kind as next_kind, own.process
        from ends
        join ends after on after.task_id = ends.task_id and after.attempt = ends.attempt + 1
        join chaos.effects next
            on next.task_id = ends.task_id and next.attempt = ends.attempt + 1 and next.phase = 'start'
        join chaos.effects own on own.task_id = ends.task_id and own.attempt = ends.attempt and own.phase = 'start'
        where not exists (
            select from chaos.effects left_by
            where left_by.task_id = ends.task_id and left_by.attempt = ends.attempt and ends.kind = 'recover'
                and left_by.phase not in ('start', 'beat')
        );
    create temporary table rescued as
        select * from again where kind = 'recover' and next_kind = 'complete' order by next_end - created_at limit 1;
    create temporary table failed as
        select * from again where kind = 'failure' and attempt = 1 and next_kind = 'complete' order by task_id limit 1";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_that_went_well_violates_nothing_and_each_corruption_is_noticed() {
    let settings = Settings { programs: vec![Program::Traced, Program::Traced], ..Settings::quick() };
    let world = Arc::new(World::start("planted", settings.clone()).await);
    let lasts = Duration::from_secs(4);
    let volume = Volume {
        lasts,
        batches_per_second: 10,
        tasks_per_batch: 10,
        lease: settings.lease,
        poison_one_in: 0,
    };
    let kills = [(700, 0), (1_400, 1), (2_100, 0), (2_800, 1)].map(|(at, process)| Planned {
        at: Duration::from_millis(at),
        fault: Fault::Kill,
        process,
        amount: 0,
    });
    run::until_drained(&world, volume, &Random::new(1), &kills).await;
    assert_eq!(world.book().complaints, Vec::<String>::new());
    what_goes_on_during_a_run_is_noticed(&world).await;
    world.stop().await;
    let client = world.server.client().await.expect("a server that is left alone");
    verdict::load_journal(&client, &world.dir, settings.lease).await;
    assert_eq!(verdict::violations(&client).await, Vec::<String>::new());
    client.batch_execute(VICTIMS).await.expect("victims");
    let soon = client.query_typed("select next_end - created_at < tick from rescued, chaos.terms", &[]).await;
    assert!(soon.expect("an answer")[0].get::<_, bool>(0), "I14's corruption would violate I04, too");
    for (expected, corruption) in CORRUPTIONS {
        let expected: BTreeSet<String> = expected.iter().map(|&name| name.to_owned()).collect();
        assert_eq!(violated_by(&client, corruption).await, expected, "{corruption}");
    }
    drop(client);
    world.forget().await;
}

/// A lock that nobody gives back, and a lease that nobody looks after, since all processes hang.
async fn what_goes_on_during_a_run_is_noticed(world: &World) {
    let client = world.server.client().await.expect("a server");
    client.batch_execute("select pg_advisory_lock(42)").await.expect("locked");
    noticed(world, "I20").await;
    client.batch_execute("select pg_advisory_unlock(42)").await.expect("unlocked");
    for slot in 0..world.slots.len() {
        world.slot(slot).await.signal(Signal::STOP);
    }
    let planted = "insert into agent_tasks
            (task_type, agent_type, context_json, status, attempt, lease_token, claimed_by, lease_expires_at)
        values ('chaos', 'planted', '{}', 'processing', 1, gen_random_uuid(), 'w9.9/x', now() - interval '1 minute')";
    client.batch_execute(planted).await.expect("planted");
    noticed(world, "I05").await;
    client.batch_execute("delete from agent_tasks where agent_type = 'planted'").await.expect("gone");
    for slot in 0..world.slots.len() {
        world.slot(slot).await.signal(Signal::CONT);
    }
}

async fn noticed(world: &World, invariant: &str) {
    let complaint = async {
        while !world.book().complaints.iter().any(|complaint| complaint.starts_with(invariant)) {
            sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::select! {
        noticed = timeout(Duration::from_secs(30), complaint) => noticed.expect(invariant),
        never = calm::look_on(world) => never,
    }
}

/// The invariants that fire after a corruption, which is undone.
async fn violated_by(client: &Client, corruption: &str) -> BTreeSet<String> {
    let corrupted = client.simple_query(&format!("begin; {corruption}")).await.expect("corrupted");
    let rows = |answer: &SimpleQueryMessage| match answer {
        SimpleQueryMessage::CommandComplete(rows) => *rows,
        _ => 0,
    };
    assert!(corrupted.iter().map(rows).sum::<u64>() > 0, "it changed nothing: {corruption}");
    let violations = verdict::violations(client).await;
    client.batch_execute("rollback; select pg_advisory_unlock_all()").await.expect("undone");
    violations.iter().filter_map(|line| line.split(' ').next()).map(str::to_owned).collect()
}
