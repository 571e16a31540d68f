//! The scenarios: one file each, with its options and its table.

pub(crate) mod drain;
