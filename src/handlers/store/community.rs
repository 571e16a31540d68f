//! `community_requests`: questions that agents put to the experts among the users.

use tokio_postgres::types::Type;
use uuid::Uuid;

use crate::db::DbError;
use crate::services::Services;

/// A question to be put to experts.
pub(in crate::handlers) struct NewRequest<'a> {
    /// An effect's key: the request is made once.
    pub(in crate::handlers) id: Uuid,
    pub(in crate::handlers) agent_type: &'a str,
    pub(in crate::handlers) user_id: Option<Uuid>,
    pub(in crate::handlers) context_id: Option<Uuid>,
    pub(in crate::handlers) context_type: Option<&'a str>,
    pub(in crate::handlers) question: &'a str,
    pub(in crate::handlers) category: Option<&'a str>,
    pub(in crate::handlers) expertise: &'a [String],
    pub(in crate::handlers) experts: &'a [Uuid],
    pub(in crate::handlers) requester_context: Option<&'a str>,
    pub(in crate::handlers) desired_outcome: &'a str,
    pub(in crate::handlers) urgency: &'a str,
    pub(in crate::handlers) summary: Option<&'a str>,
}

/// A question that was put.
pub(in crate::handlers) struct Request {
    pub(in crate::handlers) question: String,
    pub(in crate::handlers) expertise: Vec<String>,
    /// Who was asked.
    pub(in crate::handlers) experts: Vec<Uuid>,
}

pub(in crate::handlers) async fn find(services: &Services, id: Uuid) -> Result<Option<Request>, DbError> {
    let sql = "
        select question, coalesce(expertise_needed, '{}') as expertise, coalesce(target_user_ids, '{}') as experts
        from community_requests where id = $1";
    let rows = services.query(sql, &[(&id, Type::UUID)]).await?;
    let Some(row) = rows.first() else { return Ok(None) };
    Ok(Some(Request {
        question: row.try_get("question")?,
        expertise: row.try_get("expertise")?,
        experts: row.try_get("experts")?,
    }))
}

/// A request of the last seven days that is still open, in the same category and for some of the same expertise.
pub(in crate::handlers) async fn find_similar(
    services: &Services,
    category: Option<&str>,
    expertise: &[String],
) -> Result<Option<Uuid>, DbError> {
    let params = [(&category as _, Type::TEXT), (&expertise as _, Type::TEXT_ARRAY)];
    let rows = services.query(include_str!("community_similar.sql"), &params).await?;
    Ok(rows.first().map(|row| row.try_get(0)).transpose()?)
}

pub(in crate::handlers) async fn insert(
    services: &Services,
    request: &NewRequest<'_>,
) -> Result<(), DbError> {
    services
        .query(
            include_str!("community_insert.sql"),
            &[
                (&request.id, Type::UUID),
                (&request.agent_type, Type::TEXT),
                (&request.user_id, Type::UUID),
                (&request.context_id, Type::UUID),
                (&request.context_type, Type::TEXT),
                (&request.question, Type::TEXT),
                (&request.category, Type::TEXT),
                (&request.expertise, Type::TEXT_ARRAY),
                (&request.experts, Type::UUID_ARRAY),
                (&request.requester_context, Type::TEXT),
                (&request.desired_outcome, Type::TEXT),
                (&request.urgency, Type::TEXT),
                (&request.summary, Type::TEXT),
            ],
        )
        .await?;
    Ok(())
}
