//! Which tasks a command changes: those named, or all that match and are agreed to.

use std::collections::BTreeSet;

use uuid::Uuid;

use super::output::Output;
use crate::queue::Queue;
use crate::queue::read::TaskFilter;

/// The statuses a task may have.
pub(super) const STATUSES: [&str; 5] = ["pending", "processing", "completed", "failed", "cancelled"];
/// Tasks changed by one call.
const MOST: i64 = 10_000;

/// Options of commands that change tasks.
#[derive(clap::Args)]
pub(super) struct Selection {
    /// The tasks' ids.
    #[arg(required_unless_present_any = ["status", "task_type"])]
    ids: Vec<Uuid>,
    /// All tasks in this status.
    #[arg(long, conflicts_with = "ids", value_parser = STATUSES)]
    status: Option<String>,
    /// All tasks of this type.
    #[arg(long = "type", conflicts_with = "ids")]
    task_type: Option<String>,
    /// Do not ask.
    #[arg(long)]
    yes: bool,
}

impl Selection {
    /// The ids, each once, or `None` if the answer was no. `verb` is what is about to happen to them.
    pub(super) async fn ids(
        self,
        verb: &str,
        default_status: &str,
        queue: &Queue,
        output: &Output,
    ) -> anyhow::Result<Option<Vec<Uuid>>> {
        if !self.ids.is_empty() {
            // One that is named twice is changed once.
            let ids: BTreeSet<Uuid> = self.ids.into_iter().collect();
            return Ok(Some(ids.into_iter().collect()));
        }
        let status = self.status.unwrap_or_else(|| default_status.to_owned());
        let filter =
            TaskFilter { status: Some(status.clone()), task_type: self.task_type.clone(), limit: MOST };
        let ids = queue.ids(&filter).await?;
        let of_type = self.task_type.map(|kind| format!(" of type {kind}")).unwrap_or_default();
        let question = format!("{verb} {} {status} tasks{of_type}?", ids.len());
        Ok(output.confirm(&question, self.yes || ids.is_empty())?.then_some(ids))
    }
}
