//! What a handler cannot do without, or the outcome that says so.

#![expect(clippy::result_large_err, reason = "an outcome is the error here, and made once an attempt")]

use uuid::Uuid;

use super::store::users::{self, User};
use crate::handler::Outcome;
use crate::queue::Task;
use crate::services::Services;

/// A text that is there and not empty.
pub(super) fn text(text: Option<String>, missing: &str) -> Result<String, Outcome> {
    text.filter(|text| !text.is_empty()).ok_or_else(|| Outcome::fail(missing))
}

/// A field of the input that must be there.
pub(super) fn field<T>(value: Option<T>, name: &str) -> Result<T, Outcome> {
    value.ok_or_else(|| Outcome::fail(format!("{name} is missing in context_json")))
}

/// A text of the input that must be there, not be blank, and fit.
pub(super) fn text_field(value: Option<String>, name: &str, longest: usize) -> Result<String, Outcome> {
    let text = field(value.filter(|text| !text.trim().is_empty()), name)?;
    optional_text(Some(text), name, longest).map(Option::unwrap_or_default)
}

/// A text of the input that must fit if it is there. A blank one is absent.
pub(super) fn optional_text(
    value: Option<String>,
    name: &str,
    longest: usize,
) -> Result<Option<String>, Outcome> {
    let text = value.filter(|text| !text.trim().is_empty());
    match text.as_ref().map(|text| text.chars().count()).filter(|length| *length > longest) {
        Some(length) => Err(Outcome::fail(format!("{name} has {length} characters, at most {longest} fit"))),
        None => Ok(text),
    }
}

/// Something the task names. One that is not there may only not be there yet.
pub(super) fn found<T>(value: Option<T>, what: &str, id: Uuid) -> Result<T, Outcome> {
    value.ok_or_else(|| Outcome::retry(format!("{what} {id} not found")))
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
