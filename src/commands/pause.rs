//! `pause` and `resume`: whether tasks of a type are claimed.

use serde_json::json;

use super::output::Output;
use crate::queue::Queue;

/// Options of `pause` and `resume`.
#[derive(clap::Args)]
pub(super) struct Args {
    /// The task type.
    task_type: String,
}

pub(super) async fn run(args: Args, pause: bool, queue: &Queue, output: &Output) -> anyhow::Result<i32> {
    match pause {
        true => queue.pause(&args.task_type).await?,
        false => queue.resume(&args.task_type).await?,
    }
    let state = if pause { "paused: nothing of this type is claimed" } else { "resumed" };
    output.answer(
        &json!({ "taskType": args.task_type, "paused": pause }),
        format!("{} {state}", args.task_type),
    );
    Ok(0)
}
