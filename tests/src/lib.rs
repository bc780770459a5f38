//! The harness of the end-to-end tests: engines in namespaces of their own, the real `docker` CLI, and raw API calls.
//!
//! Every case runs on Caisson and on a real dockerd, or it would only prove that we agree with ourselves. An engine
//! lives in mount, network and pid namespaces made for it ([`namespaces`]), so nothing that it does can reach this
//! system, and ending the first process of the pid namespace ends everything in it.

pub mod api;
pub mod bounded;
pub mod cases;
pub mod cli;
pub mod crafted;
pub mod engine;
pub mod faults;
pub mod fixtures;
pub mod machine;
pub mod namespaces;
pub mod registry;
pub mod registry_data;
pub mod soak;
pub mod soak_images;
pub mod store_check;
pub mod subject;

use std::path::PathBuf;

/// The repository's root.
pub fn repository() -> PathBuf {
    let tests = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    tests.parent().map(PathBuf::from).unwrap_or(tests)
}

/// A folder for what tests leave to be looked at: engine logs, screenshots.
pub fn output() -> anyhow::Result<PathBuf> {
    let at = repository().join("tests/output");
    std::fs::create_dir_all(&at)?;
    Ok(at)
}
