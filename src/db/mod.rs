//! Postgres: connections, migrations, notifications. Knows no table but its own history of migrations.
//!
//! Every query goes through a typed statement, unnamed unless it is known that no transaction pooler stands in between
//! (`Session::query_prepared`), so that the same code works on a direct connection and through a pooler in session or
//! transaction mode. Nothing here keeps other session state.

mod contact;
mod error;
pub mod inspect;
mod listen;
mod migrate;
mod pool;
mod session;
mod target;
mod tls;

pub use error::DbError;
pub use listen::{Heard, Listener, ListenerStatus};
pub use migrate::{Migration, MigrationReport, SchemaState, migrate, pending_migrations, schema_state};
pub use pool::{Database, Lane};
pub use session::{Param, Session};
pub use target::{Target, TargetError};
