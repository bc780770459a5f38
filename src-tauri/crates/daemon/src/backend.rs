//! The one place that chooses a hypervisor.

#[cfg_attr(target_os = "linux", path = "backend/linux.rs")]
#[cfg_attr(target_os = "macos", path = "backend/macos.rs")]
#[cfg_attr(windows, path = "backend/windows.rs")]
mod imp;

use caisson_hypervisor::Hypervisor;
use caisson_os::Dirs;
use std::sync::Arc;

/// This system's hypervisor. Whether it works is found out when the machine is started.
pub(crate) fn choose(dirs: &Dirs) -> Arc<dyn Hypervisor> {
    imp::choose(dirs)
}
