//! By statvfs(3) and the mode of files.

use std::{
    fs::{DirBuilder, OpenOptions},
    io,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::Path,
};

/// The bytes that a user without privileges may still write in this directory's file system, where it can be told.
pub(crate) fn free_bytes(dir: &Path) -> io::Result<Option<u64>> {
    let facts = rustix::fs::statvfs(dir)?;
    Ok(Some(facts.f_bavail.saturating_mul(facts.f_frsize)))
}

/// Makes a directory that only its user may enter, and those above it; one that is there stays as it is.
pub(crate) fn make_private_dir(dir: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir)
}

/// Options for a file that, if it is made, only its user may read.
pub(crate) fn private_file() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.mode(0o600);
    options
}
