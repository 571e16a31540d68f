//! The tasks of a run, all from the seed: what each is to do, when it is added, and by which door.

use std::time::Duration;

use serde_json::{Value, json};

use crate::random::Random;

/// How a task comes in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Door {
    /// A plain `insert`. If its outcome is unknown nobody asks again.
    Insert,
    /// The function `enqueue_task` with unique keys, repeated until it answers.
    Function,
    /// The library with unique keys, repeated until it answers.
    Library,
}

pub(crate) const DOORS: [Door; 3] = [Door::Insert, Door::Function, Door::Library];

/// How a task must end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Completed,
    Failed,
    Cancelled,
    /// Completed, or cancelled by an operator before.
    Unwanted,
    Poison,
}

/// A task to be added.
#[derive(Clone)]
pub(crate) struct Planned {
    pub(crate) task_type: &'static str,
    /// Its input, with its fate and, in `due_ms`, when it is due.
    pub(crate) context: Value,
    pub(crate) fate: Fate,
    pub(crate) due: Duration,
    pub(crate) max_retries: i32,
    pub(crate) priority: &'static str,
}

/// Tasks that are added together.
pub(crate) struct Batch {
    /// Since the beginning of the run.
    pub(crate) at: Duration,
    pub(crate) tasks: Vec<Planned>,
}

/// How much there is to do.
#[derive(Clone, Copy)]
pub(crate) struct Volume {
    pub(crate) lasts: Duration,
    /// By each of the doors.
    pub(crate) batches_per_second: u32,
    pub(crate) tasks_per_batch: usize,
    /// Some tasks take longer than this.
    pub(crate) lease: Duration,
    /// One task in so many takes its process down; 0 for none.
    pub(crate) poison_one_in: u64,
}

impl Volume {
    /// What comes in by one door.
    pub(crate) fn by(self, door: Door, random: &Random) -> Vec<Batch> {
        let mut random = random.fork(door as u64 + 1);
        let pause = Duration::from_secs(1) / self.batches_per_second;
        let batches = u32::try_from(self.lasts.as_nanos() / pause.as_nanos()).expect("a short run");
        (0..batches)
            .map(|number| Batch {
                at: pause * number,
                tasks: (0..self.tasks_per_batch).map(|_| self.task(door, &mut random)).collect(),
            })
            .collect()
    }

    fn task(self, door: Door, random: &mut Random) -> Planned {
        if self.poison_one_in > 0 && random.between(0, self.poison_one_in) == 0 {
            return Planned::new("chaos", Fate::Poison, json!({ "abort": true }), random);
        }
        let (roll, amount) = (random.between(0, 1000), random.between(0, 1000));
        let either = ["chaos", "chaos", "echo"][random.index(3)];
        let lease = u64::try_from(self.lease.as_millis()).expect("short");
        let long = if amount < 300 { lease + amount * 15 } else { amount * 2 };
        let (task_type, fate, context) = match roll {
            0..680 => (either, Fate::Completed, json!({})),
            680..850 => (either, Fate::Completed, json!({ "sleep_ms": amount / 10 })),
            850..900 => (either, Fate::Completed, json!({ "sleep_ms": long })),
            900..930 => (either, Fate::Completed, json!({ "fail_times": 1 + amount % 2 })),
            930..935 => ("chaos", Fate::Completed, json!({ "panic_times": 1 })),
            935..945 => (either, Fate::Failed, json!({ "fail_permanently": true })),
            945..950 => (either, Fate::Failed, json!({ "fail_times": 9, "max_retries": 1 })),
            950..965 => (either, Fate::Completed, json!({ "snooze_ms": 200 + amount })),
            965..975 => (either, Fate::Cancelled, json!({ "cancel": true })),
            975..990 => (either, Fate::Completed, json!({ "due_ms": 500 + 3 * amount })),
            990..995 => (either, Fate::Unwanted, json!({ "sleep_ms": 1000 + amount })),
            // It could not be cancelled if nobody heard its id.
            _ if door != Door::Insert => ("chaos", Fate::Unwanted, json!({ "due_ms": 3_600_000 })),
            _ => (either, Fate::Completed, json!({ "padding": "x".repeat(20_000) })),
        };
        Planned::new(task_type, fate, context, random)
    }
}

impl Planned {
    fn new(task_type: &'static str, fate: Fate, mut context: Value, random: &mut Random) -> Self {
        context["fate"] = format!("{fate:?}").to_lowercase().into();
        let number = |name: &str| context[name].as_u64();
        Self {
            task_type,
            fate,
            due: Duration::from_millis(number("due_ms").unwrap_or(0)),
            max_retries: number("max_retries").map_or(3, |retries| i32::try_from(retries).expect("few")),
            priority: ["urgent", "high", "medium", "low"][random.index(4)],
            context,
        }
    }
}

#[test]
fn a_seed_says_which_tasks_come_when_and_what_they_do() {
    let volume = Volume {
        lasts: Duration::from_secs(20),
        batches_per_second: 2,
        tasks_per_batch: 10,
        lease: Duration::from_secs(3),
        poison_one_in: 50,
    };
    let of = |seed| {
        let batches = volume.by(Door::Library, &Random::new(seed));
        batches.iter().flat_map(|batch| &batch.tasks).map(|task| task.context.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(of(1), of(1));
    assert_eq!(of(1).len(), 400);
    assert_ne!(of(1), of(2));
    assert!(of(1).iter().any(|context| context.contains("abort")));
}
