//! The fake passes the suite that real backends pass: so what is tested on it holds for them.

use std::path::Path;

use caisson_guest_proto::{HOST_CONTROL, HOST_PORTS};
use caisson_hypervisor::{
    Mib, VmSpec,
    testing::{FakeHypervisor, GuestScript, conformance, run_guest},
};

fn spec(dir: &Path) -> VmSpec {
    for file in ["kernel", "initrd", "data"] {
        std::fs::write(dir.join(file), "").expect("a file of the machine");
    }
    VmSpec {
        kernel: dir.join("kernel"),
        initrd: dir.join("initrd"),
        root: None,
        data_disk: dir.join("data"),
        cmdline: String::new(),
        cpus: 1,
        memory: Mib(64),
        listen: vec![HOST_CONTROL, HOST_PORTS],
        console_log: dir.join("console.log"),
        runtime_dir: dir.into(),
    }
}

fn fake() -> FakeHypervisor {
    FakeHypervisor::new(|side| async move { run_guest(side, GuestScript::default()).await })
}

#[tokio::test]
async fn a_missing_kernel() {
    let dir = tempfile::tempdir().unwrap();
    conformance::a_missing_kernel_is_named(&fake(), &spec(dir.path())).await;
}

#[tokio::test]
async fn the_whole_life() {
    let dir = tempfile::tempdir().unwrap();
    conformance::a_machine_boots_answers_and_switches_itself_off(&fake(), &spec(dir.path())).await;
}

#[tokio::test]
async fn force() {
    let dir = tempfile::tempdir().unwrap();
    conformance::force_ends_a_machine(&fake(), &spec(dir.path())).await;
}

#[tokio::test]
async fn a_drop() {
    let dir = tempfile::tempdir().unwrap();
    conformance::a_dropped_machine_ends(&fake(), &spec(dir.path())).await;
}
