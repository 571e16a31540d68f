//! `community_responses`: what experts answered, what it was worth, and what became of it.

use tokio_postgres::types::Type;
use uuid::Uuid;

use crate::db::DbError;
use crate::services::Services;

/// An expert's answer.
pub(in crate::handlers) struct Response {
    pub(in crate::handlers) expert_id: Uuid,
    /// The expert's own words.
    pub(in crate::handlers) verbatim: String,
    /// 1 to 10, once somebody has judged it.
    pub(in crate::handlers) usefulness: Option<i32>,
    pub(in crate::handlers) impact: Option<String>,
}

/// What an answer was found to be worth.
pub(in crate::handlers) struct Judgement<'a> {
    pub(in crate::handlers) response_id: Uuid,
    pub(in crate::handlers) workflow_id: Uuid,
    /// An effect's key: the credits are given once.
    pub(in crate::handlers) credit_id: Uuid,
    /// 1 to 10.
    pub(in crate::handlers) usefulness: i32,
    pub(in crate::handlers) impact: &'a str,
    /// None where the answer was not useful enough.
    pub(in crate::handlers) credits: Option<i32>,
}

pub(in crate::handlers) async fn find(services: &Services, id: Uuid) -> Result<Option<Response>, DbError> {
    let sql = "
        select user_id, verbatim_answer, usefulness_score, impact_description
        from community_responses where id = $1";
    let rows = services.query(sql, &[(&id, Type::UUID)]).await?;
    let Some(row) = rows.first() else { return Ok(None) };
    Ok(Some(Response {
        expert_id: row.try_get("user_id")?,
        verbatim: row.try_get("verbatim_answer")?,
        usefulness: row.try_get("usefulness_score")?,
        impact: row.try_get("impact_description")?,
    }))
}

/// Writes a judgement down, rewards the expert and tells the workflow: all or nothing, and each once. Answers whether it
/// is the judgement that stands.
pub(in crate::handlers) async fn judge(
    services: &Services,
    judgement: &Judgement<'_>,
) -> Result<bool, DbError> {
    let rows = services
        .query(
            include_str!("responses_judge.sql"),
            &[
                (&judgement.response_id, Type::UUID),
                (&judgement.workflow_id, Type::UUID),
                (&judgement.credit_id, Type::UUID),
                (&judgement.usefulness, Type::INT4),
                (&judgement.impact, Type::TEXT),
                (&judgement.credits, Type::INT4),
            ],
        )
        .await?;
    Ok(!rows.is_empty())
}

/// Writes down that the expert is told what the answer has led to.
pub(in crate::handlers) async fn close_loop(
    services: &Services,
    id: Uuid,
    message: Option<&str>,
) -> Result<(), DbError> {
    let sql = "
        update community_responses
        set status = 'closed_loop', closed_loop_at = clock_timestamp(), closed_loop_message = $2
        where id = $1 and status is distinct from 'closed_loop'";
    services.query(sql, &[(&id, Type::UUID), (&message, Type::TEXT)]).await?;
    Ok(())
}
