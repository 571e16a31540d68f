//! `notify_expert_of_impact`: lets an expert hear what an answer has led to.

use serde::Deserialize;
use serde_json::json;
use uuid::Uuid;

use super::store::priorities::{self, NewPriority, Placing};
use super::store::responses;
use super::{require, skipped};
use crate::handler::{Handler, Outcome};
use crate::queue::Task;
use crate::services::{Services, effect_key};

/// Lets an expert hear what an answer has led to.
pub(super) struct NotifyExpertOfImpact;

/// Which answer, and what it has led to.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Input {
    response_id: Option<Uuid>,
    impact_description: Option<String>,
}

/// Good news that can wait.
const PLACING: Placing = Placing { rank: 3, score: 70.0 };

impl Handler for NotifyExpertOfImpact {
    const TASK_TYPE: &'static str = "notify_expert_of_impact";
    type Input = Input;

    async fn run(&self, input: Input, task: Task, services: Services) -> Outcome {
        notify(&input, &task, &services).await.into()
    }
}

async fn notify(input: &Input, task: &Task, services: &Services) -> Result<Outcome, Outcome> {
    let response_id = require::field(input.response_id, "responseId")?;
    let user_id = require::user_id(task)?;
    require::user(user_id, services).await?;
    let response = responses::find(services, response_id).await?;
    require::found(response, "Community response", response_id)?;
    let priority = NewPriority {
        id: effect_key(task.id, "priority"),
        user_id,
        item_type: "expert_impact_notification",
        item_id: response_id,
        placing: PLACING,
    };
    let Some(placing) = priorities::add(services, &priority).await? else {
        return Ok(skipped("Notification already exists"));
    };
    responses::close_loop(services, response_id, input.impact_description.as_deref()).await?;
    Ok(Outcome::complete(json!({
        "responseId": response_id,
        "priorityRank": placing.rank,
        "valueScore": placing.score,
    })))
}
