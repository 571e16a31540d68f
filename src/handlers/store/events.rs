//! `events`: what the customer's event-processor is told.

use serde_json::Value;
use tokio_postgres::types::Type;
use uuid::Uuid;

use crate::db::DbError;
use crate::services::Services;

/// A user wants a solution to be found.
pub(in crate::handlers) const SOLUTION_NEEDED: &str = "user.inquiry.solution_needed";

/// An event about a user, to be published.
pub(in crate::handlers) struct NewEvent {
    /// An effect's key: the event is published once.
    pub(in crate::handlers) id: Uuid,
    pub(in crate::handlers) event_type: &'static str,
    pub(in crate::handlers) user_id: Uuid,
    pub(in crate::handlers) payload: Value,
    pub(in crate::handlers) metadata: Value,
}

pub(in crate::handlers) async fn publish(services: &Services, event: &NewEvent) -> Result<(), DbError> {
    services
        .query(
            include_str!("events_insert.sql"),
            &[
                (&event.id, Type::UUID),
                (&event.event_type, Type::TEXT),
                (&event.user_id, Type::UUID),
                (&event.payload, Type::JSONB),
                (&event.metadata, Type::JSONB),
            ],
        )
        .await?;
    Ok(())
}

/// Whether this is a request for a solution that a task has published.
pub(in crate::handlers) async fn is_research_published_by_task(
    services: &Services,
    id: Uuid,
) -> Result<bool, DbError> {
    let sql = "
        select from events
        where id = $1 and event_type = $2
            and (created_by = 'task_processor' or payload ->> 'taskId' is not null)";
    let rows = services.query(sql, &[(&id, Type::UUID), (&SOLUTION_NEEDED, Type::TEXT)]).await?;
    Ok(!rows.is_empty())
}
