//! A user's own directories are private by inheritance on Windows, and room is the virtual disk driver's matter.

use std::{
    fs::{DirBuilder, OpenOptions},
    io,
    path::Path,
};

/// The bytes that may still be written in this directory's file system, where it can be told: not here.
pub(crate) fn free_bytes(_dir: &Path) -> io::Result<Option<u64>> {
    Ok(None)
}

/// Makes a directory, and those above it; one that is there stays as it is.
pub(crate) fn make_private_dir(dir: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).create(dir)
}

/// Options for a file of the user's.
pub(crate) fn private_file() -> OpenOptions {
    OpenOptions::new()
}
