//! `doctor`: what is wrong with the database and the way to it, each finding with what mends it. It changes nothing.

mod connection;
mod finding;
mod schema;
mod server;
mod work;

use serde_json::json;

use super::budget::Budget;
use super::output::Output;
use crate::config::{Config, instance_name};
use crate::db::Database;
use crate::handler::Registry;
use crate::queue::Queue;
use crate::telemetry::{self, metrics::Metrics};
use finding::{Finding, Severity};

/// What all checks look at.
struct Patient {
    config: Config,
    database: Database,
    budget: Budget,
    queue: Queue,
    task_types: Vec<String>,
}

pub(super) async fn run(registry: &Registry, output: &Output) -> anyhow::Result<i32> {
    let config = Config::from_env()?;
    telemetry::init(&config.log);
    let database = Database::new(&config.database)?;
    let budget = Budget::of(&config, &database)?;
    let queue = Queue::new(database.clone(), instance_name(), &config.worker, Metrics::new().into());
    let task_types = registry.task_types();
    let mut findings = examine(&Patient { config, database, budget, queue, task_types }).await;
    findings.sort_by_key(|finding| finding.severity);

    let faults = findings.iter().filter(|finding| finding.severity == Severity::Fault).count();
    let mut lines: Vec<String> = findings.iter().map(ToString::to_string).collect();
    lines.push(match (faults, findings.len()) {
        (0, 0) => "nothing is wrong".to_owned(),
        (0, all) => format!("{all} to know of, nothing that must be mended"),
        (faults, all) => format!("{faults} to be mended, {} to know of", all - faults),
    });
    output.answer(&json!({ "healthy": faults == 0, "findings": findings }), lines.join("\n"));
    Ok(i32::from(faults > 0))
}

/// All findings. What later checks stand on comes first: of a database that cannot be reached nothing else is asked.
async fn examine(patient: &Patient) -> Vec<Finding> {
    let facts = match server::facts(patient).await {
        Ok(facts) => facts,
        Err(unreachable) => return vec![unreachable],
    };
    let mut findings = server::judge(&facts);
    findings.extend(server::transactions(patient, &facts).await);
    findings.extend(connection::pooler(patient).await);
    findings.extend(connection::listen(patient).await);
    findings.extend(connection::budget(&facts, patient));
    let (schema, complete) = schema::examine(patient, &facts.role).await;
    findings.extend(schema);
    findings.extend(work::rivals(patient).await);
    if complete {
        findings.extend(work::unroutable(patient).await);
        findings.extend(work::strays(patient).await);
    }
    findings
}
