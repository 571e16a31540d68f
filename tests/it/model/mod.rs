//! The queue against a model of it.

mod at_once;
mod outcomes;
mod play;
mod pure;
mod rules;
mod stage;
mod steps;
mod stories;
