//! The scenarios: one file each, with its options and its table.

pub(crate) mod drain;
pub(crate) mod enqueue;
pub(crate) mod growth;
pub(crate) mod idle;
pub(crate) mod latency;
pub(crate) mod long;
pub(crate) mod payload;
pub(crate) mod processes;
pub(crate) mod snapshot;
pub(crate) mod sustained;
