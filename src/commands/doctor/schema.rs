//! The tables: found, complete, as the migrations made them, open to this role and to nobody on the internet.

use super::Patient;
use super::finding::Finding;
use crate::config::PollMode;
use crate::db::inspect::{Access, Drift, FORGET_MIGRATIONS, access, drift};
use crate::db::{DbError, pending_migrations};

const QUEUE: &str = "agent_tasks";

/// The findings, and whether the queue's tables are complete and readable, so that more can be asked of them.
pub(super) async fn examine(patient: &Patient, role: &str) -> (Vec<Finding>, bool) {
    match look(patient, role).await {
        Ok(answer) => answer,
        Err(error) => (vec![Finding::unanswered("schema", &error)], false),
    }
}

async fn look(patient: &Patient, role: &str) -> Result<(Vec<Finding>, bool), DbError> {
    let sweeps = patient.config.worker.poll_mode != PollMode::Request;
    let [tasks, log] =
        [patient.config.retention.tasks, patient.config.retention.log].map(|age| sweeps && age.is_some());
    let access = access(&patient.database, tasks, log).await?;
    let mut findings = judge_access(&access, role);
    let open = findings.is_empty();
    if let Some(roles) = &access.exposed_to {
        findings.push(Finding::warning(
            "exposed",
            format!(
                "{roles} may use agent_tasks, and no row level security restricts them: they are the internet"
            ),
            format!("revoke all on {QUEUE} from {roles}; alter table {QUEUE} enable row level security"),
        ));
    }
    if access.elsewhere.is_some() || !access.reads_history() {
        return Ok((findings, false));
    }
    let pending: Vec<&str> =
        pending_migrations(&patient.database).await?.iter().map(|migration| migration.name).collect();
    if !pending.is_empty() {
        let what = format!("this database lacks {}", pending.join(", "));
        findings.push(Finding::fault("migrations", what, "task-processor migrate, as the tables' owner"));
        return Ok((findings, false));
    }
    let drifted = drift(&patient.database).await?;
    let whole = !drifted.iter().any(Drift::is_ours);
    findings.extend(drifted.iter().map(judge_drift));
    Ok((findings, open && whole))
}

fn judge_access(access: &Access, role: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    if let Some(schemas) = &access.elsewhere {
        findings.push(Finding::fault(
            "search_path",
            format!("agent_tasks is in schema {schemas}, where role {role} does not look"),
            format!(
                "grant usage on schema {schemas} to {role}; alter role {role} set search_path = {schemas}"
            ),
        ));
    }
    findings.extend(access.refused.iter().map(|refused| {
        Finding::fault(
            "grants",
            format!("role {role} lacks {} on {}", refused.privileges, refused.object),
            format!("grant {} on {} to {role}", refused.privileges, refused.object),
        )
    }));
    if !access.blind.is_empty() {
        let what = format!("row level security hides rows of {} from role {role}", access.blind.join(", "));
        findings.push(Finding::fault("rls", what, format!("alter role {role} bypassrls")));
    }
    findings
}

fn judge_drift(drift: &Drift) -> Finding {
    let Drift { kind, name, expected, found } = drift;
    let migrate_anew = format!("{FORGET_MIGRATIONS}; then, as the tables' owner: task-processor migrate");
    let (table, part) = name.split_once('.').unwrap_or((name, ""));
    let (what, remedy) = match (kind.as_str(), found) {
        (_, None) if drift.is_remade() => (format!("{kind} {name} is missing"), migrate_anew),
        (_, None) => {
            (format!("{kind} {name} is missing"), format!("alter table {table} add column {part} {expected}"))
        }
        ("index", Some(_)) => {
            let what = match drift.is_invalid_index() {
                true => format!("index {name} is invalid: its build failed, and no query uses it"),
                false => format!("index {name} is not the one that our queries need"),
            };
            (what, format!("drop index concurrently {name}; {migrate_anew}"))
        }
        ("column", Some(found)) => (
            format!("column {name} is of type {found} instead of {expected}"),
            format!("alter table {table} alter column {part} type {expected} using {part}::{expected}"),
        ),
        ("trigger", Some(_)) => (
            format!("trigger {name} is disabled: new tasks wait for the poll"),
            format!("alter table {table} enable trigger {part}"),
        ),
        _ => (format!("{kind} {name} is not the one of this release"), migrate_anew),
    };
    match drift.is_ours() {
        true => Finding::fault("drift", what, remedy),
        false => Finding::warning("drift", format!("{what}; handlers that use it fail"), remedy),
    }
}
