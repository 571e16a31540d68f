//! The integration tests: one binary, one Postgres of its own, one database a test.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests to us, though not to clippy")]

mod claims;
mod clients;
mod command_line;
mod configuration;
mod costs;
mod documents;
mod doors;
mod embedded_postgres;
mod endings;
mod handlers;
mod hardships;
mod layers;
mod migrations;
mod outages;
mod processes;
mod stubborn;
mod support;
mod tls;
mod working;
