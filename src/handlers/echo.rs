//! `echo`: returns its input, and misbehaves when told to. For smoke tests, demos, benchmarks and fault tests.

use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

use crate::handler::{Handler, Outcome};
use crate::queue::Task;
use crate::services::Services;

/// Returns its input.
pub(super) struct Echo;

/// How to misbehave; everything else in the input is ignored and returned.
#[derive(Default, Deserialize)]
struct Told {
    /// Wait this long first.
    #[serde(default)]
    sleep_ms: u64,
    /// Fail this many attempts, then succeed.
    #[serde(default)]
    fail_times: u32,
    /// Fail for good, with this message or just with `true`.
    #[serde(default)]
    fail_permanently: Value,
    /// Panic.
    #[serde(default)]
    panic: bool,
    /// Take the process down.
    #[serde(default)]
    abort: bool,
    /// Block a thread of the runtime for this long, as no handler should.
    #[serde(default)]
    block_ms: u64,
    /// Put the task off by this long at its first attempt.
    #[serde(default)]
    snooze_ms: u64,
    /// Answer that the task is no longer wanted.
    #[serde(default)]
    cancel: bool,
}

impl Handler for Echo {
    const TASK_TYPE: &'static str = "echo";
    type Input = Value;

    async fn run(&self, input: Value, task: Task, _services: Services) -> Outcome {
        let told: Told = match &input {
            Value::Object(_) => match serde_path_to_error::deserialize(&input) {
                Ok(told) => told,
                Err(error) => return Outcome::fail(format!("context_json: {error}")),
            },
            _ => Told::default(),
        };
        if told.sleep_ms > 0 {
            tokio::time::sleep(Duration::from_millis(told.sleep_ms)).await;
        }
        if told.block_ms > 0 {
            std::thread::sleep(Duration::from_millis(told.block_ms));
        }
        if told.abort {
            std::process::abort();
        }
        assert!(!told.panic, "told to panic");
        if told.snooze_ms > 0 && task.attempt == 1 {
            return Outcome::snooze(Duration::from_millis(told.snooze_ms), "told to snooze");
        }
        if told.cancel {
            return Outcome::cancel("told to cancel");
        }
        if task.retry_count < told.fail_times {
            return Outcome::retry(format!("told to fail {} times", told.fail_times));
        }
        match told.fail_permanently {
            Value::Null | Value::Bool(false) => Outcome::complete(input),
            Value::String(message) => Outcome::fail(message),
            _ => Outcome::fail("told to fail for good"),
        }
    }
}
