//! `process_community_request`: puts a question to the experts among the users.

#![expect(clippy::result_large_err, reason = "an outcome is the error here, and made once an attempt")]

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use uuid::Uuid;

use super::require;
use super::store::community::{self, NewRequest};
use super::store::events::{self, About, NewEvent};
use super::store::experts;
use crate::handler::{Handler, Outcome};
use crate::queue::{NewTask, Task};
use crate::services::{Services, effect_key};

/// Puts a question to the experts among the users.
pub(super) struct ProcessCommunityRequest;

const MAX_EXPERTS: i64 = 5;

/// The question, and who asks it for whom.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Input {
    requesting_agent_type: Option<String>,
    requesting_user_id: Option<Uuid>,
    context_id: Option<Uuid>,
    context_type: Option<String>,
    question: Option<String>,
    category: Option<String>,
    expertise_needed: Option<Vec<String>>,
    requester_context: Option<String>,
    desired_outcome: Option<String>,
    urgency: Option<String>,
    request_summary: Option<String>,
    /// The event that led to this task.
    event_id: Option<String>,
}

/// The request as it is made; also what the experts' tasks are told.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Asked {
    request_id: Uuid,
    question: String,
    category: Option<String>,
    expertise_needed: Vec<String>,
    requester_context: Option<String>,
    desired_outcome: String,
    urgency: String,
    request_summary: Option<String>,
    context_id: Option<Uuid>,
    context_type: Option<String>,
    #[serde(skip)]
    agent_type: String,
    #[serde(skip)]
    user_id: Option<Uuid>,
}

impl Handler for ProcessCommunityRequest {
    const TASK_TYPE: &'static str = "process_community_request";
    type Input = Input;

    async fn run(&self, input: Input, task: Task, services: Services) -> Outcome {
        put(input, &task, &services).await.into()
    }
}

async fn put(input: Input, task: &Task, services: &Services) -> Result<Outcome, Outcome> {
    let cause = input.event_id.clone().unwrap_or_else(|| task.id.to_string());
    let asked = check(input, task)?;
    let experts = match community::find(services, asked.request_id).await? {
        // An earlier run of this very task has come so far; whoever it chose is asked.
        Some(request) => request.experts,
        None => {
            if let Some(existing) = attach(&asked, &cause, task, services).await? {
                return Ok(Outcome::complete(json!({ "attached": true, "existingRequestId": existing })));
            }
            create(&asked, services).await?
        }
    };
    let about = About::CommunityRequest(asked.request_id);
    let event = if experts.is_empty() {
        let payload = asked.event(json!({ "expertiseNeeded": asked.expertise_needed }));
        NewEvent::of(task, "no_experts", "community.no_experts_found", about, payload)
    } else {
        let tasks: Vec<NewTask> = experts.iter().map(|expert| asked.task_for(*expert)).collect();
        services.queue().enqueue(&tasks).await?;
        let payload = asked.event(json!({ "expertsNotified": experts.len(), "expertUserIds": experts }));
        NewEvent::of(task, "routed", "community.request_routed", about, payload)
    };
    events::publish(services, &event).await?;
    Ok(Outcome::complete(json!({
        "requestId": asked.request_id,
        "expertsNotified": experts.len(),
        "expertUserIds": experts,
    })))
}

fn check(input: Input, task: &Task) -> Result<Asked, Outcome> {
    let agent_type = require::optional_text(input.requesting_agent_type, "requestingAgentType", 50)?;
    let context_type = require::optional_text(input.context_type, "contextType", 50)?;
    Ok(Asked {
        request_id: effect_key(task.id, "request"),
        question: require::text_field(input.question, "question", usize::MAX)?,
        category: require::optional_text(input.category, "category", 100)?,
        expertise_needed: input.expertise_needed.unwrap_or_default(),
        requester_context: input.requester_context,
        desired_outcome: input.desired_outcome.unwrap_or_else(|| "backchannel".to_owned()),
        urgency: input.urgency.unwrap_or_else(|| "medium".to_owned()),
        request_summary: require::optional_text(input.request_summary, "requestSummary", 100)?,
        context_id: input.context_id.or(task.context_id),
        context_type: context_type.or_else(|| task.context_type.clone()),
        agent_type: agent_type.unwrap_or_else(|| task.agent_type.clone()),
        user_id: input.requesting_user_id.or(task.user_id),
    })
}

/// Leaves it at a request that somebody has made already, if there is one like it.
async fn attach(
    asked: &Asked,
    cause: &str,
    task: &Task,
    services: &Services,
) -> Result<Option<Value>, Outcome> {
    const EFFECT: &str = "attached";
    if let Some((_, payload)) = events::find(services, effect_key(task.id, EFFECT)).await? {
        return Ok(Some(payload["existingRequestId"].clone()));
    }
    let similar =
        community::find_similar(services, asked.category.as_deref(), &asked.expertise_needed).await?;
    let Some(existing) = similar else { return Ok(None) };
    let payload = json!({ "existingRequestId": existing, "newEventId": cause, "question": events::shorten(&asked.question) });
    let about = About::CommunityRequest(existing);
    let event = NewEvent::of(task, EFFECT, "community.request_attached", about, payload);
    events::publish(services, &event).await?;
    Ok(Some(existing.to_string().into()))
}

/// Makes the request, and answers who is to be asked.
async fn create(asked: &Asked, services: &Services) -> Result<Vec<Uuid>, Outcome> {
    if let Some(user_id) = asked.user_id {
        require::user(user_id, services).await?;
    }
    let needed = &asked.expertise_needed;
    let experts = experts::matching(services, needed, asked.user_id, MAX_EXPERTS).await?;
    let request = NewRequest {
        id: asked.request_id,
        agent_type: &asked.agent_type,
        user_id: asked.user_id,
        context_id: asked.context_id,
        context_type: asked.context_type.as_deref(),
        question: &asked.question,
        category: asked.category.as_deref(),
        expertise: needed,
        experts: &experts,
        requester_context: asked.requester_context.as_deref(),
        desired_outcome: &asked.desired_outcome,
        urgency: &asked.urgency,
        summary: asked.request_summary.as_deref(),
    };
    community::insert(services, &request).await?;
    Ok(experts)
}

impl Asked {
    /// What every event about the request says, and what this one adds.
    fn event(&self, more: Value) -> Value {
        let mut payload = json!({ "requestId": self.request_id });
        if let (Value::Object(payload), Value::Object(more)) = (&mut payload, more) {
            payload.extend(more);
            payload.insert("question".to_owned(), events::shorten(&self.question).into());
            payload.insert("category".to_owned(), self.category.as_deref().into());
        }
        payload
    }

    fn task_for(&self, expert: Uuid) -> NewTask {
        let context = serde_json::to_value(self).unwrap_or_default();
        NewTask {
            agent_type: "account_manager".to_owned(),
            user_id: Some(expert),
            context_id: Some(self.request_id),
            context_type: Some("community_request".to_owned()),
            created_by: Some("task_processor".to_owned()),
            unique_key: Some(format!("community_request_available:{}:{expert}", self.request_id)),
            ..NewTask::new("community_request_available", context)
        }
    }
}
