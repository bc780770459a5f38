//! Connecting to a local stream, one file a system.

#[cfg_attr(unix, path = "connect/unix.rs")]
#[cfg_attr(windows, path = "connect/windows.rs")]
mod imp;

pub(crate) use imp::{LocalStream, connect};
