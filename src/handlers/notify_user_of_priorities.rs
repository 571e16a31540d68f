//! `notify_user_of_priorities`: brings what is worth a user's attention before the user's agent.

use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

use super::hand_over::{self, Recipient};
use super::store::priorities;
use super::{require, skipped};
use crate::handler::{Handler, Outcome};
use crate::queue::Task;
use crate::services::Services;

/// Brings what is worth a user's attention before the user's agent.
pub(super) struct NotifyUserOfPriorities;

/// More than this many at once are no priorities.
const MAX_PRIORITIES: i64 = 10;
/// A score above this is urgent.
const URGENT: f64 = 80.0;

/// Why now. Agents send more than this, each its own; all of it is passed on.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Input {
    reason: Option<String>,
    conversation_id: Option<Uuid>,
}

impl Handler for NotifyUserOfPriorities {
    const TASK_TYPE: &'static str = "notify_user_of_priorities";
    type Input = Input;

    async fn run(&self, input: Input, task: Task, services: Services) -> Outcome {
        notify(&input, &task, &services).await.into()
    }
}

async fn notify(input: &Input, task: &Task, services: &Services) -> Result<Outcome, Outcome> {
    let user_id = require::user_id(task)?;
    require::user(user_id, services).await?;
    let (finding, place) = match hand_over::earlier(task, services).await? {
        Some(left) => (left.content, hand_over::place(left.conversation_id)),
        None => {
            priorities::retire(services, user_id).await?;
            let active = priorities::active(services, user_id, MAX_PRIORITIES).await?;
            if active.is_empty() && !says_something(input) {
                return Ok(skipped("No active priorities"));
            }
            let finding = finding(input, task, &active);
            let recipient = Recipient { user_id, conversation_id: input.conversation_id };
            let place = hand_over::to_agent(task, services, &recipient, &finding).await?;
            (finding, place)
        }
    };
    // By what was handed over: what an earlier run could not mark any more is marked now.
    priorities::mark_presented(services, &ids(&finding)).await?;
    Ok(Outcome::complete(json!({
        "handedTo": place,
        "priorityCount": finding["priorities"].as_array().map_or(0, Vec::len),
        "urgentCount": finding["urgentCount"],
    })))
}

/// Whether there is news beside the priorities: an introduction was made, say, or the user was let in.
fn says_something(input: &Input) -> bool {
    input.reason.as_deref().is_some_and(|reason| !reason.is_empty() && reason != "urgent_priorities_detected")
}

fn finding(input: &Input, task: &Task, active: &[Value]) -> Value {
    let urgent =
        active.iter().filter(|priority| priority["valueScore"].as_f64().is_some_and(|score| score > URGENT));
    json!({
        "type": "notify_user_of_priorities",
        "reason": input.reason,
        "urgentCount": urgent.count(),
        "priorities": active,
        "context": task.context,
        "guidance": "Decide whether, when and how to bring this up. At most one or two items at a time, the first ones \
            first. If messaging, be brief and value-focused.",
    })
}

fn ids(finding: &Value) -> Vec<Uuid> {
    let priorities = finding["priorities"].as_array();
    priorities.into_iter().flatten().filter_map(|priority| priority["id"].as_str()?.parse().ok()).collect()
}
