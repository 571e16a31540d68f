//! The integration tests: one binary, one Postgres of its own, one database a test.

mod claims;
mod command_line;
mod configuration;
mod doors;
mod embedded_postgres;
mod endings;
mod handlers;
mod layers;
mod migrations;
mod outages;
mod processes;
mod support;
mod working;
