//! Hands a finding to the agent that talks with a user. Nothing here talks to users itself.

use serde_json::Value;
use uuid::Uuid;

use super::store::findings::{self, Finding, Left};
use super::store::{conversations, users};
use crate::handler::Outcome;
use crate::queue::Task;
use crate::services::{Services, effect_key};

/// Whom a finding is for.
pub(super) struct Recipient {
    pub(super) user_id: Uuid,
    /// The conversation to tell it in, if it is still the user's and active.
    pub(super) conversation_id: Option<Uuid>,
}

/// What this task has handed over in an earlier run.
pub(super) async fn earlier(task: &Task, services: &Services) -> Result<Option<Left>, Outcome> {
    Ok(findings::find(services, key(task)).await?)
}

/// Leaves the finding in the user's active conversation, or in the message queue where there is none. Answers where it is
/// now, `conversation` or `message_queue`.
pub(super) async fn to_agent(
    task: &Task,
    services: &Services,
    recipient: &Recipient,
    finding: &Value,
) -> Result<&'static str, Outcome> {
    let user_id = recipient.user_id;
    let user =
        users::find(services, user_id).await?.ok_or_else(|| super::require::user_not_found(user_id))?;
    let conversation_id =
        conversations::active_preferably(services, user_id, recipient.conversation_id).await?;
    let finding = Finding {
        id: key(task),
        user_id,
        content: finding,
        agent_id: user.agent_type.as_deref().unwrap_or(&task.agent_type),
        priority: known_priority(task),
    };
    findings::leave(services, &finding, conversation_id).await?;
    let left = findings::find(services, finding.id).await?;
    Ok(place(left.and_then(|left| left.conversation_id)))
}

/// Where a finding is, in the words of a result.
pub(super) fn place(conversation_id: Option<Uuid>) -> &'static str {
    if conversation_id.is_some() { "conversation" } else { "message_queue" }
}

/// The one finding of a task.
fn key(task: &Task) -> Uuid {
    effect_key(task.id, "finding")
}

fn known_priority(task: &Task) -> &str {
    match task.priority.as_deref() {
        Some(known @ ("urgent" | "high" | "low")) => known,
        _ => "medium",
    }
}
