//! The suite that every backend passes, on QEMU with a real guest: the image in `$CAISSON_VM_IMAGE`.
#![cfg(target_os = "linux")]

use std::{
    env,
    path::{Path, PathBuf},
};

use caisson_guest_proto::{HOST_CONTROL, HOST_PORTS};
use caisson_hypervisor::{Mib, VmSpec, testing::conformance};
use caisson_hypervisor_qemu::Qemu;
use tokio::sync::Mutex;

/// One machine at a time: an emulated processor is slow enough.
static ALONE: Mutex<()> = Mutex::const_new(());

fn image() -> PathBuf {
    env::var_os("CAISSON_VM_IMAGE").expect("CAISSON_VM_IMAGE names an image: scripts/test machine").into()
}

fn spec(image: &Path, dir: &Path) -> VmSpec {
    let data_disk = dir.join("data.raw");
    let data = std::fs::File::create(&data_disk).expect("a data disk");
    data.set_len(Mib::from_gib(2).bytes()).expect("a sparse data disk");
    VmSpec {
        kernel: image.join("kernel"),
        initrd: image.join("initrd"),
        root: Some(image.join("root.erofs")),
        data_disk,
        cmdline: "quiet".into(),
        cpus: 2,
        memory: Mib(1024),
        listen: vec![HOST_CONTROL, HOST_PORTS],
        console_log: dir.join("console.log"),
        runtime_dir: dir.into(),
    }
}

/// A cache that outlives the test, so that KVM is tried once and not once a test.
fn qemu() -> Qemu {
    Qemu::new(env::temp_dir().join("caisson-conformance"))
}

macro_rules! conforms {
    ($($name:ident),+ $(,)?) => {$(
        #[tokio::test]
        #[ignore = "takes an image: scripts/test machine"]
        async fn $name() {
            let _alone = ALONE.lock().await;
            let dir = tempfile::tempdir().unwrap();
            conformance::$name(&qemu(), &spec(&image(), dir.path())).await;
        }
    )+};
}

conforms!(
    a_missing_kernel_is_named,
    a_machine_boots_answers_and_switches_itself_off,
    force_ends_a_machine,
    a_dropped_machine_ends,
);
