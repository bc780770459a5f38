//! OCI runtime spec to running process: our own runtime.
//!
//! A container's shim is a single-threaded process, so what follows `clone3` may be ordinary Rust, and no second program has to be
//! executed to get there. That, the new mount API and a seccomp filter that compiles in well under a millisecond are why a container
//! starts in milliseconds.

pub mod defaults;
pub mod profile;
pub mod seccomp;
