//! Times both engines natively, in one run, and prints each figure of ours beside dockerd's: scripts/bench.
//!
//! Medians of `ROUNDS` after a warm-up, the engines in turn, so that a busy machine slows both alike. Nothing here
//! passes or fails.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use caisson_tests::engine::{Engine, Kind};
use caisson_tests::subject::Subject;
use serde_json::{Value, json};

const ROUNDS: usize = 30;
const WARM_UP: usize = 3;

type Work = fn(&Engine) -> Result<()>;

const WORK: &[(&str, Work)] = &[
    ("docker version (the CLI's floor)", |on| on.docker().ok(["version"]).map(drop)),
    ("docker run --rm busybox true", |on| on.docker().ok(["run", "--rm", "busybox", "true"]).map(drop)),
    ("the same with --network none", |on| {
        on.docker().ok(["run", "--rm", "--network", "none", "busybox", "true"]).map(drop)
    }),
    ("create, start, wait, remove by API", |on| run_by_api(on, "bridge")),
    ("the same with NetworkMode none", |on| run_by_api(on, "none")),
    ("list containers by API", |on| on.api().get("/containers/json?all=1").map(drop)),
];

fn main() -> Result<()> {
    let ours = start(Kind::Caisson)?;
    let theirs = start(Kind::Dockerd)?;
    println!("{:<40} {:>10} {:>10} {:>7}", "median of 30, ms", "caisson", "dockerd", "ratio");
    for (name, work) in WORK {
        let (ours, theirs) = measure(*work, &ours, &theirs)?;
        println!("{name:<40} {ours:>10.1} {theirs:>10.1} {:>7.2}", ours / theirs);
    }
    let memory = (resident_mib(&ours)?, resident_mib(&theirs)?);
    println!(
        "{:<40} {:>10.1} {:>10.1} {:>7.2}",
        "engine's resident memory, MiB",
        memory.0,
        memory.1,
        memory.0 / memory.1
    );
    Ok(())
}

fn start(kind: Kind) -> Result<Engine> {
    let engine = Engine::start(kind)?;
    engine.docker().load_images()?;
    Ok(engine)
}

fn run_by_api(on: &Engine, network: &str) -> Result<()> {
    let api = on.api();
    let config = json!({"Image": "busybox", "Cmd": ["true"], "HostConfig": {"NetworkMode": network}});
    let created = api.post("/containers/create", &config)?;
    let id =
        created.json()?["Id"].as_str().with_context(|| format!("create: {}", created.status))?.to_owned();
    api.post(&format!("/containers/{id}/start"), &Value::Null)?;
    let waited = api.post(&format!("/containers/{id}/wait"), &Value::Null)?.json()?;
    ensure!(waited["StatusCode"] == 0, "{waited}");
    ensure!(api.delete(&format!("/containers/{id}"))?.status == 204);
    Ok(())
}

/// The medians of both, in milliseconds.
fn measure(work: Work, ours: &Engine, theirs: &Engine) -> Result<(f64, f64)> {
    let mut times = (Vec::new(), Vec::new());
    for round in 0..WARM_UP + ROUNDS {
        let pair = (time(work, ours)?, time(work, theirs)?);
        if round >= WARM_UP {
            times.0.push(pair.0);
            times.1.push(pair.1);
        }
    }
    Ok((median(times.0), median(times.1)))
}

fn time(work: Work, on: &Engine) -> Result<Duration> {
    let begin = Instant::now();
    work(on)?;
    Ok(begin.elapsed())
}

fn median(mut times: Vec<Duration>) -> f64 {
    times.sort();
    times[times.len() / 2].as_secs_f64() * 1000.0
}

/// What the engine and the daemons that it started for itself hold, without the containers' shims.
fn resident_mib(engine: &Engine) -> Result<f64> {
    let script = match engine.kind {
        Kind::Caisson => "cat /proc/$(pgrep -ox caisson-engine)/smaps_rollup",
        Kind::Dockerd => {
            "for p in $(pgrep -x dockerd) $(pgrep -x containerd); do cat /proc/$p/smaps_rollup; done"
        }
    };
    let rollup = engine.namespaces().shell(script)?;
    let kib = rollup
        .lines()
        .filter_map(|line| line.strip_prefix("Rss:")?.trim().strip_suffix(" kB")?.parse::<f64>().ok());
    Ok(kib.sum::<f64>() / 1024.0)
}
