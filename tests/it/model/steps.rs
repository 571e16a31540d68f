//! What may be done to the queue, made up at random: the verbs by several workers, with tokens old and new, and time.

use proptest::collection::vec;
use proptest::option::weighted;
use proptest::prelude::*;
use proptest::sample::select;
use task_processor::queue::{Lease, Verb};
use uuid::Uuid;

/// The task types there are. Nobody runs the last one.
pub(super) const KINDS: [&str; 3] = ["a", "b", "unroutable"];
/// The types that each worker runs.
pub(super) const WORKERS: [&[&str]; 3] = [&["a", "b"], &["a", "b"], &["a"]];
/// The length of a lease in seconds. All times here are multiples of ten seconds, `REACH` is none: what a step takes in
/// truth never makes a difference.
pub(super) const LEASE: u64 = 30;
const REACH: u64 = 35;

/// One step. Tasks and leases are numbers while it is made up, the latest being 0, and become real ones when it is played.
#[derive(Clone, Debug)]
pub(super) enum Step<T = usize, L = usize> {
    Enqueue(Vec<Spec>),
    Claim {
        worker: usize,
        limit: usize,
        reach: Option<u64>,
        few: bool,
    },
    ClaimOne {
        worker: usize,
        task: T,
        early: bool,
    },
    Reserve {
        worker: usize,
    },
    KeepReserved {
        worker: usize,
        task: T,
    },
    GiveUpReserved {
        worker: usize,
        task: T,
    },
    ClaimReserved {
        worker: usize,
        task: T,
    },
    Renew(Vec<L>),
    End(Vec<(L, Verb)>),
    Rescue,
    /// The worker knows of all leases but this one.
    ReleaseUnknown {
        worker: usize,
        forgotten: L,
    },
    Cancel(Vec<T>),
    Redrive(Vec<T>),
    Reschedule {
        task: T,
        seconds: u64,
    },
    Pause {
        kind: usize,
        paused: bool,
    },
    /// Somebody writes `pending` into the row.
    ByHand(T),
    /// So many seconds pass.
    Pass(u64),
}

/// A task to be added.
#[derive(Clone, Debug)]
pub(super) struct Spec {
    pub(super) kind: usize,
    pub(super) priority: &'static str,
    pub(super) delay: u64,
    pub(super) key: Option<usize>,
}

/// A step with its real tasks and leases.
pub(super) type Act = Step<Uuid, Lease>;

/// The tasks and leases there are, whoever has them and whether they are still good.
#[derive(Clone, Default)]
pub(super) struct Known {
    pub(super) tasks: Vec<Uuid>,
    pub(super) leases: Vec<Lease>,
}

impl Known {
    fn task(&self, number: usize) -> Option<Uuid> {
        self.tasks.iter().rev().cycle().nth(number).copied()
    }

    fn lease(&self, number: usize) -> Option<Lease> {
        self.leases.iter().rev().cycle().nth(number).copied()
    }

    /// The step on real tasks and leases; none while there are none. A list names nothing twice.
    pub(super) fn act(&self, step: &Step) -> Option<Act> {
        let tasks = |numbers: &[usize]| -> Option<Vec<Uuid>> {
            let mut tasks: Vec<Uuid> = numbers.iter().filter_map(|number| self.task(*number)).collect();
            tasks.sort_unstable();
            tasks.dedup();
            (!tasks.is_empty()).then_some(tasks)
        };
        Some(match *step {
            Step::Enqueue(ref specs) => {
                let mut specs = specs.clone();
                specs.sort_by_key(|spec| spec.key);
                specs.dedup_by(|one, other| one.key.is_some() && one.key == other.key);
                Step::Enqueue(specs)
            }
            Step::Claim { worker, limit, reach, few } => Step::Claim { worker, limit, reach, few },
            Step::ClaimOne { worker, task, early } => {
                Step::ClaimOne { worker, task: self.task(task)?, early }
            }
            Step::Reserve { worker } => Step::Reserve { worker },
            Step::KeepReserved { worker, task } => Step::KeepReserved { worker, task: self.task(task)? },
            Step::GiveUpReserved { worker, task } => Step::GiveUpReserved { worker, task: self.task(task)? },
            Step::ClaimReserved { worker, task } => Step::ClaimReserved { worker, task: self.task(task)? },
            Step::Renew(ref numbers) => {
                let mut leases: Vec<Lease> =
                    numbers.iter().filter_map(|number| self.lease(*number)).collect();
                leases.sort_unstable();
                leases.dedup();
                Step::Renew((!leases.is_empty()).then_some(leases)?)
            }
            Step::End(ref endings) => {
                let mut leases: Vec<(Lease, Verb)> =
                    endings.iter().filter_map(|(number, verb)| Some((self.lease(*number)?, *verb))).collect();
                leases.sort_by_key(|(lease, _)| *lease);
                leases.dedup_by_key(|(lease, _)| *lease);
                Step::End((!leases.is_empty()).then_some(leases)?)
            }
            Step::Rescue => Step::Rescue,
            Step::ReleaseUnknown { worker, forgotten } => {
                Step::ReleaseUnknown { worker, forgotten: self.lease(forgotten)? }
            }
            Step::Cancel(ref numbers) => Step::Cancel(tasks(numbers)?),
            Step::Redrive(ref numbers) => Step::Redrive(tasks(numbers)?),
            Step::Reschedule { task, seconds } => Step::Reschedule { task: self.task(task)?, seconds },
            Step::Pause { kind, paused } => Step::Pause { kind, paused },
            Step::ByHand(task) => Step::ByHand(self.task(task)?),
            Step::Pass(seconds) => Step::Pass(seconds),
        })
    }
}

/// A story: two tasks, which may have crashed twice already, and what becomes of them.
pub(super) fn story() -> impl Strategy<Value = Vec<Step>> {
    let first = vec![spec(0), spec(0)].prop_map(Step::Enqueue);
    let crashes = prop_oneof![2 => Just(0), 1 => Just(2)];
    (first, crashes, vec(phrase(), 1..30)).prop_map(|(first, crashes, phrases)| {
        let claim = Step::Claim { worker: 0, limit: 2, reach: None, few: false };
        let crash = [Step::Pass(20), claim, Step::Pass(LEASE + 10), Step::Rescue];
        let crashes = (0..crashes).flat_map(|_| crash.clone());
        std::iter::once(first).chain(crashes).chain(phrases.into_iter().flatten()).collect()
    })
}

/// A step, or a few that belong together and would seldom come so by chance.
fn phrase() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        2 => enqueue(),
        12 => claim(),
        4 => claim_one(),
        3 => vec(lease(), 1..4).prop_map(Step::Renew),
        16 => vec((lease(), verb()), 1..3).prop_map(Step::End),
        2 => Just(Step::Rescue),
        4 => vec(task(), 1..3).prop_map(Step::Cancel),
        3 => vec(task(), 1..3).prop_map(Step::Redrive),
        1 => (task(), select(vec![0, 20, 3600])).prop_map(|(task, seconds)| Step::Reschedule { task, seconds }),
        1 => (0..KINDS.len(), any::<bool>()).prop_map(|(kind, paused)| Step::Pause { kind, paused }),
        2 => task().prop_map(Step::ByHand),
        5 => select(vec![10, 20, 40, 70]).prop_map(Step::Pass),
    ];
    prop_oneof![
        10 => step.prop_map(|step| vec![step]),
        1 => alone(),
        1 => Just(vec![Step::Pass(LEASE + 10), Step::Rescue]),
        1 => (worker(), lease()).prop_map(|(worker, forgotten)| {
            vec![Step::Pass(10), Step::ReleaseUnknown { worker, forgotten }]
        }),
    ]
}

fn spec(kinds: usize) -> impl Strategy<Value = Spec> {
    let priorities = select(vec!["medium", "urgent", "high", "low"]);
    let (delay, key) = (prop_oneof![4 => Just(0), 1 => Just(20)], weighted(0.4, 0..2_usize));
    (0..=kinds, priorities, delay, key).prop_map(|(kind, priority, delay, key)| Spec {
        kind,
        priority,
        delay,
        key,
    })
}

fn enqueue() -> impl Strategy<Value = Step> {
    vec(spec(KINDS.len() - 1), 1..3).prop_map(Step::Enqueue)
}

fn claim() -> impl Strategy<Value = Step> {
    (worker(), 1..4_usize, weighted(0.2, Just(REACH)), any::<bool>())
        .prop_map(|(worker, limit, reach, few)| Step::Claim { worker, limit, reach, few })
}

fn claim_one() -> impl Strategy<Value = Step> {
    (worker(), task(), any::<bool>()).prop_map(|(worker, task, early)| Step::ClaimOne { worker, task, early })
}

/// What becomes of a task that must run alone.
fn alone() -> impl Strategy<Value = Vec<Step>> {
    let reserve = |worker| Step::Reserve { worker };
    prop_oneof![
        4 => (worker(), task())
            .prop_map(move |(worker, task)| vec![reserve(worker), Step::ClaimReserved { worker, task }]),
        1 => (worker(), task())
            .prop_map(move |(worker, task)| vec![reserve(worker), Step::KeepReserved { worker, task }]),
        1 => (worker(), task())
            .prop_map(move |(worker, task)| vec![reserve(worker), Step::GiveUpReserved { worker, task }]),
        1 => (worker(), task()).prop_map(|(worker, task)| vec![Step::ClaimReserved { worker, task }]),
    ]
}

fn worker() -> impl Strategy<Value = usize> {
    0..WORKERS.len()
}

/// Mostly the latest ones: those are the ones that move.
fn task() -> impl Strategy<Value = usize> {
    prop_oneof![3 => 0..2_usize, 1 => 0..6_usize]
}

fn lease() -> impl Strategy<Value = usize> {
    prop_oneof![3 => 0..2_usize, 2 => 0..8_usize]
}

fn verb() -> impl Strategy<Value = Verb> {
    select(vec![Verb::Complete, Verb::Retry, Verb::Fail, Verb::Snooze, Verb::Release, Verb::Cancel])
}
