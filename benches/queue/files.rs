//! Where files go: into the target directory, so that whatever an interrupted run leaves is cleaned with it.

use std::path::PathBuf;

/// A file that is needed for a moment, under a name that nobody else has.
pub(crate) fn scratch(name: &str) -> PathBuf {
    let name = format!("{name}-{}", uuid::Uuid::new_v4().simple());
    PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name)
}

/// A file to be looked at later.
pub(crate) fn result(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_TARGET_TMPDIR")).with_file_name("bench").join(name)
}
