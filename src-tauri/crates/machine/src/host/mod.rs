//! What this computer's file systems are asked in different words on different systems.

#[cfg_attr(unix, path = "unix.rs")]
#[cfg_attr(windows, path = "windows.rs")]
mod imp;

pub(crate) use imp::{free_bytes, make_private_dir, private_file};
