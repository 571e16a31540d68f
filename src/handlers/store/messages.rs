//! `messages`: what is said to users and to their agents.

use chrono::{DateTime, Utc};
use tokio_postgres::types::Type;
use uuid::Uuid;

use crate::db::DbError;
use crate::services::Services;

/// A message to be added.
pub(in crate::handlers) struct NewMessage {
    /// An effect's key: the message is added once.
    pub(in crate::handlers) id: Uuid,
    pub(in crate::handlers) conversation_id: Uuid,
    pub(in crate::handlers) user_id: Uuid,
    pub(in crate::handlers) content: String,
}

/// Sends a message to the user, in the name of `role`.
pub(in crate::handlers) async fn send(
    services: &Services,
    role: &str,
    message: &NewMessage,
) -> Result<(), DbError> {
    insert(services, role, "outbound", message).await
}

/// The conversation that a message was added to, if it was.
pub(in crate::handlers) async fn conversation_of(
    services: &Services,
    id: Uuid,
) -> Result<Option<Uuid>, DbError> {
    let rows =
        services.query("select conversation_id from messages where id = $1", &[(&id, Type::UUID)]).await?;
    Ok(rows.first().map(|row| row.try_get(0)).transpose()?)
}

/// Leaves a message for the conversation's agent. It is inbound, or the user would get it as a text.
pub(in crate::handlers) async fn tell_agent(
    services: &Services,
    message: &NewMessage,
) -> Result<(), DbError> {
    insert(services, "system", "inbound", message).await
}

/// Whether anything but the message `own` has come in since a moment.
pub(in crate::handlers) async fn answered_since(
    services: &Services,
    conversation_id: Uuid,
    moment: Option<DateTime<Utc>>,
    own: Uuid,
) -> Result<bool, DbError> {
    let sql = "
        select from messages
        where conversation_id = $1 and direction = 'inbound' and created_at >= $2 and id <> $3
        limit 1";
    let rows = services
        .query(sql, &[(&conversation_id, Type::UUID), (&moment, Type::TIMESTAMPTZ), (&own, Type::UUID)])
        .await?;
    Ok(!rows.is_empty())
}

/// Whole days since the last message but `own`, if there is one.
pub(in crate::handlers) async fn days_since_last(
    services: &Services,
    conversation_id: Uuid,
    own: Uuid,
) -> Result<Option<i64>, DbError> {
    let sql = "
        select floor(extract(epoch from statement_timestamp() - max(created_at)) / 86400)::int8
        from messages
        where conversation_id = $1 and id <> $2";
    let rows = services.query(sql, &[(&conversation_id, Type::UUID), (&own, Type::UUID)]).await?;
    Ok(rows[0].try_get(0)?)
}

async fn insert(
    services: &Services,
    role: &str,
    direction: &str,
    message: &NewMessage,
) -> Result<(), DbError> {
    services
        .query(
            include_str!("messages_insert.sql"),
            &[
                (&message.id, Type::UUID),
                (&message.conversation_id, Type::UUID),
                (&message.user_id, Type::UUID),
                (&role, Type::TEXT),
                (&message.content, Type::TEXT),
                (&direction, Type::TEXT),
            ],
        )
        .await?;
    Ok(())
}
