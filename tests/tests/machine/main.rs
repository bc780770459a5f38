//! The machine as a user has it, under QEMU: the same cases as natively through the host's socket, and its own life.
//!
//! One boot serves all cases; those of [`life`] come after, in order, because each leaves the machine running.

mod life;

use std::process::ExitCode;
use std::sync::{Arc, Mutex};

use anyhow::{Result, anyhow};
use caisson_tests::cases;
use caisson_tests::machine::Machine;
use caisson_tests::subject::Subject;
use libtest_mimic::{Arguments, Trial};

fn main() -> ExitCode {
    // Emulated processors are slow enough without cases side by side, and `life` ends the machine of the others.
    let args = Arguments { test_threads: Some(1), ..Arguments::from_args() };
    let machine = Arc::new(Mutex::new(None));
    let mut trials = Vec::new();
    for (group, case) in cases::all().into_iter().chain(cases::ours()) {
        let machine = Arc::clone(&machine);
        let name = format!("machine::{group}::{}", case.name);
        trials.push(Trial::test(name, move || Ok((case.run)(get(&machine)?.as_ref())?)));
    }
    for case in life::CASES {
        let machine = Arc::clone(&machine);
        let name = format!("machine::life::{}", case.name);
        trials.push(Trial::test(name, move || Ok((case.run)(get(&machine)?.as_ref())?)));
    }
    let conclusion = libtest_mimic::run(&args, trials);
    drop(machine);
    conclusion.exit_code()
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
