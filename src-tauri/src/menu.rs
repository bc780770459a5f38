//! The menu bar, where the system has one that belongs to no window.

#[cfg_attr(target_os = "macos", path = "menu/macos.rs")]
#[cfg_attr(not(target_os = "macos"), path = "menu/elsewhere.rs")]
mod imp;

pub(crate) use imp::set;
