//! A container whose first process is systemd, as the machine runs it: cgroup v2, whole.

use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use caisson_tests::fixtures;
use caisson_tests::machine::Machine;
use caisson_tests::subject::Subject;

machine_cases![systemd_runs_a_privileged_container, systemd_runs_a_container_that_may_arrange_its_cgroups,];

/// An emulated machine takes its time.
const BOOTS_WITHIN: Duration = Duration::from_secs(300);

const TMPFS: [&str; 4] = ["--tmpfs", "/run", "--tmpfs", "/run/lock"];

fn systemd_runs_a_privileged_container(machine: &Machine) -> Result<()> {
    boots_and_ends(machine, "sd-privileged", &["--privileged"])
}

fn systemd_runs_a_container_that_may_arrange_its_cgroups(machine: &Machine) -> Result<()> {
    let options =
        ["--cgroupns=private", "--cap-add=SYS_ADMIN", "--security-opt=writable-cgroups=true", "--tmpfs=/tmp"];
    boots_and_ends(machine, "sd-plain", &options)
}

fn boots_and_ends(machine: &Machine, name: &str, options: &[&str]) -> Result<()> {
    let docker = machine.docker();
    if docker.run(["image", "inspect", "systemd"])?.status != 0 {
        let archive = fixtures::systemd()?;
        let change =
            ["-c", "CMD [\"/sbin/init\"]", "-c", "STOPSIGNAL SIGRTMIN+3", "-c", "ENV container=docker"];
        let mut import = vec!["import"];
        import.extend(change);
        let archive = archive.to_string_lossy().into_owned();
        import.extend([archive.as_str(), "systemd"]);
        docker.ok(import)?;
    }
    let mut run = vec!["run", "-d", "--name", name];
    run.extend(TMPFS);
    run.extend(options);
    run.push("systemd");
    docker.ok(run)?;
    let state = boot(machine, name)?;
    ensure!(state == "running" || state == "degraded", "{state}");
    ensure!(docker.ok(["exec", name, "cat", "/proc/1/comm"])? == "systemd");
    let target = docker.ok(["exec", name, "systemctl", "is-active", "multi-user.target"])?;
    ensure!(target == "active", "{target}");
    // systemd has put itself into a cgroup below the container's, where no process can be any more once it has given controllers to those
    // below; then what is added goes with it.
    let groups = docker.ok(["exec", name, "cat", "/proc/1/cgroup", "/proc/self/cgroup"])?;
    let (first, added) = groups.split_once('\n').unwrap_or_default();
    let given = docker.ok(["exec", name, "cat", "/sys/fs/cgroup/cgroup.subtree_control"])?;
    let expected = if given.is_empty() { "0::/" } else { "0::/init.scope" };
    ensure!((first, added) == ("0::/init.scope", expected), "{groups} with {given:?} below");
    // A service of its own, in a cgroup of its own.
    let unit =
        docker.ok(["exec", name, "systemd-run", "--wait", "--pipe", "--quiet", "cat", "/proc/self/cgroup"]);
    if let Ok(unit) = unit {
        ensure!(unit.starts_with("0::/system.slice/run-"), "{unit}");
    }
    let listed = docker.ok(["top", name])?;
    ensure!(listed.contains("/sbin/init") && listed.contains("systemd-journald"), "{listed}");
    docker.ok(["stop", "-t", "120", name])?;
    // SIGRTMIN+3 is its word for a halt; a kill would be 137.
    let code = docker.ok(["inspect", "-f", "{{.State.ExitCode}}", name])?;
    ensure!(code == "0" || code == "130", "it ended with {code}");
    docker.ok(["rm", name]).map(drop)
}

/// What systemd says of itself when it has booted. Until it listens it cannot be asked to wait.
fn boot(machine: &Machine, name: &str) -> Result<String> {
    let give_up = Instant::now() + BOOTS_WITHIN;
    loop {
        let answer = machine.docker().run(["exec", name, "systemctl", "is-system-running", "--wait"])?;
        let state = answer.out.trim();
        if !matches!(state, "" | "offline" | "starting" | "initializing") {
            return Ok(state.to_owned());
        }
        if Instant::now() > give_up {
            let logs = machine.docker().run(["logs", name])?;
            bail!("it does not boot: {answer:?}\n{logs:?}");
        }
    }
}
