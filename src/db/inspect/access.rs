//! What this role may do and see, and who else may.

use tokio_postgres::types::Type;

use super::PATIENCE;
use crate::db::{Database, DbError, Lane};

/// What a worker needs and this role has not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Access {
    /// Missing grants.
    pub refused: Vec<Refused>,
    /// Tables whose rows row level security hides from this role.
    pub blind: Vec<String>,
    /// Schemas that have an `agent_tasks`, where the role's search path leads to none.
    pub elsewhere: Option<String>,
    /// API roles that may use `agent_tasks` with no row level security to restrict them.
    pub exposed_to: Option<String>,
}

/// Privileges that this role lacks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// A table, or `function` and its name.
    pub object: String,
    /// As in `select, update`.
    pub privileges: String,
}

impl Access {
    /// Whether the history of migrations can be read: without it, it cannot be told which are missing.
    #[must_use]
    pub fn reads_history(&self) -> bool {
        let history = "task_processor_migrations";
        !self.refused.iter().any(|refused| refused.object == history)
            && !self.blind.iter().any(|name| name == history)
    }
}

/// Looks what this role may do with the tables that exist, and whether that is enough to delete tasks and log rows, where
/// it is to do that.
pub async fn access(database: &Database, tasks: bool, log: bool) -> Result<Access, DbError> {
    let mut session = database.session(Lane::Shared, PATIENCE).await?;
    let mut access = Access::default();
    for row in session.query(include_str!("access.sql"), &[(&tasks, Type::BOOL), (&log, Type::BOOL)]).await? {
        let object: String = row.try_get(0)?;
        if row.try_get(2)? {
            access.blind.push(object.clone());
        }
        if let Some(privileges) = row.try_get(1)? {
            access.refused.push(Refused { object, privileges });
        }
    }
    let hidden = session.query(include_str!("hidden.sql"), &[]).await?;
    access.elsewhere = hidden[0].try_get(0)?;
    access.exposed_to = hidden[0].try_get(1)?;
    Ok(access)
}
