//! The host's whole way, from a Docker client's socket and a published port into a machine, on the fake hypervisor.

#![cfg(unix)]
#![expect(clippy::unwrap_used, reason = "what goes wrong here fails the test")]

use caisson_forward::{Guest, Listener, PortStatus, Ports, serve_api};
use caisson_guest_proto::{
    Duplex, HOST_PORTS, PortForward, PortProtocol, PortsAnswer, PortsCall, PortsReply, PortsRequest,
    RelayProtocol, RelayRequest, read_frame, write_frame,
};
use caisson_hypervisor::{
    Mib,
    testing::{FakeHypervisor, GuestScript, GuestSide, LaunchFault, run_guest, write_image},
};
use caisson_machine::{Limits, Machine, MachineConfig, MachineHandle};
use caisson_os::Endpoint;
use std::{path::Path, sync::Arc};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UnixStream},
    sync::{mpsc, watch},
    task::JoinSet,
};

/// Everything but the daemon: a machine that is off, its socket and its ports.
struct Host {
    dir: TempDir,
    fake: FakeHypervisor,
    machine: Machine,
    _ports: Ports,
    table: watch::Receiver<Vec<PortStatus>>,
    /// What each engine was told when it reconciled.
    reconciled: mpsc::UnboundedReceiver<u16>,
    _tasks: JoinSet<()>,
}

async fn host() -> Host {
    let dir = tempfile::tempdir().unwrap();
    let (told, reconciled) = mpsc::unbounded_channel();
    let fake = FakeHypervisor::new(move |side| guest(side, told.clone()));
    let (_, facts) = watch::channel(Vec::new());
    let (machine, streams) = Machine::spawn(config(dir.path()), Arc::new(fake.clone()), facts).unwrap();
    let handle = machine.handle();
    let ports = Ports::spawn(handle.clone(), streams.ports, handle.status());
    let listener = Listener::bind(&Endpoint::new(dir.path().join("docker.sock"))).await.unwrap();
    let mut tasks = JoinSet::new();
    tasks.spawn(serve_api(listener, handle));
    Host { dir, fake, machine, table: ports.table(), _ports: ports, reconciled, _tasks: tasks }
}

fn config(dir: &Path) -> MachineConfig {
    let image = dir.join("image");
    write_image(&image);
    MachineConfig {
        hostname: "caisson".into(),
        image,
        image_found_whole: dir.join("image.json"),
        data_disk: dir.join("data.raw"),
        data_size: Mib(64),
        runtime_dir: dir.join("run"),
        console_log: dir.join("console.log"),
        cpus: 1,
        memory: Mib(512),
        limits: Limits::default(),
    }
}

/// A guest whose engine has one container with a published port: an echo.
async fn guest(side: GuestSide, told: mpsc::UnboundedSender<u16>) {
    let engine = async {
        let mut stream = Duplex::new(side.connect(HOST_PORTS).await.unwrap());
        let echo = PortForward {
            key: "echo/0".into(),
            host_ip: "127.0.0.1".parse().unwrap(),
            host_port: 0,
            protocol: PortProtocol::Tcp,
            target: "172.17.0.2:7".parse().unwrap(),
        };
        let call = PortsCall::Reconcile { ports: vec![echo] };
        write_frame(&mut stream, &PortsRequest { id: 1, call }).await.unwrap();
        let reply: PortsReply = read_frame(&mut stream).await.unwrap().unwrap();
        let Ok(PortsAnswer::Reconciled { outcomes }) = reply.result else { panic!("{reply:?}") };
        told.send(*outcomes[0].result.as_ref().unwrap()).unwrap();
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = run_guest(side.clone(), GuestScript::default()) => {}
        () = engine => {}
    }
}

impl Host {
    fn machine(&self) -> MachineHandle {
        self.machine.handle()
    }

    /// Says something to the engine, ends, and hears all that it answers.
    async fn docker(&self, request: &str) -> String {
        let mut client = UnixStream::connect(self.dir.path().join("docker.sock")).await.unwrap();
        client.write_all(request.as_bytes()).await.unwrap();
        client.shutdown().await.unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        answer
    }
}

#[tokio::test]
async fn a_client_makes_the_machine_boot_waits_and_is_served() {
    let host = host().await;
    assert_eq!(host.docker("POST /echo HTTP/1.1\r\n\r\n").await, "POST /echo HTTP/1.1\r\n\r\n");
    assert_eq!(host.fake.launches(), 1);
    host.machine().stop().await.unwrap();
    assert!(host.docker("GET /_ping HTTP/1.1\r\n\r\n").await.ends_with("\r\n\r\nOK"));
    assert_eq!(host.fake.launches(), 2);
}

#[tokio::test]
async fn a_client_of_a_machine_that_cannot_boot_learns_why_and_it_is_tried_again_once_mended() {
    let host = host().await;
    host.fake.set_fault(Some(LaunchFault::ProgramMissing));
    let answer = host.docker("GET /info HTTP/1.1\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 500 ") && answer.contains("not installed"), "{answer}");
    host.fake.set_fault(None);
    host.machine().start().await.unwrap();
    assert!(host.docker("GET /_ping HTTP/1.1\r\n\r\n").await.ends_with("\r\n\r\nOK"));
}

#[tokio::test]
async fn a_published_port_leads_into_the_machine_and_closes_and_comes_back_with_it() {
    let mut host = host().await;
    host.machine().start().await.unwrap();
    let port = host.reconciled.recv().await.unwrap();
    let mut client = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    client.write_all(b"through").await.unwrap();
    client.shutdown().await.unwrap();
    let mut echoed = String::new();
    client.read_to_string(&mut echoed).await.unwrap();
    assert_eq!(echoed, "through");

    host.machine().stop().await.unwrap();
    host.table.wait_for(Vec::is_empty).await.unwrap();
    assert!(TcpStream::connect(("127.0.0.1", port)).await.is_err());

    host.machine().start().await.unwrap();
    let port = host.reconciled.recv().await.unwrap();
    TcpStream::connect(("127.0.0.1", port)).await.unwrap();
}

#[tokio::test]
async fn a_late_client_of_a_published_port_does_not_start_the_machine() {
    let host = host().await;
    let target =
        RelayRequest { address: "172.17.0.2:7".parse().unwrap(), protocol: RelayProtocol::Tcp, client: None };
    assert!(Guest::relay(&host.machine(), target).await.is_err());
    host.machine().start().await.unwrap();
    Guest::relay(&host.machine(), target).await.unwrap();
    host.machine().stop().await.unwrap();
    assert!(Guest::relay(&host.machine(), target).await.is_err());
    assert_eq!(host.fake.launches(), 1);
}

#[tokio::test]
async fn a_machine_that_dies_closes_its_ports() {
    let mut host = host().await;
    host.machine().start().await.unwrap();
    host.reconciled.recv().await.unwrap();
    host.fake.kill_machine();
    host.table.wait_for(Vec::is_empty).await.unwrap();
}
