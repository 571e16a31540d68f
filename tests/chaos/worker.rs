//! The worker of the runs: a program as a customer's would be, whose handler leaves a trace outside the database.

use std::path::Path;
use std::time::Duration;

use serde::Deserialize;
use task_processor::app::{App, Doors};
use task_processor::config::{Config, env_vars};
use task_processor::{Handler, Outcome, Services, Task, handlers, telemetry};

use crate::journal::{Journal, Phase};

/// The variable that makes this program the worker: where its handler's trace goes.
pub(crate) const VARIABLE: &str = "CHAOS_JOURNAL";
/// The arguments that go with it.
pub(crate) const ARGUMENTS: [&str; 4] =
    ["--exact", "worker::a_part_that_this_program_plays_for_the_others", "--ignored", "--nocapture"];

/// What `echo` does, with a note before and after.
struct Traced(Journal);

#[derive(Deserialize)]
struct Input {
    #[serde(default)]
    sleep_ms: u64,
    #[serde(default)]
    fail_times: u32,
    #[serde(default)]
    panic_times: u32,
    #[serde(default)]
    fail_permanently: bool,
    #[serde(default)]
    abort: bool,
    #[serde(default)]
    snooze_ms: u64,
    #[serde(default)]
    cancel: bool,
}

impl Handler for Traced {
    const TASK_TYPE: &'static str = "chaos";
    type Input = Input;

    async fn run(&self, input: Input, task: Task, _services: Services) -> Outcome {
        self.0.effect(task.id, task.attempt, Phase::Start);
        if input.sleep_ms > 0 {
            tokio::time::sleep(Duration::from_millis(input.sleep_ms)).await;
        }
        if input.abort {
            std::process::abort();
        }
        assert!(task.retry_count >= input.panic_times, "told to panic");
        if input.snooze_ms > 0 && task.attempt == 1 {
            return Outcome::snooze(Duration::from_millis(input.snooze_ms), "told to snooze");
        }
        if input.cancel {
            return Outcome::cancel("told to cancel");
        }
        if task.retry_count < input.fail_times {
            return Outcome::retry("told to fail");
        }
        if input.fail_permanently {
            return Outcome::fail("told to fail for good");
        }
        self.0.effect(task.id, task.attempt, Phase::Finish);
        Outcome::complete(task.context)
    }
}

/// The worker's registry, for those who run it in their own process.
pub(crate) fn registry(journal: &Path) -> task_processor::Registry {
    handlers::all().with(Traced(Journal::open(journal)))
}

#[ignore = "not a test: the worker of the others, which start this program once more"]
#[test]
fn a_part_that_this_program_plays_for_the_others() {
    let Some(journal) = env_vars().remove(VARIABLE) else { return };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    let code = runtime.block_on(work(journal.as_ref())).expect("an orderly end");
    std::process::exit(code);
}

/// As `serve` does it.
async fn work(journal: &Path) -> anyhow::Result<i32> {
    let config = Config::from_env()?;
    telemetry::init(&config.log);
    let app = App::build(config, registry(journal))?;
    app.shutdown().follow_signals()?;
    app.bind(Doors::All).await?.run().await
}
