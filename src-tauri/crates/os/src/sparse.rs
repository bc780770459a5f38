//! Files that take only the room of what is written in them.

#[cfg_attr(unix, path = "sparse/unix.rs")]
#[cfg_attr(windows, path = "sparse/windows.rs")]
mod imp;

use std::{fs::File, io};

/// Lets a file that is open for writing be longer than what it takes on the disk. On macOS and Linux every file may be.
pub fn make_sparse(file: &File) -> io::Result<()> {
    imp::make_sparse(file)
}
