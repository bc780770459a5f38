//! OCI runtime spec to running process: our own runtime.
//!
//! A container's shim is a single-threaded process, so what follows `clone3` may be ordinary Rust, and no second program has to be
//! executed to get there. That, the new mount API and a seccomp filter that compiles in well under a millisecond are why a container
//! starts in milliseconds. The other reasons for not using a finished runtime: dockerd's exact words for what goes wrong, and the order of
//! seccomp and capabilities without no-new-privileges.
//!
//! [`Container::start`] is the way in; [`defaults`] has the pieces from which the engine composes a spec as dockerd would.
//!
//! Not here, and refused: user namespaces, hooks, AppArmor and SELinux labels, id-mapped mounts, Intel RDT ([`spec`]).

pub mod cgroup;
mod container;
pub mod defaults;
pub mod exec;
mod failure;
mod namespaces;
mod process;
pub mod profile;
mod rootfs;
pub mod seccomp;
pub mod spec;
mod steps;

pub use container::{Container, Running};
pub use failure::{Failure, FailureKind};
pub use process::{Stdio, resize};
pub use rootfs::{Rootfs, view};
pub use steps::Step;
