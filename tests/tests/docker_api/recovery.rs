//! Crashes: whatever is killed, what comes after is true. Each case has an engine of its own.

use anyhow::{Context, Result, ensure};
use caisson_tests::engine::Engine;
use caisson_tests::subject::Subject;

/// A case that takes its engine down.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) run: fn(&Engine) -> Result<()>,
}

macro_rules! cases {
    ($($name:ident),+ $(,)?) => {
        pub(crate) const CASES: &[Case] = &[$(Case { name: stringify!($name), run: $name }),+];
    };
}

cases![
    a_container_outlives_a_killed_engine,
    an_exit_while_the_engine_is_away_is_told_after,
    a_killed_shim_is_noticed,
    an_engine_told_to_end_stops_its_containers,
    nothing_is_left_behind_by_a_removed_container,
];

fn state(engine: &Engine, container: &str) -> Result<String> {
    engine.docker().ok(["inspect", "-f", "{{.State.Status}} {{.State.ExitCode}}", container])
}

fn a_container_outlives_a_killed_engine(engine: &Engine) -> Result<()> {
    let docker = engine.docker();
    docker.ok(["run", "-d", "-i", "--name", "lives", "-p", "28090:80", "web"])?;
    engine.fetch("http://127.0.0.1:28090/")?;
    let pid = docker.ok(["inspect", "-f", "{{.State.Pid}}", "lives"])?;
    engine.crash()?;
    engine.start_again()?;
    ensure!(state(engine, "lives")? == "running 0");
    ensure!(docker.ok(["inspect", "-f", "{{.State.Pid}}", "lives"])? == pid);
    engine.fetch("http://127.0.0.1:28090/")?;
    docker.ok(["stop", "-t", "0", "lives"])?;
    docker.ok(["start", "lives"])?;
    engine.fetch("http://127.0.0.1:28090/")?;
    docker.ok(["rm", "-f", "lives"])?;
    Ok(())
}

fn an_exit_while_the_engine_is_away_is_told_after(engine: &Engine) -> Result<()> {
    let docker = engine.docker();
    docker.ok([
        "run",
        "-d",
        "--name",
        "exits",
        "-v",
        "/run:/host",
        "busybox",
        "sh",
        "-c",
        "echo before; while [ ! -e /host/go ]; do sleep 0.1; done; echo after; exit 9",
    ])?;
    engine.crash()?;
    engine.namespaces().shell("touch /run/go")?;
    engine.start_again()?;
    ensure!(docker.ok(["wait", "exits"])? == "9");
    ensure!(docker.ok(["logs", "exits"])? == "before\nafter");
    Ok(())
}

fn a_killed_shim_is_noticed(engine: &Engine) -> Result<()> {
    let docker = engine.docker();
    docker.ok(["run", "-d", "--name", "orphan", "busybox", "sleep", "1000"])?;
    let pid = docker.ok(["inspect", "-f", "{{.State.Pid}}", "orphan"])?;
    let shim = engine.namespaces().shell(&format!("awk '{{print $4}}' /proc/{pid}/stat"))?;
    engine.namespaces().shell(&format!("kill -9 {shim}"))?;
    ensure!(docker.ok(["wait", "orphan"])? == "137");
    ensure!(
        engine.namespaces().shell(&format!("test -e /proc/{pid} && echo there || echo gone"))?.trim()
            == "gone"
    );
    docker.ok(["start", "orphan"])?;
    docker.ok(["rm", "-f", "orphan"])?;
    Ok(())
}

fn an_engine_told_to_end_stops_its_containers(engine: &Engine) -> Result<()> {
    let docker = engine.docker();
    docker.ok(["run", "-d", "--name", "told", "--stop-signal", "KILL", "busybox", "sleep", "1000"])?;
    engine.terminate()?;
    ensure!(
        engine.namespaces().shell("pgrep -c '^sleep$' || true")?.trim() == "0",
        "the container still runs"
    );
    engine.start_again()?;
    ensure!(state(engine, "told")? == "exited 137");
    Ok(())
}

fn nothing_is_left_behind_by_a_removed_container(engine: &Engine) -> Result<()> {
    let docker = engine.docker();
    let before = traces(engine)?;
    docker.ok(["run", "-d", "--name", "traceless", "-p", "28091:80", "web"])?;
    ensure!(traces(engine)? != before, "the traces show a running container");
    docker.ok(["rm", "-f", "traceless"])?;
    docker.ok(["run", "--rm", "--name", "traceless", "busybox", "true"])?;
    let after = traces(engine)?;
    ensure!(after == before, "before:\n{before}\nafter:\n{after}");
    Ok(())
}

/// Mounts, links, processes of containers and folders of the engine, as its host sees them.
fn traces(engine: &Engine) -> Result<String> {
    let home = engine.home().to_str().context("a test's folder is plain text")?;
    let script = format!(
        "grep -c . /proc/self/mountinfo; ls /sys/class/net | grep -v docker0; ls /run/caisson/* {home}/data/containers; pgrep -a caisson-shim || true"
    );
    engine.namespaces().shell(&script)
}
