//! Looks at a server and its catalog that change nothing: what `doctor` judges.

mod access;
mod drift;
mod rivals;
mod server;

pub use access::{Access, Refused, access};
pub use drift::{Drift, EXPECTED_SCHEMA, FORGET_MIGRATIONS, drift, schema_lines};
pub use rivals::{Rivals, rivals};
pub use server::{OldTransaction, ServerFacts, old_transactions, server_facts, shares_backends};

use std::time::Duration;

/// How long a look may take.
const PATIENCE: Duration = Duration::from_secs(15);
