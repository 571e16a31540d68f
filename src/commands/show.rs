//! `show`: one task and what happened to it.

use serde_json::json;
use uuid::Uuid;

use super::output::Output;
use crate::queue::Queue;

/// Options of `show`.
#[derive(clap::Args)]
pub(super) struct Args {
    /// The task's id.
    id: Uuid,
}

pub(super) async fn run(args: Args, queue: &Queue, output: &Output) -> anyhow::Result<i32> {
    let Some(task) = queue.get(args.id).await? else {
        anyhow::bail!("there is no task {}", args.id);
    };
    let value = json!({ "task": task, "history": queue.history(args.id).await? });
    let text = format!("{value:#}");
    output.answer(&value, text);
    Ok(0)
}
