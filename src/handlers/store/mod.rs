//! The customer's tables, as the built-in handlers use them.
