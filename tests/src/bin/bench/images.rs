//! Images of 200 MB, a small Debian thrice over: how fast they come, go and are removed, and what the engine's
//! processes hold in memory meanwhile. With `CAISSON_BENCH_SMALL=1` the Debian is there once, and each row is one round: for a busy
//! machine, where the whole takes more than an hour.
//!
//! Each engine has a registry of its own on its loopback. What must be so before (the image gone, the registry empty) is not
//! timed. Memory is the kernel's own high-water mark of the resident set, reset before each round.

use std::cell::RefCell;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use caisson_tests::engine::{Engine, Kind};
use caisson_tests::fixtures;
use caisson_tests::registry::{Access, Registry};
use caisson_tests::registry_data::{self, Layer};
use caisson_tests::subject::Subject;
use tempfile::TempDir;

use crate::measure::{Pair, median, print};

/// How much is measured.
struct Scale {
    rounds: usize,
    warm_up: usize,
    /// How many Debians of 77 MB make a layer.
    copies: usize,
}

impl Scale {
    fn wanted() -> Self {
        match std::env::var_os("CAISSON_BENCH_SMALL") {
            Some(_) => Self { rounds: 1, warm_up: 0, copies: 1 },
            None => Self { rounds: 3, warm_up: 1, copies: 3 },
        }
    }
}

/// An engine with what its rows need.
struct Rig<'a> {
    engine: &'a Engine,
    /// Has the images that are pulled.
    full: Registry,
    /// Where the present round pushes to.
    empty: RefCell<Option<Registry>>,
    /// What the engine saved.
    archive: PathBuf,
}

type Step = fn(&Rig<'_>) -> Result<()>;

struct Task {
    name: &'static str,
    before: Step,
    work: Step,
}

const TASKS: &[Task] = &[
    Task { name: "pull, gzip", before: no_image, work: |rig| pull(rig, "debian:gzip") },
    Task { name: "pull, zstd", before: no_image, work: |rig| pull(rig, "debian:zstd") },
    Task { name: "pull, gzip, 8 layers", before: no_image, work: |rig| pull(rig, "debian:layers") },
    Task { name: "push of what was pulled", before: pulled_and_an_empty_registry, work: push },
    Task { name: "save", before: has_image, work: save },
    Task { name: "load", before: saved_and_no_image, work: load },
    Task { name: "push of what was loaded", before: loaded_and_an_empty_registry, work: push },
    Task { name: "rmi", before: has_image, work: remove },
];

/// Prints this part's rows.
pub(crate) fn run(engines: &Pair) -> Result<()> {
    let Scale { rounds, warm_up, copies } = Scale::wanted();
    let home = tempfile::Builder::new().prefix("bench-").tempdir_in(fixtures::scratch()?)?;
    let data = home.path().join("registry");
    fill_registry(&data, copies)?;
    let [ours, theirs] = engines.both().map(|engine| rig(engine, &home, &data));
    let (ours, theirs) = (ours?, theirs?);
    println!("\nimages of {} MB: median of {rounds}, ms, and peak memory, MiB", 77 * copies);
    for task in TASKS {
        let (mut times, mut peaks) = ([Vec::new(), Vec::new()], [0.0_f64; 2]);
        for round in 0..warm_up + rounds {
            for (at, rig) in [&ours, &theirs].into_iter().enumerate() {
                (task.before)(rig)?;
                forget_peak(rig.engine)?;
                let begin = Instant::now();
                (task.work)(rig).with_context(|| format!("{} on {}", task.name, rig.engine.name()))?;
                if round >= warm_up {
                    times[at].push(begin.elapsed());
                    peaks[at] = peaks[at].max(peak_mib(rig.engine)?);
                }
            }
        }
        print(task.name, median(times[0].clone()), median(times[1].clone()));
        print("    its peak memory", peaks[0], peaks[1]);
    }
    no_image(&ours)?;
    no_image(&theirs)
}

fn rig<'a>(engine: &'a Engine, home: &TempDir, data: &Path) -> Result<Rig<'a>> {
    let full = Registry::start_with(engine, data)?;
    let archive = home.path().join(format!("{}.tar", engine.name()));
    Ok(Rig { engine, full, empty: RefCell::default(), archive })
}

/// Puts the images into what is a registry's folder.
fn fill_registry(data: &Path, copies: usize) -> Result<()> {
    let tar = registry_data::repeat(&fs::read(fixtures::debian()?)?, copies)?;
    registry_data::put(data, "debian", "gzip", &[Layer::gzip(&tar)?])?;
    registry_data::put(data, "debian", "zstd", &[Layer::zstd(&tar)?])?;
    let parts = registry_data::split(&tar, 8)?;
    let layers = parts.iter().map(|part| Layer::gzip(part)).collect::<Result<Vec<_>>>()?;
    registry_data::put(data, "debian", "layers", &layers)
}

fn no_image(on: &Rig<'_>) -> Result<()> {
    let docker = on.engine.docker();
    let all = docker.ok(["image", "ls", "-q", "--filter", "reference=*/*debian*", "--no-trunc"])?;
    for id in all.lines() {
        // One that has several names is listed for each of them.
        docker.run(["rmi", "-f", id])?;
    }
    let left = docker.ok(["image", "ls", "-q", "--filter", "reference=*/*debian*"])?;
    ensure!(left.is_empty(), "images are left: {left}");
    Ok(())
}

fn has_image(on: &Rig<'_>) -> Result<()> {
    pull(on, "debian:gzip")
}

fn pulled_and_an_empty_registry(on: &Rig<'_>) -> Result<()> {
    no_image(on)?;
    has_image(on)?;
    an_empty_registry(on)
}

fn an_empty_registry(on: &Rig<'_>) -> Result<()> {
    let empty = Registry::start(on.engine, Access::Open)?;
    let docker = on.engine.docker();
    docker.ok(["tag", &on.full.name("debian:gzip"), &empty.name("debian:gzip")])?;
    on.empty.replace(Some(empty));
    Ok(())
}

fn saved_and_no_image(on: &Rig<'_>) -> Result<()> {
    if !on.archive.exists() {
        has_image(on)?;
        write_archive(on, File::create(&on.archive)?.into())?;
    }
    no_image(on)
}

fn loaded_and_an_empty_registry(on: &Rig<'_>) -> Result<()> {
    saved_and_no_image(on)?;
    load(on)?;
    an_empty_registry(on)
}

fn pull(on: &Rig<'_>, what: &str) -> Result<()> {
    on.engine.docker().ok(["pull", "-q", &on.full.name(what)]).map(drop)
}

fn push(on: &Rig<'_>) -> Result<()> {
    let empty = on.empty.borrow();
    let empty = empty.as_ref().context("a registry was started")?;
    on.engine.docker().ok(["push", "-q", &empty.name("debian:gzip")]).map(drop)
}

fn save(on: &Rig<'_>) -> Result<()> {
    write_archive(on, Stdio::null())
}

fn write_archive(on: &Rig<'_>, to: Stdio) -> Result<()> {
    let mut save = on.engine.docker().command(["save", &on.full.name("debian:gzip")])?;
    ensure!(save.stdin(Stdio::null()).stdout(to).status()?.success(), "docker save failed");
    Ok(())
}

fn load(on: &Rig<'_>) -> Result<()> {
    on.engine.docker().ok(["load", "-qi", on.archive.to_str().context("a path that is no text")?]).map(drop)
}

fn remove(on: &Rig<'_>) -> Result<()> {
    on.engine.docker().ok(["rmi", &on.full.name("debian:gzip")]).map(drop)
}

/// The engine's process, or its processes, as its own namespace numbers them.
fn processes(engine: &Engine) -> &'static str {
    match engine.kind {
        Kind::Caisson => "pgrep -ox caisson-engine",
        Kind::Dockerd => "pgrep -x 'dockerd|containerd'",
    }
}

/// Resets the high-water marks (proc(5), `clear_refs`).
fn forget_peak(engine: &Engine) -> Result<()> {
    let script = format!("for p in $({}); do echo 5 > /proc/$p/clear_refs; done", processes(engine));
    engine.namespaces().shell(&script).map(drop)
}

fn peak_mib(engine: &Engine) -> Result<f64> {
    let script = format!("for p in $({}); do grep VmHWM /proc/$p/status; done", processes(engine));
    let lines = engine.namespaces().shell(&script)?;
    let kib = lines.lines().filter_map(|line| line.split_whitespace().nth(1)?.parse::<f64>().ok());
    Ok(kib.sum::<f64>() / 1024.0)
}
