//! `intro_opportunities`: introductions under way.

use chrono::{DateTime, Utc};
use tokio_postgres::types::Type;
use uuid::Uuid;

use crate::db::DbError;
use crate::services::Services;

/// An introduction that a connector may make between a prospect and an innovator.
pub(in crate::handlers) struct Intro {
    pub(in crate::handlers) connector_id: Option<Uuid>,
    pub(in crate::handlers) status: String,
    pub(in crate::handlers) prospect_name: Option<String>,
    pub(in crate::handlers) prospect_company: Option<String>,
    pub(in crate::handlers) innovator_name: Option<String>,
    /// The address that is to be in copy of the introduction.
    pub(in crate::handlers) email: Option<String>,
    pub(in crate::handlers) scheduled_at: Option<DateTime<Utc>>,
    pub(in crate::handlers) completed_at: Option<DateTime<Utc>>,
}

impl Intro {
    /// Whether it may still be made.
    pub(in crate::handlers) fn is_open(&self) -> bool {
        matches!(self.status.as_str(), "open" | "pending" | "accepted" | "clarifying")
    }
}

pub(in crate::handlers) async fn find(services: &Services, id: Uuid) -> Result<Option<Intro>, DbError> {
    let rows = services.query(include_str!("intros_find.sql"), &[(&id, Type::UUID)]).await?;
    let Some(row) = rows.first() else { return Ok(None) };
    Ok(Some(Intro {
        connector_id: row.try_get("connector_user_id")?,
        status: row.try_get("status")?,
        prospect_name: row.try_get("prospect_name")?,
        prospect_company: row.try_get("prospect_company")?,
        innovator_name: row.try_get("innovator_name")?,
        email: row.try_get("intro_email")?,
        scheduled_at: row.try_get("intro_scheduled_at")?,
        completed_at: row.try_get("intro_completed_at")?,
    }))
}

/// How many introductions to this innovator are pending or accepted.
pub(in crate::handlers) async fn count_pending(
    services: &Services,
    innovator_id: Uuid,
) -> Result<i64, DbError> {
    let sql = "
        select count(*) from intro_opportunities
        where innovator_id = $1 and status in ('pending', 'accepted')";
    let rows = services.query(sql, &[(&innovator_id, Type::UUID)]).await?;
    Ok(rows[0].try_get(0)?)
}

/// Closes an introduction that was made.
pub(in crate::handlers) async fn close(services: &Services, id: Uuid) -> Result<(), DbError> {
    let sql = "
        update intro_opportunities set status = 'completed', updated_at = clock_timestamp()
        where id = $1 and status is distinct from 'completed'";
    services.query(sql, &[(&id, Type::UUID)]).await?;
    Ok(())
}

/// Gives an introduction its address and its date, unless it has them. Answers the address that it has, if there is such
/// an introduction.
pub(in crate::handlers) async fn schedule(
    services: &Services,
    id: Uuid,
    email: &str,
) -> Result<Option<String>, DbError> {
    let sql = "
        update intro_opportunities
        set intro_email = coalesce(nullif(intro_email, ''), $2),
            intro_scheduled_at = coalesce(intro_scheduled_at, clock_timestamp()),
            updated_at = clock_timestamp()
        where id = $1
        returning intro_email";
    let rows = services.query(sql, &[(&id, Type::UUID), (&email, Type::TEXT)]).await?;
    Ok(rows.first().map(|row| row.try_get(0)).transpose()?)
}
