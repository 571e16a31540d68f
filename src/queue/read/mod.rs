//! Looks at the queue without changing it.

mod depth;
mod strays;
mod tasks;

pub use depth::{Depth, MAX_DEPTH};
pub use strays::{MAX_UNROUTABLE, Strays};
pub use tasks::TaskFilter;
