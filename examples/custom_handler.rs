//! A program of your own: all commands of task-processor, with one handler more.
//!
//! `cargo run --example custom_handler -- dev`, then `… -- enqueue greet '{"name": "Ada"}'`.

use std::process::ExitCode;

use serde_json::json;
use task_processor::{Handler, Outcome, Registry, Services, Task, commands, handlers};

struct Greet;

#[derive(serde::Deserialize)]
struct Input {
    name: String,
}

impl Handler for Greet {
    const TASK_TYPE: &'static str = "greet";
    type Input = Input;

    async fn run(&self, input: Input, _task: Task, _services: Services) -> Outcome {
        Outcome::complete(json!({ "greeting": format!("Hello, {}!", input.name) }))
    }
}

fn registry() -> Registry {
    handlers::all().with(Greet)
}

fn main() -> ExitCode {
    commands::run(registry())
}

#[cfg(test)]
mod tests {
    use task_processor::queue::NewTask;
    use task_processor::testing::TestDatabase;

    use super::*;

    #[tokio::test]
    async fn it_greets() {
        let db = TestDatabase::new().await;
        let task = NewTask::new("greet", json!({ "name": "Ada" }));
        let outcome = db.attempt(&registry(), task).await;
        assert_eq!(outcome, Outcome::complete(json!({ "greeting": "Hello, Ada!" })));
    }

    #[tokio::test]
    async fn a_task_without_a_name_fails_for_good_and_says_so() {
        let db = TestDatabase::new().await;
        let row = db.work(&registry(), NewTask::new("greet", json!({}))).await;
        assert_eq!(row["status"], "failed");
        assert_eq!(row["result_json"]["error"], "context_json: missing field `name`");
    }
}
