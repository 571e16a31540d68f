//! Handlers that panic where they can, and what that costs the process.

use std::time::Duration;

use serde::Deserialize;
use serde_json::json;
use task_processor::{Handler, Outcome, Services, Task, handlers};

use crate::support::{TestApp, TestDb, eventually};

/// Panics when it is dropped, unless it ran to its end.
struct Grenade;

impl Drop for Grenade {
    fn drop(&mut self) {
        panic!("told to panic while it is dropped");
    }
}

struct Explosive;

#[derive(Deserialize)]
struct Input {
    /// Panics at once, and not only when its time is over.
    at_once: bool,
}

impl Handler for Explosive {
    const TASK_TYPE: &'static str = "explosive";
    type Input = Input;

    async fn run(&self, input: Input, _task: Task, _services: Services) -> Outcome {
        assert!(!input.at_once, "told to panic");
        let _grenade = Grenade;
        tokio::time::sleep(Duration::from_hours(1)).await;
        Outcome::complete(json!({}))
    }
}

#[tokio::test]
async fn hundreds_of_panics_and_some_more_while_code_is_dropped_cost_neither_slots_nor_the_process() {
    let db = TestDb::new().await;
    let config = db.config(&[("CONCURRENCY", "50"), ("MAX_RETRIES", "0"), ("TASK_TIMEOUT_SECONDS", "1")]);
    db.execute(
        "insert into agent_tasks (task_type, agent_type, context_json)
         select 'explosive', 't', jsonb_build_object('at_once', number % 20 <> 0) from generate_series(1, 300) number",
    )
    .await;
    let app = TestApp::start_with(config, handlers::all().with(Explosive)).await;
    db.eventually("all have failed", "select bool_and(status = 'failed') from agent_tasks").await;
    let reasons = "select count(*) filter (where error_log = 'the handler panicked: told to panic') = 285
        and count(*) filter (where error_log = 'timed out after 1 s') = 15 from agent_tasks";
    assert!(db.value::<bool>(reasons).await);
    let after = app.add(json!({})).await;
    db.task_becomes(after, "status = 'completed'").await;
    eventually("nothing is held", async || app.worker.in_hand() == 0).await;
    assert_eq!((app.worker.metrics().running.get(), app.stop().await), (0, 0));
}
