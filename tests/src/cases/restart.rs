//! Restart policies: who is started again, how often, and what can be done meanwhile.

use std::io::{BufRead, BufReader};

use anyhow::{Context, Result, ensure};

use super::lifecycle::actions;
use crate::cases;
use crate::subject::Subject;

cases![
    a_failing_container_is_started_so_many_times,
    a_success_is_not_started_again_on_failure,
    an_always_running_container_ends_when_it_is_stopped,
    a_container_that_waits_for_its_restart_is_stopped_at_once,
    a_container_that_waits_for_its_restart_is_removed_by_force_only,
    a_wait_sees_each_end,
    a_container_that_could_not_start_is_left_alone,
];

/// Returns when a container has ended so many times.
pub fn ends(on: &dyn Subject, container: &str, times: usize) -> Result<()> {
    happens(on, container, "die", times)
}

/// Returns when this engine has started a container.
pub fn starts(on: &dyn Subject, container: &str) -> Result<()> {
    happens(on, container, "start", 1)
}

fn happens(on: &dyn Subject, container: &str, action: &str, times: usize) -> Result<()> {
    let action = format!("event={action}");
    let filter = format!("container={container}");
    let mut events = on.docker().spawn([
        "events",
        "--since",
        "0",
        "--filter",
        &filter,
        "--filter",
        &action,
        "--format",
        "{{.Action}}",
    ])?;
    let out = events.stdout.take().context("spawned with a pipe")?;
    let seen = BufReader::new(out).lines().map_while(Result::ok).take(times).count();
    events.kill()?;
    events.wait()?;
    ensure!(seen == times, "{container}: {action} {seen} times, not {times}");
    Ok(())
}

fn inspect(on: &dyn Subject, container: &str, format: &str) -> Result<String> {
    on.docker().ok(["inspect", "-f", format, container])
}

const STATE: &str =
    "{{.State.Status}} {{.State.Running}} {{.State.Restarting}} {{.State.Pid}} {{.State.ExitCode}}";

fn a_failing_container_is_started_so_many_times(on: &dyn Subject) -> Result<()> {
    let docker = on.docker();
    let id = docker.ok([
        "run",
        "-d",
        "--name",
        "fails",
        "--restart",
        "on-failure:2",
        "busybox",
        "sh",
        "-c",
        "echo run; exit 3",
    ])?;
    ends(on, &id, 3)?;
    ensure!(docker.ok(["wait", "fails"])? == "3");
    ensure!(inspect(on, "fails", "{{.State.Status}} {{.State.ExitCode}} {{.RestartCount}}")? == "exited 3 2");
    ensure!(docker.ok(["logs", "fails"])? == "run\nrun\nrun");
    ensure!(actions(on, &id)?.join(" ") == "create start die start die start die");
    docker.ok(["start", "fails"])?;
    ends(on, &id, 6)?;
    ensure!(inspect(on, "fails", "{{.RestartCount}}")? == "2", "a start begins to count anew");
    docker.ok(["rm", "fails"])?;
    Ok(())
}

fn a_success_is_not_started_again_on_failure(on: &dyn Subject) -> Result<()> {
    let docker = on.docker();
    docker.ok(["run", "-d", "--name", "succeeds", "--restart", "on-failure", "busybox", "true"])?;
    docker.ok(["wait", "succeeds"])?;
    ensure!(inspect(on, "succeeds", "{{.State.Status}} {{.RestartCount}}")? == "exited 0");
    docker.ok(["rm", "succeeds"])?;
    Ok(())
}

fn an_always_running_container_ends_when_it_is_stopped(on: &dyn Subject) -> Result<()> {
    let docker = on.docker();
    for policy in ["always", "unless-stopped", "on-failure"] {
        let name = format!("stopped-{policy}");
        docker.ok(["run", "-d", "--name", &name, "--restart", policy, "busybox", "sleep", "1000"])?;
        docker.ok(["stop", "-t", "0", &name])?;
        ensure!(inspect(on, &name, STATE)? == "exited false false 0 137", "{policy}");
        docker.ok(["start", &name])?;
        docker.ok(["kill", &name])?;
        ensure!(inspect(on, &name, "{{.State.Status}} {{.RestartCount}}")? == "exited 0", "{policy}");
        docker.ok(["rm", &name])?;
    }
    Ok(())
}

fn a_container_that_waits_for_its_restart_is_stopped_at_once(on: &dyn Subject) -> Result<()> {
    let docker = on.docker();
    let id = docker.ok([
        "run",
        "-d",
        "--name",
        "backs-off",
        "--restart",
        "always",
        "busybox",
        "sh",
        "-c",
        "exit 4",
    ])?;
    // The next start is then 3.2 s away.
    ends(on, &id, 6)?;
    ensure!(inspect(on, &id, STATE)? == "restarting true true 0 4", "{}", inspect(on, &id, STATE)?);
    ensure!(inspect(on, &id, "{{.RestartCount}}")? == "6");
    let listed = docker.ok(["ps", "--format", "{{.Names}} {{.Status}}", "--filter", "status=restarting"])?;
    ensure!(listed.contains("backs-off Restarting (4) "), "{listed}");
    docker.ok(["start", "backs-off"])?;
    docker.ok(["stop", "backs-off"])?;
    ensure!(inspect(on, &id, STATE)? == "exited false false 0 4");
    ensure!(inspect(on, &id, "{{.RestartCount}}")? == "6");
    docker.ok(["rm", "backs-off"])?;
    Ok(())
}

fn a_container_that_waits_for_its_restart_is_removed_by_force_only(on: &dyn Subject) -> Result<()> {
    let docker = on.docker();
    let id = docker.ok(["run", "-d", "--name", "still-there", "--restart", "always", "busybox", "false"])?;
    ends(on, &id, 6)?;
    for (args, words) in [
        (
            ["rm", "still-there"],
            "container is restarting: stop the container before removing or force remove",
        ),
        (["pause", "still-there"], "is restarting, wait until the container is running"),
    ] {
        let answer = docker.run(args)?;
        ensure!(answer.status == 1 && answer.err.contains(words), "{answer:?}");
    }
    docker.ok(["rm", "-f", "still-there"])?;
    ensure!(docker.run(["inspect", "--type", "container", "still-there"])?.status == 1);
    Ok(())
}

fn a_wait_sees_each_end(on: &dyn Subject) -> Result<()> {
    let docker = on.docker();
    docker.ok([
        "run",
        "-d",
        "--name",
        "again-and-again",
        "--restart",
        "always",
        "busybox",
        "sh",
        "-c",
        "sleep 0.2; exit 8",
    ])?;
    for _ in 0..2 {
        ensure!(docker.ok(["wait", "again-and-again"])? == "8");
    }
    docker.ok(["rm", "-f", "again-and-again"])?;
    Ok(())
}

fn a_container_that_could_not_start_is_left_alone(on: &dyn Subject) -> Result<()> {
    let docker = on.docker();
    let answer = docker.run([
        "run",
        "-d",
        "--name",
        "no-program",
        "--restart",
        "always",
        "busybox",
        "no-such-program",
    ])?;
    ensure!(answer.status == 127, "{answer:?}");
    ensure!(
        inspect(on, "no-program", "{{.State.Status}} {{.State.ExitCode}} {{.RestartCount}}")?
            == "created 127 0"
    );
    docker.ok(["rm", "no-program"])?;
    Ok(())
}
