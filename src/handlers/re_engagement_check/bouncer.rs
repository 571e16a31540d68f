//! The bouncer's check: a user who stopped in the middle of onboarding is asked twice, then left in peace.

use std::time::Duration;

use serde_json::{Value, json};
use uuid::Uuid;

use super::{Input, message_id, tell_agent};
use crate::handler::Outcome;
use crate::handlers::store::{conversations, messages};
use crate::handlers::{require, skipped};
use crate::queue::{NewTask, Task};
use crate::services::Services;

const MAX_ATTEMPTS: i64 = 2;
const BETWEEN_ATTEMPTS: Duration = Duration::from_hours(24);

pub(super) async fn check(input: Input, task: &Task, services: &Services) -> Result<Outcome, Outcome> {
    let attempt_count = input.attempt_count.unwrap_or(1).max(1);
    let user_id = require::user_id(task)?;
    if require::user(user_id, services).await?.verified {
        return Ok(skipped("User already verified"));
    }
    let Some(conversation_id) = conversations::active(services, user_id).await? else {
        return without_conversation(attempt_count, user_id, services).await;
    };
    if messages::answered_since(services, conversation_id, task.created_at, message_id(task)).await? {
        return Ok(skipped("User has responded"));
    }
    if attempt_count > MAX_ATTEMPTS {
        conversations::pause(services, conversation_id).await?;
        return Ok(paused(attempt_count));
    }

    let about = (user_id, conversation_id);
    tell_agent(services, task, about, &finding(input, attempt_count)).await?;
    // Only now: the next check takes whatever has come in since its own creation for the user's answer.
    services.queue().enqueue_one(next_check(task, attempt_count + 1)).await?;
    Ok(Outcome::complete(json!({ "attemptCount": attempt_count, "messageSent": true })))
}

/// An earlier run of this very task may have paused the conversation and then been cut off.
async fn without_conversation(
    attempt_count: i64,
    user_id: Uuid,
    services: &Services,
) -> Result<Outcome, Outcome> {
    if attempt_count > MAX_ATTEMPTS && conversations::any_paused(services, user_id).await? {
        return Ok(paused(attempt_count));
    }
    Err(Outcome::retry("No active conversation found"))
}

fn finding(input: Input, attempt_count: i64) -> Value {
    json!({
        "type": "re_engagement_check",
        "attemptCount": attempt_count,
        "lastInteractionAt": input.last_interaction_at,
        "currentStep": input.current_step,
        "missingFields": input.missing_fields.unwrap_or_default(),
        "guidance": "Soft tone. Ask if they still want to proceed. Do not list all missing fields. Keep line moving.",
    })
}

fn next_check(task: &Task, attempt_count: i64) -> NewTask {
    let mut context = task.context.as_object().cloned().unwrap_or_default();
    context.insert("attemptCount".to_owned(), attempt_count.into());
    let mut next = NewTask::new(task.task_type.as_str(), context.into());
    next.agent_type.clone_from(&task.agent_type);
    next.user_id = task.user_id;
    next.context_id = task.context_id;
    next.context_type.clone_from(&task.context_type);
    next.delay = BETWEEN_ATTEMPTS;
    if let Some(known @ ("urgent" | "high" | "low")) = task.priority.as_deref() {
        known.clone_into(&mut next.priority);
    }
    next.created_by = Some("task_processor".to_owned());
    next.unique_key = Some(format!("re_engagement_check:{}", task.id));
    next
}

fn paused(attempt_count: i64) -> Outcome {
    Outcome::complete(json!({ "paused": true, "attemptCount": attempt_count }))
}
