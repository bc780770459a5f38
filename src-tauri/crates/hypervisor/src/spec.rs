//! What a machine consists of.

use std::{fmt, path::PathBuf};

use caisson_guest_proto::HostVsockPort;
use serde::{Deserialize, Serialize};

/// A size in MiB (2^20 bytes).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Mib(pub u64);

impl Mib {
    /// This size in GiB.
    #[must_use]
    pub const fn from_gib(gib: u64) -> Self {
        Self(gib << 10)
    }

    /// The size in bytes.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        self.0 << 20
    }
}

impl fmt::Display for Mib {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} MiB", self.0)
    }
}

/// A machine to power on.
///
/// Its disks appear to the guest in this order: `vda` is [`root`](Self::root) (read-only, if there is one), the next is
/// [`data_disk`](Self::data_disk). Both are raw images that exist already.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VmSpec {
    /// The Linux kernel, in the form that the backend boots (bzImage on x86-64, Image on arm64).
    pub kernel: PathBuf,
    /// The initial ramdisk.
    pub initrd: PathBuf,
    /// The read-only disk with the guest's root file system, if it is not in the ramdisk.
    pub root: Option<PathBuf>,
    /// The disk that everything of the user's is on.
    pub data_disk: PathBuf,
    /// The kernel's arguments, without those that name a backend's own devices (`console=`): it adds them.
    pub cmdline: String,
    /// Virtual processors, at least 1; at most [`Capabilities::max_cpus`](crate::Capabilities::max_cpus) are used.
    pub cpus: u32,
    /// The guest's memory.
    pub memory: Mib,
    /// The vsock ports on which the host waits for the guest.
    pub listen: Vec<HostVsockPort>,
    /// Where what the guest's console prints goes. The log of the boot before is kept beside it, with `.1` at the end.
    pub console_log: PathBuf,
    /// An existing directory of this machine's alone for sockets and process records; short, as socket paths are.
    pub runtime_dir: PathBuf,
}
