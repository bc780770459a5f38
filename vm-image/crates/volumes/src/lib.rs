//! Volumes: directories that outlive containers, known by name.
//!
//! [`Volumes`] is the register of one engine, with one driver, dockerd's `local`: a volume is a directory of the data
//! root, or, with options, something that is mounted there as long as a container that uses it runs.
//!
//! ```text
//! <name>/volume.json    driver, labels, options, when it was made; written once
//! <name>/_data/         what is in it, or where its device is mounted
//! .new-…, .gone-…       volumes half made or half removed, of no name; removed at the start
//! ```
//!
//! **Crash-only.** A volume is made beside, synced and renamed to its name, and renamed away before its files are
//! removed. So a name is there with all that belongs to it or not at all, and [`Volumes::open`] is the recovery.
//!
//! **Who uses what** is not written down: a container *holds* a volume while it exists ([`Volumes::hold`]), and has
//! it *mounted* while it runs ([`Volumes::mount`]). The engine says both again after a restart, of the containers
//! that it finds, and then [`Volumes::settle`] unmounts what nobody uses. What is held is never removed.
//!
//! Everything here blocks; callers with an async runtime use a blocking thread. Errors have dockerd's wording.

mod error;
mod mount;
mod name;
mod options;
mod quota;
mod record;
mod size;
mod tree;
mod volume;
mod volumes;

pub use error::{ErrorKind, OpenError, VolumeError};
pub use quota::{FIRST_PROJECT, free_project};
pub use size::bytes_below;
pub use volume::{ANONYMOUS_LABEL, DRIVER, NewVolume, Volume};
pub use volumes::Volumes;
