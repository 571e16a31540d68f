//! What else in this database takes tasks: the customer's own batch functions, and the `pg_cron` jobs that call them.

use tokio_postgres::types::Type;

use super::PATIENCE;
use crate::db::{Database, DbError, Lane};

/// What competes for tasks without a lease. Whatever it takes is never ended by us, and may be done twice.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rivals {
    /// `pg_cron`'s jobs: id, schedule, command.
    pub jobs: Vec<(i64, String, String)>,
    /// Functions that make tasks `processing`, with their schemas.
    pub functions: Vec<String>,
}

/// Whether there are jobs that this role may see.
const JOBS: &str = "
    select has_schema_privilege(relnamespace, 'usage') and has_table_privilege(pg_class.oid, 'select')
    from pg_class
    join pg_namespace on pg_namespace.oid = relnamespace
    where nspname = 'cron' and relname = 'job'";

/// Looks for rivals. `pg_cron` shows a role its own jobs alone, unless it is a superuser.
pub async fn rivals(database: &Database) -> Result<Rivals, DbError> {
    let mut session = database.session(Lane::Shared, PATIENCE).await?;
    let mut rivals = Rivals::default();
    let mut names: Vec<String> = Vec::new();
    for row in session.query(include_str!("rivals.sql"), &[]).await? {
        rivals.functions.push(row.try_get(0)?);
        names.push(row.try_get(1)?);
    }
    let visible = session.query(JOBS, &[]).await?;
    if visible.first().is_some_and(|row| row.try_get(0).unwrap_or(false)) {
        let sql = include_str!("rivals_jobs.sql");
        for row in session.query(sql, &[(&names, Type::TEXT_ARRAY)]).await? {
            rivals.jobs.push((row.try_get(0)?, row.try_get(1)?, row.try_get(2)?));
        }
    }
    Ok(rivals)
}
