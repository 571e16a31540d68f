//! `solution_workflows`: searches for a solution, as the solution saga left them.

use serde_json::Value;
use tokio_postgres::types::Type;
use uuid::Uuid;

use crate::db::DbError;
use crate::services::Services;

/// A search for a solution.
pub(in crate::handlers) struct Workflow {
    pub(in crate::handlers) user_id: Uuid,
    pub(in crate::handlers) description: String,
    pub(in crate::handlers) status: String,
    pub(in crate::handlers) matched_innovators: Vec<Value>,
    /// `{responseId, expertId, summary, usefulnessScore, evaluatedAt}` each.
    pub(in crate::handlers) insights: Vec<Value>,
    pub(in crate::handlers) expert_recommendations: Vec<Value>,
}

pub(in crate::handlers) async fn find(services: &Services, id: Uuid) -> Result<Option<Workflow>, DbError> {
    let sql = "
        select user_id, request_description, coalesce(status, 'in_progress')::text as status, matched_innovators,
            community_insights, expert_recommendations
        from solution_workflows where id = $1";
    let rows = services.query(sql, &[(&id, Type::UUID)]).await?;
    let Some(row) = rows.first() else { return Ok(None) };
    let list = |column| {
        let value: Option<Value> = row.try_get(column)?;
        Ok::<_, DbError>(match value {
            Some(Value::Array(items)) => items,
            Some(Value::Null) | None => Vec::new(),
            Some(other) => vec![other],
        })
    };
    Ok(Some(Workflow {
        user_id: row.try_get("user_id")?,
        description: row.try_get("request_description")?,
        status: row.try_get("status")?,
        matched_innovators: list("matched_innovators")?,
        insights: list("community_insights")?,
        expert_recommendations: list("expert_recommendations")?,
    }))
}

/// Ends a search, unless it was given up. The event-processor may have called it completed already, on hearing of it from
/// us; all it sets is the status.
pub(in crate::handlers) async fn complete(
    services: &Services,
    id: Uuid,
    good_enough: bool,
) -> Result<(), DbError> {
    let sql = "
        update solution_workflows
        set status = 'completed', current_step = 'complete', quality_threshold_met = $2,
            last_decision_at = clock_timestamp(), updated_at = clock_timestamp(),
            completed_at = coalesce(completed_at, clock_timestamp())
        where id = $1 and current_step <> 'complete'
            and coalesce(status, 'in_progress') in ('in_progress', 'completed')";
    services.query(sql, &[(&id, Type::UUID), (&good_enough, Type::BOOL)]).await?;
    Ok(())
}
