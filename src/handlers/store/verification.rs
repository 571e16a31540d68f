//! `users`: what a user has told and proven about who they are.

use tokio_postgres::types::Type;
use uuid::Uuid;

use crate::db::DbError;
use crate::services::Services;

/// How far a user's verification is.
pub(in crate::handlers) struct Standing {
    pub(in crate::handlers) email_verified: bool,
    /// First and last name, company and title are all there.
    pub(in crate::handlers) has_profile: bool,
}

/// What a user says, or what has been proven.
#[derive(Default)]
pub(in crate::handlers) struct Identity<'a> {
    pub(in crate::handlers) email: Option<&'a str>,
    /// The address sent us a mail: it replaces what the user said before.
    pub(in crate::handlers) email_is_proven: bool,
    pub(in crate::handlers) linkedin_url: Option<&'a str>,
}

/// Writes down what is known. `verified` is never touched: a person decides that. What was proven is not overwritten by
/// what is only said. `None`: there is no such user.
pub(in crate::handlers) async fn record(
    services: &Services,
    user_id: Uuid,
    identity: &Identity<'_>,
) -> Result<Option<Standing>, DbError> {
    let rows = services
        .query(
            include_str!("verification_record.sql"),
            &[
                (&user_id, Type::UUID),
                (&identity.email, Type::TEXT),
                (&identity.email_is_proven, Type::BOOL),
                (&identity.linkedin_url, Type::TEXT),
            ],
        )
        .await?;
    let Some(row) = rows.first() else { return Ok(None) };
    Ok(Some(Standing {
        email_verified: row.try_get("email_verified")?,
        has_profile: row.try_get("has_profile")?,
    }))
}
