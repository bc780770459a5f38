//! Windows: Hyper-V's Host Compute Service.

use caisson_hypervisor::Hypervisor;
use caisson_hypervisor_hcs::Hcs;
use caisson_os::Dirs;
use std::sync::Arc;

pub(super) fn choose(_dirs: &Dirs) -> Arc<dyn Hypervisor> {
    Arc::new(Hcs::new())
}
