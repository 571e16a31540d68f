//! The same verbs by many at the same time on a few rows. Who is first is nobody's to say, so what is compared
//! afterwards is what must hold whoever was.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};

use futures_util::future::join_all;
use proptest::strategy::{Strategy, ValueTree};
use task_processor::queue::{Lease, Verdict};
use uuid::Uuid;

use super::play::runner;
use super::pure::{Entry, same};
use super::stage::{Answer, Seen, Stage};
use super::steps::{Known, Spec, Step, story};

/// Who act at the same time, and how many stories each plays.
const ACTORS: usize = 6;
const STORIES: usize = 12;

/// What all of them know and have been told.
#[derive(Default)]
struct Told {
    known: Known,
    /// Of each claim: the task and the attempt's number.
    attempts: Vec<(Uuid, i32)>,
    accepted: Vec<Lease>,
}

/// Plays one actor's steps. Whatever goes wrong is an error of the queue, a deadlock above all.
async fn act(stage: &Stage, actor: usize, steps: Vec<Step>, told: &Mutex<Told>) {
    for step in steps {
        let known = told.lock().unwrap().known.clone();
        let Some(act) = known.act(&step) else { continue };
        let answer = stage.perform(actor, &act, &known).await.unwrap_or_else(|error| panic!("{error}"));
        let mut told = told.lock().unwrap();
        told.known.learn(&answer);
        match (&act, &answer) {
            (_, Answer::Claimed(claimed)) => {
                told.attempts.extend(claimed.iter().map(|(lease, attempt)| (lease.id, *attempt)));
            }
            (Step::End(endings), Answer::Ended(verdicts)) => {
                let accepted =
                    endings.iter().zip(verdicts).filter(|(_, verdict)| **verdict == Verdict::Accepted);
                told.accepted.extend(accepted.map(|((lease, _), _)| *lease));
            }
            _ => {}
        }
    }
}

/// One actor's stories. Nobody writes into rows by hand, since that ends attempts without a trace; the rows stay few, and
/// nothing is paused.
fn steps(seed: Uuid) -> Vec<Step> {
    let mut runner = runner(seed);
    let stories =
        (0..STORIES).flat_map(|_| story().new_tree(&mut runner).expect("nothing is filtered").current());
    stories.filter(|step| !matches!(step, Step::ByHand(_) | Step::Enqueue(_) | Step::Pause { .. })).collect()
}

pub(super) async fn play_at_once(stage: Arc<Stage>, seed: Uuid) -> Result<(), String> {
    let told = Arc::new(Mutex::new(Told::default()));
    let few = (0..4).map(|_| Spec { kind: 0, priority: "medium", delay: 0, key: None }).collect();
    act(&stage, 0, vec![Step::Enqueue(few)], &told).await;
    let actors = (0..ACTORS).map(|actor| {
        let (stage, told) = (stage.clone(), told.clone());
        let steps = steps(Uuid::new_v5(&seed, &actor.to_le_bytes()));
        tokio::spawn(async move { act(&stage, actor, steps, &told).await })
    });
    for actor in join_all(actors).await {
        actor.map_err(|panic| panic.to_string())?;
    }
    let seen = stage.look().await;
    let told = told.lock().unwrap();
    check(&seen, &told)
}

fn check(seen: &Seen, told: &Told) -> Result<(), String> {
    let mut accepted: Vec<Lease> = told.accepted.clone();
    accepted.sort_unstable();
    let once: HashSet<Lease> = accepted.iter().copied().collect();
    same("attempts that ended, each once", &accepted.len(), &once.len())?;
    let token = |entry: &Entry| entry.token.map(|token| Lease { id: entry.task, token });
    let mut logged: Vec<Lease> = seen.log.iter().filter_map(token).collect();
    logged.sort_unstable();
    same("a log row for each ending that was accepted", &accepted, &logged)?;

    for row in &seen.rows {
        let mut attempts: Vec<i32> =
            told.attempts.iter().filter(|(id, _)| *id == row.id).map(|(_, attempt)| *attempt).collect();
        attempts.sort_unstable();
        same("attempts without a gap", &(1..=row.attempt).collect(), &attempts)?;
        // An operator's cancellation of a waiting task ends no attempt.
        let ends = |entry: &&Entry| {
            entry.task == row.id && (entry.token.is_some() || !entry.action.starts_with("cancel"))
        };
        let mut ended: Vec<i32> = seen.log.iter().filter(ends).map(|entry| entry.attempt).collect();
        ended.extend((row.status == "processing").then_some(row.attempt));
        ended.sort_unstable();
        same("each attempt has one end, or goes on", &attempts, &ended)?;
    }
    let rescued = seen.log.iter().filter(|entry| entry.action.starts_with("recover")).count();
    same("something ended, and something was rescued", &(true, true), &(!accepted.is_empty(), rescued > 0))
}
