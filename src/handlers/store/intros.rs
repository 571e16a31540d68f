//! `intro_opportunities`: introductions under way.

use tokio_postgres::types::Type;
use uuid::Uuid;

use crate::db::DbError;
use crate::services::Services;

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
