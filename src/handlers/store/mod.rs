//! The customer's tables, as the built-in handlers use them. No other module has SQL on them.

pub(super) mod community;
pub(super) mod conversations;
pub(super) mod events;
pub(super) mod experts;
pub(super) mod findings;
pub(super) mod innovators;
pub(super) mod intros;
pub(super) mod messages;
pub(super) mod priorities;
pub(super) mod profile;
pub(super) mod responses;
pub(super) mod users;
pub(super) mod verification;
pub(super) mod workflows;
