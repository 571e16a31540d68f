//! `events`: what the customer's event-processor is told.

use serde_json::{Value, json};
use tokio_postgres::types::Type;
use uuid::Uuid;

use crate::db::DbError;
use crate::queue::Task;
use crate::services::{Services, effect_key};

/// A user wants a solution to be found.
pub(in crate::handlers) const SOLUTION_NEEDED: &str = "user.inquiry.solution_needed";

/// The customer's trigger sends the payload as a notification, which takes 8,000 bytes in all: so many are left for lists.
pub(in crate::handlers) const ROOM: usize = 4_500;

/// What an event can carry of a text: of the longest, and all of it multi-byte, the first 600 characters.
pub(in crate::handlers) fn shorten(text: &str) -> String {
    const LONGEST: usize = 600;
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// What an event is about.
#[derive(Clone, Copy)]
pub(in crate::handlers) enum About {
    User(Uuid),
    CommunityRequest(Uuid),
    SolutionWorkflow(Uuid),
    IntroOpportunity(Uuid),
}

/// An event to be published.
pub(in crate::handlers) struct NewEvent {
    /// An effect's key: the event is published once.
    pub(in crate::handlers) id: Uuid,
    event_type: &'static str,
    about: About,
    payload: Value,
    metadata: Value,
}

impl NewEvent {
    /// The event that is the effect `effect` of a task.
    pub(in crate::handlers) fn of(
        task: &Task,
        effect: &str,
        event_type: &'static str,
        about: About,
        payload: Value,
    ) -> Self {
        let metadata = json!({ "source": "task_processor", "taskType": task.task_type });
        Self { id: effect_key(task.id, effect), event_type, about, payload, metadata }
    }
}

impl About {
    fn parts(self) -> (Uuid, &'static str) {
        match self {
            Self::User(id) => (id, "user"),
            Self::CommunityRequest(id) => (id, "community_request"),
            Self::SolutionWorkflow(id) => (id, "solution_workflow"),
            Self::IntroOpportunity(id) => (id, "intro_opportunity"),
        }
    }
}

pub(in crate::handlers) async fn publish(services: &Services, event: &NewEvent) -> Result<(), DbError> {
    let (aggregate_id, aggregate_type) = event.about.parts();
    services
        .query(
            include_str!("events_insert.sql"),
            &[
                (&event.id, Type::UUID),
                (&event.event_type, Type::TEXT),
                (&aggregate_id, Type::UUID),
                (&aggregate_type, Type::TEXT),
                (&event.payload, Type::JSONB),
                (&event.metadata, Type::JSONB),
            ],
        )
        .await?;
    Ok(())
}

/// The type and the payload of an event that was published.
pub(in crate::handlers) async fn find(
    services: &Services,
    id: Uuid,
) -> Result<Option<(String, Value)>, DbError> {
    let sql = "select event_type::text, payload from events where id = $1";
    let rows = services.query(sql, &[(&id, Type::UUID)]).await?;
    rows.first().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).transpose()
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
