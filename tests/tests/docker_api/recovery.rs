//! Crashes: whatever is killed, what comes after is true. Each case has an engine of its own.

mod streams;

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use caisson_tests::bounded::{LIMIT, until};
use caisson_tests::cases::copy::wait_for_file;
use caisson_tests::cases::registry::only_in_registry;
use caisson_tests::engine::Engine;
use caisson_tests::faults::{Fault, FaultyRegistry};
use caisson_tests::registry::{Access, Registry};
use caisson_tests::subject::Subject;

use self::streams::{
    a_follower_s_log_goes_on_after_a_crash, an_added_process_outlives_its_client,
    clients_of_a_killed_engine_are_let_go, processes_and_their_ends_outlive_a_killed_engine,
    streams_go_on_with_the_next_engine,
};

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
    a_newer_engine_takes_over_what_an_older_one_left,
    an_exit_while_the_engine_is_away_is_told_after,
    a_killed_shim_is_noticed,
    volumes_are_held_and_let_go_after_a_crash,
    an_engine_told_to_end_stops_its_containers,
    nothing_is_left_behind_by_a_removed_container,
    restart_policies_hold_across_engines,
    an_end_while_the_engine_is_away_is_one_that_policies_know,
    a_restart_that_was_due_comes_after_a_crash,
    a_paused_container_is_paused_for_the_next_engine,
    a_new_name_outlives_the_engine,
    a_follower_s_log_goes_on_after_a_crash,
    processes_and_their_ends_outlive_a_killed_engine,
    streams_go_on_with_the_next_engine,
    clients_of_a_killed_engine_are_let_go,
    an_added_process_outlives_its_client,
    health_goes_on_after_a_killed_engine,
    a_short_soak_loses_and_leaves_nothing,
    a_short_soak_of_images_loses_and_leaves_nothing,
    pulls_cut_off_by_crashes_leave_nothing,
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

/// Records of the first version, which knew no restart policies, and a container that runs and has a log.
fn a_newer_engine_takes_over_what_an_older_one_left(engine: &Engine) -> Result<()> {
    let docker = engine.docker();
    let script = "echo up; trap 'echo down; exit 4' TERM; while :; do sleep 0.1; done";
    let runs = docker.ok(["run", "-d", "--name", "older", "busybox", "sh", "-c", script])?;
    docker.ok(["run", "--name", "ended", "busybox", "true"])?;
    let ended = docker.ok(["inspect", "-f", "{{.Id}}", "ended"])?;
    until("the container says up", || Ok((docker.ok(["logs", "older"])? == "up").then_some(())))?;
    let pid = docker.ok(["inspect", "-f", "{{.State.Pid}}", "older"])?;
    engine.crash()?;
    for id in [&runs, &ended] {
        for file in ["container.json", "state.json"] {
            let path = engine.home().join("data/containers").join(id).join(file);
            let mut record: serde_json::Value = serde_json::from_slice(&std::fs::read(&path)?)?;
            let fields = record.as_object_mut().context("a record is an object")?;
            fields.insert("version".into(), 1.into());
            fields.retain(|name, _| name != "restarts" && name != "manually_stopped");
            std::fs::write(&path, record.to_string())?;
        }
    }
    engine.start_again()?;
    ensure!(docker.ok(["inspect", "-f", "{{.State.Pid}} {{.RestartCount}}", "older"])? == format!("{pid} 0"));
    ensure!(state(engine, "ended")? == "exited 0");
    ensure!(docker.ok(["exec", "older", "echo", "in"])? == "in");
    docker.ok(["stop", "older"])?;
    ensure!(state(engine, "older")? == "exited 4" && docker.ok(["logs", "older"])? == "up\ndown");
    docker.ok(["start", "ended"])?;
    ensure!(docker.ok(["wait", "ended"])? == "0");
    docker.ok(["rm", "older", "ended"])?;
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

fn health_goes_on_after_a_killed_engine(engine: &Engine) -> Result<()> {
    let docker = engine.docker();
    docker.ok([
        "run",
        "-d",
        "--name",
        "checked",
        "--health-cmd",
        "test ! -e /ill",
        "--health-interval",
        "100ms",
        "--health-retries",
        "1",
        "busybox",
        "sleep",
        "1000",
    ])?;
    let status = || docker.ok(["inspect", "-f", "{{.State.Health.Status}}", "checked"]);
    until("it is healthy", || Ok((status()? == "healthy").then_some(())))?;
    engine.crash()?;
    engine.start_again()?;
    ensure!(status()? == "healthy", "what is known is not forgotten");
    docker.ok(["exec", "checked", "touch", "/ill"])?;
    until("it is unhealthy", || Ok((status()? == "unhealthy").then_some(())))?;
    docker.ok(["rm", "-f", "checked"])?;
    Ok(())
}

fn volumes_are_held_and_let_go_after_a_crash(engine: &Engine) -> Result<()> {
    let docker = engine.docker();
    let device = ["-o", "type=tmpfs", "-o", "device=tmpfs"];
    docker.ok(["volume", "create"].iter().chain(&device).chain(&["mounted"]))?;
    let script = "echo kept > /m/f; touch /ready; exec sleep 1000";
    let volumes = ["-v", "mounted:/m", "-v", "/anonymous", "-v", "named:/n"];
    let run = ["run", "-d", "--rm", "--name", "user"];
    docker.ok(run.iter().chain(&volumes).chain(&["busybox", "sh", "-c", script]))?;
    wait_for_file(engine, "user", "/ready")?;
    let mounts = || engine.namespaces().shell("grep -c /volumes/mounted/_data /proc/mounts || true");
    engine.crash()?;
    engine.start_again()?;
    ensure!(mounts()? == "1\n", "it is mounted once: {}", mounts()?);
    let refused = docker.run(["volume", "rm", "mounted"])?;
    ensure!(refused.err.contains("volume is in use"), "{refused:?}");
    let seen = docker.ok(["run", "--rm", "-v", "mounted:/m", "busybox", "cat", "/m/f"])?;
    ensure!(seen == "kept", "{seen}");
    // It ends while nobody looks, and the next engine removes it with what was its own.
    let pid = docker.ok(["inspect", "-f", "{{.State.Pid}}", "user"])?;
    engine.crash()?;
    engine.namespaces().shell(&format!("kill -9 {pid}; while [ -e /proc/{pid} ]; do :; done"))?;
    engine.start_again()?;
    ensure!(mounts()? == "0\n", "it is left mounted");
    ensure!(docker.ok(["volume", "ls", "-q"])? == "mounted\nnamed");
    docker.ok(["volume", "rm", "mounted", "named"])?;
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

/// Ended in order or killed, the next engine starts what is to run: `always` even if it was stopped, `unless-stopped` only if it was not.
fn restart_policies_hold_across_engines(engine: &Engine) -> Result<()> {
    let docker = engine.docker();
    let run = |name: &str, policy: &str| {
        docker.ok([
            "run",
            "-d",
            "--name",
            name,
            "--stop-signal",
            "KILL",
            "--restart",
            policy,
            "busybox",
            "sleep",
            "1000",
        ])
    };
    for (name, policy, stop) in [
        ("always-runs", "always", false),
        ("always-stopped", "always", true),
        ("unless-runs", "unless-stopped", false),
        ("unless-stopped", "unless-stopped", true),
        ("never", "no", false),
        ("on-failure", "on-failure", false),
    ] {
        run(name, policy)?;
        if stop {
            docker.ok(["stop", name])?;
        }
    }
    let states = || -> Result<String> {
        let all = docker.ok([
            "ps",
            "-a",
            "--format",
            "{{.Names}} {{.State}}",
            "--filter",
            "name=always|unless|never|on-f",
        ])?;
        let mut lines: Vec<&str> = all.lines().collect();
        lines.sort_unstable();
        Ok(lines.join(", "))
    };
    engine.crash()?;
    engine.start_again()?;
    let after_crash = states()?;
    ensure!(
        after_crash
            == "always-runs running, always-stopped running, never running, on-failure running, unless-runs running, unless-stopped exited",
        "{after_crash}"
    );
    engine.terminate()?;
    engine.start_again()?;
    let after_end = states()?;
    ensure!(
        after_end
            == "always-runs running, always-stopped running, never exited, on-failure running, unless-runs running, unless-stopped exited",
        "{after_end}"
    );
    docker.ok(["start", "unless-stopped"])?;
    engine.terminate()?;
    engine.start_again()?;
    ensure!(state(engine, "unless-stopped")? == "running 0", "a start makes up for the stop");
    Ok(())
}

fn an_end_while_the_engine_is_away_is_one_that_policies_know(engine: &Engine) -> Result<()> {
    let docker = engine.docker();
    let script = "echo run; while [ ! -e /host/go ]; do sleep 0.1; done; rm /host/go; exit 9";
    docker.ok([
        "run",
        "-d",
        "--name",
        "again",
        "--restart",
        "on-failure:5",
        "-v",
        "/run:/host",
        "busybox",
        "sh",
        "-c",
        script,
    ])?;
    for count in ["1", "2"] {
        engine.crash()?;
        engine.namespaces().shell("touch /run/go; while [ -e /run/go ]; do sleep 0.1; done; while pgrep caisson-shim >/dev/null; do sleep 0.1; done")?;
        engine.start_again()?;
        caisson_tests::cases::restart::starts(engine, "again")?;
        ensure!(
            docker.ok(["inspect", "-f", "{{.State.Status}} {{.RestartCount}}", "again"])?
                == format!("running {count}")
        );
    }
    docker.ok(["rm", "-f", "again"])?;
    Ok(())
}

fn a_restart_that_was_due_comes_after_a_crash(engine: &Engine) -> Result<()> {
    let docker = engine.docker();
    docker.ok([
        "run",
        "-d",
        "--name",
        "due",
        "--restart",
        "always",
        "busybox",
        "sh",
        "-c",
        "[ -e /mark ] && sleep 1000; exit 1",
    ])?;
    caisson_tests::cases::restart::ends(engine, "due", 6)?;
    engine.crash()?;
    engine.start_again()?;
    caisson_tests::cases::restart::starts(engine, "due")?;
    docker.ok(["rm", "-f", "due"])?;
    Ok(())
}

fn a_paused_container_is_paused_for_the_next_engine(engine: &Engine) -> Result<()> {
    let docker = engine.docker();
    docker.ok(["run", "-d", "--name", "still", "busybox", "sleep", "1000"])?;
    docker.ok(["pause", "still"])?;
    engine.crash()?;
    engine.start_again()?;
    ensure!(state(engine, "still")? == "paused 0");
    docker.ok(["unpause", "still"])?;
    ensure!(state(engine, "still")? == "running 0");
    docker.ok(["rm", "-f", "still"])?;
    Ok(())
}

fn a_new_name_outlives_the_engine(engine: &Engine) -> Result<()> {
    let docker = engine.docker();
    docker.ok(["create", "--name", "first-name", "busybox"])?;
    docker.ok(["rename", "first-name", "second-name"])?;
    engine.crash()?;
    engine.start_again()?;
    ensure!(docker.ok(["inspect", "-f", "{{.Name}}", "second-name"])? == "/second-name");
    docker.ok(["create", "--name", "first-name", "busybox"])?;
    docker.ok(["rm", "first-name", "second-name"])?;
    Ok(())
}

/// `scripts/soak` is the long one.
fn a_short_soak_loses_and_leaves_nothing(engine: &Engine) -> Result<()> {
    engine.docker().ok(["rm", "probe"])?;
    caisson_tests::soak::soak(engine, 60, u64::from(std::process::id())).map(drop)
}

/// `scripts/soak images` is the long one.
fn a_short_soak_of_images_loses_and_leaves_nothing(engine: &Engine) -> Result<()> {
    engine.docker().ok(["rm", "probe"])?;
    caisson_tests::soak_images::soak(engine, 20, u64::from(std::process::id())).map(drop)
}

/// Mounts, links, processes of containers and folders of the engine, as its host sees them.
fn traces(engine: &Engine) -> Result<String> {
    let home = engine.home().to_str().context("a test's folder is plain text")?;
    let script = format!(
        "grep -c . /proc/self/mountinfo; ls /sys/class/net | grep -v docker0; ls /run/caisson/* {home}/data/containers; pgrep -a caisson-shim || true"
    );
    engine.namespaces().shell(&script)
}

/// The engine is killed at each request of a pull: the first, the manifest, the configuration, the layer and its pieces.
fn pulls_cut_off_by_crashes_leave_nothing(engine: &Engine) -> Result<()> {
    let (docker, registry) = (engine.docker(), Registry::start(engine, Access::Open)?);
    let made = only_in_registry(engine, &registry.name("crash:v1"), 500_000)?;
    let count = |what: &str| -> Result<usize> {
        Ok(std::fs::read_dir(engine.home().join("data/images").join(what))?.count())
    };
    let before = (count("layers")?, count("blobs/sha256")?);
    for point in 0..8 {
        let (reached, wait) = mpsc::channel();
        let (reached, requests) = (Mutex::new(reached), AtomicUsize::new(0));
        let proxy = FaultyRegistry::start(engine, registry.port(), move |asked| {
            if requests.fetch_add(1, Ordering::SeqCst) == point {
                // The case waits for this, or has failed.
                let _ = reached.lock().map(|to| to.send(()));
                return Fault::Delay(Duration::from_secs(3600));
            }
            if asked.path.contains("/blobs/") { Fault::Cut(100_000) } else { Fault::None }
        })?;
        let pull = docker.spawn(["pull", "-q", &proxy.name("crash:v1")])?;
        wait.recv_timeout(LIMIT).with_context(|| format!("no request {point}"))?;
        engine.crash()?;
        ensure!(!pull.wait_with_output()?.status.success());
        engine.start_again()?;
        ensure!((count("layers")?, count("blobs/sha256")?) == before, "left behind at request {point}");
        ensure!(count("tmp")? == 0, "left behind in tmp at request {point}");
        ensure!(docker.run(["image", "inspect", &made])?.status == 1);
    }
    let name = registry.name("crash:v1");
    docker.ok(["pull", "-q", &name])?;
    engine.crash()?;
    engine.start_again()?;
    ensure!(docker.ok(["image", "inspect", "-f", "{{.Id}}", &name])? == made, "what was pulled is lost");
    docker.ok(["rmi", &name])?;
    ensure!((count("layers")?, count("blobs/sha256")?) == before);
    Ok(())
}
