//! The work itself: what competes for it, and what nobody will ever do.

use super::Patient;
use super::finding::Finding;
use crate::db::inspect::rivals as find_rivals;
use crate::queue::read::MAX_UNROUTABLE;

/// Programs in the database that take tasks without a lease.
pub(super) async fn rivals(patient: &Patient) -> Vec<Finding> {
    let check = "rivals";
    let rivals = match find_rivals(&patient.database).await {
        Ok(rivals) => rivals,
        Err(error) => return vec![Finding::unanswered(check, &error)],
    };
    let jobs = rivals.jobs.iter().map(|(id, schedule, command)| {
        let command: String = command.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(200).collect();
        let what = format!(
            "pg_cron job {id} ({schedule}: {command}) makes tasks `processing` without a lease: nobody ends them, or \
             they are done twice"
        );
        Finding::fault(check, what, format!("select cron.unschedule({id})"))
    });
    let functions = rivals.functions.iter().filter(|_| rivals.jobs.is_empty()).map(|name| {
        let what = format!(
            "function {name} makes tasks `processing` without a lease; no pg_cron job that this role may see calls it"
        );
        let remedy = format!(
            "as the owner of pg_cron's jobs: select jobid, command from cron.job; end those that call it by \
             cron.unschedule; then: drop function {name}"
        );
        Finding::warning(check, what, remedy)
    });
    jobs.chain(functions).collect()
}

/// Pending tasks that no handler of this program can do.
pub(super) async fn unroutable(patient: &Patient) -> Vec<Finding> {
    let check = "unroutable";
    match patient.queue.unroutable(&patient.task_types).await {
        Err(error) => vec![Finding::unanswered(check, &error)],
        Ok(types) => types
            .into_iter()
            .map(|(name, tasks)| {
                let count = if tasks < MAX_UNROUTABLE { tasks.to_string() } else { format!("{tasks} or more") };
                let what = format!("{count} pending tasks are of type {name}, for which there is no handler here");
                let remedy = format!(
                    "run a program that has it; or: task-processor cancel --status pending --type {name} --yes"
                );
                Finding::warning(check, what, remedy)
            })
            .collect(),
    }
}

/// Tasks that an older processor left running, too long ago to be run again unasked.
pub(super) async fn strays(patient: &Patient) -> Vec<Finding> {
    let check = "strays";
    match patient.queue.strays().await {
        Err(error) => vec![Finding::unanswered(check, &error)],
        Ok(None) => Vec::new(),
        Ok(Some(strays)) => vec![Finding::warning(
            check,
            format!(
                "{} tasks are `processing` without a lease, the oldest since {} s: nobody will end them",
                strays.tasks,
                strays.oldest.as_secs()
            ),
            format!(
                "their work may have been done; to have it done again: {}; to close them: {}",
                strays.requeue, strays.close
            ),
        )],
    }
}
