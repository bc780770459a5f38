//! Images of 200 MB, a small Debian thrice over: how fast they come, go and are removed, and what the engine's
//! processes hold in memory meanwhile; that also with an image of a third of the size, to see whether memory grows with it. With
//! `CAISSON_BENCH_SMALL=1` the Debian is there once, and each row is one round of that size alone: for a busy machine, where the
//! whole takes more than an hour.
//!
//! Each engine has registries of its own on its loopback. What must be so before (the image gone, the registry empty) is not
//! timed. Memory is the kernel's own high-water mark of the resident set, reset before each round.

use std::cell::RefCell;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use caisson_tests::engine::{Engine, Kind};
use caisson_tests::fixtures;
use caisson_tests::registry::{Access, Registry};
use caisson_tests::registry_data::{self, Layer};
use caisson_tests::subject::Subject;
use tempfile::TempDir;

use crate::measure::{Pair, median, print};

/// The size of a Debian.
const DEBIAN_MB: usize = 77;

/// How much is measured.
struct Scale {
    rounds: usize,
    warm_up: usize,
    /// How many Debians make an image.
    copies: usize,
    /// The same of the image whose peak memory is shown for comparison.
    compared_copies: Option<usize>,
}

impl Scale {
    fn wanted() -> Self {
        match std::env::var_os("CAISSON_BENCH_SMALL") {
            Some(_) => Self { rounds: 1, warm_up: 0, copies: 1, compared_copies: None },
            None => Self { rounds: 3, warm_up: 1, copies: 3, compared_copies: Some(1) },
        }
    }
}

/// An engine with what its rows need.
struct Rig<'a> {
    engine: &'a Engine,
    /// Has the images that are pulled, all of one size.
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

/// Both engines with images of one size.
struct Rigs<'a> {
    both: [Rig<'a>; 2],
    megabytes: usize,
}

/// What was measured of a task: our engine's figures, then the other's.
#[derive(Default)]
struct Measured {
    times: [Vec<Duration>; 2],
    peaks_mib: [f64; 2],
}

/// Prints this part's rows.
pub(crate) fn run(engines: &Pair) -> Result<()> {
    let Scale { rounds, warm_up, copies, compared_copies } = Scale::wanted();
    let home = tempfile::Builder::new().prefix("bench-").tempdir_in(fixtures::scratch()?)?;
    let rigs = Rigs::of(engines, &home, copies)?;
    let compared = compared_copies.map(|copies| Rigs::of(engines, &home, copies)).transpose()?;
    println!("\nimages of {} MB: median of {rounds}, ms, and peak memory, MiB", rigs.megabytes);
    for task in TASKS {
        let measured = rigs.measure(task, warm_up, rounds)?;
        let [ours, theirs] = measured.times.clone();
        print(task.name, median(ours), median(theirs));
        rigs.print_peaks(&measured);
        if let Some(compared) = &compared {
            compared.print_peaks(&compared.measure(task, 0, 1)?);
        }
    }
    engines.both().into_iter().try_for_each(no_image_on)
}

impl<'a> Rigs<'a> {
    fn of(engines: &'a Pair, home: &TempDir, copies: usize) -> Result<Self> {
        let megabytes = DEBIAN_MB * copies;
        let home = home.path().join(megabytes.to_string());
        let data = home.join("registry");
        fill_registry(&data, copies)?;
        let [ours, theirs] = engines.both().map(|engine| rig(engine, &home, &data));
        Ok(Self { both: [ours?, theirs?], megabytes })
    }

    fn measure(&self, task: &Task, warm_up: usize, rounds: usize) -> Result<Measured> {
        let mut measured = Measured::default();
        for round in 0..warm_up + rounds {
            for (at, rig) in self.both.iter().enumerate() {
                (task.before)(rig)?;
                forget_peak(rig.engine)?;
                let begin = Instant::now();
                (task.work)(rig).with_context(|| format!("{} on {}", task.name, rig.engine.name()))?;
                if round >= warm_up {
                    measured.times[at].push(begin.elapsed());
                    measured.peaks_mib[at] = measured.peaks_mib[at].max(peak_mib(rig.engine)?);
                }
            }
        }
        Ok(measured)
    }

    fn print_peaks(&self, Measured { peaks_mib: [ours, theirs], .. }: &Measured) {
        print(&format!("    its peak memory, with {} MB", self.megabytes), *ours, *theirs);
    }
}

fn rig<'a>(engine: &'a Engine, home: &Path, data: &Path) -> Result<Rig<'a>> {
    let full = Registry::start_with(engine, data)?;
    let archive = home.join(format!("{}.tar", engine.name()));
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
    no_image_on(on.engine)
}

fn no_image_on(engine: &Engine) -> Result<()> {
    let docker = engine.docker();
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
