//! `user_priorities`: what is worth a user's attention.

use tokio_postgres::types::Type;
use uuid::Uuid;

use crate::db::DbError;
use crate::services::Services;

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
