//! Looks at the queue without changing it.

mod depth;
mod tasks;

pub use depth::{Depth, MAX_DEPTH};
pub use tasks::TaskFilter;
