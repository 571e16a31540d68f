//! The clients, against servers that answer as such servers do.

mod mail;
mod model;
