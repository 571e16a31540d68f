//! The integration tests: one binary, one Postgres of its own, one database a test.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests to us, though not to clippy")]

mod adoption;
mod bodies;
mod claims;
mod clients;
mod command_line;
mod configuration;
mod connections;
mod costs;
mod deployment;
mod doctor;
mod documents;
mod doors;
mod embedded_postgres;
mod endings;
mod enqueueing;
mod failover;
mod flood;
mod full_disk;
mod fuzz;
mod handlers;
mod hardships;
mod injections;
mod kills;
mod layers;
mod logs;
mod looks;
mod migrations;
mod model;
mod outages;
mod panics;
mod prepared;
mod pressures;
mod processes;
mod rollout;
mod secrets;
mod strange_rows;
mod stubborn;
mod support;
mod suspects;
mod tampering;
mod tls;
mod tokens;
mod wires;
mod working;
