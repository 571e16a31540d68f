//! `list`: tasks, newest first.

use serde_json::{Value, json};

use super::output::Output;
use super::selection::STATUSES;
use crate::queue::Queue;
use crate::queue::read::TaskFilter;

/// Options of `list`.
#[derive(clap::Args)]
pub(super) struct Args {
    /// pending, processing, completed, failed or cancelled.
    #[arg(long, value_parser = STATUSES)]
    status: Option<String>,
    /// The task type.
    #[arg(long = "type")]
    task_type: Option<String>,
    /// How many at the most.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(i64).range(1..=1000))]
    limit: i64,
}

pub(super) async fn run(args: Args, queue: &Queue, output: &Output) -> anyhow::Result<i32> {
    let filter = TaskFilter { status: args.status, task_type: args.task_type, limit: args.limit };
    let tasks = queue.list(&filter).await?;
    let lines: Vec<String> = tasks.iter().map(line).collect();
    let text = if lines.is_empty() { "no tasks".to_owned() } else { lines.join("\n") };
    output.answer(&json!({ "tasks": tasks }), text);
    Ok(0)
}

fn line(task: &Value) -> String {
    let text = |column: &str| task[column].as_str().unwrap_or("-").to_owned();
    let due: String = text("scheduled_for").chars().take(19).collect();
    format!(
        "{}  {:<10}  {:<6}  {due}  attempt {}  {}{}",
        text("id"),
        text("status"),
        text("priority"),
        task["attempt"],
        text("task_type"),
        task["error_log"].as_str().map(|error| format!("  ({error})")).unwrap_or_default(),
    )
}
