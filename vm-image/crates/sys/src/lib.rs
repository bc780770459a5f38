//! The guest's only unsafe.

pub mod clone;
pub mod device_filter;
pub mod exec;
pub mod keyring;
pub mod loopback;
pub mod memory;
pub mod mount_attr;
pub mod netns;
pub mod seccomp;
pub mod signal;
pub mod spawn;
pub mod vsock;
