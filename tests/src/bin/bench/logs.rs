//! Logs: how much of a container's output a driver keeps up with. These figures are the better the higher they are.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use caisson_tests::engine::Engine;
use caisson_tests::subject::Subject;
use serde_json::{Value, json};

use crate::measure::{Pair, median, time};

/// What the container writes, made before: so that its own speed counts for little.
const VOLUME: &str = "bench-lines";
const MEGABYTES: usize = 100;
/// How often each is measured.
const ROUNDS: usize = 3;

/// A driver, a file of lines, and what a row tells of it.
struct Row {
    name: &'static str,
    driver: &'static str,
    lines: &'static str,
    /// Units in all of the file.
    units: f64,
}

const SHORT: f64 = 1_000.0;

const ROWS: &[Row] = &[
    Row {
        name: "json-file, lines of 100 bytes, 1000 a second",
        driver: "json-file",
        lines: "short",
        units: SHORT,
    },
    Row { name: "local, lines of 100 bytes, 1000 a second", driver: "local", lines: "short", units: SHORT },
    Row {
        name: "json-file, lines of 10 kB, MB a second",
        driver: "json-file",
        lines: "long",
        units: MEGABYTES as f64,
    },
    Row {
        name: "local, lines of 10 kB, MB a second",
        driver: "local",
        lines: "long",
        units: MEGABYTES as f64,
    },
];

/// Prints this part's rows.
pub(crate) fn run(engines: &Pair) -> Result<()> {
    for engine in engines.both() {
        make_lines(engine)?;
    }
    for row in ROWS {
        engines.row(row.name, |on| throughput(on, row))?;
    }
    for engine in engines.both() {
        engine.docker().ok(["volume", "rm", VOLUME])?;
    }
    Ok(())
}

fn make_lines(on: &Engine) -> Result<()> {
    let script = format!(
        "x=0123456789; y=$x$x$x$x$x$x$x$x$x; yes ${{y}}012345678 | head -c {MEGABYTES}000000 > /lines/short; \
         long=; for i in $(seq 100); do long=$long$y$x; done; yes ${{long%?}} | head -c {MEGABYTES}000000 > /lines/long"
    );
    let volume = format!("{VOLUME}:/lines");
    on.docker().ok(["run", "--rm", "-v", &volume, "busybox", "sh", "-c", &script])?;
    Ok(())
}

fn throughput(on: &Engine, row: &Row) -> Result<f64> {
    let times = (0..ROUNDS).map(|_| time(|on| write(on, row), on)).collect::<Result<Vec<Duration>>>()?;
    Ok(row.units / (median(times) / 1000.0))
}

/// A container's life, most of which is its output: a container has ended when its log has all of that.
fn write(on: &Engine, row: &Row) -> Result<()> {
    let api = on.api();
    let config = json!({
        "Image": "busybox", "Cmd": ["cat", format!("/lines/{}", row.lines)],
        "HostConfig": {"Binds": [format!("{VOLUME}:/lines")], "NetworkMode": "none", "LogConfig": {"Type": row.driver}},
    });
    let created = api.post("/containers/create", &config)?;
    let id =
        created.json()?["Id"].as_str().with_context(|| format!("create: {}", created.status))?.to_owned();
    api.post(&format!("/containers/{id}/start"), &Value::Null)?;
    let waited = api.post(&format!("/containers/{id}/wait"), &Value::Null)?.json()?;
    ensure!(waited["StatusCode"] == 0, "{waited}");
    ensure!(api.delete(&format!("/containers/{id}"))?.status == 204);
    Ok(())
}
