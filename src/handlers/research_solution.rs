//! `research_solution`: publishes the event that starts the solution saga.

use serde::Deserialize;
use serde_json::json;
use uuid::Uuid;

use super::store::events::{self, About, NewEvent};
use super::{require, skipped};
use crate::handler::{Handler, Outcome};
use crate::queue::Task;
use crate::services::Services;

/// Publishes the event that starts the solution saga.
pub(super) struct ResearchSolution;

/// What to look for.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Input {
    description: Option<String>,
    /// The name under which the event-processor sends the description.
    request_description: Option<String>,
    category: Option<String>,
    urgency: Option<String>,
    conversation_id: Option<String>,
    /// The event that led to this task.
    event_id: Option<String>,
}

impl Handler for ResearchSolution {
    const TASK_TYPE: &'static str = "research_solution";
    type Input = Input;

    async fn run(&self, input: Input, task: Task, services: Services) -> Outcome {
        publish(input, &task, &services).await.into()
    }
}

async fn publish(input: Input, task: &Task, services: &Services) -> Result<Outcome, Outcome> {
    let description = input.description.filter(|text| !text.is_empty());
    let description =
        require::text(description.or(input.request_description), "Missing research description in context")?;
    let user_id = require::user_id(task)?;

    // The customer's event-processor makes a task of every such event, also of those that we publish.
    let cause: Option<Uuid> = input.event_id.and_then(|id| id.parse().ok());
    if let Some(cause) = cause
        && events::is_research_published_by_task(services, cause).await?
    {
        return Ok(skipped("already published"));
    }

    let urgency = input.urgency.filter(|text| !text.is_empty());
    let payload = json!({
        "userId": user_id,
        "conversationId": input.conversation_id,
        "requestDescription": description,
        "category": input.category,
        "urgency": urgency.as_deref().unwrap_or("medium"),
        "taskId": task.id,
    });
    let event = NewEvent::of(task, "event", events::SOLUTION_NEEDED, About::User(user_id), payload);
    events::publish(services, &event).await?;
    Ok(Outcome::complete(json!({ "eventId": event.id, "description": description })))
}
