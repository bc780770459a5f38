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
    let (cpu_before, kib_before) = cost(machine)?;
    let last = 20_000 + IDLE - 1;
    let publish = format!("127.0.0.1:20000-{last}:20000-{last}");
    machine
        .docker()
        .ok(["run", "-d", "--name", "idle", "-p", &publish, "traffic", "/traffic", "serve", "9"])?;
    let (cpu, kib) = cost(machine)?;
    println!(
        "{IDLE} idle forwards: the daemon's memory {kib_before} -> {kib} KiB, its processor time in {WATCHED:?} {cpu_before:?} -> {cpu:?}"
    );
    machine.docker().ok(["rm", "-f", "idle"])?;
    Ok(())
}

/// The daemon's processor time while it is watched, and the memory that it holds then, in KiB.
fn cost(machine: &Machine) -> Result<(Duration, u64)> {
    let daemon = *machine.processes("caisson-host")?.first().context("no daemon")?;
    let ticks = || -> Result<u64> {
        let stat = std::fs::read_to_string(format!("/proc/{daemon}/stat"))?;
        // Behind the name, which may hold anything: user and system time (proc(5)) are the twelfth and thirteenth field.
        let fields: Vec<&str> = stat.rsplit(')').next().context("no name")?.split_whitespace().collect();
        ensure!(fields.len() > 12, "{stat}");
        Ok(fields[11].parse::<u64>()? + fields[12].parse::<u64>()?)
    };
    let before = ticks()?;
    std::thread::sleep(WATCHED);
    let used = TICK * u32::try_from(ticks()? - before)?;
    let status = std::fs::read_to_string(format!("/proc/{daemon}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    Ok((used, line.trim().trim_end_matches(" kB").parse()?))
}
