//! macOS: Virtualization.framework.

use caisson_hypervisor::Hypervisor;
use caisson_hypervisor_vz::Vz;
use caisson_os::Dirs;
use std::sync::Arc;

pub(super) fn choose(_dirs: &Dirs) -> Arc<dyn Hypervisor> {
    Arc::new(Vz::new())
}
