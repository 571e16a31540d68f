//! `conversations`: the one that a user is having, its pause and its summary.

use tokio_postgres::types::Type;
use uuid::Uuid;

use crate::db::DbError;
use crate::services::Services;

/// The user's active conversation. Two are none: nobody could say which is meant.
pub(in crate::handlers) async fn active(services: &Services, user_id: Uuid) -> Result<Option<Uuid>, DbError> {
    let sql = "select id from conversations where user_id = $1 and status = 'active' limit 2";
    let rows = services.query(sql, &[(&user_id, Type::UUID)]).await?;
    match rows.as_slice() {
        [only] => Ok(Some(only.try_get(0)?)),
        _ => Ok(None),
    }
}

/// The named conversation if it is the user's and active, else the user's active one.
pub(in crate::handlers) async fn active_preferably(
    services: &Services,
    user_id: Uuid,
    wanted: Option<Uuid>,
) -> Result<Option<Uuid>, DbError> {
    let sql = "select id from conversations where id = $1 and user_id = $2 and status = 'active'";
    let rows = services.query(sql, &[(&wanted, Type::UUID), (&user_id, Type::UUID)]).await?;
    match rows.first() {
        Some(row) => Ok(Some(row.try_get(0)?)),
        None => active(services, user_id).await,
    }
}

/// Whether a conversation of the user is paused.
pub(in crate::handlers) async fn any_paused(services: &Services, user_id: Uuid) -> Result<bool, DbError> {
    let sql = "select from conversations where user_id = $1 and status = 'paused' limit 1";
    let rows = services.query(sql, &[(&user_id, Type::UUID)]).await?;
    Ok(!rows.is_empty())
}

/// Pauses an active conversation.
pub(in crate::handlers) async fn pause(services: &Services, id: Uuid) -> Result<(), DbError> {
    let sql = "update conversations set status = 'paused' where id = $1 and status = 'active'";
    services.query(sql, &[(&id, Type::UUID)]).await?;
    Ok(())
}

/// What is known of a conversation without reading it.
pub(in crate::handlers) struct Summary {
    pub(in crate::handlers) text: Option<String>,
    /// The last message that went into it.
    pub(in crate::handlers) reaches: Option<Uuid>,
}

/// A message that no summary covers yet.
pub(in crate::handlers) struct Line {
    pub(in crate::handlers) message_id: Uuid,
    /// `role: content`; absent where an agent was told something.
    pub(in crate::handlers) text: Option<String>,
}

pub(in crate::handlers) async fn summary(services: &Services, id: Uuid) -> Result<Option<Summary>, DbError> {
    let sql = "
        select nullif(conversation_summary, ''), last_summary_message_id from conversations where id = $1";
    let rows = services.query(sql, &[(&id, Type::UUID)]).await?;
    rows.first().map(|row| Ok(Summary { text: row.try_get(0)?, reaches: row.try_get(1)? })).transpose()
}

/// The next messages after the summary, at most `limit` of at most `length` characters each, oldest first.
pub(in crate::handlers) async fn transcript(
    services: &Services,
    id: Uuid,
    limit: i64,
    length: i32,
) -> Result<Vec<Line>, DbError> {
    let rows = services
        .query(
            include_str!("conversations_transcript.sql"),
            &[(&id, Type::UUID), (&limit, Type::INT8), (&length, Type::INT4)],
        )
        .await?;
    rows.iter().map(|row| Ok(Line { message_id: row.try_get(0)?, text: row.try_get(1)? })).collect()
}

/// Replaces the summary `old` by one that reaches further. Answers whether it was still the one in place.
pub(in crate::handlers) async fn summarise(
    services: &Services,
    id: Uuid,
    old: &Summary,
    new: &Summary,
) -> Result<bool, DbError> {
    let sql = "
        update conversations
        set conversation_summary = $2, last_summary_message_id = $3, updated_at = clock_timestamp()
        where id = $1 and last_summary_message_id is not distinct from $4
        returning id";
    let rows = services
        .query(
            sql,
            &[
                (&id, Type::UUID),
                (&new.text, Type::TEXT),
                (&new.reaches, Type::UUID),
                (&old.reaches, Type::UUID),
            ],
        )
        .await?;
    Ok(!rows.is_empty())
}
