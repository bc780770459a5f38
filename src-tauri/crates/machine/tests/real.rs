//! The machine's life on QEMU with a real guest: the image in `$CAISSON_VM_IMAGE`. One test, because each
//! boot of an emulated processor takes seconds; it prints how long each stage took.
#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "a test may panic; its helpers are no test functions to clippy")]

use std::{
    env, fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use caisson_guest_proto::{HostFact, HostProxies, HostRegistries};
use caisson_hypervisor::{Mib, VsockStream};
use caisson_hypervisor_qemu::Qemu;
use caisson_machine::{
    FailureCode, Limits, Machine, MachineConfig, MachineHandle, MachineState, Unavailable,
};
use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::watch,
};

fn config(image: PathBuf, dir: &Path) -> MachineConfig {
    MachineConfig {
        hostname: "caisson".into(),
        image,
        image_found_whole: dir.join("image.json"),
        data_disk: dir.join("data/data.raw"),
        data_size: Mib::from_gib(4),
        runtime_dir: dir.join("run"),
        console_log: dir.join("logs/console.log"),
        cpus: 2,
        memory: Mib(1024),
        limits: Limits::default(),
    }
}

/// The processes that the backend wrote down, by name.
fn process(dir: &Path, name: &str) -> Option<Pid> {
    let records = fs::read(dir.join("run/processes.json")).ok()?;
    let records: Vec<serde_json::Value> = serde_json::from_slice(&records).ok()?;
    let record = records.iter().find(|record| record["name"] == name)?;
    Pid::from_raw(i32::try_from(record["pid"].as_i64()?).ok()?)
}

fn runs(pid: Pid) -> bool {
    Path::new(&format!("/proc/{}", pid.as_raw_nonzero())).exists()
}

async fn started(handle: &MachineHandle, what: &str) {
    let before = Instant::now();
    let result = handle.start().await;
    let status = handle.status().borrow().clone();
    eprintln!("{what}: {result:?} in {:?}, boot_ms {:?}", before.elapsed(), status.boot_ms);
    for stage in &status.stages {
        eprintln!(
            "    {:<10} {:?} {:>6} ms  {}",
            stage.stage,
            stage.progress,
            stage.took_ms.unwrap_or(0),
            stage.text
        );
    }
    if let Some(failure) = &status.failure {
        eprintln!("{failure:#?}");
    }
    result.unwrap();
}

async fn ping(mut stream: VsockStream) -> String {
    stream.write_all(b"GET /_ping HTTP/1.1\r\nHost: d\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
#[ignore = "takes an image: scripts/test machine"]
async fn a_real_machine_starts_answers_stops_and_survives_kills() {
    let image = env::var_os("CAISSON_VM_IMAGE").expect("it names an image").into();
    let dir = tempfile::tempdir().unwrap();
    let qemu = Qemu::new(env::temp_dir().join("caisson-conformance"));
    // The guest's engine waits to be told these, as the daemon does.
    let facts = vec![
        HostFact::Routes { routes: Vec::new() },
        HostFact::Proxies(HostProxies::default()),
        HostFact::Authorities { pem: String::new() },
        HostFact::Registries(HostRegistries::default()),
        HostFact::RegistryCertificates { files: Vec::new() },
    ];
    let (_tell, facts) = watch::channel(facts);
    let (machine, _ports) = Machine::spawn(config(image, dir.path()), Arc::new(qemu), facts).unwrap();
    let handle = machine.handle();

    started(&handle, "first boot, with an empty disk").await;
    assert!(ping(handle.api().await.unwrap()).await.ends_with("OK"));
    let before = Instant::now();
    handle.stop().await.unwrap();
    eprintln!("stopped in {:?}", before.elapsed());
    assert!(before.elapsed() < Limits::default().stop_grace, "the guest switches itself off");

    started(&handle, "second boot").await;
    let qemu = process(dir.path(), "qemu-system-x86_64").unwrap();
    let before = Instant::now();
    kill_process(qemu, Signal::KILL).unwrap();
    let mut watch = handle.status();
    let failed = watch.wait_for(|status| status.state == MachineState::Failed).await.unwrap().clone();
    eprintln!("kill -9 of qemu seen in {:?}: {:?}", before.elapsed(), failed.failure);
    assert!(before.elapsed() < Duration::from_secs(2));
    assert_eq!(failed.failure.unwrap().code, FailureCode::MachineDied);
    assert!(!runs(qemu), "qemu is left");
    let before = Instant::now();
    assert!(ping(handle.api().await.unwrap()).await.ends_with("OK"));
    eprintln!("a client booted it again in {:?}", before.elapsed());

    let restart = tokio::spawn({
        let handle = handle.clone();
        async move { handle.restart().await }
    });
    let booting =
        |status: &caisson_machine::MachineStatus| matches!(status.state, MachineState::Booting { .. });
    handle.status().wait_for(booting).await.unwrap();
    handle.stop().await.unwrap();
    assert!(matches!(restart.await.unwrap(), Err(Unavailable::Stopped)));
    machine.shut_down().await;
}
