//! What a developer's machine needs: a Postgres of its own.

pub mod postgres;
