//! The backend for Windows: a Hyper-V machine, made by the Host Compute Service.
//!
//! A machine is a JSON document ([`document`]) that `computecore.dll` turns into a compute system. The library is
//! loaded when it is needed ([`computecore`]), so that the app starts, and says what to enable, where Hyper-V is absent.
//!
//! ```text
//!  HcsVm ── blocking calls on their own threads ──▶ computecore.dll: create, start, shut down, terminate
//!        ◀── callback ── the system exited
//!        ◀──▶ hvsocket (AF_HYPERV): one socket a stream, two threads that copy between it and tokio
//! ```
//!
//! - Streams are hvsockets, which the guest sees as AF_VSOCK. Winsock's readiness calls are not promised for them, so
//!   blocking threads copy ([`pump`]).
//! - Hyper-V attaches no raw images. The root becomes a fixed VHD, which is the image and a footer ([`vhd`]); the data
//!   lives in a VHDX beside the place of the raw image, which keeps its size only ([`virtdisk`]). The guest finds both
//!   as SCSI disks, in the order that every backend has.
//! - The system is terminated when its last handle closes, so it ends with this process, however that comes about.
//!
//! Needs Windows 10 1903 or newer with the feature "Virtual Machine Platform", and a user who is in the group
//! "Hyper-V Administrators". The calls have run under wine against a mock of the libraries (`tests/mock`); nothing of
//! it has run on Windows yet.

#[cfg(any(windows, test))]
mod document;
#[cfg(any(windows, test))]
mod exit;
#[cfg(any(windows, test))]
mod vhd;

#[cfg(windows)]
mod computecore;
#[cfg(windows)]
mod console;
#[cfg(windows)]
mod hvsocket;
#[cfg(windows)]
mod launch;
#[cfg(windows)]
mod library;
#[cfg(windows)]
mod pump;
#[cfg(windows)]
mod virtdisk;
#[cfg(windows)]
mod vm;

#[cfg(windows)]
pub use launch::Hcs;
