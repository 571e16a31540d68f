//! The fault harness: processes under load on a real Postgres, a seeded schedule of faults, and what must hold afterwards.
//!
//! `docs/RELIABILITY.md` says what it proves and how to run it for longer.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests to us, though not to clippy")]
#![allow(
    clippy::print_stdout,
    reason = "a run tells its seed, its schedule and its figures on standard output"
)]

mod callers;
mod calm;
mod contention;
mod faults;
mod journal;
mod load;
mod measures;
mod planted;
mod process;
#[path = "../it/support/proxy/mod.rs"]
mod proxy;
mod random;
mod run;
mod runs;
mod schedule;
mod server;
mod verdict;
mod worker;
mod world;
