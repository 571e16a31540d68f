//! Processes that are killed, or frozen, at one exact point of an attempt, and what the outside world sees of it.

use rustix::process::Signal;
use tokio::time::Instant;

use crate::support::{ACTING_THREADS, Effects, Instance, Proxy, TestDb, acting, eventually};

const SETTINGS: &[(&str, &str)] = &[("LEASE_SECONDS", "2")];
const DONE: &str = "select status = 'completed' from agent_tasks";

/// A process with a wire that can stop at a statement, and one beside it that takes over.
struct Kill {
    db: TestDb,
    effects: Effects,
    wire: Proxy,
    victim: Instance,
    heir: Option<Instance>,
}

impl Kill {
    async fn new() -> Self {
        let db = TestDb::new().await;
        let effects = Effects::listen().await;
        let (wire, url) = db.over_tcp().await;
        // It listens elsewhere, so that nothing is prepared, and the wire sees the text of each statement.
        let direct = db.direct_url();
        let settings = [
            ("DATABASE_URL", url.as_str()),
            ("LISTEN_DATABASE_URL", &direct),
            ("POLLING_INTERVAL_MS", "120000"),
        ];
        let victim = Instance::start_acting(&db, &effects, &[SETTINGS, &settings].concat()).await;
        // What is to be stopped is the claim of the task, not that of an earlier look.
        let rests =
            "select count(*) > 1 and bool_and(state = 'idle' and state_change < now() - interval '300 ms')
            from pg_stat_activity where datname = current_database() and application_name = 'task-processor'";
        db.eventually("the worker has looked and rests", rests).await;
        Self { db, effects, wire, victim, heir: None }
    }

    async fn add(&self, tasks: usize, times: u32, pause_ms: u64) {
        self.db
            .execute(&format!(
                "insert into agent_tasks (task_type, agent_type, context_json)
                 select 'act', 'test', '{}' from generate_series(1, {tasks})",
                acting(times, pause_ms)
            ))
            .await;
    }

    async fn hand_over(&mut self) {
        self.victim.signal(Signal::KILL);
        self.victim.exit_code().await;
        self.start_heir().await;
    }

    async fn start_heir(&mut self) {
        self.heir = Some(Instance::start_acting(&self.db, &self.effects, SETTINGS).await);
    }

    /// How many rows the log has for this action.
    async fn logged(&self, action: &str) -> i64 {
        let sql = format!("select count(*) from agent_actions_log where action_type = '{action}'");
        self.db.value(&sql).await
    }
}

#[tokio::test]
async fn a_process_killed_between_a_claim_and_the_start_of_its_handler_has_done_nothing() {
    let mut kill = Kill::new().await;
    kill.wire.hold_reply("agent_tasks_take_v1");
    kill.add(1, 1, 0).await;
    kill.wire.holds().await;
    assert!(kill.db.value::<bool>("select status = 'processing' and attempt = 1 from agent_tasks").await);
    kill.hand_over().await;
    kill.db.eventually("it is done", DONE).await;
    assert_eq!((kill.effects.of_attempt(1), kill.effects.of_attempt(2)), (0, 1));
    assert!(kill.db.value::<bool>("select attempt = 2 and retry_count = 0 from agent_tasks").await);
    assert_eq!((kill.logged("recover_act").await, kill.logged("process_act").await), (1, 1));
}

#[tokio::test]
async fn a_process_killed_between_an_act_and_its_ending_acts_again_under_the_same_key() {
    let mut kill = Kill::new().await;
    kill.wire.hold_request("agent_tasks_end_v1");
    kill.add(1, 1, 0).await;
    kill.wire.holds().await;
    assert!(kill.db.value::<bool>("select status = 'processing' from agent_tasks").await);
    kill.hand_over().await;
    kill.db.eventually("it is done", DONE).await;
    assert_eq!((kill.effects.of_attempt(1), kill.effects.of_attempt(2)), (1, 1));
    let seen = kill.effects.seen();
    assert_eq!(seen[0].key, seen[1].key, "who receives both knows them for one");
    assert_eq!((kill.logged("recover_act").await, kill.logged("process_act").await), (1, 1));
}

#[tokio::test]
async fn what_a_process_killed_after_the_commit_had_ended_does_not_run_again() {
    let mut kill = Kill::new().await;
    kill.wire.hold_reply("agent_tasks_end_v1");
    kill.add(1, 1, 0).await;
    kill.wire.holds().await;
    assert!(kill.db.value::<bool>(DONE).await);
    kill.hand_over().await;
    // For as long as it takes the heir to look for expired leases.
    kill.add(1, 150, 20).await;
    kill.db.eventually("another one is done", "select bool_and(status = 'completed') from agent_tasks").await;
    assert!(kill.db.value::<bool>("select bool_and(attempt = 1) from agent_tasks").await);
    assert_eq!(kill.effects.seen().len(), 151);
    assert_eq!((kill.logged("recover_act").await, kill.logged("process_act").await), (0, 2));
}

#[tokio::test]
async fn a_process_that_was_frozen_past_its_leases_acts_no_more_when_it_goes_on() {
    let mut kill = Kill::new().await;
    // With pauses so long that most of them are in one when it is stopped.
    kill.add(10, 100_000, 50).await;
    eventually("they act", async || kill.effects.of_attempt(1) > 50).await;
    kill.victim.signal(Signal::STOP);
    kill.start_heir().await;
    kill.db.eventually("the other has them", "select bool_and(attempt = 2) from agent_tasks").await;
    eventually("and acts", async || kill.effects.of_attempt(2) > 50).await;
    let gone_on = Instant::now();
    kill.victim.signal(Signal::CONT);
    eventually("it has given them up", async || kill.victim.health().await["inHand"] == 0).await;
    let late = || kill.effects.seen().iter().filter(|act| act.attempt == 1 && act.at > gone_on).count();
    let at_once = late();
    // A thread that was stopped in the middle of a poll finishes it.
    assert!(at_once <= ACTING_THREADS, "{at_once} acts without a lease");
    let others = kill.effects.of_attempt(2);
    eventually("the other acts on", async || kill.effects.of_attempt(2) > others + 50).await;
    assert_eq!(late(), at_once, "acts of what was given up");
}
