//! `community_response_available`: makes an expert's answer one of the asker's priorities.

use serde::Deserialize;
use serde_json::json;
use uuid::Uuid;

use super::store::priorities::{self, NewPriority, Placing};
use super::store::responses;
use super::{require, skipped};
use crate::handler::{Handler, Outcome};
use crate::queue::Task;
use crate::services::{Services, effect_key};

/// Makes an expert's answer one of the asker's priorities.
pub(super) struct CommunityResponseAvailable;

/// Which answer.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Input {
    response_id: Option<Uuid>,
}

/// The user asked for exactly this.
const PLACING: Placing = Placing { rank: 1, score: 90.0 };

impl Handler for CommunityResponseAvailable {
    const TASK_TYPE: &'static str = "community_response_available";
    type Input = Input;

    async fn run(&self, input: Input, task: Task, services: Services) -> Outcome {
        offer(&input, &task, &services).await.into()
    }
}

async fn offer(input: &Input, task: &Task, services: &Services) -> Result<Outcome, Outcome> {
    let response_id = require::field(input.response_id, "responseId")?;
    let user_id = require::user_id(task)?;
    require::user(user_id, services).await?;
    let response = responses::find(services, response_id).await?;
    require::found(response, "Community response", response_id)?;
    let priority = NewPriority {
        id: effect_key(task.id, "priority"),
        user_id,
        item_type: "community_response",
        item_id: response_id,
        placing: PLACING,
    };
    let Some(placing) = priorities::add(services, &priority).await? else {
        return Ok(skipped("Priority already exists"));
    };
    Ok(Outcome::complete(json!({
        "responseId": response_id,
        "priorityRank": placing.rank,
        "valueScore": placing.score,
    })))
}
