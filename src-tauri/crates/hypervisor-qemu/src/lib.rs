//! The QEMU backend: Linux, with or without hardware acceleration, without root and without kernel modules of ours.
//!
//! One machine is one process of the user's, `qemu-system-…`. We hold two sockets to it, both in the machine's private
//! directory: QMP to steer it, and vhost-user, by which the guest's vsock is a device of ours (see `vsock`).
//!
//! Whether KVM works is not read off `/dev/kvm` but tried: clouds and nested machines have devices that open and then fail
//! at the first real kernel. See `acceleration`.
//!
//! vhost-user takes memory that is shared the way that only Linux has, so elsewhere this crate compiles and says that
//! it is not there.

#[cfg_attr(target_os = "linux", path = "linux/mod.rs")]
#[cfg_attr(not(target_os = "linux"), path = "elsewhere.rs")]
mod imp;

pub use imp::Qemu;
