//! `intro_followup_check`: finds out whether an introduction was made, or passes on what a user asks about one.

use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

use super::hand_over::{self, Recipient};
use super::store::intros::{self, Intro};
use super::{require, skipped};
use crate::handler::{Handler, Outcome};
use crate::queue::Task;
use crate::services::Services;

/// Finds out whether an introduction was made, or passes on what a user asks about one.
pub(super) struct IntroFollowupCheck;

/// Which introduction; with `userQuestion`, what somebody asks about it.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Input {
    intro_id: Option<Uuid>,
    user_question: Option<String>,
    conversation_id: Option<Uuid>,
}

impl Handler for IntroFollowupCheck {
    const TASK_TYPE: &'static str = "intro_followup_check";
    type Input = Input;

    async fn run(&self, input: Input, task: Task, services: Services) -> Outcome {
        match input.user_question.clone().filter(|question| !question.trim().is_empty()) {
            Some(question) => pass_on(&input, &question, &task, &services).await,
            None => check(&input, &task, &services).await,
        }
        .into()
    }
}

/// A question may be about no introduction in particular, or about one that is gone.
async fn pass_on(
    input: &Input,
    question: &str,
    task: &Task,
    services: &Services,
) -> Result<Outcome, Outcome> {
    let user_id = require::user_id(task)?;
    let intro_id = input.intro_id.or(task.context_id);
    let intro = match intro_id {
        Some(id) => intros::find(services, id).await?,
        None => None,
    };
    let finding = json!({
        "type": "intro_question",
        "introId": intro_id,
        "userQuestion": question,
        "intro": intro.as_ref().map(describe),
        "guidance": "Answer the user's question about the introduction from what is known. If it is not known, say so and \
            offer to find out.",
    });
    let recipient = Recipient { user_id, conversation_id: input.conversation_id };
    let place = hand_over::to_agent(task, services, &recipient, &finding).await?;
    Ok(Outcome::complete(json!({ "introId": intro_id, "questionRouted": true, "handedTo": place })))
}

async fn check(input: &Input, task: &Task, services: &Services) -> Result<Outcome, Outcome> {
    let id = require::field(input.intro_id.or(task.context_id), "introId")?;
    let intro = require::found(intros::find(services, id).await?, "Introduction", id)?;
    if intro.status == "completed" {
        intros::close(services, id).await?;
        return Ok(Outcome::complete(json!({ "introId": id, "closed": true, "status": "completed" })));
    }
    if !intro.is_open() {
        return Ok(skipped(format!("Introduction is {}", intro.status)));
    }
    let user_id = intro.connector_id.or(task.user_id).ok_or_else(|| {
        Outcome::fail("connector_user_id is missing: the introduction must name a connector")
    })?;
    let finding = json!({
        "type": "intro_followup_check",
        "introId": id,
        "intro": describe(&intro),
        "guidance": "Ask the connector in passing whether the introduction was made. No pressure. If it was, record it; if \
            they would rather not, take it off the list.",
    });
    let recipient = Recipient { user_id, conversation_id: None };
    let place = hand_over::to_agent(task, services, &recipient, &finding).await?;
    Ok(Outcome::complete(json!({ "introId": id, "connectorAsked": true, "handedTo": place })))
}

fn describe(intro: &Intro) -> Value {
    json!({
        "status": intro.status,
        "prospectName": intro.prospect_name,
        "prospectCompany": intro.prospect_company,
        "innovatorName": intro.innovator_name,
        "introEmail": intro.email,
        "scheduledAt": intro.scheduled_at,
        "completedAt": intro.completed_at,
    })
}
