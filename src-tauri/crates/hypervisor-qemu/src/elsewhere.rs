//! Systems for which there is no vhost-user vsock: the backend is absent, and says so.

use std::path::{Path, PathBuf};

use caisson_hypervisor::{BoxFuture, Capabilities, Hypervisor, LaunchError, Launched, VmSpec};

/// QEMU, where it is not available.
#[derive(Debug)]
pub struct Qemu;

impl Qemu {
    /// The backend. `cache` is ignored here.
    #[must_use]
    pub fn new(_cache: PathBuf) -> Self {
        Self
    }
}

fn missing() -> LaunchError {
    LaunchError::FeatureMissing {
        feature: "QEMU with a vhost-user vsock",
        remedy: "use this system's own hypervisor, or Linux".into(),
    }
}

impl Hypervisor for Qemu {
    fn name(&self) -> &'static str {
        "QEMU"
    }

    fn capabilities<'a>(&'a self, _kernel: &'a Path) -> BoxFuture<'a, Result<Capabilities, LaunchError>> {
        Box::pin(async { Err(missing()) })
    }

    fn launch<'a>(&'a self, _spec: &'a VmSpec) -> BoxFuture<'a, Result<Launched, LaunchError>> {
        Box::pin(async { Err(missing()) })
    }
}
