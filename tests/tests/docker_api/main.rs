//! The Docker API, natively: every case on Caisson and on a real dockerd, and the same answers from both.
//!
//! `cargo test -p caisson-tests --test docker_api -- caisson::` runs ours alone.

mod recovery;
mod same;

use std::process::ExitCode;
use std::sync::{Arc, Mutex};

use anyhow::{Result, anyhow};
use caisson_tests::cases;
use caisson_tests::engine::{Engine, Kind};
use caisson_tests::subject::Subject;
use libtest_mimic::{Arguments, Trial};

fn main() -> ExitCode {
    let args = Arguments::from_args();
    let ours = Shared::new(Kind::Caisson);
    let theirs = Shared::new(Kind::Dockerd);
    let mut trials = Vec::new();
    let both = cases::all().into_iter().flat_map(|case| [(&ours, case), (&theirs, case)]);
    for (engine, (group, case)) in both.chain(cases::ours().into_iter().map(|case| (&ours, case))) {
        let engine = engine.clone();
        let name = format!("{}::{group}::{}", engine.kind.name(), case.name);
        trials.push(Trial::test(name, move || Ok((case.run)(engine.get()?.as_ref())?)));
    }
    for probe in same::PROBES {
        let (ours, theirs) = (ours.clone(), theirs.clone());
        let compare = move || Ok(same::compare(probe, ours.get()?.as_ref(), theirs.get()?.as_ref())?);
        trials.push(Trial::test(format!("same::{}", probe.name), compare));
    }
    for case in recovery::CASES {
        let alone = move || Ok((case.run)(start(Kind::Caisson)?.as_ref())?);
        trials.push(Trial::test(format!("caisson::recovery::{}", case.name), alone));
    }
    libtest_mimic::run(&args, trials).exit_code()
}

/// An engine that starts when the first case needs it, and ends with the last.
#[derive(Clone)]
struct Shared {
    kind: Kind,
    engine: Arc<Mutex<Option<Arc<Engine>>>>,
}

impl Shared {
    fn new(kind: Kind) -> Self {
        Self { kind, engine: Arc::default() }
    }

    fn get(&self) -> Result<Arc<Engine>> {
        let mut engine = self.engine.lock().map_err(|_| anyhow!("the engine could not be started"))?;
        match &*engine {
            Some(engine) => Ok(engine.clone()),
            None => Ok(engine.insert(start(self.kind)?).clone()),
        }
    }
}

fn start(kind: Kind) -> Result<Arc<Engine>> {
    let engine = Engine::start(kind)?;
    engine.docker().load_images()?;
    // The container that some of `same`'s calls ask for.
    engine.docker().ok(["create", "--name", "probe", "busybox"])?;
    Ok(Arc::new(engine))
}
