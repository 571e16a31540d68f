//! The server of `dev` and the tests: kept data stays, everything else goes.
