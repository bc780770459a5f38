//! The life of a machine against a mock of the Host Compute Service (`mock/computecore.c`), under wine.
//!
//! wine has no AF_HYPERV, so these machines listen on no port. `scripts/wine-test` puts the mocks in place.

#![cfg(windows)]

use std::path::{Path, PathBuf};

use caisson_hypervisor::{Hypervisor, LaunchError, Mib, StopError, VmEnd, VmSpec, VmState};
use caisson_hypervisor_hcs::Hcs;
use tempfile::TempDir;
use tokio::sync::Mutex;

/// The mock finds its folder by the environment, which all tests share: one at a time.
static ONE: Mutex<()> = Mutex::const_new(());

fn folder() -> TempDir {
    let folder = tempfile::tempdir().expect("wine has a temporary folder");
    // SAFETY: `ONE` keeps other tests from the environment, and the mock reads it only within a launch.
    #[expect(unsafe_code, reason = "a mock in another library has no other way to be told")]
    unsafe {
        std::env::set_var("CAISSON_MOCK", folder.path());
    }
    folder
}

fn spec(folder: &Path) -> VmSpec {
    let file = |name: &str| -> PathBuf {
        let path = folder.join(name);
        std::fs::write(&path, name).expect("the folder can be written");
        path
    };
    VmSpec {
        kernel: file("kernel"),
        initrd: file("initrd"),
        root: Some(file("root.erofs")),
        data_disk: file("data.raw"),
        cmdline: "quiet".to_owned(),
        cpus: 2,
        memory: Mib(1024),
        listen: Vec::new(),
        console_log: folder.join("console.log"),
        runtime_dir: folder.to_owned(),
    }
}

#[tokio::test]
async fn a_machine_is_made_of_its_document_and_may_open_its_files() {
    let _alone = ONE.lock().await;
    let folder = folder();
    let launched = Hcs::new().launch(&spec(folder.path())).await.unwrap();
    assert_eq!(*launched.vm.state().borrow(), VmState::Running);
    let document = std::fs::read_to_string(folder.path().join("document.json")).unwrap();
    let document: serde_json::Value = serde_json::from_str(&document).unwrap();
    let disks = &document["VirtualMachine"]["Devices"]["Scsi"]["0"]["Attachments"];
    assert!(disks["0"]["Path"].as_str().unwrap().contains(r"\root-"));
    assert!(disks["1"]["Path"].as_str().unwrap().ends_with("data.vhdx"));
    let granted = std::fs::read_to_string(folder.path().join("granted")).unwrap();
    assert_eq!(granted.lines().count(), 4, "{granted}");
}

/// The size that the mock's virtual disk says.
fn size_of_disk(folder: &Path) -> u64 {
    let told = std::fs::read(folder.join("data.vhdx")).expect("the mock has made it");
    u64::from_le_bytes(told.try_into().expect("the mock writes eight bytes"))
}

#[tokio::test]
async fn a_data_disk_grows_to_the_size_that_is_wanted_and_never_shrinks() {
    let _alone = ONE.lock().await;
    let folder = folder();
    let spec = spec(folder.path());
    for (wanted, is) in [(5 << 20, 5 << 20), (9 << 20, 9 << 20), (2 << 20, 9 << 20)] {
        std::fs::File::create(&spec.data_disk).unwrap().set_len(wanted).unwrap();
        drop(Hcs::new().launch(&spec).await.unwrap());
        assert_eq!(size_of_disk(folder.path()), is);
    }
    let roots = std::fs::read_dir(folder.path()).unwrap().flatten();
    let roots = roots.filter(|entry| entry.file_name().to_string_lossy().ends_with(".vhd"));
    assert_eq!(roots.count(), 1, "the roots of machines that are gone are left");
}

#[tokio::test]
async fn a_data_disk_that_a_dying_machine_still_holds_is_waited_for() {
    let _alone = ONE.lock().await;
    let folder = folder();
    let spec = spec(folder.path());
    drop(Hcs::new().launch(&spec).await.unwrap());
    let held = folder.path().join("data.vhdx.held");
    std::fs::write(&held, "").unwrap();
    drop(Hcs::new().launch(&spec).await.unwrap());
    assert!(!held.exists(), "the mock has refused once");
}

#[tokio::test]
async fn a_guest_that_is_asked_to_stop_powers_off() {
    let _alone = ONE.lock().await;
    let folder = folder();
    let launched = Hcs::new().launch(&spec(folder.path())).await.unwrap();
    let mut state = launched.vm.state();
    launched.vm.request_stop().await.unwrap();
    let ended = state.wait_for(|state| matches!(state, VmState::Ended(_))).await.unwrap().clone();
    assert_eq!(ended, VmState::Ended(VmEnd::PoweredOff));
    assert!(matches!(launched.vm.request_stop().await, Err(StopError::Ended(VmEnd::PoweredOff))));
}

#[tokio::test]
async fn a_killed_machine_is_gone() {
    let _alone = ONE.lock().await;
    let folder = folder();
    let launched = Hcs::new().launch(&spec(folder.path())).await.unwrap();
    launched.vm.kill().await;
    assert_eq!(*launched.vm.state().borrow(), VmState::Ended(VmEnd::Killed));
    launched.vm.kill().await;
}

#[tokio::test]
async fn the_data_disk_is_made_once() {
    let _alone = ONE.lock().await;
    let folder = folder();
    drop(Hcs::new().launch(&spec(folder.path())).await.unwrap());
    std::fs::write(folder.path().join("data.vhdx"), "kept").unwrap();
    drop(Hcs::new().launch(&spec(folder.path())).await.unwrap());
    assert_eq!(std::fs::read_to_string(folder.path().join("data.vhdx")).unwrap(), "kept");
}

#[tokio::test]
async fn a_user_without_the_right_is_told_what_to_do() {
    let _alone = ONE.lock().await;
    let folder = folder();
    std::fs::write(folder.path().join("refuse"), "").unwrap();
    let error = Hcs::new().launch(&spec(folder.path())).await.unwrap_err();
    assert!(matches!(error, LaunchError::FeatureMissing { .. }), "{error}");
    assert!(error.remedy().unwrap().contains("Hyper-V Administrators"));
}
