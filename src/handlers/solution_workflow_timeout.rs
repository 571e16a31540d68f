//! `solution_workflow_timeout`: ends a search that has waited long enough for experts, or hands over what one has found.

use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

use super::hand_over::{self, Recipient};
use super::store::events::{self, About, NewEvent};
use super::store::workflows::{self, Workflow};
use super::{require, skipped};
use crate::handler::{Handler, Outcome};
use crate::queue::Task;
use crate::services::{Services, effect_key};

/// Ends a search that has waited long enough for experts, or hands over what one has found.
pub(super) struct SolutionWorkflowTimeout;

/// From this score on an answer is worth passing on as a recommendation.
const USEFUL: f64 = 7.0;

/// Which search; with `findings` it is over, and they are to be handed over.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Input {
    workflow_id: Option<Uuid>,
    request_description: Option<String>,
    findings: Option<Value>,
    conversation_id: Option<Uuid>,
}

impl Handler for SolutionWorkflowTimeout {
    const TASK_TYPE: &'static str = "solution_workflow_timeout";
    type Input = Input;

    async fn run(&self, input: Input, task: Task, services: Services) -> Outcome {
        match input.findings.clone() {
            Some(findings) => deliver(&input, &findings, &task, &services).await,
            None => conclude(&input, &task, &services).await,
        }
        .into()
    }
}

async fn deliver(
    input: &Input,
    findings: &Value,
    task: &Task,
    services: &Services,
) -> Result<Outcome, Outcome> {
    let user_id = require::user_id(task)?;
    let workflow_id = input.workflow_id.or(task.context_id);
    let finding = json!({
        "type": "solution_research_complete",
        "workflowId": workflow_id,
        "requestDescription": input.request_description,
        "findings": findings,
        "guidance": "The research that the user asked for is complete. Tell them what was found, the most useful first. \
            Be brief, and offer introductions where there is somebody to be introduced to.",
    });
    let recipient = Recipient { user_id, conversation_id: input.conversation_id };
    let place = hand_over::to_agent(task, services, &recipient, &finding).await?;
    Ok(Outcome::complete(json!({ "workflowId": workflow_id, "delivered": true, "handedTo": place })))
}

async fn conclude(input: &Input, task: &Task, services: &Services) -> Result<Outcome, Outcome> {
    const EFFECT: &str = "complete";
    let id = require::field(input.workflow_id.or(task.context_id), "workflowId")?;
    let workflow = require::found(workflows::find(services, id).await?, "Solution workflow", id)?;
    let published = events::find(services, effect_key(task.id, EFFECT)).await?;
    let findings = match published {
        Some((_, payload)) => payload["findings"].clone(),
        None if workflow.status != "in_progress" => {
            return Ok(skipped(format!("Workflow is already {}", workflow.status)));
        }
        None => {
            let findings = evaluate(&workflow);
            let payload = json!({
                "workflowId": id,
                "userId": workflow.user_id,
                "requestDescription": events::shorten(&workflow.description),
                "findings": findings,
                "completedAt": chrono::Utc::now(),
            });
            let about = About::SolutionWorkflow(id);
            let event = NewEvent::of(task, EFFECT, "solution.research_complete", about, payload);
            events::publish(services, &event).await?;
            findings
        }
    };
    let good_enough = findings["qualityThresholdMet"] == true;
    workflows::complete(services, id, good_enough).await?;
    Ok(Outcome::complete(json!({
        "workflowId": id,
        "completed": true,
        "qualityThresholdMet": good_enough,
        "recommendations": findings["communityInsights"].as_array().map_or(0, Vec::len),
    })))
}

/// What the search has come to: the innovators that match, and what experts found useful, the best first; as much of it
/// as an event can carry.
fn evaluate(workflow: &Workflow) -> Value {
    let score = |insight: &Value| insight["usefulnessScore"].as_f64().unwrap_or_default();
    let mut useful: Vec<&Value> =
        workflow.insights.iter().filter(|insight| score(insight) >= USEFUL).collect();
    useful.sort_by(|a, b| score(b).total_cmp(&score(a)));
    let good_enough = !useful.is_empty() || !workflow.matched_innovators.is_empty();
    let recommendation = |insight: &Value| {
        let text = events::shorten(insight["summary"].as_str().unwrap_or_default());
        json!({ "expertId": insight["expertId"], "recommendation": text })
    };
    let mut room = events::ROOM;
    json!({
        "communityInsights": fitting(useful.into_iter().map(recommendation), &mut room),
        "matchedInnovators": fitting(workflow.matched_innovators.iter().cloned(), &mut room),
        "expertRecommendations": fitting(workflow.expert_recommendations.iter().cloned(), &mut room),
        "qualityThresholdMet": good_enough,
    })
}

/// The items for which there is room, in bytes.
fn fitting(items: impl Iterator<Item = Value>, room: &mut usize) -> Vec<Value> {
    items
        .filter(|item| match room.checked_sub(item.to_string().len()) {
            Some(left) => {
                *room = left;
                true
            }
            None => false,
        })
        .collect()
}
