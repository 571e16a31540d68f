//! The worker of the runs: a program as a customer's would be, whose handler leaves a trace outside the database.

use std::path::Path;
use std::time::Duration;

use serde::Deserialize;
use task_processor::app::{App, Doors};
use task_processor::config::{Config, env_vars};
use task_processor::{Handler, Outcome, Services, Task, handlers, telemetry};
use tokio::time::{Instant, sleep_until};
use uuid::Uuid;

use crate::journal::{Journal, Phase};

/// The variable that makes this program the worker: where its handler's trace goes.
pub(crate) const VARIABLE: &str = "CHAOS_JOURNAL";
/// The arguments that go with it.
pub(crate) const ARGUMENTS: [&str; 4] =
    ["--exact", "worker::a_part_that_this_program_plays_for_the_others", "--ignored", "--nocapture"];

/// A handler that sleeps says so often that it is still there.
const BEAT: Duration = Duration::from_millis(50);

/// What `echo` does, with a note before, meanwhile and after.
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
        let mut visit = Visit::begin(&self.0, &task);
        visit.sleep(Duration::from_millis(input.sleep_ms)).await;
        if input.abort {
            std::process::abort();
        }
        assert!(task.retry_count >= input.panic_times, "told to panic");
        if input.snooze_ms > 0 && task.attempt == 1 {
            visit.leaves(Phase::Snooze);
            return Outcome::snooze(Duration::from_millis(input.snooze_ms), "told to snooze");
        }
        if input.cancel {
            visit.leaves(Phase::Cancel);
            return Outcome::cancel("told to cancel");
        }
        if task.retry_count < input.fail_times {
            visit.leaves(Phase::Fail);
            return Outcome::retry("told to fail");
        }
        if input.fail_permanently {
            visit.leaves(Phase::Fail);
            return Outcome::fail("told to fail for good");
        }
        visit.leaves(Phase::Finish);
        Outcome::complete(task.context)
    }
}

/// An attempt's stay in the handler. However it ends, a note says when.
struct Visit<'a> {
    journal: &'a Journal,
    task: Uuid,
    attempt: i32,
    /// How it ends, unless somebody else ends it.
    leaves: Phase,
}

impl<'a> Visit<'a> {
    fn begin(journal: &'a Journal, task: &Task) -> Self {
        journal.effect(task.id, task.attempt, Phase::Start);
        Self { journal, task: task.id, attempt: task.attempt, leaves: Phase::Dropped }
    }

    /// One note at most each time that it is woken: a process that was frozen gets no further before it can be stopped.
    async fn sleep(&self, lasts: Duration) {
        let until = Instant::now() + lasts;
        while Instant::now() < until {
            sleep_until(until.min(Instant::now() + BEAT)).await;
            if Instant::now() < until {
                self.journal.effect(self.task, self.attempt, Phase::Beat);
            }
        }
    }

    fn leaves(&mut self, how: Phase) {
        self.leaves = how;
    }
}

impl Drop for Visit<'_> {
    fn drop(&mut self) {
        self.journal.effect(self.task, self.attempt, self.leaves);
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
