//! The built-in handlers: one file a `task_type`, one line each below.

mod echo;
mod store;

use crate::handler::Registry;

/// All built-in handlers. To add one: its file beside this one, and its line here.
#[must_use]
pub fn all() -> Registry {
    Registry::new().with(echo::Echo)
}
