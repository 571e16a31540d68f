//! The checks of the concierge and the innovator agent: they are told how things stand, and decide for themselves.

use serde_json::json;
use uuid::Uuid;

use super::{message_id, tell_agent};
use crate::handler::Outcome;
use crate::handlers::require;
use crate::handlers::store::users::User;
use crate::handlers::store::{conversations, innovators, intros, messages, priorities};
use crate::queue::Task;
use crate::services::Services;

/// What to say of a conversation without any message.
const NEVER: i64 = 999;
/// More than this many priorities make no difference to the agent.
const MAX_PRIORITIES: i64 = 5;

/// How things stand between the agent and the user.
struct Standing {
    user_id: Uuid,
    user: User,
    conversation_id: Uuid,
    days_since_last_message: i64,
    priority_count: i64,
}

pub(super) async fn concierge(task: &Task, services: &Services) -> Result<Outcome, Outcome> {
    let standing = look(task, services).await?;
    let finding = json!({
        "type": "re_engagement_check",
        "daysSinceLastMessage": standing.days_since_last_message,
        "priorityCount": standing.priority_count,
        "hasActiveGoals": standing.user.has_goal,
        "guidance": "Decide whether to reach out based on priorities, user goals, and conversation history. \
            If messaging, be brief and value-focused.",
    });
    tell_agent(services, task, standing.whom(), &finding).await?;
    Ok(Outcome::complete(json!({
        "systemMessageCreated": true,
        "daysSinceLastMessage": standing.days_since_last_message,
    })))
}

pub(super) async fn innovator(task: &Task, services: &Services) -> Result<Outcome, Outcome> {
    let standing = look(task, services).await?;
    let pending_intro_count = intros::count_pending(services, standing.user_id).await?;
    let finding = json!({
        "type": "re_engagement_check",
        "daysSinceLastMessage": standing.days_since_last_message,
        "priorityCount": standing.priority_count,
        "hasActiveGoals": standing.user.has_goal,
        "pendingIntroCount": pending_intro_count,
        "creditBalance": standing.user.credit_balance,
        "profileLastUpdated": innovators::last_updated(services, standing.user_id).await?,
        "guidance": "Decide whether to reach out based on priorities, pending intros, profile updates needed, \
            and conversation history. If messaging, be brief and ROI-focused.",
    });
    tell_agent(services, task, standing.whom(), &finding).await?;
    Ok(Outcome::complete(json!({
        "systemMessageCreated": true,
        "daysSinceLastMessage": standing.days_since_last_message,
        "pendingIntroCount": pending_intro_count,
    })))
}

async fn look(task: &Task, services: &Services) -> Result<Standing, Outcome> {
    let user_id = require::user_id(task)?;
    let conversation_id = conversations::active(services, user_id)
        .await?
        .ok_or_else(|| Outcome::fail("No active conversation found"))?;
    let days = messages::days_since_last(services, conversation_id, message_id(task)).await?;
    Ok(Standing {
        user_id,
        user: require::user(user_id, services).await?,
        conversation_id,
        days_since_last_message: days.unwrap_or(NEVER),
        priority_count: priorities::count_active(services, user_id, MAX_PRIORITIES).await?,
    })
}

impl Standing {
    fn whom(&self) -> (Uuid, Uuid) {
        (self.user_id, self.conversation_id)
    }
}
