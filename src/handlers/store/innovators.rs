//! `innovators`: a table that a customer may have, and whose columns are not certain.

use chrono::{DateTime, Utc};
use tokio_postgres::types::Type;
use uuid::Uuid;

use crate::db::DbError;
use crate::services::Services;

/// When the innovator's profile last changed, where that is known.
pub(in crate::handlers) async fn last_updated(
    services: &Services,
    user_id: Uuid,
) -> Result<Option<DateTime<Utc>>, DbError> {
    if !is_dated(services).await? {
        return Ok(None);
    }
    let sql = "select max(updated_at) from innovators where user_id = $1";
    let rows = services.query(sql, &[(&user_id, Type::UUID)]).await?;
    Ok(rows[0].try_get(0)?)
}

/// Whether the table exists and has the two columns that the question needs.
async fn is_dated(services: &Services) -> Result<bool, DbError> {
    let rows = services.query(include_str!("innovators_is_dated.sql"), &[]).await?;
    Ok(rows[0].try_get(0)?)
}
