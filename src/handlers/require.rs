//! What a handler cannot do without, or the outcome that says so.

use uuid::Uuid;

use super::store::users::{self, User};
use crate::handler::Outcome;
use crate::queue::Task;
use crate::services::Services;

/// A text that is there and not empty.
pub(super) fn text(text: Option<String>, missing: &str) -> Result<String, Outcome> {
    text.filter(|text| !text.is_empty()).ok_or_else(|| Outcome::fail(missing))
}

/// Whom the task is about.
pub(super) fn user_id(task: &Task) -> Result<Uuid, Outcome> {
    task.user_id.ok_or_else(|| Outcome::fail("user_id is missing: this task must name a user"))
}

/// The user with this id. One that is not there may only not be there yet.
pub(super) async fn user(id: Uuid, services: &Services) -> Result<User, Outcome> {
    users::find(services, id).await?.ok_or_else(|| user_not_found(id))
}

pub(super) fn user_not_found(id: Uuid) -> Outcome {
    Outcome::retry(format!("User {id} not found"))
}
