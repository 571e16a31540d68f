//! The integration tests: one binary, one Postgres of its own, one database a test.

mod embedded_postgres;
mod handlers;
mod migrations;
mod support;
