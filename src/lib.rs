#![doc = include_str!("../README.md")]

pub mod app;
pub mod clients;
pub mod commands;
pub mod config;
pub mod db;
pub mod handler;
pub mod handlers;
pub mod http;
pub mod queue;
pub mod services;
pub mod shutdown;
pub mod telemetry;
pub mod testing;
pub mod worker;

pub use handler::{Handler, Outcome, Registry};
pub use queue::Task;
pub use services::Services;
