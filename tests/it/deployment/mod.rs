//! What is needed to deploy: the image, how it is built and rolled out, and that it runs where it will have to.

mod cloudbuild;
mod dockerfile;
mod gcloud;
mod rootfs;
mod scale_to_zero;
mod sql;

use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}
