//! What a hypervisor backend must do, and nothing about what runs in the guest.
//!
//! A backend powers one machine on: a kernel, an initial ramdisk, two disks, a console and a vsock, no network card.
//! Everything above that (who speaks over the vsock, when a boot has failed, what a data disk is) belongs to
//! `caisson-machine` and is shared by all backends.
//!
//! ```text
//!  caisson-machine ──uses──▶ Hypervisor ──launch──▶ Vm  ──connect──▶ stream to a guest port
//!                                           └────▶ incoming: streams that the guest opened
//! ```
//!
//! The promises, which `testing::conformance` checks against every backend:
//! - `launch` returns once the machine's processor runs, not when its guest answers. The host ports in
//!   [`VmSpec::listen`] are open *before* the guest's first instruction, so a guest may connect at once.
//! - The machine lives as long as its [`Vm`]: dropping it ends the machine, and so does the end of this process,
//!   however it comes about (`kill -9` too).
//! - The end of a machine is seen at once in [`Vm::state`], with the reason; it is never found out by a time-out.
//! - A stream is closed as a whole. Half-close is not asked of a backend, as too many lose it: streams that need it say it
//!   in band (`caisson_guest_proto::Duplex`).
//!
//! What a backend *can* do is data ([`Capabilities`]), asked once a start; there are no no-op methods.

mod capabilities;
pub mod console;
mod ending;
mod error;
mod spec;
#[cfg(feature = "testing")]
pub mod testing;
mod vm;

pub use caisson_guest_proto::{Connection, GuestVsockPort, HostVsockPort};
pub use capabilities::{Acceleration, Capabilities, Notice};
pub use ending::Ending;
pub use error::{ConnectError, LaunchError, StopError};
pub use spec::{Mib, VmSpec};
pub use vm::{Incoming, Launched, PauseReason, Vm, VmEnd, VmState, VsockIo, VsockStream};

use std::{future::Future, path::Path, pin::Pin};

/// A boxed future, because the traits here are used as objects.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A way to run virtual machines on this computer.
pub trait Hypervisor: Send + Sync {
    /// The backend's name as the user knows it: "QEMU", "Virtualization.framework", "Hyper-V".
    fn name(&self) -> &'static str;

    /// What this backend can do on this computer, for guests with this kernel.
    ///
    /// The first call may take seconds (QEMU really boots the kernel to find out whether hardware acceleration works);
    /// later calls are quick. Fails like [`launch`](Self::launch) would: with the program that is missing, say.
    fn capabilities<'a>(&'a self, kernel: &'a Path) -> BoxFuture<'a, Result<Capabilities, LaunchError>>;

    /// Powers on a machine. Returns when it runs, not when its guest answers.
    ///
    /// Dropping the future before it is done leaves nothing behind.
    fn launch<'a>(&'a self, spec: &'a VmSpec) -> BoxFuture<'a, Result<Launched, LaunchError>>;
}
