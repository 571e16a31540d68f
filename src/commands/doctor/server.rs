//! The server itself: reached, recent enough, writable, its clock, its time limits, old transactions.

use super::Patient;
use super::finding::Finding;
use crate::db::inspect::{ServerFacts, old_transactions, server_facts};

/// Postgres 14: the oldest that the migrations and the statements were written for.
const OLDEST_VERSION: i64 = 140_000;
/// Beyond this logs are hard to put in order, and tokens with an expiry are refused or accepted wrongly.
const CLOCK_TOLERANCE_MS: f64 = 5_000.0;
/// The client's longest deadline. A statement that outlives it goes on for nobody.
const LONGEST_STATEMENT_MS: i64 = 15_000;
/// A claim of many tasks, or an ending of many, may take as long on a busy server.
const SHORTEST_STATEMENT_MS: i64 = 1_000;
/// The pool's connections rest as long between polls, and the listening one between its probes.
const SHORTEST_REST_MS: i64 = 60_000;

/// The facts that the other checks judge, or the finding that there are none.
pub(super) async fn facts(patient: &Patient) -> Result<ServerFacts, Finding> {
    server_facts(&patient.database).await.map_err(|error| {
        let remedy = match error.sqlstate().map(|state| state.code().to_owned()).as_deref() {
            Some("28P01" | "28000") => "put the right user and password into DATABASE_URL",
            Some("3D000") => "put the database's right name into DATABASE_URL, or create it",
            Some("53300") => "close connections, or raise max_connections: all are taken",
            _ => "check host, port and sslmode of DATABASE_URL, DATABASE_CA_CERT, and that the server runs",
        };
        let what = format!("{} cannot be asked: {}", patient.database.target().describe(), error);
        Finding::fault("reachable", what, remedy)
    })
}

/// What the facts alone tell.
pub(super) fn judge(facts: &ServerFacts) -> Vec<Finding> {
    let mut findings = Vec::new();
    if facts.version < OLDEST_VERSION {
        findings.push(Finding::fault(
            "version",
            format!("the server is Postgres {}", facts.version / 10_000),
            "upgrade it to Postgres 14 or later",
        ));
    }
    if facts.read_only {
        findings.push(Finding::fault(
            "writable",
            "the database is read-only: a replica, or default_transaction_read_only is on",
            format!(
                "put the primary's host into DATABASE_URL; or: alter role {0} reset default_transaction_read_only; \
                 alter database {1} reset default_transaction_read_only",
                facts.role, facts.database
            ),
        ));
    }
    let (offset, error) = facts.clock_offset_ms;
    if offset.abs() - error > CLOCK_TOLERANCE_MS {
        let direction = if offset > 0.0 { "ahead of" } else { "behind" };
        findings.push(Finding::warning(
            "clock",
            format!("the server's clock is {:.1} s {direction} this machine's", offset.abs() / 1000.0),
            "set both by NTP; leases compare the server's clock only, tokens and log lines do not",
        ));
    }
    findings.extend(limits(facts));
    findings
}

fn limits(facts: &ServerFacts) -> Vec<Finding> {
    let role = &facts.role;
    let mut findings = Vec::new();
    let mut limit = |name: &str, value: i64, fault: bool, why: &str, better: &str| {
        let what = format!(
            "{name} of role {role} is {}: {why}",
            if value == 0 { "off".into() } else { format!("{value} ms") }
        );
        let remedy =
            format!("alter role {role} set {name} = '{better}'; sessions that are open keep the old value");
        findings.push(match fault {
            true => Finding::fault("limits", what, remedy),
            false => Finding::warning("limits", what, remedy),
        });
    };
    let statement = facts.statement_timeout;
    if statement == 0 || statement > LONGEST_STATEMENT_MS {
        let why = "a statement whose process has gone may run on for nobody";
        limit("statement_timeout", statement, false, why, "4s");
    } else if statement < SHORTEST_STATEMENT_MS {
        limit("statement_timeout", statement, true, "claims and endings may be cut off", "4s");
    }
    if (1..SHORTEST_STATEMENT_MS).contains(&facts.lock_timeout) {
        limit("lock_timeout", facts.lock_timeout, false, "adding tasks with a unique_key may fail", "4s");
    }
    if facts.idle_in_transaction_timeout == 0 {
        let why = "a transaction whose process has gone may stay open and keep its locks";
        limit("idle_in_transaction_session_timeout", 0, false, why, "60s");
    }
    if (1..SHORTEST_REST_MS).contains(&facts.idle_session_timeout) {
        let why = "resting connections are closed and made anew all the time";
        limit("idle_session_timeout", facts.idle_session_timeout, false, why, "0");
    }
    findings
}

/// Transactions older than any attempt may be: they keep dead rows, and with them every claim gets slower.
pub(super) async fn transactions(patient: &Patient, facts: &ServerFacts) -> Vec<Finding> {
    let check = "transactions";
    let age = patient.config.worker.task_timeout;
    let mut findings: Vec<Finding> = match old_transactions(&patient.database, age).await {
        Err(error) => vec![Finding::unanswered(check, &error)],
        Ok(old) => old
            .into_iter()
            .map(|transaction| {
                let since = format!("{} since {} s", transaction.description, transaction.age.as_secs());
                let what =
                    format!("{since}; no dead row of that time can be removed, and the queue leaves many");
                Finding::warning(check, what, transaction.ending)
            })
            .collect(),
    };
    if !facts.sees_activity {
        findings.push(Finding::warning(
            check,
            format!("role {} does not see how old the transactions of others are", facts.role),
            format!("grant pg_read_all_stats to {}", facts.role),
        ));
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn healthy() -> ServerFacts {
        ServerFacts {
            version: 150_000,
            role: "r".to_owned(),
            database: "d".to_owned(),
            read_only: false,
            clock_offset_ms: (CLOCK_TOLERANCE_MS, 1.0),
            statement_timeout: 4_000,
            lock_timeout: 0,
            idle_in_transaction_timeout: 60_000,
            idle_session_timeout: 0,
            connections: 97,
            connections_used: 1,
            role_connections: None,
            database_connections: None,
            sees_activity: true,
        }
    }

    fn checks(facts: &ServerFacts) -> Vec<&'static str> {
        judge(facts).iter().map(|finding| finding.check).collect()
    }

    #[test]
    fn what_no_test_can_do_to_a_server_is_judged_by_its_facts_alone() {
        assert_eq!(checks(&healthy()), [""; 0]);
        assert_eq!(checks(&ServerFacts { version: OLDEST_VERSION - 1, ..healthy() }), ["version"]);
        assert_eq!(checks(&ServerFacts { version: OLDEST_VERSION, ..healthy() }), [""; 0]);
        for offset in [2.0 * CLOCK_TOLERANCE_MS, -2.0 * CLOCK_TOLERANCE_MS] {
            assert_eq!(checks(&ServerFacts { clock_offset_ms: (offset, 1.0), ..healthy() }), ["clock"]);
            let slow_line = (offset, 2.0 * CLOCK_TOLERANCE_MS);
            assert_eq!(checks(&ServerFacts { clock_offset_ms: slow_line, ..healthy() }), [""; 0]);
        }
    }
}
