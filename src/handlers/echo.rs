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
#[derive(Deserialize)]
pub(super) struct Input {
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
    type Input = Input;

    async fn run(&self, input: Input, task: Task, _services: Services) -> Outcome {
        if input.sleep_ms > 0 {
            tokio::time::sleep(Duration::from_millis(input.sleep_ms)).await;
        }
        if input.block_ms > 0 {
            std::thread::sleep(Duration::from_millis(input.block_ms));
        }
        if input.abort {
            std::process::abort();
        }
        assert!(!input.panic, "told to panic");
        if input.snooze_ms > 0 && task.attempt == 1 {
            return Outcome::snooze(Duration::from_millis(input.snooze_ms), "told to snooze");
        }
        if input.cancel {
            return Outcome::cancel("told to cancel");
        }
        if task.retry_count < input.fail_times {
            return Outcome::retry(format!("told to fail {} times", input.fail_times));
        }
        match input.fail_permanently {
            Value::Null | Value::Bool(false) => Outcome::complete(task.context),
            Value::String(message) => Outcome::fail(message),
            _ => Outcome::fail("told to fail for good"),
        }
    }
}
