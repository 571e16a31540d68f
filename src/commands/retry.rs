//! `retry`: give ended tasks a new life.

use serde_json::json;

use super::output::Output;
use super::selection::Selection;
use crate::queue::Queue;

/// Options of `retry`.
#[derive(clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    selection: Selection,
}

pub(super) async fn run(args: Args, queue: &Queue, output: &Output) -> anyhow::Result<i32> {
    let Some(ids) = args.selection.ids("Retry", "failed", queue, output).await? else { return Ok(1) };
    let redriven = queue.redrive(&ids).await?;
    let text = format!("{} of {} tasks are pending again", redriven.len(), ids.len());
    output.answer(&json!({ "asked": ids.len(), "retried": redriven }), text);
    Ok(i32::from(redriven.len() < ids.len()))
}
