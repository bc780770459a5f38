//! The computer sleeps and wakes, or the hypervisor lets the machine stand still for a while: what was going on goes on.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail, ensure};
use caisson_tests::bounded::{LIMIT, accept, until};
use caisson_tests::machine::Machine;
use caisson_tests::subject::Subject;
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, Signal, kill_process, pidfd_getfd, pidfd_open};

use crate::egress::{HOST, listen};
use crate::state;

machine_cases![a_machine_that_stands_still_says_so_and_goes_on, a_computer_that_sleeps_wakes_to_what_it_had,];

/// How long nobody runs. The daemon takes longer than three looks at the guest, each after five seconds, for sleep.
const ASLEEP: Duration = Duration::from_secs(20);

const PUBLISHED: (Ipv4Addr, u16) = (Ipv4Addr::LOCALHOST, 28160);

/// Something that goes on: a container that says back what it hears, by a published port and by a connection of its own.
struct Talk {
    out: TcpStream,
    inwards: TcpStream,
    listener: TcpListener,
    port: String,
}

impl Talk {
    fn start(machine: &Machine) -> Result<Self> {
        let (listener, port) = listen()?;
        let script = format!("nc {HOST} {port} -e cat & exec nc -ll -p 9 -e cat");
        let publish = format!("{}:{}:9", PUBLISHED.0, PUBLISHED.1);
        machine
            .docker()
            .ok(["run", "-d", "--name", "talk", "-p", &publish, "busybox", "sh", "-c", &script])?;
        let (out, _) = accept(&listener, "the connection of the container that talks")?;
        let inwards = answering(PUBLISHED)?;
        Ok(Self { out, inwards, listener, port })
    }

    /// Both old connections, a new one each way, `docker`, and the clock.
    fn goes_on(&mut self, machine: &Machine) -> Result<()> {
        says_back(&mut self.inwards).context("the published port's old connection")?;
        says_back(&mut self.out).context("the container's old connection")?;
        answering(PUBLISHED).context("a new connection to the published port")?;
        let ask = format!("echo anew | nc {HOST} {}", self.port);
        let mut asked = machine.docker().spawn(["exec", "talk", "sh", "-c", &ask])?;
        let mut heard = [0; 4];
        let (mut client, _) = accept(&self.listener, "a new connection of the container's")?;
        client.read_exact(&mut heard).context("a new connection of the container's")?;
        // Its program goes on until the end of the connection.
        drop(client);
        ensure!(&heard == b"anew" && asked.wait()?.success());
        ensure!(machine.docker().ok(["inspect", "-f", "{{.State.Status}}", "talk"])? == "running");
        clock_goes_on(machine)
    }

    fn end(self, machine: &Machine) -> Result<()> {
        machine.docker().ok(["rm", "-f", "talk"])?;
        Ok(())
    }
}

fn says_back(stream: &mut TcpStream) -> Result<()> {
    stream.set_read_timeout(Some(LIMIT))?;
    stream.write_all(b"hello")?;
    let mut heard = [0; 5];
    stream.read_exact(&mut heard)?;
    ensure!(&heard == b"hello", "{heard:?}");
    Ok(())
}

/// A connection that is answered. A published port takes one before its container listens, and drops it then.
fn answering(to: (Ipv4Addr, u16)) -> Result<TcpStream> {
    let until = Instant::now() + LIMIT;
    while Instant::now() < until {
        let mut client = TcpStream::connect(to)?;
        if says_back(&mut client).is_ok() {
            return Ok(client);
        }
    }
    bail!("nothing answers at {to:?}")
}

/// The machine's clock does not stay behind by the time in which it stood still: the host finds it wrong with its next look.
fn clock_goes_on(machine: &Machine) -> Result<()> {
    let now = || anyhow::Ok(SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs());
    until("the machine's clock is right again", || {
        let before = now()?;
        let told: u64 = machine.docker().ok(["exec", "talk", "date", "+%s"])?.parse()?;
        Ok((before - 1..=now()? + 1).contains(&told).then_some(()))
    })
}

/// QEMU's control socket, which the daemon alone has: a second descriptor for the daemon's end. The answers go to the daemon,
/// which takes those that it did not ask for as none of its business.
struct Qmp(OwnedFd);

impl Qmp {
    fn of(machine: &Machine) -> Result<Self> {
        let daemon = *machine.processes("caisson-host")?.first().context("no daemon")?;
        let sockets = std::fs::read_to_string("/proc/net/unix")?;
        let inodes: Vec<String> = sockets
            .lines()
            .filter(|line| line.ends_with("/qmp.sock"))
            .filter_map(|line| Some(format!("socket:[{}]", line.split_whitespace().nth(6)?)))
            .collect();
        for entry in std::fs::read_dir(format!("/proc/{daemon}/fd"))?.flatten() {
            let Ok(link) = std::fs::read_link(entry.path()) else { continue };
            if inodes.iter().any(|inode| link.as_os_str() == inode.as_str()) {
                let fd = entry.file_name().to_str().and_then(|fd| fd.parse().ok()).context("a number")?;
                let pidfd = pidfd_open(pid(daemon)?, PidfdFlags::empty())?;
                let socket = pidfd_getfd(&pidfd, fd, PidfdGetfdFlags::empty())?;
                return Ok(Self(socket));
            }
        }
        bail!("the daemon has no line to QEMU: {inodes:?}")
    }

    fn say(&self, command: &str) -> Result<()> {
        let line = format!("{{\"execute\":\"{command}\"}}\n");
        ensure!(rustix::io::write(&self.0, line.as_bytes())? == line.len());
        Ok(())
    }
}

fn pid(of: u32) -> Result<Pid> {
    Pid::from_raw(i32::try_from(of)?).context("pid 0")
}

/// Whether people are told that the machine stands still.
fn told_paused(machine: &Machine) -> Result<bool> {
    let status = machine.status()?;
    ensure!(status["state"]["kind"] == "running", "{status}");
    Ok(status.to_string().contains("the hypervisor stopped the machine's processors (paused)"))
}

fn wait_for_paused(machine: &Machine, wanted: bool) -> Result<()> {
    let until = Instant::now() + LIMIT;
    while told_paused(machine)? != wanted {
        ensure!(Instant::now() < until, "{}", machine.status()?);
    }
    Ok(())
}

fn a_machine_that_stands_still_says_so_and_goes_on(machine: &Machine) -> Result<()> {
    let mut talk = Talk::start(machine)?;
    let qmp = Qmp::of(machine)?;
    qmp.say("stop")?;
    wait_for_paused(machine, true)?;
    let waiting = machine.docker().spawn(["exec", "talk", "echo", "served"])?;
    // The machine's clock stands still with it, and is to be wrong enough to be seen.
    std::thread::sleep(ASLEEP);
    ensure!(told_paused(machine)?);
    qmp.say("cont")?;
    wait_for_paused(machine, false)?;
    let served = waiting.wait_with_output()?;
    ensure!(served.status.success(), "a client that came meanwhile: {served:?}");
    talk.goes_on(machine)?;
    talk.end(machine)
}

/// Nobody of the machine's runs, neither the daemon nor QEMU, as when the computer sleeps.
fn a_computer_that_sleeps_wakes_to_what_it_had(machine: &Machine) -> Result<()> {
    let mut talk = Talk::start(machine)?;
    let all = [machine.processes("caisson-host")?, machine.processes("qemu-system-x86_64")?].concat();
    ensure!(all.len() == 2, "{all:?}");
    let signal = |signal| all.iter().try_for_each(|one| anyhow::Ok(kill_process(pid(*one)?, signal)?));
    signal(Signal::STOP)?;
    std::thread::sleep(ASLEEP);
    signal(Signal::CONT)?;
    ensure!(state(machine)? == "running");
    talk.goes_on(machine)?;
    ensure!(machine.processes("qemu-system-x86_64")? == all[1..], "it was booted anew");
    talk.end(machine)
}
