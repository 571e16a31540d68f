//! Ends attempts, many at once, so that one that cannot be stored costs the others nothing. The statement, and why it is
//! a function: `migrations/0011_end.sql`.

use tokio_postgres::types::{ToSql, Type};
use uuid::Uuid;

use super::ending::{Ending, Verdict};
use super::{Queue, deadline};
use crate::db::{DbError, Lane, Param};

const END: &str = "select agent_tasks_end_v1($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)";
const END_WITHOUT_LOG: &str = "select agent_tasks_end_unlogged_v1($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)";

impl Queue {
    /// Ends attempts and writes a log row for each. The verdicts come in the order of the endings.
    ///
    /// An error means that nothing is known of any of them and that the same call may be repeated: the database could
    /// not be asked. An ending that Postgres refuses is split off, and ended without what is refused.
    pub async fn end(&self, endings: &[Ending]) -> Result<Vec<Verdict>, DbError> {
        let mut order: Vec<usize> = (0..endings.len()).collect();
        order.sort_by_key(|index| endings[*index].lease);
        let sorted: Vec<&Ending> = order.iter().map(|index| &endings[*index]).collect();
        let mut verdicts = vec![Verdict::Stale; endings.len()];
        for (index, verdict) in order.into_iter().zip(self.end_sorted(&sorted).await?) {
            verdicts[index] = verdict;
        }
        Ok(verdicts)
    }

    async fn end_sorted(&self, endings: &[&Ending]) -> Result<Vec<Verdict>, DbError> {
        let error = match self.end_batch(endings, END).await {
            Ok(verdicts) => {
                self.log_kept();
                return Ok(verdicts);
            }
            Err(error) if error.is_transient() => return Err(error),
            Err(error) => error,
        };
        if error.is_refusal() && endings.len() > 1 {
            match self.end_unlogged(endings, &error).await {
                Err(again) if !again.is_transient() => {}
                result => return result,
            }
        }
        match endings {
            [] => Ok(Vec::new()),
            [ending] => self.end_stubborn(ending, &error).await.map(|verdict| vec![verdict]),
            _ => {
                let (left, right) = endings.split_at(endings.len() / 2);
                let mut verdicts = Box::pin(self.end_sorted(left)).await?;
                verdicts.extend(Box::pin(self.end_sorted(right)).await?);
                Ok(verdicts)
            }
        }
    }

    /// Postgres refuses the statement whatever its values, a missing grant for instance. It can only be the log's part:
    /// the same role claimed these tasks from the same table.
    async fn end_unlogged(&self, endings: &[&Ending], error: &DbError) -> Result<Vec<Verdict>, DbError> {
        let verdicts = self.end_batch(endings, END_WITHOUT_LOG).await?;
        self.log_lost(verdicts.iter().filter(|verdict| **verdict == Verdict::Accepted).count(), error);
        Ok(verdicts)
    }

    /// The one ending of a batch that Postgres refused as it stands: in ever poorer forms, until one is taken. The log
    /// is given up first, then what the attempt cost, and only then the handler's own result and error.
    async fn end_stubborn(&self, ending: &Ending, error: &DbError) -> Result<Verdict, DbError> {
        let task_id = ending.lease().id;
        let (costless, bare) = (ending.costless(), ending.bare(&error.refusal()));
        let forms = [
            (ending, END_WITHOUT_LOG, "its log row"),
            (&costless, END, "its usage"),
            (&costless, END_WITHOUT_LOG, "its usage and its log row"),
            (&bare, END, "its result or error"),
            (&bare, END_WITHOUT_LOG, "its result or error and its log row"),
        ];
        for (form, sql, lost) in forms {
            match self.end_batch(&[form], sql).await {
                Err(error) if error.is_transient() => return Err(error),
                Err(_) => {}
                Ok(verdicts) => {
                    if verdicts[0] == Verdict::Accepted {
                        tracing::warn!(%task_id, %error, "ended a task without {lost}");
                        if sql == END_WITHOUT_LOG {
                            self.log_lost(1, error);
                        }
                    }
                    return Ok(verdicts[0]);
                }
            }
        }
        tracing::error!(%task_id, %error, "the database refuses to end a task in any way");
        Ok(Verdict::Refused)
    }

    async fn end_batch(&self, endings: &[&Ending], sql: &'static str) -> Result<Vec<Verdict>, DbError> {
        let ids: Vec<Uuid> = endings.iter().map(|ending| ending.lease.id).collect();
        let tokens: Vec<Uuid> = endings.iter().map(|ending| ending.lease.token).collect();
        let verbs: Vec<&str> = endings.iter().map(|ending| ending.verb.name()).collect();
        let delays: Vec<Option<f64>> =
            endings.iter().map(|ending| ending.delay.map(|delay| delay.as_secs_f64())).collect();
        let results: Vec<Option<&str>> = endings.iter().map(|ending| ending.result.as_deref()).collect();
        let errors: Vec<Option<&str>> = endings.iter().map(|ending| ending.error.as_deref()).collect();
        let latencies: Vec<Option<i32>> = endings
            .iter()
            .map(|ending| {
                ending.latency.map(|latency| i32::try_from(latency.as_millis()).unwrap_or(i32::MAX))
            })
            .collect();
        let oversizes: Vec<Option<i64>> = endings.iter().map(|ending| ending.oversize).collect();
        let usages: Vec<Option<&str>> = endings.iter().map(|ending| ending.usage.as_deref()).collect();
        // In order of time, so that their index grows at one end only.
        let log_ids: Vec<Uuid> = endings.iter().map(|_| Uuid::now_v7()).collect();
        let columns: [(&(dyn ToSql + Sync), Type); 10] = [
            (&ids, Type::UUID_ARRAY),
            (&tokens, Type::UUID_ARRAY),
            (&verbs, Type::TEXT_ARRAY),
            (&delays, Type::FLOAT8_ARRAY),
            (&results, Type::TEXT_ARRAY),
            (&errors, Type::TEXT_ARRAY),
            (&latencies, Type::INT4_ARRAY),
            (&oversizes, Type::INT8_ARRAY),
            (&usages, Type::TEXT_ARRAY),
            (&log_ids, Type::UUID_ARRAY),
        ];
        let params: &[Param<'_>] = &columns;
        let mut session = self.db.session(Lane::Work, deadline::END).await?;
        let rows = session.query_prepared(sql, params).await?;
        let verdicts: Option<Vec<&str>> = rows[0].try_get(0)?;
        Ok(match verdicts {
            None => vec![Verdict::Accepted; endings.len()],
            Some(names) => names.into_iter().map(verdict).collect(),
        })
    }
}

fn verdict(name: &str) -> Verdict {
    match name {
        "accepted" => Verdict::Accepted,
        "already" => Verdict::Already,
        "locked" => Verdict::Locked,
        "refused" => Verdict::Refused,
        _ => Verdict::Stale,
    }
}
