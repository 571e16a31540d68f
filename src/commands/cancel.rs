//! `cancel`: cancel tasks, waiting or running.

use serde_json::json;

use super::output::Output;
use super::selection::Selection;
use crate::queue::Queue;

/// Options of `cancel`.
#[derive(clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    selection: Selection,
    /// Why, for the record.
    #[arg(long, default_value = "cancelled by an operator")]
    reason: String,
}

pub(super) async fn run(args: Args, queue: &Queue, output: &Output) -> anyhow::Result<i32> {
    let Some(ids) = args.selection.ids("Cancel", "pending", queue, output).await? else { return Ok(1) };
    let cancelled = queue.cancel(&ids, &args.reason).await?;
    let done = cancelled.iter().filter(|task| task.done).count();
    let asked = cancelled.len() - done;
    let text = format!("{done} cancelled, {asked} running and asked to stop, of {}", ids.len());
    output.answer(&json!({ "asked": ids.len(), "cancelled": done, "stopping": asked }), text);
    Ok(i32::from(cancelled.len() < ids.len()))
}
