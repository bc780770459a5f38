//! The Docker API, natively: every case on Caisson and on a real dockerd, and the same answers from both.
//!
//! `cargo test -p caisson-tests --test docker_api -- caisson::` runs ours alone.

mod between;
mod configured;
mod recovery;
mod same;
mod users;

use std::process::ExitCode;
use std::sync::{Arc, Mutex};

use anyhow::{Result, anyhow};
use caisson_tests::bounded::trial;
use caisson_tests::cases;
use caisson_tests::engine::{Engine, Kind, Setting};
use caisson_tests::subject::Subject;
use libtest_mimic::Arguments;

fn main() -> ExitCode {
    let args = Arguments::from_args();
    let ours = Shared::new(Kind::Caisson, Setting::default());
    let theirs = Shared::new(Kind::Dockerd, Setting::default());
    let mut trials = Vec::new();
    let both =
        cases::all().into_iter().chain(cases::native()).flat_map(|case| [(&ours, case), (&theirs, case)]);
    for (engine, (group, case)) in
        both.chain(cases::ours().into_iter().chain(cases::ours_native()).map(|case| (&ours, case)))
    {
        let engine = engine.clone();
        let name = format!("{}::{group}::{}", engine.kind.name(), case.name);
        trials.push(trial(name, move || (case.run)(engine.get()?.as_ref())));
    }
    let remapped = [Kind::Caisson, Kind::Dockerd].map(|kind| Shared::new(kind, users::SETTING));
    let both = users::BOTH.iter().flat_map(|case| remapped.iter().map(move |engine| (engine, case)));
    for (engine, case) in both.chain(users::OURS.iter().map(|case| (&remapped[0], case))) {
        let engine = engine.clone();
        let name = format!("{}::users::{}", engine.kind.name(), case.name);
        trials.push(trial(name, move || (case.run)(engine.get()?.as_ref())));
    }
    for probe in same::probes() {
        let (ours, theirs) = (ours.clone(), theirs.clone());
        let compare = move || same::compare(probe, ours.get()?.as_ref(), theirs.get()?.as_ref());
        trials.push(trial(format!("same::{}", probe.name), compare));
    }
    for case in between::CASES {
        for (from, to) in [(&ours, &theirs), (&theirs, &ours)] {
            let name = format!("between::{}_from_{}", case.name, from.kind.name());
            let (from, to) = (from.clone(), to.clone());
            trials.push(trial(name, move || (case.run)(from.get()?.as_ref(), to.get()?.as_ref())));
        }
    }
    for case in configured::CASES {
        for &kind in case.kinds {
            let name = format!("{}::configured::{}", kind.name(), case.name);
            trials.push(trial(name, move || (case.run)(kind)));
        }
    }
    for case in recovery::CASES {
        let alone = move || (case.run)(start(Kind::Caisson, Setting::default())?.as_ref());
        trials.push(trial(format!("caisson::recovery::{}", case.name), alone));
    }
    libtest_mimic::run(&args, trials).exit_code()
}

/// An engine that starts when the first case needs it, and ends with the last.
#[derive(Clone)]
struct Shared {
    kind: Kind,
    setting: Setting,
    engine: Arc<Mutex<Option<Arc<Engine>>>>,
}

impl Shared {
    fn new(kind: Kind, setting: Setting) -> Self {
        Self { kind, setting, engine: Arc::default() }
    }

    fn get(&self) -> Result<Arc<Engine>> {
        let mut engine = self.engine.lock().map_err(|_| anyhow!("the engine could not be started"))?;
        match &*engine {
            Some(engine) => Ok(engine.clone()),
            None => {
                let started = engine.insert(start(self.kind, self.setting)?);
                let run = ["run", "-d", "--name", "running-probe", "busybox", "sleep", "100000"];
                started.docker().ok(run)?;
                Ok(started.clone())
            }
        }
    }
}

fn start(kind: Kind, setting: Setting) -> Result<Arc<Engine>> {
    let engine = Engine::start_with(kind, setting)?;
    engine.docker().load_images()?;
    // The containers that some of `same`'s calls ask for.
    engine.docker().ok(["create", "--name", "probe", "busybox"])?;
    Ok(Arc::new(engine))
}
