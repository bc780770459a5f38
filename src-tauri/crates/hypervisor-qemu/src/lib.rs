//! The QEMU backend: Linux, with or without hardware acceleration, without root and without kernel modules of ours.
//!
//! One machine is two processes of the user's: `qemu-system-…` and `vhost-device-vsock`, which is the guest's vsock on
//! our side (vhost-user over a shared memory file). We hold three sockets to them, all in the machine's private
//! directory: QMP to steer QEMU, one that leads into the guest, one for each port that the guest may call.
//!
//! Whether KVM works is not read off `/dev/kvm` but tried: clouds and nested machines have devices that open and then fail
//! at the first real kernel. See `acceleration`.
//!
//! The vsock helper exists for Linux only, so elsewhere this crate compiles and says that it is not there.

#[cfg_attr(target_os = "linux", path = "linux/mod.rs")]
#[cfg_attr(not(target_os = "linux"), path = "elsewhere.rs")]
mod imp;

pub use imp::Qemu;
