//! Which fault comes when, and whom it hits: all of it from the seed.

use std::fmt;
use std::time::Duration;

use crate::random::Random;

/// What can go wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fault {
    /// `kill -9` of a process that holds tasks, and a new one.
    Kill,
    /// SIGTERM, and a new one.
    Terminate,
    /// SIGSTOP past the lease, then SIGCONT.
    Freeze,
    /// The server is stopped and started.
    Restart,
    /// The server is stopped as by a power cut, and started.
    Crash,
    /// `kill -9` of one backend: the server throws everybody out and recovers.
    CrashBackend,
    /// `pg_terminate_backend` of some of the processes' backends.
    TerminateBackends,
    /// All connections of a process are cut.
    Cut,
    /// The same, a few bytes after: a reply is lost, or half of it.
    CutReply,
    /// The connections of who adds tasks are cut in the middle of a reply.
    CutCallers,
    /// What the server says to a process is lost, until its connections are cut.
    Mute,
    /// Nothing passes between a process and the server, past the lease.
    Stall,
    /// Everything between them comes late.
    Delay,
    /// Everything between them comes slowly.
    Throttle,
    /// The listening connection of a process is gone for the server, and looks alive to the process.
    HalfOpen,
    /// Somebody locks the table.
    LockTable,
    /// Somebody locks running rows.
    LockRows,
}

/// How often each comes in a soak, for once that the rarest does.
const WEIGHTS: [(Fault, usize); 17] = [
    (Fault::Kill, 6),
    (Fault::Terminate, 2),
    (Fault::Freeze, 1),
    (Fault::Restart, 1),
    (Fault::Crash, 1),
    (Fault::CrashBackend, 1),
    (Fault::TerminateBackends, 2),
    (Fault::Cut, 4),
    (Fault::CutReply, 3),
    (Fault::CutCallers, 2),
    (Fault::Mute, 1),
    (Fault::Stall, 1),
    (Fault::Delay, 1),
    (Fault::Throttle, 1),
    (Fault::HalfOpen, 1),
    (Fault::LockTable, 1),
    (Fault::LockRows, 2),
];

/// One fault to come.
#[derive(Clone, Copy)]
pub(crate) struct Planned {
    /// Since the beginning of the run.
    pub(crate) at: Duration,
    pub(crate) fault: Fault,
    /// The process that it hits, if it hits one.
    pub(crate) process: usize,
    /// From 0 to 999: how much of it.
    pub(crate) amount: u64,
}

impl fmt::Display for Planned {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { at, fault, process, amount } = self;
        write!(out, "{:.3}:{fault:?}:w{process}:{amount}", at.as_secs_f64())
    }
}

/// Every kind of fault once, in an order of the seed's.
pub(crate) fn each_once(random: &mut Random, every: Duration, processes: usize) -> Vec<Planned> {
    plan(random, every, processes, &mut WEIGHTS.map(|(fault, _)| fault))
}

/// One fault after another for `lasts`, each kind as often as its weight says.
pub(crate) fn steady(
    random: &mut Random,
    lasts: Duration,
    every: Duration,
    processes: usize,
) -> Vec<Planned> {
    let mut deck: Vec<Fault> =
        WEIGHTS.iter().flat_map(|(fault, weight)| std::iter::repeat_n(*fault, *weight)).collect();
    let mut planned: Vec<Planned> = Vec::new();
    loop {
        let before = planned.last().map_or(Duration::ZERO, |last| last.at);
        for next in plan(random, every, processes, &mut deck) {
            if before + next.at > lasts {
                return planned;
            }
            planned.push(Planned { at: before + next.at, ..next });
        }
    }
}

fn plan(random: &mut Random, every: Duration, processes: usize, deck: &mut [Fault]) -> Vec<Planned> {
    random.shuffle(deck);
    let mut at = Duration::ZERO;
    let planned = deck.iter().map(|fault| {
        at += every * u32::try_from(random.between(500, 1500)).expect("small") / 1000;
        Planned { at, fault: *fault, process: random.index(processes), amount: random.between(0, 1000) }
    });
    planned.collect()
}

#[test]
fn a_seed_says_which_fault_comes_when_and_whom_it_hits() {
    let of = |seed| {
        let planned = steady(&mut Random::new(seed), Duration::from_mins(10), Duration::from_secs(2), 3);
        planned.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(of(1), of(1));
    assert_ne!(of(1), of(2));
    let once = each_once(&mut Random::new(3), Duration::from_secs(1), 3);
    assert_eq!(once.len(), WEIGHTS.len());
    assert!(WEIGHTS.iter().all(|(fault, _)| once.iter().any(|planned| planned.fault == *fault)));
}
