//! The system's wish that the daemon end.

#[cfg_attr(unix, path = "signals/unix.rs")]
#[cfg_attr(windows, path = "signals/windows.rs")]
mod imp;

pub(crate) use imp::Signals;
