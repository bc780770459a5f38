//! The Docker API, natively: every case on Caisson and on a real dockerd, and the same answers from both.
//!
//! `cargo test -p caisson-tests --test docker_api -- caisson::` runs ours alone.

mod recovery;
mod same;

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Result;
use caisson_tests::engine::{Engine, Kind};
use caisson_tests::subject::Subject;
use libtest_mimic::{Arguments, Failed, Trial};

fn main() -> Result<ExitCode> {
    let args = Arguments::from_args();
    let engines = match args.list {
        true => None,
        false => Some((start(Kind::Caisson)?, start(Kind::Dockerd)?)),
    };
    let mut trials = Vec::new();
    for kind in [Kind::Caisson, Kind::Dockerd] {
        for (group, case) in caisson_tests::cases::all() {
            let engine = engines
                .as_ref()
                .map(|(ours, theirs)| if kind == Kind::Caisson { ours } else { theirs }.clone());
            let name = format!("{}::{group}::{}", kind.name(), case.name);
            trials.push(Trial::test(name, move || run(engine.as_deref(), |engine| (case.run)(engine))));
        }
    }
    for probe in same::PROBES {
        let engines = engines.clone();
        trials.push(Trial::test(format!("same::{}", probe.name), move || match &engines {
            Some((ours, theirs)) => Ok(same::compare(probe, ours.as_ref(), theirs.as_ref())?),
            None => Ok(()),
        }));
    }
    for case in recovery::CASES {
        trials.push(Trial::test(format!("caisson::recovery::{}", case.name), move || {
            let engine = Engine::start(Kind::Caisson)?;
            engine.docker().load_images()?;
            Ok((case.run)(&engine)?)
        }));
    }
    let conclusion = libtest_mimic::run(&args, trials);
    drop(engines);
    Ok(conclusion.exit_code())
}

fn start(kind: Kind) -> Result<Arc<Engine>> {
    let engine = Engine::start(kind)?;
    engine.docker().load_images()?;
    Ok(Arc::new(engine))
}

fn run(engine: Option<&Engine>, case: impl FnOnce(&Engine) -> Result<()>) -> Result<(), Failed> {
    Ok(engine.map_or(Ok(()), case)?)
}
