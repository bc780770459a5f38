//! The machines that are measured: Caisson's, and bare ones of the same kernel with a network card.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use caisson_tests::machine::Machine;
use caisson_tests::repository;
use caisson_tests::subject::Subject;
use tempfile::TempDir;

use crate::traffic::{self, Way};

/// How long a machine may take to boot and listen.
const BOOT: Duration = Duration::from_secs(180);

/// A machine with a server of traffic in it.
pub(crate) trait Guest {
    /// Its column's head.
    fn name(&self) -> &'static str;
    /// Where its server is reached on the host.
    fn server(&self) -> SocketAddr;
    /// Asks a server on the host's loopback from inside, so many times; how long each took.
    fn ask(&self, port: u16, way: Way, bytes: u64, times: u32) -> Result<Vec<Duration>>;
}

/// What `make-bare` makes.
pub(crate) fn fixture(machine: &Machine, dir: &Path) -> Result<()> {
    let made =
        Command::new(repository().join("tests/fixtures/make-bare")).arg(machine.image()).arg(dir).output()?;
    ensure!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    Ok(())
}

fn micros(printed: &str) -> Result<Vec<Duration>> {
    printed.split_whitespace().map(|number| Ok(Duration::from_micros(number.parse()?))).collect()
}

/// Waits until the server in a machine answers.
fn wait_for(server: SocketAddr) -> Result<()> {
    let until = Instant::now() + BOOT;
    while traffic::ask(server, Way::Put, 0).is_err() {
        ensure!(Instant::now() < until, "nothing answers at {server}");
        std::thread::sleep(Duration::from_millis(200));
    }
    Ok(())
}

/// Caisson's machine, the traffic in a container.
pub(crate) struct Caisson<'a> {
    machine: &'a Machine,
    server: SocketAddr,
}

impl<'a> Caisson<'a> {
    pub(crate) fn start(machine: &'a Machine, dir: &Path) -> Result<Self> {
        machine.ok(&["start"])?;
        let docker = machine.docker();
        let mut archive = tar::Builder::new(Vec::new());
        archive.append_path_with_name(dir.join("traffic"), "traffic")?;
        docker.feed(["import", "-", "traffic"], &archive.into_inner()?)?.ok()?;
        docker.ok([
            "run",
            "-d",
            "--name",
            "server",
            "-p",
            "127.0.0.1::9",
            "traffic",
            "/traffic",
            "serve",
            "9",
        ])?;
        let server = docker.ok(["port", "server", "9"])?.parse()?;
        wait_for(server)?;
        Ok(Self { machine, server })
    }
}

impl Guest for Caisson<'_> {
    fn name(&self) -> &'static str {
        "caisson"
    }

    fn server(&self) -> SocketAddr {
        self.server
    }

    fn ask(&self, port: u16, way: Way, bytes: u64, times: u32) -> Result<Vec<Duration>> {
        let (kind, port) = (way.letter().to_string(), port.to_string());
        let (bytes, times) = (bytes.to_string(), times.to_string());
        let run = ["run", "--rm", "traffic", "/traffic", &kind, "192.0.0.254", &port, &bytes, &times];
        micros(&self.machine.docker().ok(run)?)
    }
}

/// Who is behind a bare machine's network card.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Card {
    /// QEMU's own user networking.
    Slirp,
    /// passt(1), of Debian's package.
    Passt,
}

/// A machine with a network card and nothing else.
pub(crate) struct Bare {
    card: Card,
    qemu: Child,
    passt: Option<Child>,
    shell: SocketAddr,
    server: SocketAddr,
    _dir: TempDir,
}

impl Bare {
    pub(crate) fn start(card: Card, kernel: &Path, made: &Path) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("bare-").tempdir()?;
        // passt is not root for long.
        std::fs::set_permissions(dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o777))?;
        let (shell, server) = (free_port()?, free_port()?);
        let (passt, netdev) = match card {
            Card::Slirp => {
                let forward = |at: SocketAddr, to| format!("hostfwd=tcp:{at}-:{to}");
                (None, format!("user,id=n,{},{}", forward(shell, 8), forward(server, 9)))
            }
            Card::Passt => {
                let socket = dir.path().join("passt");
                let passt = start_passt(&socket, shell.port(), server.port())?;
                (Some(passt), format!("stream,id=n,server=off,addr.type=unix,addr.path={}", socket.display()))
            }
        };
        let qemu = qemu(kernel, &made.join("initrd"), &netdev).spawn().context("could not start QEMU")?;
        let bare = Self { card, qemu, passt, shell, server, _dir: dir };
        wait_for(server)?;
        Ok(bare)
    }
}

/// A port of the loopback that is free now.
fn free_port() -> Result<SocketAddr> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}

fn start_passt(socket: &Path, shell: u16, server: u16) -> Result<Child> {
    let forward = format!("127.0.0.1/{shell}:8,{server}:9");
    let started = Command::new("passt")
        .args(["--foreground", "--quiet", "--one-off", "--socket"])
        .arg(socket)
        .args(["--address", "10.0.2.15", "--netmask", "24", "--gateway", "10.0.2.2", "--ipv4-only"])
        .args(["--tcp-ports", &forward])
        .stdin(Stdio::null())
        .spawn();
    let mut passt = started.context("could not start passt; apt-get install passt")?;
    let until = Instant::now() + BOOT;
    while !socket.exists() {
        if let Some(status) = passt.try_wait()? {
            bail!("passt ended with {status}");
        }
        ensure!(Instant::now() < until, "passt does not listen");
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(passt)
}

/// As Caisson's own machine is run where there is no KVM, but for what is not there.
fn qemu(kernel: &Path, initrd: &Path, netdev: &str) -> Command {
    let mut qemu = Command::new("qemu-system-x86_64");
    qemu.args([
        "-M",
        "q35,sata=off,smbus=off,usb=off,i8042=off,vmport=off,hpet=off",
        "-accel",
        "tcg,thread=multi",
    ])
    .args([
        "-cpu",
        "max,-la57,-erms,-fsrm",
        "-smp",
        "2",
        "-m",
        "1024",
        "-nodefaults",
        "-no-user-config",
        "-display",
        "none",
    ])
    .args(["-no-reboot", "-append"])
    .arg("quiet reboot=t panic=-1 no_timer_check maxcpus=1 init_on_alloc=0 nokaslr nopti no5lvl")
    .arg("-kernel")
    .arg(kernel)
    .arg("-initrd")
    .arg(initrd)
    .args(["-netdev", netdev, "-device", "virtio-net-pci,netdev=n,romfile="])
    .stdin(Stdio::null());
    qemu
}

impl Guest for Bare {
    fn name(&self) -> &'static str {
        match self.card {
            Card::Slirp => "slirp",
            Card::Passt => "passt",
        }
    }

    fn server(&self) -> SocketAddr {
        self.server
    }

    fn ask(&self, port: u16, way: Way, bytes: u64, times: u32) -> Result<Vec<Duration>> {
        let mut shell = TcpStream::connect(self.shell)?;
        writeln!(shell, "traffic {} 10.0.2.2 {port} {bytes} {times}; exit", way.letter())?;
        let mut printed = String::new();
        shell.read_to_string(&mut printed)?;
        // Both directions are over; what is left to close is closed already by the other side.
        let _ = shell.shutdown(Shutdown::Both);
        micros(&printed)
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        for child in std::iter::once(&mut self.qemu).chain(&mut self.passt) {
            // One that has ended needs no end.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// The kernel of a machine's image.
pub(crate) fn kernel(machine: &Machine) -> PathBuf {
    machine.image().join("kernel")
}
