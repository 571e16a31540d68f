//! Random stories of several workers, step by step and all at once; and what is told of a queue that is broken.

use std::sync::Arc;

use uuid::Uuid;

use super::at_once::play_at_once;
use super::play::{play, play_many};
use super::stage::Stage;
use crate::support::test_variable;

/// Stories of a round; `TEST_MODEL_STORIES` may ask for more.
const STORIES: u32 = 100;
/// Rounds until all has come up that is worth meeting. Most runs need one or two.
const ROUNDS: u8 = 8;

/// What must have come up in a run, or it has shown little.
const WORTH_MEETING: [&str; 16] = [
    "Accepted",
    "Already",
    "Stale",
    "a key that is taken",
    "a new life",
    "a reservation is moved",
    "accepted, though the lease was over",
    "an old request to cancel is forgotten",
    "claimed to run alone",
    "not put back, since it is to be cancelled",
    "refused: NotPending",
    "refused: Suspect",
    "rescued: cancelled",
    "rescued: failed",
    "rescued: pending",
    "the reply to a claim was lost",
];

#[tokio::test]
async fn whatever_workers_and_operators_do_in_whatever_order_the_queue_does_what_its_model_says() {
    let stories = test_variable("TEST_MODEL_STORIES").map_or(STORIES, |text| text.parse().expect("a number"));
    let (seed, stage) = (seed(), Stage::new().await);
    let mut missed = WORTH_MEETING.to_vec();
    for round in 0..ROUNDS {
        let met = play_many(&stage, stories, 600, Uuid::new_v5(&seed, &[round])).await;
        let met = met.unwrap_or_else(|difference| panic!("TEST_MODEL_SEED={seed}: {difference}"));
        missed.retain(|what| !met.contains(*what));
        if missed.is_empty() {
            return;
        }
    }
    panic!("TEST_MODEL_SEED={seed}: never met {missed:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_at_once_on_a_few_rows_end_each_attempt_once_and_never_stand_in_each_others_way() {
    let seed = seed();
    let result = play_at_once(Arc::new(Stage::new().await), seed).await;
    result.unwrap_or_else(|what| panic!("TEST_MODEL_SEED={seed}: {what}"));
}

/// Another one with each run, unless `TEST_MODEL_SEED` names one.
fn seed() -> Uuid {
    test_variable("TEST_MODEL_SEED").map_or_else(Uuid::new_v4, |text| text.parse().expect("a UUID"))
}

/// Something taken out of a function of the database, and a story that is cut short there must show it.
struct Mutant {
    what: &'static str,
    sql: &'static str,
    cuts: &'static [(&'static str, &'static str)],
}

const END: &str = include_str!("../../../migrations/0011_end.sql");
const TAKE: &str = include_str!("../../../migrations/0010_take.sql");
const DUE: &str = include_str!("../../../migrations/0009_due.sql");

const MUTANTS: &[Mutant] = &[
    Mutant {
        what: "any token ends an attempt",
        sql: END,
        cuts: &[
            ("where task.lease_token = ending.token and task.status", "where task.status"),
            ("and task.lease_token = held.token ", ""),
        ],
    },
    Mutant {
        what: "an attempt ends again and again",
        sql: END,
        cuts: &[
            ("ending.token and task.status || '' = 'processing'\n                for", "ending.token for"),
            ("held.token and task.status || '' = 'processing'", "held.token"),
        ],
    },
    Mutant { what: "an ending does not start the crashes anew", sql: END, cuts: &[("crash_count = 0,", "")] },
    Mutant {
        what: "what is to be cancelled is put back",
        sql: END,
        cuts: &[(
            "when held.verb = 'cancel' or task.cancel_requested_at is not null then",
            "when held.verb = 'cancel' then",
        )],
    },
    Mutant {
        what: "no log row",
        sql: END,
        cuts: &[("from ended\n            )$log$", "from ended where false)$log$")],
    },
    Mutant {
        what: "a token outlives its attempt",
        sql: TAKE,
        cuts: &[(
            "lease_token = gen_random_uuid()",
            "lease_token = coalesce(task.lease_token, gen_random_uuid())",
        )],
    },
    Mutant {
        what: "attempts are not counted",
        sql: TAKE,
        cuts: &[("least(task.attempt, 2147483646) + 1", "1")],
    },
    Mutant {
        what: "an old request to cancel is obeyed",
        sql: TAKE,
        cuts: &[("cancel_requested_at = null,", "")],
    },
    Mutant {
        what: "suspects are claimed with the rest",
        sql: DUE,
        cuts: &[("and task.crash_count < 2", "")],
    },
];

#[tokio::test]
async fn a_queue_that_lacks_one_of_its_rules_is_found_out() {
    let healthy = Stage::new().await;
    for Mutant { what, sql, cuts } in MUTANTS {
        let stage = Stage::new().await;
        let broken = cuts.iter().fold((*sql).to_owned(), |sql, (rule, without)| {
            assert!(sql.contains(rule), "{what}: the migration no longer says {rule:?}");
            sql.replace(rule, without)
        });
        stage.db.execute(&broken).await;
        let Err(difference) = play_many(&stage, STORIES, 0, Uuid::nil()).await else {
            panic!("nobody noticed that {what}");
        };
        // The story is one that a healthy queue gets right.
        play(&healthy, &difference.story).await.unwrap_or_else(|difference| panic!("{difference}"));
    }
}
