//! Whether the database is still as the migrations made it.

use std::collections::BTreeMap;

use super::PATIENCE;
use crate::db::{Database, DbError, Lane};

/// What a database has after all migrations, as [`schema_lines`] puts it. A test compares it with the migrations.
pub const EXPECTED_SCHEMA: &str = include_str!("schema.txt");

/// Has the next `migrate` repeat all migrations: what is missing is made, what is there is left alone.
pub const FORGET_MIGRATIONS: &str = "delete from task_processor_migrations";

/// Tables that are the queue's own: without one of their columns nothing works. The others are the customer's.
const OURS: &[&str] = &["agent_tasks", "agent_actions_log", "task_types", "agent_tasks_wake"];

/// One thing that is not as the migrations make it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Drift {
    /// `table`, `column`, `index`, `function`, `trigger` or `default`.
    pub kind: String,
    /// Its name; a column's, trigger's or default's after that of its table.
    pub name: String,
    /// What it should be: a type, a definition, a digest.
    pub expected: String,
    /// What it is; absent if it is not there.
    pub found: Option<String>,
}

impl Drift {
    /// Whether it is a part of the queue, and not of a table that only some handlers use.
    #[must_use]
    pub fn is_ours(&self) -> bool {
        matches!(self.kind.as_str(), "index" | "function") || OURS.contains(&self.table())
    }

    /// Whether an index is there and invalid: left behind by a build that failed.
    #[must_use]
    pub fn is_invalid_index(&self) -> bool {
        self.kind == "index" && self.found.as_ref().is_some_and(|found| found.ends_with(" invalid"))
    }

    /// Whether repeating the migrations mends it. They make tables that are absent, and add columns of ours to the customer's.
    #[must_use]
    pub fn is_remade(&self) -> bool {
        self.kind != "column" || ADDED.contains(&self.name.as_str())
    }

    fn table(&self) -> &str {
        self.name.split('.').next().unwrap_or_default()
    }

    /// Types of the customer's own columns are theirs to choose, and so are the names of their indexes.
    fn matters(&self) -> bool {
        match (self.kind.as_str(), &self.found) {
            ("column", Some(_)) => ADDED.contains(&self.name.as_str()),
            ("index", _) => self.name.starts_with("agent_") && !self.name.ends_with("_pkey"),
            ("default", None) => matches!(self.name.as_str(), "agent_tasks.status" | "agent_tasks.id"),
            _ => true,
        }
    }
}

/// Columns that are ours on the customer's two tables, so that their types are ours, too.
const ADDED: &[&str] = &[
    "agent_tasks.lease_token",
    "agent_tasks.lease_expires_at",
    "agent_tasks.claimed_by",
    "agent_tasks.attempt",
    "agent_tasks.crash_count",
    "agent_tasks.cancel_requested_at",
    "agent_tasks.unique_key",
    "agent_tasks.timeout_seconds",
    "agent_tasks.estimated_cost_usd",
    "agent_tasks.cost_usd",
    "agent_tasks.quality_score",
    "agent_tasks.trace_context",
    "agent_actions_log.attempt",
    "agent_actions_log.lease_token",
];

type Parts = BTreeMap<(String, String), String>;

/// What of the migrations' work is missing or has become something else.
pub async fn drift(database: &Database) -> Result<Vec<Drift>, DbError> {
    let found = parts(&schema_lines(database).await?);
    Ok(compare(&parts(EXPECTED_SCHEMA), &found))
}

/// What stands in the schema of `agent_tasks`: a line for each table, column, index, trigger and function.
pub async fn schema_lines(database: &Database) -> Result<String, DbError> {
    let rows = database.query(Lane::Shared, PATIENCE, include_str!("drift.sql"), &[]).await?;
    rows.iter()
        .map(|row| {
            let (kind, name, what): (&str, &str, &str) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
            Ok(format!("{kind} {name} {what}").trim_end().to_owned() + "\n")
        })
        .collect()
}

fn parts(lines: &str) -> Parts {
    let part = |line: &str| {
        let mut words = line.splitn(3, ' ').map(str::to_owned);
        Some(((words.next()?, words.next()?), words.next().unwrap_or_default()))
    };
    lines.lines().filter_map(part).collect()
}

fn compare(expected: &Parts, found: &Parts) -> Vec<Drift> {
    let drifted = expected.iter().filter_map(|((kind, name), expected)| {
        let now = found.get(&(kind.clone(), name.clone()));
        let drift =
            Drift { kind: kind.clone(), name: name.clone(), expected: expected.clone(), found: now.cloned() };
        (now != Some(expected) && drift.matters()).then_some(drift)
    });
    let drifted: Vec<Drift> = drifted.collect();
    // A table that is missing says it for all its parts.
    let missing: Vec<String> =
        drifted.iter().filter(|drift| drift.kind == "table").map(|drift| drift.name.clone()).collect();
    let is_part = |drift: &Drift| drift.kind != "table" && missing.iter().any(|table| table == drift.table());
    drifted.into_iter().filter(|drift| !is_part(drift)).collect()
}
