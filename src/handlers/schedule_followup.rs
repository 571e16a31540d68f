//! `schedule_followup`: sends the user a message that comes back to something.

use serde::Deserialize;
use serde_json::json;
use uuid::Uuid;

use super::store::conversations;
use super::store::messages::{self, NewMessage};
use super::{require, skipped};
use crate::handler::{Handler, Outcome};
use crate::queue::Task;
use crate::services::{Services, effect_key};

/// Sends the user a message that comes back to something.
pub(super) struct ScheduleFollowup;

/// What to come back to.
#[derive(Deserialize)]
pub(super) struct Input {
    reason: Option<String>,
}

impl Handler for ScheduleFollowup {
    const TASK_TYPE: &'static str = "schedule_followup";
    type Input = Input;

    async fn run(&self, input: Input, task: Task, services: Services) -> Outcome {
        follow_up(input, &task, &services).await.into()
    }
}

async fn follow_up(input: Input, task: &Task, services: &Services) -> Result<Outcome, Outcome> {
    let reason = require::text(input.reason, "Missing followup reason in context")?;
    let user_id = require::user_id(task)?;
    let done = |conversation_id: Uuid| {
        Outcome::complete(json!({ "conversationId": conversation_id, "reason": reason }))
    };
    // By an earlier run, whatever has become of the user and the conversation since.
    let message_id = effect_key(task.id, "message");
    if let Some(conversation_id) = messages::conversation_of(services, message_id).await? {
        return Ok(done(conversation_id));
    }
    let user = require::user(user_id, services).await?;
    let Some(conversation_id) = conversations::active(services, user_id).await? else {
        return Ok(skipped("No active conversation"));
    };

    let name = user.first_name.as_deref().unwrap_or("there");
    let message = NewMessage {
        id: message_id,
        conversation_id,
        user_id,
        content: format!("Hey {name}, following up on: {reason}"),
    };
    let role = user.agent_type.as_deref().unwrap_or("concierge");
    messages::send(services, role, &message).await?;
    Ok(done(conversation_id))
}
