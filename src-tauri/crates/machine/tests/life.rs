//! The machine's life on the fake hypervisor, with a guest that behaves, or does one thing wrong. Time is tokio's
//! paused clock, so deadlines cost nothing.

#![expect(clippy::unwrap_used, reason = "a test may panic; its helpers are no test functions to clippy")]

use std::{path::Path, sync::Arc, time::Duration};

use caisson_guest_proto::{HostFact, HostProxies, PROTOCOL, RelayProtocol, RelayRequest};
use caisson_hypervisor::{
    Mib, PauseReason, VsockStream,
    testing::{FakeHypervisor, GuestScript, LaunchFault, Misbehaviour, run_guest, write_image},
};
use caisson_machine::{
    EngineStatus, Failure, FailureCode, Limits, Machine, MachineConfig, MachineHandle, MachineState,
    MachineStatus, Progress, RelayError, SpawnError, Stage, Unavailable,
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::{mpsc, watch},
    time::Instant,
};

/// A machine on a fake hypervisor, in a directory of its own.
struct Bench {
    dir: TempDir,
    fake: FakeHypervisor,
    machine: Machine,
    ports: mpsc::Receiver<VsockStream>,
    facts: watch::Sender<Vec<HostFact>>,
}

fn config(dir: &Path) -> MachineConfig {
    MachineConfig {
        hostname: "caisson".into(),
        image: dir.join("image"),
        image_found_whole: dir.join("image.json"),
        data_disk: dir.join("data/data.raw"),
        data_size: Mib(64),
        runtime_dir: dir.join("run"),
        console_log: dir.join("logs/console.log"),
        cpus: 64,
        memory: Mib(512),
        limits: Limits::default(),
    }
}

fn bench(script: GuestScript) -> Bench {
    let dir = tempfile::tempdir().unwrap();
    write_image(&dir.path().join("image"));
    let fake = FakeHypervisor::new(move |side| run_guest(side, script.clone()));
    let (facts, told) = watch::channel(Vec::new());
    let (machine, streams) = Machine::spawn(config(dir.path()), Arc::new(fake.clone()), told).unwrap();
    Bench { dir, fake, machine, ports: streams.ports, facts }
}

fn good() -> Bench {
    bench(GuestScript::default())
}

fn bad(wrong: Misbehaviour) -> Bench {
    bench(GuestScript { wrong: Some(wrong), ..GuestScript::default() })
}

impl Bench {
    fn handle(&self) -> MachineHandle {
        self.machine.handle()
    }

    fn now(&self) -> MachineStatus {
        self.handle().status().borrow().clone()
    }

    async fn until(&self, wanted: impl FnMut(&MachineStatus) -> bool) -> MachineStatus {
        self.handle().status().wait_for(wanted).await.unwrap().clone()
    }

    /// Waits until the guest's console says something; gives all that it says.
    async fn console_says(&self, wanted: &str) -> String {
        loop {
            let console =
                std::fs::read_to_string(self.dir.path().join("logs/console.log")).unwrap_or_default();
            if console.contains(wanted) {
                return console;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Starts a machine that must fail.
    async fn failure(&self) -> Failure {
        let error = self.handle().start().await.unwrap_err();
        let Unavailable::Failed(failure) = error else { panic!("{error}") };
        let status = self.now();
        assert_eq!(status.state, MachineState::Failed);
        assert_eq!(status.failure.as_ref(), Some(&*failure));
        *failure
    }
}

/// Sends something to the engine, half-closes, and gives all that it answers.
async fn echoed(mut stream: VsockStream, text: &str) -> String {
    stream.write_all(text.as_bytes()).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test(start_paused = true)]
async fn a_boot_goes_through_all_stages_and_tells_how_long_each_took() {
    let bench = good();
    assert_eq!(bench.now().state, MachineState::Stopped);
    bench.handle().start().await.unwrap();
    let status = bench.now();
    assert_eq!(status.state, MachineState::Running);
    assert_eq!(status.engine, EngineStatus::Up);
    assert!(status.stages.iter().all(|stage| stage.progress == Progress::Done && stage.took_ms.is_some()));
    assert_eq!(status.stages[Stage::Disk as usize].text, "checking the file system");
    assert_eq!(status.guest.unwrap().version, "0.0.0-fake");
    assert_eq!(status.notices.len(), 1);
    assert!(status.boot_ms.is_some());
}

#[tokio::test(start_paused = true)]
async fn a_client_of_a_machine_that_is_off_waits_for_its_boot() {
    let bench = good();
    let handle = bench.handle();
    let (first, second, third) = tokio::join!(handle.api(), handle.api(), handle.api());
    for stream in [first, second, third] {
        assert_eq!(echoed(stream.unwrap(), "hello\r\n\r\n").await, "hello\r\n\r\n");
    }
    assert_eq!(bench.fake.launches(), 1);
}

#[tokio::test(start_paused = true)]
async fn starting_and_stopping_twice_is_once() {
    let bench = good();
    let handle = bench.handle();
    handle.stop().await.unwrap();
    handle.start().await.unwrap();
    handle.start().await.unwrap();
    assert_eq!(bench.fake.launches(), 1);
    let (one, two) = tokio::join!(handle.stop(), handle.stop());
    one.unwrap();
    two.unwrap();
    handle.stop().await.unwrap();
    assert_eq!(bench.now().state, MachineState::Stopped);
    assert_eq!(bench.now().failure, None);
}

#[tokio::test(start_paused = true)]
async fn a_restart_is_a_new_machine() {
    let bench = good();
    bench.handle().restart().await.unwrap();
    assert_eq!(bench.fake.launches(), 1);
    bench.handle().restart().await.unwrap();
    assert_eq!(bench.fake.launches(), 2);
    assert_eq!(bench.now().state, MachineState::Running);
}

#[tokio::test(start_paused = true)]
async fn what_goes_wrong_in_a_boot_is_told_by_stage_and_code() {
    use Misbehaviour as M;
    let table = [
        (M::HangsInKernel, Stage::Kernel, FailureCode::StageTimedOut),
        (M::Panics, Stage::Kernel, FailureCode::GuestPanicked),
        (M::TalksNonsense, Stage::Kernel, FailureCode::ProtocolBroken),
        (M::HangsAfterHello, Stage::Agent, FailureCode::StageTimedOut),
        (M::DiskFails, Stage::Disk, FailureCode::GuestFailed),
        (M::DiesInBoot, Stage::Disk, FailureCode::MachineDied),
        (M::HangsBeforeEngine, Stage::Engine, FailureCode::StageTimedOut),
        (M::EngineKeepsEnding, Stage::Engine, FailureCode::EngineFailed),
        (M::RefusesApi, Stage::Socket, FailureCode::StageTimedOut),
        (M::DropsApi, Stage::Socket, FailureCode::StageTimedOut),
    ];
    for (wrong, stage, code) in table {
        let failure = bad(wrong).failure().await;
        assert_eq!((failure.stage, failure.code), (Some(stage), code), "{wrong:?}: {failure}");
        assert!(!failure.remedy.is_empty());
        assert!(failure.console_tail[0].contains("Linux version"), "{wrong:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_guests_own_words_are_part_of_the_message() {
    let failure = bad(Misbehaviour::DiskFails).failure().await;
    assert!(failure.message.contains("e2fsck: unrecoverable"), "{}", failure.message);
    let failure = bad(Misbehaviour::EngineKeepsEnding).failure().await;
    assert!(failure.message.contains("panicked at engine.rs:1"), "{}", failure.message);
    let failure = bad(Misbehaviour::Panics).failure().await;
    assert!(failure.console_tail.last().unwrap().contains("Kernel panic"));
}

#[tokio::test(start_paused = true)]
async fn a_guest_of_another_protocol_is_refused_with_both_versions() {
    let failure = bench(GuestScript { protocol: 7, wrong: None }).failure().await;
    assert_eq!((failure.stage, failure.code), (Some(Stage::Kernel), FailureCode::ProtocolMismatch));
    assert_eq!(failure.message, format!("the machine speaks protocol 7, this program speaks {PROTOCOL}"));
}

#[tokio::test(start_paused = true)]
async fn what_the_hypervisor_does_wrong_is_told() {
    let bench = good();
    let table = [
        (LaunchFault::ProgramMissing, FailureCode::ProgramMissing),
        (LaunchFault::Refuses, FailureCode::HypervisorFailed),
        (LaunchFault::Hangs, FailureCode::StageTimedOut),
    ];
    for (fault, code) in table {
        bench.fake.set_fault(Some(fault));
        let failure = bench.failure().await;
        assert_eq!((failure.stage, failure.code), (Some(Stage::Hypervisor), code), "{failure}");
        assert!(failure.console_tail.is_empty());
    }
    bench.fake.set_fault(None);
    bench.handle().start().await.unwrap();
    assert_eq!(bench.now().failure, None);
}

#[tokio::test(start_paused = true)]
async fn what_is_missing_is_told_before_anything_is_launched() {
    let bench = good();
    std::fs::remove_file(bench.dir.path().join("image/kernel")).unwrap();
    let failure = bench.failure().await;
    assert_eq!((failure.stage, failure.code), (None, FailureCode::ImageUnusable));
    write_image(&bench.dir.path().join("image"));
    let disk = bench.dir.path().join("data/data.raw");
    std::fs::create_dir(&disk).unwrap();
    assert_eq!(bench.failure().await.code, FailureCode::DataDiskUnusable);
    std::fs::remove_dir(&disk).unwrap();
    bench.handle().start().await.unwrap();
    assert_eq!(std::fs::metadata(&disk).unwrap().len(), 64 << 20);
    assert_eq!(bench.fake.launches(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_killed_machine_is_seen_at_once_and_the_next_client_boots_it_again() {
    let bench = good();
    bench.handle().start().await.unwrap();
    let before = Instant::now();
    bench.fake.kill_machine();
    let status = bench.until(|status| status.state == MachineState::Failed).await;
    assert!(before.elapsed() < Duration::from_secs(1));
    let failure = status.failure.unwrap();
    assert_eq!((failure.stage, failure.code), (None, FailureCode::MachineDied));
    assert!(failure.message.contains("killed by signal 9"), "{}", failure.message);
    let stream = bench.handle().api().await.unwrap();
    assert_eq!(echoed(stream, "again\r\n\r\n").await, "again\r\n\r\n");
    assert_eq!(bench.fake.launches(), 2);
    assert_eq!(bench.now().failure, None);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_comes_as_the_machine_dies_is_served_by_the_next_boot() {
    let bench = good();
    bench.handle().start().await.unwrap();
    bench.fake.kill_machine();
    let stream = bench.handle().api().await.unwrap();
    assert_eq!(echoed(stream, "served\r\n\r\n").await, "served\r\n\r\n");
    assert_eq!(bench.fake.launches(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_stop_ends_a_boot_and_who_waits_for_it_is_told() {
    let bench = bad(Misbehaviour::HangsInKernel);
    let handle = bench.handle();
    let kernel = MachineState::Booting { stage: Stage::Kernel };
    let stop = async {
        bench.until(|status| status.state == kernel).await;
        handle.stop().await.unwrap();
    };
    let (started, api, ()) = tokio::join!(handle.start(), handle.api(), stop);
    assert!(matches!(started, Err(Unavailable::Stopped)));
    assert!(matches!(api.err(), Some(Unavailable::Stopped)));
    let status = bench.now();
    assert_eq!(status.state, MachineState::Stopped);
    assert!(status.stages.iter().all(|stage| stage.progress != Progress::Active), "{:?}", status.stages);
}

#[tokio::test(start_paused = true)]
async fn a_stop_ends_a_hypervisor_that_hangs() {
    let bench = good();
    bench.fake.set_fault(Some(LaunchFault::Hangs));
    let handle = bench.handle();
    let stage = MachineState::Booting { stage: Stage::Hypervisor };
    let stop = async {
        bench.until(|status| status.state == stage).await;
        handle.stop().await.unwrap();
    };
    let (started, ()) = tokio::join!(handle.start(), stop);
    assert!(matches!(started, Err(Unavailable::Stopped)));
}

#[tokio::test(start_paused = true)]
async fn a_guest_that_does_not_switch_off_is_ended_by_force_after_its_grace() {
    let bench = bad(Misbehaviour::IgnoresPowerOff);
    bench.handle().start().await.unwrap();
    let limits = Limits::default();
    let before = Instant::now();
    bench.handle().stop().await.unwrap();
    let took = before.elapsed();
    let all = limits.stop_grace + limits.power_off + limits.power_button;
    assert!(took >= all && took < all + Duration::from_secs(1), "{took:?}");
    assert_eq!(bench.now().state, MachineState::Stopped);
}

#[tokio::test(start_paused = true)]
async fn who_comes_while_the_machine_stops_gets_the_next_one() {
    let bench = bad(Misbehaviour::IgnoresPowerOff);
    let handle = bench.handle();
    handle.start().await.unwrap();
    let late = async {
        bench.until(|status| status.state == MachineState::Stopping).await;
        handle.api().await.unwrap()
    };
    let (stopped, stream) = tokio::join!(handle.stop(), late);
    stopped.unwrap();
    assert_eq!(echoed(stream, "next\r\n\r\n").await, "next\r\n\r\n");
    assert_eq!(bench.fake.launches(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_guest_that_falls_silent_has_failed() {
    let bench = bad(Misbehaviour::FallsSilent);
    bench.handle().start().await.unwrap();
    let status = bench.until(|status| status.state == MachineState::Failed).await;
    assert_eq!(status.failure.unwrap().code, FailureCode::GuestSilent);
}

#[tokio::test(start_paused = true)]
async fn a_machine_that_waits_for_room_on_the_disk_has_not_fallen_silent() {
    let bench = bad(Misbehaviour::FallsSilent);
    bench.handle().start().await.unwrap();
    bench.fake.pause_machine(Some(PauseReason::HostDiskFull));
    tokio::time::sleep(Limits::default().silence * 3).await;
    let status = bench.now();
    assert_eq!(status.state, MachineState::Running);
    assert_eq!(status.paused, Some(PauseReason::HostDiskFull));
    bench.fake.pause_machine(None);
    bench.until(|status| status.paused.is_none()).await;
    // It stood still with the processors.
    bench.console_says("clock set to").await;
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_has_come_apart_is_set() {
    let bench = bad(Misbehaviour::LosesTime);
    bench.handle().start().await.unwrap();
    bench.console_says("clock set to").await;
}

#[tokio::test(start_paused = true)]
async fn a_client_waits_for_an_engine_that_restarts() {
    let bench = bad(Misbehaviour::EngineEndsOnce);
    let handle = bench.handle();
    handle.start().await.unwrap();
    let status = bench.until(|status| matches!(status.engine, EngineStatus::Restarting { .. })).await;
    assert_eq!(status.state, MachineState::Running);
    let stream = handle.api().await.unwrap();
    assert_eq!(bench.now().engine, EngineStatus::Up);
    assert_eq!(echoed(stream, "back\r\n\r\n").await, "back\r\n\r\n");
}

#[tokio::test(start_paused = true)]
async fn a_client_of_a_guest_that_is_behind_waits_in_line() {
    let bench = bad(Misbehaviour::FallsBehind);
    bench.handle().start().await.unwrap();
    let stream = bench.handle().api().await.unwrap();
    assert_eq!(echoed(stream, "at last\r\n\r\n").await, "at last\r\n\r\n");
}

#[tokio::test(start_paused = true)]
async fn a_connection_to_a_container_is_made_or_refused_by_the_guest() {
    let bench = good();
    let stream = bench.handle().relay("172.17.0.2:7".parse().unwrap()).await.unwrap();
    assert_eq!(echoed(stream, "through").await, "through");
    let refused = bench.handle().relay("172.17.0.2:81".parse().unwrap()).await;
    assert!(matches!(refused.err(), Some(RelayError::Refused { address, .. }) if address.port() == 81));
}

#[tokio::test(start_paused = true)]
async fn the_guests_port_streams_come_out() {
    let mut bench = good();
    bench.handle().start().await.unwrap();
    assert!(bench.ports.recv().await.is_some());
}

#[tokio::test(start_paused = true)]
async fn the_guest_is_told_of_its_host_at_first_and_whatever_has_changed() {
    let authorities = HostFact::Authorities { pem: "of this computer".into() };
    let proxies =
        |name: &str| HostFact::Proxies(HostProxies { http: Some(name.into()), ..HostProxies::default() });
    let bench = good();
    bench.facts.send_replace(vec![proxies("http://one:1"), authorities.clone()]);
    bench.handle().start().await.unwrap();
    bench.console_says("http://one:1").await;
    bench.facts.send_replace(vec![proxies("http://two:2"), authorities]);
    let console = bench.console_says("http://two:2").await;
    assert_eq!(console.matches("of this computer").count(), 1, "{console}");
    std::fs::remove_file(bench.dir.path().join("logs/console.log")).unwrap();
    bench.handle().restart().await.unwrap();
    let console = bench.console_says("of this computer").await;
    assert!(console.contains("http://two:2") && !console.contains("http://one:1"), "{console}");
}

#[tokio::test(start_paused = true)]
async fn a_machine_has_one_owner_and_is_free_after_a_shut_down() {
    let bench = good();
    let handle = bench.handle();
    handle.start().await.unwrap();
    let fake = Arc::new(bench.fake.clone());
    let facts = bench.facts.subscribe();
    let second = Machine::spawn(config(bench.dir.path()), fake.clone(), facts.clone());
    assert!(matches!(second.err(), Some(SpawnError::InUse { .. })));
    bench.machine.shut_down().await;
    assert!(matches!(handle.start().await, Err(Unavailable::ShuttingDown)));
    assert!(Machine::spawn(config(bench.dir.path()), fake, facts).is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_connection_to_a_container_alone_never_starts_the_machine() {
    let bench = good();
    let to =
        RelayRequest { address: "172.17.0.2:7".parse().unwrap(), protocol: RelayProtocol::Tcp, client: None };
    let off = bench.handle().relay_if_running(to).await.err();
    assert!(matches!(off, Some(RelayError::Unavailable(Unavailable::Stopped))), "{off:?}");
    assert_eq!(bench.now().state, MachineState::Stopped);
    bench.handle().start().await.unwrap();
    bench.handle().relay_if_running(to).await.unwrap();
}
