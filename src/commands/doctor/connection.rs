//! The way to the server: a pooler that was not told of, notifications that do not arrive, connections that do not suffice.

use std::time::Duration;

use tokio::time::timeout;

use super::super::budget::OVERLAP;
use super::Patient;
use super::finding::Finding;
use crate::config::PollMode;
use crate::db::Listener;
use crate::db::inspect::{ServerFacts, shares_backends};

const PROBE_WITHIN: Duration = Duration::from_secs(15);

/// Whether a transaction pooler stands in between that the URL does not tell of.
pub(super) async fn pooler(patient: &Patient) -> Vec<Finding> {
    let check = "pooler";
    if patient.database.target().transaction_pooler {
        return Vec::new();
    }
    match shares_backends(&patient.database).await {
        Ok(false) => Vec::new(),
        Ok(true) => vec![Finding::fault(
            check,
            "DATABASE_URL leads through a pooler in transaction mode and does not say so: `migrate` would change \
             sessions of others",
            "append pgbouncer=true to the parameters of DATABASE_URL, and set LISTEN_DATABASE_URL to a direct or \
             session connection",
        )],
        Err(error) => vec![Finding::unanswered(check, &error)],
    }
}

/// Whether new tasks wake a process, tried out.
pub(super) async fn listen(patient: &Patient) -> Vec<Finding> {
    let check = "listen";
    if patient.config.worker.poll_mode == PollMode::Request {
        return Vec::new();
    }
    let remedy = "set LISTEN_DATABASE_URL to a direct connection, or to a pooler in session mode (on Supabase: port 5432)";
    let wait = patient.config.worker.polling_interval.as_millis();
    let polling = format!("new tasks wait for the poll, up to {wait} ms");
    if !patient.budget.listens {
        let what = format!("a transaction pooler passes no notifications on: {polling}");
        return vec![Finding::warning(check, what, remedy)];
    }
    let (listener, heard, _) = Listener::new(&patient.database, Some(patient.budget.listen.clone()), &[]);
    match timeout(PROBE_WITHIN, listener.probe(heard)).await {
        Ok(Ok(())) => Vec::new(),
        Ok(Err(reason)) => vec![Finding::fault(check, format!("{reason}: {polling}"), remedy)],
        Err(_) => {
            vec![Finding::fault(check, format!("no connection in {PROBE_WITHIN:?}: {polling}"), remedy)]
        }
    }
}

/// Whether one instance fits in, and a second one beside it during a rollout.
pub(super) fn budget(facts: &ServerFacts, patient: &Patient) -> Vec<Finding> {
    let one = i64::try_from(patient.budget.connections).unwrap_or(i64::MAX);
    let rollout = one.saturating_mul(i64::try_from(OVERLAP).unwrap_or(2));
    judge_budget(facts, one, rollout)
}

fn judge_budget(facts: &ServerFacts, one: i64, rollout: i64) -> Vec<Finding> {
    let check = "connections";
    let role = &facts.role;
    let limits = [
        (Some(facts.connections), "the server allows", "raise max_connections".to_owned()),
        (
            facts.role_connections,
            "the role may have",
            format!("alter role {role} connection limit {rollout}"),
        ),
        (
            facts.database_connections,
            "the database may have",
            format!("alter database {} connection limit {rollout}", facts.database),
        ),
    ];
    let mut findings: Vec<Finding> = limits
        .into_iter()
        .filter_map(|(limit, whose, remedy)| limit.filter(|limit| *limit < rollout).map(|limit| (limit, whose, remedy)))
        .map(|(limit, whose, remedy)| {
            let what = format!(
                "{whose} {limit} connections; an instance takes {one}, and two of them {rollout} during a rollout"
            );
            Finding::fault(check, what, format!("{remedy}; or lower DATABASE_POOL_SIZE"))
        })
        .collect();
    let free = facts.connections - facts.connections_used;
    if findings.is_empty() && free < one {
        let what = format!(
            "{} of {} connections are taken; an instance takes {one}",
            facts.connections_used, facts.connections
        );
        let remedy = "see who has them: select usename, application_name, count(*) from pg_stat_activity group by 1, 2; \
                      raise max_connections, or connect through a pooler";
        findings.push(Finding::warning(check, what, remedy));
    }
    findings
}
