//! Containers: their starts and execs, and what engines and shims hold in memory.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use caisson_tests::engine::{Engine, Kind};
use caisson_tests::subject::Subject;
use serde_json::{Value, json};

use crate::measure::{Pair, Work, in_turn};

/// A container that runs all the time: processes are added to it, and its shim is weighed.
const AT_WORK: &str = "at-work";

/// Longer than our engine waits until it gives memory back.
const IDLE: Duration = Duration::from_secs(20);

const WORK: &[(&str, Work)] = &[
    ("docker version (the CLI's floor)", |on| on.docker().ok(["version"]).map(drop)),
    ("docker run --rm busybox true", |on| on.docker().ok(["run", "--rm", "busybox", "true"]).map(drop)),
    ("the same with --network none", |on| {
        on.docker().ok(["run", "--rm", "--network", "none", "busybox", "true"]).map(drop)
    }),
    ("create, start, wait, remove by API", |on| run_by_api(on, "bridge")),
    ("the same with NetworkMode none", |on| run_by_api(on, "none")),
    ("exec true by API", exec_by_api),
    ("docker exec true", |on| on.docker().ok(["exec", AT_WORK, "true"]).map(drop)),
    ("list containers by API", |on| on.api().get("/containers/json?all=1").map(drop)),
];

/// Prints this part's rows.
pub(crate) fn run(engines: &Pair) -> Result<()> {
    for engine in engines.both() {
        engine.docker().ok(["run", "-d", "--name", AT_WORK, "busybox", "sleep", "100000"])?;
    }
    for (name, work) in WORK {
        in_turn(engines, name, *work)?;
    }
    // An idle engine is one that nobody has asked for anything for a while.
    std::thread::sleep(IDLE);
    engines.row("engine's resident memory, MiB", resident_mib)?;
    engines.row("a shim's resident memory, MiB", shim_mib)?;
    for engine in engines.both() {
        engine.docker().ok(["rm", "-f", AT_WORK])?;
    }
    Ok(())
}

/// A container's whole life, call by call.
pub(crate) fn run_by_api(on: &Engine, network: &str) -> Result<()> {
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

fn exec_by_api(on: &Engine) -> Result<()> {
    let api = on.api();
    let config = json!({"Cmd": ["true"], "AttachStdout": true});
    let created = api.post(&format!("/containers/{AT_WORK}/exec"), &config)?;
    let id = created.json()?["Id"].as_str().with_context(|| format!("exec: {}", created.status))?.to_owned();
    // Its answer ends when the process does.
    api.post(&format!("/exec/{id}/start"), &json!({"Detach": false, "Tty": false}))?;
    let state = api.get(&format!("/exec/{id}/json"))?.json()?;
    ensure!(state["ExitCode"] == 0, "{state}");
    Ok(())
}

/// What the shim of one container holds: its parent, whichever engine's.
fn shim_mib(engine: &Engine) -> Result<f64> {
    let pid = engine.docker().ok(["inspect", "-f", "{{.State.Pid}}", AT_WORK])?;
    let script = format!("cat /proc/$(awk '{{print $4}}' /proc/{pid}/stat)/smaps_rollup");
    Ok(resident_kib(&engine.namespaces().shell(&script)?) / 1024.0)
}

fn resident_kib(rollups: &str) -> f64 {
    let lines = rollups.lines();
    lines.filter_map(|line| line.strip_prefix("Rss:")?.trim().strip_suffix(" kB")?.parse::<f64>().ok()).sum()
}

/// What the engine and the daemons that it started for itself hold, without the containers' shims.
fn resident_mib(engine: &Engine) -> Result<f64> {
    let script = match engine.kind {
        Kind::Caisson => "cat /proc/$(pgrep -ox caisson-engine)/smaps_rollup",
        Kind::Dockerd => {
            "for p in $(pgrep -x dockerd) $(pgrep -x containerd); do cat /proc/$p/smaps_rollup; done"
        }
    };
    Ok(resident_kib(&engine.namespaces().shell(script)?) / 1024.0)
}
