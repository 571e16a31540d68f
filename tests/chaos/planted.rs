//! The invariants themselves: none fires after a run that went well, and each does when something is wrong.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio_postgres::Client;

use crate::load::Volume;
use crate::process::Program;
use crate::random::Random;
use crate::run;
use crate::schedule::{Fault, Planned};
use crate::verdict;
use crate::world::{Settings, World};

/// The invariants that must fire, and a corruption that makes them.
const CORRUPTIONS: [(&[&str], &str); 19] = [
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
        "update agent_actions_log log set created_at = log.created_at + interval '0.9 s' from failed
         where log.context_id = failed.task_id and log.attempt = failed.attempt",
    ),
    (
        &["I08"],
        "update agent_tasks set context_json = context_json - 'fail_permanently' where context_json ? 'fail_permanently'",
    ),
    (&["I09"], "insert into chaos.acknowledged values (gen_random_uuid(), null)"),
    (&["I10"], "insert into chaos.told select id, attempt, 'snooze', 'w9.9' from done"),
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
    (&["I21"], "create sequence planted as integer"),
];

/// Tasks that corruptions are done to: one that was done at once, the end of an attempt that was cut short by a kill, and
/// that of one that failed and was tried again.
const VICTIMS: &str = "
    create temporary view done as
        select id, attempt, last_attempted_at from agent_tasks
        where status = 'completed' and task_type = 'chaos' and attempt = 1 order by id limit 1;
    create temporary table rescued as
        select task_id, attempt, created_at from ends
        where kind = 'recover' and exists (
            select from ends after
            where after.task_id = ends.task_id and after.attempt = ends.attempt + 1 and after.kind = 'complete'
                and after.created_at < ends.created_at + interval '0.8 s'
        ) and exists (
            select from chaos.effects effect where effect.task_id = ends.task_id and effect.attempt = ends.attempt + 1
        )
        order by task_id limit 1;
    create temporary table failed as
        select task_id, attempt from ends
        where kind = 'failure' and attempt = 1 and exists (
            select from ends after where after.task_id = ends.task_id and after.attempt = 2 and after.kind = 'complete'
        )
        order by task_id limit 1";

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
    world.stop().await;
    let client = world.server.client().await.expect("a server that is left alone");
    verdict::load_journal(&client, &world.dir, settings.lease).await;
    assert_eq!(verdict::violations(&client).await, Vec::<String>::new());
    client.batch_execute(VICTIMS).await.expect("victims");
    for (expected, corruption) in CORRUPTIONS {
        let expected: BTreeSet<String> = expected.iter().map(|&name| name.to_owned()).collect();
        assert_eq!(violated_by(&client, corruption).await, expected, "{corruption}");
    }
    drop(client);
    world.forget().await;
}

/// The invariants that fire after a corruption, which is undone.
async fn violated_by(client: &Client, corruption: &str) -> BTreeSet<String> {
    client.batch_execute(&format!("begin; {corruption}")).await.expect("corrupted");
    let violations = verdict::violations(client).await;
    client.batch_execute("rollback; select pg_advisory_unlock_all()").await.expect("undone");
    violations.iter().filter_map(|line| line.split(' ').next()).map(str::to_owned).collect()
}
