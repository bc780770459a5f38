//! What every backend must do, as functions that panic with what it did not.
//!
//! They need a guest that speaks guest-proto: the fake one, or a real image. Each boots one machine at most. A limit in
//! them is generous: a real guest on an emulated processor takes seconds to boot.

use std::time::Duration;

use caisson_guest_proto::{
    Duplex, FromGuest, GUEST_API, GuestVsockPort, HOST_CONTROL, PROTOCOL, ToGuest, UnixNanos, read_frame,
    write_frame,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::timeout,
};

use crate::{ConnectError, Hypervisor, Incoming, LaunchError, Vm, VmEnd, VmSpec, VmState, VsockStream};

/// How long a guest may take to call, and how long to bring its engine up.
const BOOT_LIMIT: Duration = Duration::from_secs(90);
/// How long anything else may take.
const LIMIT: Duration = Duration::from_secs(20);
/// A guest port on which nothing listens.
const NOBODY: GuestVsockPort = GuestVsockPort(60_000);

/// A kernel that is not there is named, and nothing is left running.
pub async fn a_missing_kernel_is_named(hypervisor: &dyn Hypervisor, spec: &VmSpec) {
    let kernel = spec.runtime_dir.join("no-such-kernel");
    let error = hypervisor
        .launch(&VmSpec { kernel: kernel.clone(), ..spec.clone() })
        .await
        .expect_err("a kernel is missing");
    assert!(matches!(&error, LaunchError::File { path, .. } if *path == kernel), "{error:?}");
}

/// The whole life: the guest calls, says hello, brings its engine up, answers through a stream up to its end, and
/// switches itself off when told to.
pub async fn a_machine_boots_answers_and_switches_itself_off(hypervisor: &dyn Hypervisor, spec: &VmSpec) {
    let launched = hypervisor.launch(spec).await.expect("it launches");
    let mut incoming = launched.incoming;
    assert_eq!(*launched.vm.state().borrow(), VmState::Running);
    let mut control = engine_up(&mut incoming).await;
    a_port_without_a_listener_refuses(&*launched.vm).await;
    an_answer_comes_whole(&*launched.vm).await;
    a_stream_that_is_given_up_harms_nobody(&*launched.vm).await;
    launched.vm.request_stop().await.expect("the button can be pressed");
    write_frame(&mut control, &ToGuest::PowerOff { grace_secs: 1 }).await.expect("the guest is told");
    assert_eq!(end_of(&*launched.vm).await, VmEnd::PoweredOff);
    all_streams_end(incoming, control).await;
    let late = launched.vm.connect(GUEST_API).await;
    assert!(matches!(late, Err(ConnectError::Ended(VmEnd::PoweredOff))), "a stream after the end");
    assert!(launched.vm.request_stop().await.is_err(), "the button of a machine that is off");
}

/// Force ends a machine, is told as the reason, and does no harm a second time.
pub async fn force_ends_a_machine(hypervisor: &dyn Hypervisor, spec: &VmSpec) {
    let launched = hypervisor.launch(spec).await.expect("it launches");
    timeout(LIMIT, launched.vm.kill()).await.expect("it ends");
    assert_eq!(*launched.vm.state().borrow(), VmState::Ended(VmEnd::Killed));
    timeout(LIMIT, launched.vm.kill()).await.expect("it has ended");
}

/// A machine that nobody holds any more ends, and the next one can use the same files.
pub async fn a_dropped_machine_ends(hypervisor: &dyn Hypervisor, spec: &VmSpec) {
    let launched = hypervisor.launch(spec).await.expect("it launches");
    let mut state = launched.vm.state();
    drop(launched.vm);
    let ended = timeout(LIMIT, state.wait_for(|state| matches!(state, VmState::Ended(_)))).await;
    assert!(ended.expect("it ends").is_ok(), "its state says so");
    let again = hypervisor.launch(spec).await.expect("it launches again");
    again.vm.kill().await;
}

/// Waits for the guest's call and speaks with it until its engine is up.
async fn engine_up(incoming: &mut Incoming) -> VsockStream {
    let called = timeout(BOOT_LIMIT, incoming.recv()).await.expect("the guest calls in time");
    let (port, mut control) = called.expect("the machine lives");
    assert_eq!(port, HOST_CONTROL);
    let hello: FromGuest = read_frame(&mut control).await.expect("a frame").expect("a message");
    assert!(matches!(hello, FromGuest::Hello { protocol: PROTOCOL, .. }), "{hello:?}");
    let welcome =
        ToGuest::Welcome { protocol: PROTOCOL, unix_time: UnixNanos::now(), hostname: "conformance".into() };
    write_frame(&mut control, &welcome).await.expect("it hears");
    let up = async {
        loop {
            match read_frame(&mut control).await.expect("a frame").expect("a message") {
                FromGuest::EngineUp => return,
                FromGuest::Failed { stage, error } => panic!("the guest failed in {stage:?}: {error}"),
                _ => {}
            }
        }
    };
    timeout(BOOT_LIMIT, up).await.expect("the engine comes up in time");
    control
}

async fn a_port_without_a_listener_refuses(vm: &dyn Vm) {
    let refused = timeout(LIMIT, vm.connect(NOBODY)).await.expect("an answer in time");
    assert!(matches!(refused, Err(ConnectError::Refused(NOBODY))), "a port without a listener");
}

async fn an_answer_comes_whole(vm: &dyn Vm) {
    let mut stream = Duplex::new(vm.connect(GUEST_API).await.expect("the engine's port is open"));
    stream
        .write_all(b"GET /_ping HTTP/1.1\r\nHost: d\r\nConnection: close\r\n\r\n")
        .await
        .expect("it is written");
    let mut answer = Vec::new();
    let read = timeout(LIMIT, stream.read_to_end(&mut answer)).await;
    read.expect("the answer ends in time").expect("the answer can be read");
    let answer = String::from_utf8_lossy(&answer);
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("OK"), "{answer:?}");
}

/// A caller may lose its patience in the middle of opening a stream, and close one at any time.
async fn a_stream_that_is_given_up_harms_nobody(vm: &dyn Vm) {
    for _ in 0..5 {
        // Either is fine: given up at once, or opened and dropped.
        let _ = timeout(Duration::ZERO, vm.connect(GUEST_API)).await;
    }
    an_answer_comes_whole(vm).await;
}

async fn end_of(vm: &dyn Vm) -> VmEnd {
    let mut state = vm.state();
    let ended = timeout(LIMIT, state.wait_for(|state| matches!(state, VmState::Ended(_)))).await;
    match &*ended.expect("it ends in time").expect("its end is told") {
        VmState::Ended(end) => end.clone(),
        other => panic!("it has not ended: {other:?}"),
    }
}

async fn all_streams_end(mut incoming: Incoming, mut control: VsockStream) {
    let gone = timeout(LIMIT, async { while incoming.recv().await.is_some() {} }).await;
    gone.expect("no more streams come");
    let mut rest = Vec::new();
    // The end may be orderly or a reset; that it comes is what counts.
    let _ = timeout(LIMIT, control.read_to_end(&mut rest)).await.expect("an open stream ends");
}
