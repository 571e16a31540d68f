//! `user_priorities`: what is worth a user's attention.

use serde_json::Value;
use tokio_postgres::types::Type;
use uuid::Uuid;

use crate::db::DbError;
use crate::services::Services;

/// So often an item is shown to a user who does not answer.
const MAX_PRESENTATIONS: i32 = 2;

/// An item to become a user's priority.
pub(in crate::handlers) struct NewPriority {
    /// An effect's key: the priority is added once.
    pub(in crate::handlers) id: Uuid,
    pub(in crate::handlers) user_id: Uuid,
    pub(in crate::handlers) item_type: &'static str,
    pub(in crate::handlers) item_id: Uuid,
    pub(in crate::handlers) placing: Placing,
}

/// How important an item is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(in crate::handlers) struct Placing {
    /// 1 is the first.
    pub(in crate::handlers) rank: i32,
    /// 0 to 100.
    pub(in crate::handlers) score: f64,
}

/// Adds a priority. Answers how it is placed, or nothing if somebody else has added the same item.
pub(in crate::handlers) async fn add(
    services: &Services,
    priority: &NewPriority,
) -> Result<Option<Placing>, DbError> {
    let rows = services
        .query(
            include_str!("priorities_add.sql"),
            &[
                (&priority.id, Type::UUID),
                (&priority.user_id, Type::UUID),
                (&priority.placing.rank, Type::INT4),
                (&priority.item_type, Type::TEXT),
                (&priority.item_id, Type::UUID),
                (&priority.placing.score, Type::FLOAT8),
            ],
        )
        .await?;
    let Some(row) = rows.first() else { return Ok(None) };
    let placing = Placing { rank: row.try_get(1)?, score: row.try_get::<_, Option<f64>>(2)?.unwrap_or(0.0) };
    Ok(row.try_get::<_, bool>(0)?.then_some(placing))
}

/// How many active priorities the user has, counted up to `limit`.
pub(in crate::handlers) async fn count_active(
    services: &Services,
    user_id: Uuid,
    limit: i64,
) -> Result<i64, DbError> {
    let sql = "
        select count(*)
        from (select from user_priorities where user_id = $1 and status = 'active' limit $2) as active";
    let rows = services.query(sql, &[(&user_id, Type::UUID), (&limit, Type::INT8)]).await?;
    Ok(rows[0].try_get(0)?)
}

/// The user's active priorities, best first: `{id, itemType, itemId, rank, valueScore?, summary?}` each.
pub(in crate::handlers) async fn active(
    services: &Services,
    user_id: Uuid,
    limit: i64,
) -> Result<Vec<Value>, DbError> {
    let rows = services
        .query(include_str!("priorities_active.sql"), &[(&user_id, Type::UUID), (&limit, Type::INT8)])
        .await?;
    rows.iter().map(|row| Ok(row.try_get(0)?)).collect()
}

/// Puts those to sleep that were shown often enough without an answer.
pub(in crate::handlers) async fn retire(services: &Services, user_id: Uuid) -> Result<(), DbError> {
    if !counts_presentations(services).await? {
        return Ok(());
    }
    let sql = "
        update user_priorities set status = 'dormant'
        where user_id = $1 and status = 'active' and presentation_count >= $2";
    services.query(sql, &[(&user_id, Type::UUID), (&MAX_PRESENTATIONS, Type::INT4)]).await?;
    Ok(())
}

/// Writes down that these were shown. Those that were already are left as they are.
pub(in crate::handlers) async fn mark_presented(services: &Services, ids: &[Uuid]) -> Result<(), DbError> {
    let counted = counts_presentations(services).await?;
    let count = if counted { ", presentation_count = coalesce(presentation_count, 0) + 1" } else { "" };
    let sql = format!(
        "update user_priorities set status = 'presented', presented_at = clock_timestamp(){count}
        where id = any ($1) and status = 'active'"
    );
    services.query(&sql, &[(&ids, Type::UUID_ARRAY)]).await?;
    Ok(())
}

/// Whether the customer's migrations have come as far as counting how often an item was shown.
async fn counts_presentations(services: &Services) -> Result<bool, DbError> {
    let sql = "
        select exists (
            select from pg_attribute
            where attrelid = to_regclass('user_priorities') and attname = 'presentation_count' and not attisdropped
        )";
    let rows = services.query(sql, &[]).await?;
    Ok(rows[0].try_get(0)?)
}
