//! `update_user_profile`: sets one field of a user's profile, if it is one that may be set.

use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};

use super::require;
use super::store::profile::{self, Column};
use crate::db::DbError;
use crate::handler::{Handler, Outcome};
use crate::queue::Task;
use crate::services::Services;

/// Sets one field of a user's profile.
pub(super) struct UpdateUserProfile;

/// Which field, and to what.
#[derive(Deserialize)]
pub(super) struct Input {
    field: Option<String>,
    /// `null` clears the field, which is not the same as no value.
    #[serde(default, deserialize_with = "present")]
    value: Option<Value>,
    /// Where the value comes from.
    source: Option<String>,
}

impl Handler for UpdateUserProfile {
    const TASK_TYPE: &'static str = "update_user_profile";
    type Input = Input;

    async fn run(&self, input: Input, task: Task, services: Services) -> Outcome {
        update(input, &task, &services).await.into()
    }
}

async fn update(input: Input, task: &Task, services: &Services) -> Result<Outcome, Outcome> {
    const MISSING: &str = "Missing field or value in context";
    let field = require::text(input.field, MISSING)?;
    let value = input.value.ok_or_else(|| Outcome::fail(MISSING))?;
    let column = Column::named(&field)
        .ok_or_else(|| Outcome::fail(format!("Field '{field}' is not allowed to be updated")))?;
    let cell = column
        .cell(&value)
        .map_err(|wanted| Outcome::fail(format!("Field '{field}' must be {wanted}, not {value}")))?;
    let user_id = require::user_id(task)?;

    if !profile::set(services, user_id, column, &cell).await.map_err(|error| refused(&field, error))? {
        return Err(require::user_not_found(user_id));
    }
    Ok(Outcome::complete(json!({ "field": field, "value": value, "source": input.source })))
}

/// Only the database knows how long its columns are, and what its constraints and triggers want.
fn refused(field: &str, error: DbError) -> Outcome {
    if error.is_content() {
        Outcome::fail(format!("Field '{field}' cannot be set to this value: {error}"))
    } else {
        error.into()
    }
}

fn present<'de, D: Deserializer<'de>>(value: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(value).map(Some)
}
