//! `re_engagement_check`: brings a silent user to the attention of the agent that looks after them.

mod agent;
mod bouncer;

use serde::Deserialize;
use serde_json::Value;
use uuid::Uuid;

use super::store::messages::{self, NewMessage};
use crate::db::DbError;
use crate::handler::{Handler, Outcome};
use crate::queue::Task;
use crate::services::{Services, effect_key};

/// Brings a silent user to the attention of the agent that looks after them.
pub(super) struct ReEngagementCheck;

/// Where the user fell silent. Only the bouncer's checks look at it.
#[derive(Deserialize)]
pub(super) struct Input {
    current_step: Option<String>,
    missing_fields: Option<Vec<String>>,
    last_interaction_at: Option<String>,
    #[serde(rename = "attemptCount")]
    attempt_count: Option<i64>,
}

impl Handler for ReEngagementCheck {
    const TASK_TYPE: &'static str = "re_engagement_check";
    type Input = Input;

    async fn run(&self, input: Input, task: Task, services: Services) -> Outcome {
        match task.agent_type.as_str() {
            "concierge" => agent::concierge(&task, &services).await,
            "innovator" => agent::innovator(&task, &services).await,
            _ => bouncer::check(input, &task, &services).await,
        }
        .into()
    }
}

/// The one message of this task, whichever agent it is for.
fn message_id(task: &Task) -> Uuid {
    effect_key(task.id, "message")
}

/// Hands a finding to the conversation's agent, who decides what to do about it.
async fn tell_agent(
    services: &Services,
    task: &Task,
    (user_id, conversation_id): (Uuid, Uuid),
    finding: &Value,
) -> Result<(), DbError> {
    let message = NewMessage { id: message_id(task), conversation_id, user_id, content: finding.to_string() };
    messages::tell_agent(services, &message).await
}
