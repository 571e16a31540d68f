//! `community_request_available`: makes a question to the community one of an expert's priorities.

use serde::Deserialize;
use serde_json::json;
use uuid::Uuid;

use super::store::community;
use super::store::experts::{self, Record};
use super::store::priorities::{self, NewPriority, Placing};
use super::{require, skipped};
use crate::handler::{Handler, Outcome};
use crate::queue::Task;
use crate::services::{Services, effect_key};

/// Makes a question to the community one of an expert's priorities.
pub(super) struct CommunityRequestAvailable;

/// Which question, and who should know the answer.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Input {
    request_id: Option<Uuid>,
    /// Absent: what the request itself says.
    expertise_needed: Option<Vec<String>>,
}

impl Handler for CommunityRequestAvailable {
    const TASK_TYPE: &'static str = "community_request_available";
    type Input = Input;

    async fn run(&self, input: Input, task: Task, services: Services) -> Outcome {
        offer(input, &task, &services).await.into()
    }
}

async fn offer(input: Input, task: &Task, services: &Services) -> Result<Outcome, Outcome> {
    let request_id = require::field(input.request_id, "requestId")?;
    let user_id = require::user_id(task)?;
    let request = community::find(services, request_id).await?;
    let request = require::found(request, "Community request", request_id)?;
    let record = experts::record(services, user_id).await?;
    let record = record.ok_or_else(|| require::user_not_found(user_id))?;

    let matching = matches(&input.expertise_needed.unwrap_or(request.expertise), &record.expertise);
    let priority = NewPriority {
        id: effect_key(task.id, "priority"),
        user_id,
        item_type: "community_request",
        item_id: request_id,
        placing: place(matching, &record),
    };
    let Some(placing) = priorities::add(services, &priority).await? else {
        return Ok(skipped("Priority already exists"));
    };
    Ok(Outcome::complete(json!({
        "requestId": request_id,
        "priorityRank": placing.rank,
        "valueScore": placing.score,
        "matchingExpertise": matching,
    })))
}

/// How much of what is needed the user knows about, whatever the case.
fn matches(needed: &[String], known: &[String]) -> usize {
    let known: Vec<String> = known.iter().map(|known| known.to_lowercase()).collect();
    needed.iter().filter(|needed| known.contains(&needed.to_lowercase())).count()
}

fn place(matching: usize, record: &Record) -> Placing {
    let history = if record.answers > 0 { 10 + 5 * record.useful } else { 0 };
    let matching = i64::try_from(matching).unwrap_or(i64::MAX);
    let score = matching.saturating_mul(15).saturating_add(50 + history).min(100);
    let rank = match score {
        80.. => 1,
        65.. => 2,
        50.. => 3,
        _ => 4,
    };
    Placing { rank, score: i32::try_from(score).map_or(100.0, f64::from) }
}
