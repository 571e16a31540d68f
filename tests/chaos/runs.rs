//! The runs: a short one with every kind of fault, one without any, and the soak.

use std::time::Duration;

use task_processor::config::env_vars;

use crate::load::Volume;
use crate::random::Random;
use crate::run::{Plan, run};
use crate::schedule::{each_once, steady};
use crate::world::Settings;

/// What the seed's second and third share of random numbers are for; the first is the load's.
const SCHEDULE: u64 = 100;

/// Of a variable that only these tests know.
fn number(variable: &str, otherwise: u64) -> u64 {
    let given = env_vars().remove(variable).filter(|text| !text.is_empty());
    given.map_or(otherwise, |text| text.parse().unwrap_or_else(|error| panic!("{variable}={text}: {error}")))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_or_done_twice_whatever_happens() {
    let seed = number("CHAOS_SEED", 2);
    let settings = Settings::quick();
    let every = Duration::from_millis(1_200);
    let schedule = each_once(&mut Random::new(seed).fork(SCHEDULE), every, settings.programs.len());
    // The last fault, too, is to meet somebody who adds tasks.
    let lasts = schedule.last().expect("faults").at + Duration::from_secs(2);
    let volume =
        Volume { lasts, batches_per_second: 4, tasks_per_batch: 10, lease: settings.lease, poison_one_in: 0 };
    let report = run(Plan { name: "short", seed, settings, volume, schedule }).await;
    assert!(report.acknowledged > 1_000, "{} acknowledged", report.acknowledged);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_faults_no_lease_is_lost_and_each_attempt_is_asked_for() {
    let seed = number("CHAOS_SEED", 2);
    let settings = Settings::quick();
    let lasts = Duration::from_secs(6);
    let volume =
        Volume { lasts, batches_per_second: 4, tasks_per_batch: 10, lease: settings.lease, poison_one_in: 0 };
    let report = run(Plan { name: "control", seed, settings, volume, schedule: Vec::new() }).await;
    let count = |name| report.figures.count(name);
    assert_eq!(count("tasks"), count("acknowledged"));
    assert_eq!((count("rescued"), count("duplicates")), (0, 0));
    let (leases, transactions) = report.book.samples;
    assert!(leases > 0 && transactions > 0, "nobody looked on");
}

#[ignore = "an hour, or as many seconds as SOAK_SECONDS says"]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn soak() {
    let seed = number("CHAOS_SEED", u64::from(std::process::id()));
    let lasts = Duration::from_secs(number("SOAK_SECONDS", 3_600));
    let settings = Settings::quick();
    let every = Duration::from_secs(2);
    let schedule = steady(&mut Random::new(seed).fork(SCHEDULE), lasts, every, settings.programs.len());
    let volume = Volume {
        lasts,
        batches_per_second: 2,
        tasks_per_batch: 17,
        lease: settings.lease,
        poison_one_in: 20_000,
    };
    run(Plan { name: "soak", seed, settings, volume, schedule }).await;
}
