//! Measures what goes in and out of the machine, beside a bare machine of the same kernel with a network card behind which is
//! QEMU's own user networking (slirp) or passt: scripts/bench machine.
//!
//! Medians of a few rounds, one machine after the other, each alone. Nothing here passes or fails.

mod guests;
mod traffic;

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use caisson_tests::machine::Machine;
use caisson_tests::subject::Subject;

use guests::{Bare, Caisson, Card, Guest, fixture, kernel};
use traffic::Way;

/// What is carried for one figure of throughput.
const BYTES: u64 = 64 << 20;
const ROUNDS: u32 = 3;
/// Connections for one figure of latency, one after the other.
const CONNECTIONS: u32 = 60;
/// Connections for their number per second, and how many threads ask for them.
const BURST: u32 = 400;
const AT_ONCE: u32 = 16;
/// Forwards that nobody uses, and how long they are watched.
const IDLE: u16 = 1000;
const WATCHED: Duration = Duration::from_secs(10);

/// What the kernel counts processor time in: `USER_HZ` is 100 on all of Linux.
const TICK: Duration = Duration::from_millis(10);

const ROWS: [&str; 7] = [
    "host to published port, MiB/s",
    "published port to host, MiB/s",
    "container to outside, MiB/s",
    "outside to container, MiB/s",
    "host to published port, connection, ms",
    "container to outside, connection, ms",
    "host to published port, connections/s",
];

fn main() -> Result<()> {
    let machine = Machine::new()?;
    let made = tempfile::tempdir()?;
    fixture(&machine, made.path())?;
    let port = traffic::serve()?;
    let mut columns = Vec::new();
    for card in [Card::Slirp, Card::Passt] {
        let bare = Bare::start(card, &kernel(&machine), made.path())?;
        columns.push((bare.name(), figures(&bare, port)?));
    }
    let caisson = Caisson::start(&machine, made.path())?;
    columns.insert(0, (caisson.name(), figures(&caisson, port)?));
    print!("{:<42}", "");
    columns.iter().for_each(|(name, _)| print!("{name:>10}"));
    println!();
    for (row, name) in ROWS.iter().enumerate() {
        print!("{name:<42}");
        columns.iter().for_each(|(_, figures)| print!("{:>10.1}", figures[row]));
        println!();
    }
    idle_forwards(&machine)
}

/// A machine's column.
fn figures(guest: &impl Guest, port: u16) -> Result<Vec<f64>> {
    println!("measuring {}", guest.name());
    let server = guest.server();
    let from_host = |way| -> Result<f64> {
        let times = (0..ROUNDS).map(|_| traffic::ask(server, way, BYTES)).collect::<Result<Vec<_>>>()?;
        Ok(mib_per_second(median(times)))
    };
    let from_inside =
        |way| Ok::<_, anyhow::Error>(mib_per_second(median(guest.ask(port, way, BYTES, ROUNDS)?)));
    let latency = (0..CONNECTIONS).map(|_| traffic::ask(server, Way::Put, 0)).collect::<Result<Vec<_>>>()?;
    Ok(vec![
        from_host(Way::Put)?,
        from_host(Way::Get)?,
        from_inside(Way::Put)?,
        from_inside(Way::Get)?,
        millis(median(latency)),
        millis(median(guest.ask(port, Way::Put, 0, CONNECTIONS)?)),
        burst(guest)?,
    ])
}

fn burst(guest: &impl Guest) -> Result<f64> {
    let (server, begin) = (guest.server(), Instant::now());
    let ask = || (0..BURST / AT_ONCE).try_for_each(|_| traffic::ask(server, Way::Put, 0).map(drop));
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..AT_ONCE).map(|_| scope.spawn(ask)).collect();
        threads.into_iter().try_for_each(|thread| thread.join().expect("it does not panic"))
    })?;
    Ok(f64::from(BURST) / begin.elapsed().as_secs_f64())
}

fn mib_per_second(took: Duration) -> f64 {
    BYTES as f64 / f64::from(1 << 20) / took.as_secs_f64()
}

fn millis(took: Duration) -> f64 {
    took.as_secs_f64() * 1000.0
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

/// Prints what forwards cost that nobody uses.
fn idle_forwards(machine: &Machine) -> Result<()> {
    let before = costs(machine)?;
    let last = 20_000 + IDLE - 1;
    let publish = format!("127.0.0.1:20000-{last}:20000-{last}");
    machine
        .docker()
        .ok(["run", "-d", "--name", "idle", "-p", &publish, "traffic", "/traffic", "serve", "9"])?;
    println!("{IDLE} idle forwards, processor time in {WATCHED:?} and memory:");
    for (Process { what, .. }, (before, after)) in PROCESSES.iter().zip(before.iter().zip(&costs(machine)?)) {
        println!("  {what}: {:?} -> {:?}, {} -> {} KiB", before.used, after.used, before.kib, after.kib);
    }
    machine.docker().ok(["rm", "-f", "idle"])?;
    Ok(())
}

/// A process that forwards may cost something.
struct Process {
    what: &'static str,
    program: &'static str,
}

/// The agent and the engine live in the machine, so QEMU's processor time is theirs too.
const PROCESSES: [Process; 2] = [
    Process { what: "the daemon", program: "caisson-host" },
    Process { what: "QEMU with the machine in it", program: "qemu-system-x86_64" },
];

/// A process's processor time while it is watched, and the memory that it holds then.
struct Cost {
    used: Duration,
    kib: u64,
}

/// What each of the processes costs, all watched at once.
fn costs(machine: &Machine) -> Result<Vec<Cost>> {
    let pids = PROCESSES.iter().map(|process| {
        let found = machine.processes(process.program)?;
        found.first().copied().with_context(|| format!("no {}", process.program))
    });
    let pids = pids.collect::<Result<Vec<_>>>()?;
    let before = pids.iter().map(|pid| ticks(*pid)).collect::<Result<Vec<_>>>()?;
    std::thread::sleep(WATCHED);
    let cost = |(pid, before): (&u32, u64)| {
        Ok(Cost { used: TICK * u32::try_from(ticks(*pid)? - before)?, kib: memory(*pid)? })
    };
    pids.iter().zip(before).map(cost).collect()
}

fn ticks(pid: u32) -> Result<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // Behind the name, which may hold anything: user and system time (proc(5)) are the twelfth and thirteenth field.
    let fields: Vec<&str> = stat.rsplit(')').next().context("no name")?.split_whitespace().collect();
    ensure!(fields.len() > 12, "{stat}");
    Ok(fields[11].parse::<u64>()? + fields[12].parse::<u64>()?)
}

fn memory(pid: u32) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}
