//! The life of a container, from create to remove.

use anyhow::{Result, ensure};

use crate::cases;
use crate::subject::Subject;

cases![
    hello_world_says_hello,
    run_passes_the_exit_status_on,
    a_signal_ends_with_128_and_its_number,
    a_missing_program_is_127,
    a_program_that_cannot_run_is_126,
    create_start_and_wait_tell_the_same_status,
    stop_ends_a_container_in_order,
    kill_sends_the_signal,
    restart_keeps_the_file_system,
    an_auto_removed_container_is_gone,
    list_filters_by_name_status_and_label,
    inspect_tells_state_and_config,
    environment_user_and_directory_are_set,
    events_tell_a_life_in_order,
    remove_takes_a_running_container_only_by_force,
    a_port_that_is_only_exposed_may_be_of_any_kind,
];

fn hello_world_says_hello(on: &dyn Subject) -> Result<()> {
    let out = on.docker().ok(["run", "--rm", "hello-world"])?;
    ensure!(out.contains("Hello from"), "{out}");
    Ok(())
}

fn run_passes_the_exit_status_on(on: &dyn Subject) -> Result<()> {
    let answer = on.docker().run(["run", "--rm", "busybox", "sh", "-c", "echo out; echo err >&2; exit 7"])?;
    ensure!((answer.status, answer.out.as_str(), answer.err.as_str()) == (7, "out\n", "err\n"), "{answer:?}");
    Ok(())
}

fn a_signal_ends_with_128_and_its_number(on: &dyn Subject) -> Result<()> {
    let docker = on.docker();
    docker.ok(["run", "-d", "--name", "signalled", "busybox", "sleep", "1000"])?;
    docker.ok(["kill", "signalled"])?;
    ensure!(docker.ok(["wait", "signalled"])? == "137");
    docker.ok(["rm", "signalled"])?;
    Ok(())
}

fn a_missing_program_is_127(on: &dyn Subject) -> Result<()> {
    let answer = on.docker().run(["run", "--rm", "busybox", "no-such-program"])?;
    ensure!(answer.status == 127, "{answer:?}");
    ensure!(
        answer.err.contains(r#"exec: "no-such-program": executable file not found in $PATH"#),
        "{}",
        answer.err
    );
    Ok(())
}

fn a_program_that_cannot_run_is_126(on: &dyn Subject) -> Result<()> {
    let answer = on.docker().run(["run", "--rm", "busybox", "/etc/passwd"])?;
    ensure!(answer.status == 126, "{answer:?}");
    ensure!(answer.err.contains(r#"exec: "/etc/passwd": permission denied"#), "{}", answer.err);
    Ok(())
}

fn create_start_and_wait_tell_the_same_status(on: &dyn Subject) -> Result<()> {
    let docker = on.docker();
    docker.ok(["create", "--name", "steps", "busybox", "sh", "-c", "exit 3"])?;
    let state = ["inspect", "-f", "{{.State.Status}} {{.State.ExitCode}} {{.State.Running}}", "steps"];
    ensure!(docker.ok(state)? == "created 0 false");
    docker.ok(["start", "steps"])?;
    ensure!(docker.ok(["wait", "steps"])? == "3");
    ensure!(docker.ok(state)? == "exited 3 false");
    docker.ok(["rm", "steps"])?;
    Ok(())
}

fn stop_ends_a_container_in_order(on: &dyn Subject) -> Result<()> {
    let docker = on.docker();
    let script = "trap 'echo bye; exit 5' TERM; echo up; while :; do sleep 1000 & wait; done";
    docker.ok(["run", "-d", "--name", "stops", "busybox", "sh", "-c", script])?;
    wait_for_log(on, "stops", "up")?;
    docker.ok(["stop", "-t", "60", "stops"])?;
    ensure!(docker.ok(["inspect", "-f", "{{.State.ExitCode}}", "stops"])? == "5");
    ensure!(docker.ok(["logs", "stops"])? == "up\nbye");
    ensure!(docker.ok(["stop", "stops"])? == "stops", "stopping again is no error");
    docker.ok(["rm", "stops"])?;
    Ok(())
}

fn kill_sends_the_signal(on: &dyn Subject) -> Result<()> {
    let docker = on.docker();
    let script = "trap 'echo got usr1; exit 0' USR1; echo up; while :; do sleep 1000 & wait; done";
    docker.ok(["run", "-d", "--name", "usr1", "busybox", "sh", "-c", script])?;
    wait_for_log(on, "usr1", "up")?;
    docker.ok(["kill", "-s", "USR1", "usr1"])?;
    ensure!(docker.ok(["wait", "usr1"])? == "0");
    ensure!(docker.ok(["logs", "usr1"])? == "up\ngot usr1");
    docker.ok(["rm", "usr1"])?;
    Ok(())
}

fn restart_keeps_the_file_system(on: &dyn Subject) -> Result<()> {
    let docker = on.docker();
    let script = "echo x >> /kept; wc -l < /kept; sleep 1000";
    docker.ok(["run", "-d", "--name", "restarts", "busybox", "sh", "-c", script])?;
    wait_for_log(on, "restarts", "1")?;
    docker.ok(["restart", "-t", "0", "restarts"])?;
    wait_for_log(on, "restarts", "2")?;
    docker.ok(["rm", "-f", "restarts"])?;
    Ok(())
}

fn an_auto_removed_container_is_gone(on: &dyn Subject) -> Result<()> {
    let docker = on.docker();
    docker.ok(["run", "--rm", "--name", "gone", "busybox", "true"])?;
    let answer = docker.run(["inspect", "--type", "container", "gone"])?;
    ensure!(
        answer.status == 1 && answer.err.to_lowercase().contains("no such container: gone"),
        "{answer:?}"
    );
    Ok(())
}

fn list_filters_by_name_status_and_label(on: &dyn Subject) -> Result<()> {
    let docker = on.docker();
    docker.ok(["create", "--name", "listed-a", "--label", "listed=yes", "--label", "n=a", "busybox"])?;
    docker.ok(["run", "-d", "--name", "listed-b", "--label", "listed=yes", "busybox", "sleep", "1000"])?;
    let names = |filters: &[&str]| -> Result<String> {
        let mut args = vec!["ps", "-a", "--format", "{{.Names}}", "--filter", "label=listed=yes"];
        args.extend(filters);
        docker.ok(args)
    };
    ensure!(names(&[])? == "listed-b\nlisted-a", "newest first");
    ensure!(names(&["--filter", "status=created"])? == "listed-a");
    ensure!(names(&["--filter", "status=running"])? == "listed-b");
    ensure!(names(&["--filter", "name=ed-a"])? == "listed-a");
    ensure!(names(&["--filter", "label=n=a"])? == "listed-a");
    ensure!(
        docker.ok(["ps", "-q", "--filter", "label=listed=yes"])?.lines().count() == 1,
        "only running ones"
    );
    docker.ok(["rm", "-f", "listed-a", "listed-b"])?;
    Ok(())
}

fn inspect_tells_state_and_config(on: &dyn Subject) -> Result<()> {
    let docker = on.docker();
    docker.ok([
        "run",
        "-d",
        "--name",
        "inspected",
        "--hostname",
        "inside",
        "-e",
        "A=b",
        "busybox",
        "sleep",
        "1000",
    ])?;
    let format = "{{.Name}} {{.State.Status}} {{.Config.Hostname}} {{.Config.Image}} {{.Path}} {{json .Args}} {{.HostConfig.NetworkMode}} {{.Driver}}";
    let told = docker.ok(["inspect", "-f", format, "inspected"])?;
    ensure!(told.starts_with(r#"/inspected running inside busybox sleep ["1000"] "#), "{told}");
    ensure!(told.contains("overlay"), "{told}");
    let address = docker.ok([
        "inspect",
        "-f",
        "{{range .NetworkSettings.Networks}}{{.IPAddress}}/{{.IPPrefixLen}}{{end}}",
        "inspected",
    ])?;
    ensure!(address.ends_with("/16"), "{address}");
    docker.ok(["rm", "-f", "inspected"])?;
    Ok(())
}

fn environment_user_and_directory_are_set(on: &dyn Subject) -> Result<()> {
    let out = on.docker().ok([
        "run",
        "--rm",
        "-e",
        "GREETING=hi",
        "-u",
        "1000:1001",
        "-w",
        "/made/here",
        "--entrypoint",
        "sh",
        "busybox",
        "-c",
        "echo $GREETING $(id -u) $(id -g) $PWD $HOSTNAME | sed \"s/ [0-9a-f]*$/ id/\"",
    ])?;
    ensure!(out == "hi 1000 1001 /made/here id", "{out}");
    Ok(())
}

fn events_tell_a_life_in_order(on: &dyn Subject) -> Result<()> {
    let docker = on.docker();
    let id = docker.ok(["run", "-d", "--name", "eventful", "busybox", "true"])?;
    docker.ok(["wait", "eventful"])?;
    docker.ok(["rm", "eventful"])?;
    let until = docker.ok(["run", "--rm", "busybox", "date", "+%s"])?;
    let until = (until.trim().parse::<i64>()? + 1).to_string();
    let filter = format!("container={id}");
    let events = docker.ok([
        "events",
        "--since",
        "0",
        "--until",
        &until,
        "--filter",
        &filter,
        "--filter",
        "type=container",
        "--format",
        "{{.Action}}",
    ])?;
    ensure!(events.lines().collect::<Vec<_>>() == ["create", "start", "die", "destroy"], "{events}");
    Ok(())
}

fn remove_takes_a_running_container_only_by_force(on: &dyn Subject) -> Result<()> {
    let docker = on.docker();
    docker.ok(["run", "-d", "--name", "running", "busybox", "sleep", "1000"])?;
    let answer = docker.run(["rm", "running"])?;
    ensure!(answer.status == 1, "{answer:?}");
    ensure!(
        answer.err.contains("container is running: stop the container before removing or force remove"),
        "{}",
        answer.err
    );
    ensure!(docker.ok(["rm", "-f", "running"])? == "running");
    Ok(())
}

fn a_port_that_is_only_exposed_may_be_of_any_kind(on: &dyn Subject) -> Result<()> {
    let out = on.docker().ok(["run", "--rm", "--expose", "38412/sctp", "busybox", "echo", "started"])?;
    ensure!(out == "started", "{out}");
    Ok(())
}

/// Follows the log until a line is `line`; the event that a script has come that far.
pub(super) fn wait_for_log(on: &dyn Subject, container: &str, line: &str) -> Result<()> {
    use std::io::{BufRead, BufReader};
    let mut follow = on.docker().spawn(["logs", "-f", container])?;
    let out = follow.stdout.take().ok_or_else(|| anyhow::anyhow!("spawned with a pipe"))?;
    let seen = BufReader::new(out).lines().map_while(Result::ok).any(|found| found == line);
    follow.kill()?;
    follow.wait()?;
    ensure!(seen, "the log of {container} ended without the line {line:?}");
    Ok(())
}
