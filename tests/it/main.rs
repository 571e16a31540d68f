//! The integration tests: one binary, one Postgres of its own, one database a test.

mod claims;
mod configuration;
mod doors;
mod embedded_postgres;
mod endings;
mod layers;
mod migrations;
mod support;
