//! Keys of services, compared without telling how much of one was right.

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{Digest, SHA256, digest};
use secrecy::{ExposeSecret, SecretString};

/// The accepted keys, as digests: all of one length, so that a comparison takes the same time for every guess.
pub(super) struct Keys(Vec<Digest>);

impl Keys {
    pub(super) fn new(keys: &[SecretString]) -> Self {
        Self(keys.iter().map(|key| digest(&SHA256, key.expose_secret().as_bytes())).collect())
    }

    pub(super) fn contain(&self, key: &str) -> bool {
        let guess = digest(&SHA256, key.as_bytes());
        let equal = |known: &Digest| verify_slices_are_equal(known.as_ref(), guess.as_ref()).is_ok();
        // All are compared, whichever is right.
        self.0.iter().filter(|known| equal(known)).count() > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_whole_key_opens_and_no_keys_open_nothing() {
        let keys = Keys::new(&["one-long-secret-key".into(), "two-long-secret-key".into()]);
        assert!(keys.contain("two-long-secret-key"));
        for guess in ["", "one-long-secret-ke", "one-long-secret-key ", "ONE-LONG-SECRET-KEY"] {
            assert!(!keys.contain(guess), "{guess:?}");
        }
        assert!(!Keys::new(&[]).contain(""));
    }
}
