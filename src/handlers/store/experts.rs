//! `users` and `community_responses`: who could answer a question, and how well they answered before.

use tokio_postgres::types::Type;
use uuid::Uuid;

use crate::db::DbError;
use crate::services::Services;

/// How an expert's answers so far were received.
pub(in crate::handlers) struct Record {
    /// What the user knows about.
    pub(in crate::handlers) expertise: Vec<String>,
    /// Of the last five answers.
    pub(in crate::handlers) answers: i64,
    /// Of these, how many were scored 7 or better.
    pub(in crate::handlers) useful: i64,
}

/// Verified users who know about some of it, the best match first. Not whoever asks.
pub(in crate::handlers) async fn matching(
    services: &Services,
    expertise: &[String],
    asker: Option<Uuid>,
    limit: i64,
) -> Result<Vec<Uuid>, DbError> {
    let rows = services
        .query(
            include_str!("experts_matching.sql"),
            &[(&expertise, Type::TEXT_ARRAY), (&asker, Type::UUID), (&limit, Type::INT8)],
        )
        .await?;
    rows.iter().map(|row| Ok(row.try_get(0)?)).collect()
}

pub(in crate::handlers) async fn record(
    services: &Services,
    user_id: Uuid,
) -> Result<Option<Record>, DbError> {
    let rows = services.query(include_str!("experts_record.sql"), &[(&user_id, Type::UUID)]).await?;
    let Some(row) = rows.first() else { return Ok(None) };
    Ok(Some(Record {
        expertise: row.try_get("expertise")?,
        answers: row.try_get("answers")?,
        useful: row.try_get("useful")?,
    }))
}
