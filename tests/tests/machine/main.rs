//! The machine as a user has it, under QEMU: the same cases as natively through the host's socket, and its own life.
//!
//! One boot serves all cases; those of [`limits`], [`stats`], [`systemd`], [`volumes`], [`networks`], [`registry`], [`egress`], [`flows`],
//! [`host`], [`sleep`], [`life`] and [`inside`] come after, in order, because each leaves the machine running.

/// The cases of a module, each named after its function.
macro_rules! machine_cases {
    ($($name:ident),+ $(,)?) => {
        pub(crate) const CASES: &[crate::Case] = &[$(crate::Case { name: stringify!($name), run: $name }),+];
    };
}

mod egress;
mod flows;
mod host;
mod inside;
mod life;
mod limits;
mod networks;
mod registry;
mod sleep;
mod stats;
mod systemd;
mod volumes;

use std::process::ExitCode;
use std::sync::{Arc, Mutex};

use anyhow::{Context, Result, anyhow};
use caisson_tests::bounded::trial;
use caisson_tests::cases;
use caisson_tests::machine::{Machine, kill};
use caisson_tests::subject::Subject;
use libtest_mimic::Arguments;

/// A case of the machine's life. It leaves the machine running.
struct Case {
    name: &'static str,
    run: fn(&Machine) -> Result<()>,
}

fn main() -> ExitCode {
    // Emulated processors are slow enough without cases side by side, and `life` ends the machine of the others.
    let args = Arguments { test_threads: Some(1), ..Arguments::from_args() };
    let machine = Arc::new(Mutex::new(None));
    let mut trials = Vec::new();
    for (group, case) in cases::all().into_iter().chain(cases::ours()) {
        let machine = Arc::clone(&machine);
        let name = format!("machine::{group}::{}", case.name);
        trials.push(trial(name, move || on(&machine, |machine| (case.run)(machine))));
    }
    for (group, cases) in [
        ("limits", limits::CASES),
        ("stats", stats::CASES),
        ("systemd", systemd::CASES),
        ("volumes", volumes::CASES),
        ("networks", networks::CASES),
        ("registry", registry::CASES),
        ("egress", egress::CASES),
        ("flows", flows::CASES),
        ("host", host::CASES),
        ("sleep", sleep::CASES),
        ("life", life::CASES),
        ("inside", inside::CASES),
    ] {
        for case in cases {
            let machine = Arc::clone(&machine);
            let name = format!("machine::{group}::{}", case.name);
            trials.push(trial(name, move || on(&machine, case.run)));
        }
    }
    let conclusion = libtest_mimic::run(&args, trials);
    // A case that hung still has it, so that letting go of it would not end it.
    if let Ok(Some(machine)) = machine.lock().as_deref() {
        machine.end();
    }
    conclusion.exit_code()
}

/// Runs a case. What one that failed leaves running would slow down, or mislead, all that come after it.
fn on(machine: &Mutex<Option<Arc<Machine>>>, run: impl FnOnce(&Machine) -> Result<()>) -> Result<()> {
    let machine = get(machine)?;
    run(&machine).inspect_err(|_| {
        if let Err(error) = clear(&machine) {
            eprintln!("after a failed case its containers are left: {error:#}");
        }
    })
}

fn clear(machine: &Machine) -> Result<()> {
    let docker = machine.docker();
    let left = docker.ok(["ps", "-aq"])?;
    left.lines().try_for_each(|id| docker.ok(["rm", "-fv", id]).map(drop))
}

/// The machine of all cases, booted when the first one needs it.
fn get(machine: &Mutex<Option<Arc<Machine>>>) -> Result<Arc<Machine>> {
    let mut machine = machine.lock().map_err(|_| anyhow!("the machine could not be started"))?;
    if let Some(machine) = &*machine {
        return Ok(machine.clone());
    }
    let booted = Machine::new()?;
    println!("{}", booted.ok(&["start"])?);
    booted.docker().load_images()?;
    Ok(machine.insert(Arc::new(booted)).clone())
}

/// The state's name in `caisson status --json`.
fn state(machine: &Machine) -> Result<String> {
    let status = machine.status()?;
    Ok(status["state"]["kind"].as_str().with_context(|| status.to_string())?.to_owned())
}
