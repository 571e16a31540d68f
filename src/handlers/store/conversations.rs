//! `conversations`: the one that a user is having, and its pause.

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
