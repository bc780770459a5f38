//! Linux: QEMU, with KVM where it works.

use caisson_hypervisor::Hypervisor;
use caisson_hypervisor_qemu::Qemu;
use caisson_os::Dirs;
use std::sync::Arc;

pub(super) fn choose(dirs: &Dirs) -> Arc<dyn Hypervisor> {
    Arc::new(Qemu::new(dirs.cache.clone()))
}
