//! Findings: what a user's agent is told, in `messages`, or in `message_queue` where there is no conversation.

use serde_json::Value;
use tokio_postgres::types::Type;
use uuid::Uuid;

use crate::db::DbError;
use crate::services::Services;

/// Something for the agent of a user, who decides what to say about it.
pub(in crate::handlers) struct Finding<'a> {
    /// An effect's key: the finding is left once.
    pub(in crate::handlers) id: Uuid,
    pub(in crate::handlers) user_id: Uuid,
    pub(in crate::handlers) content: &'a Value,
    /// Who takes it out of the queue, where it has to wait there.
    pub(in crate::handlers) agent_id: &'a str,
    /// `urgent`, `high`, `medium` or `low`.
    pub(in crate::handlers) priority: &'a str,
}

/// A finding that was left.
pub(in crate::handlers) struct Left {
    /// Absent: it waits in the message queue.
    pub(in crate::handlers) conversation_id: Option<Uuid>,
    pub(in crate::handlers) content: Value,
}

/// Leaves a finding in the conversation, or in the message queue.
pub(in crate::handlers) async fn leave(
    services: &Services,
    finding: &Finding<'_>,
    conversation_id: Option<Uuid>,
) -> Result<(), DbError> {
    services
        .query(
            include_str!("findings_insert.sql"),
            &[
                (&finding.id, Type::UUID),
                (&finding.user_id, Type::UUID),
                (&conversation_id, Type::UUID),
                (&finding.content.to_string(), Type::TEXT),
                (&finding.agent_id, Type::TEXT),
                (&finding.priority, Type::TEXT),
            ],
        )
        .await?;
    Ok(())
}

/// A finding that an earlier run has left.
pub(in crate::handlers) async fn find(services: &Services, id: Uuid) -> Result<Option<Left>, DbError> {
    let sql = "
        select conversation_id, content::jsonb from messages where id = $1
        union all
        select null, message_data from message_queue where id = $1";
    let rows = services.query(sql, &[(&id, Type::UUID)]).await?;
    let left =
        |row: &tokio_postgres::Row| Ok(Left { conversation_id: row.try_get(0)?, content: row.try_get(1)? });
    rows.first().map(left).transpose()
}
