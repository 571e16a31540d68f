//! `users`: what the handlers want to know of one.

use tokio_postgres::types::Type;
use uuid::Uuid;

use crate::db::DbError;
use crate::services::Services;

/// What the handlers want to know of a user.
pub(in crate::handlers) struct User {
    /// Absent where the row says nothing or an empty text.
    pub(in crate::handlers) first_name: Option<String>,
    /// The kind of agent that looks after the user; absent as above.
    pub(in crate::handlers) agent_type: Option<String>,
    /// Absent as above.
    pub(in crate::handlers) email: Option<String>,
    pub(in crate::handlers) verified: bool,
    pub(in crate::handlers) credit_balance: i64,
    /// The user has told the agent what they are after.
    pub(in crate::handlers) has_goal: bool,
}

pub(in crate::handlers) async fn find(services: &Services, id: Uuid) -> Result<Option<User>, DbError> {
    let rows = services.query(include_str!("users_find.sql"), &[(&id, Type::UUID)]).await?;
    let Some(row) = rows.first() else { return Ok(None) };
    Ok(Some(User {
        first_name: row.try_get("first_name")?,
        agent_type: row.try_get("poc_agent_type")?,
        email: row.try_get("email")?,
        verified: row.try_get("verified")?,
        credit_balance: row.try_get("credit_balance")?,
        has_goal: row.try_get("has_goal")?,
    }))
}
