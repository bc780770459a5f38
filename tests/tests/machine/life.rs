//! Start, stop, crash, and what a user is told.

use std::net::TcpListener;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use caisson_tests::bounded::Bounded;
use caisson_tests::cli;
use caisson_tests::machine::{Machine, told};
use caisson_tests::subject::Subject;
use serde_json::Value;

use crate::{kill, state};

machine_cases![
    status_tells_each_stage_and_its_time,
    the_engine_is_up_sooner_than_the_kernel,
    logs_are_told_as_text_and_as_json,
    the_context_is_made_and_the_current_one_left,
    limits_hold,
    a_terminal_works,
    a_port_taken_names_its_holder,
    a_port_that_takes_an_administrator_is_told,
    containers_survive_a_restart_of_the_machine,
    a_client_boots_a_stopped_machine,
    a_killed_qemu_is_noticed_and_the_next_client_boots,
    a_killed_daemon_leaves_nothing_behind,
    a_full_data_disk_loses_nothing,
    a_missing_program_is_named,
    a_missing_image_is_named,
];

fn status_tells_each_stage_and_its_time(machine: &Machine) -> Result<()> {
    ensure!(state(machine)? == "running");
    let status = machine.status()?;
    let stages = status["stages"].as_array().with_context(|| status.to_string())?;
    ensure!(stages.len() == 6, "{status}");
    ensure!(stages.iter().all(|stage| stage["progress"] == "done" && stage["took_ms"].is_u64()), "{status}");
    Ok(())
}

/// On an emulated processor, where it counts, and compared within one boot: a busy computer slows both.
fn the_engine_is_up_sooner_than_the_kernel(machine: &Machine) -> Result<()> {
    let status = machine.status()?;
    let took = |name: &str| {
        let stages = status["stages"].as_array()?;
        stages.iter().find(|stage| stage["stage"] == name)?["took_ms"].as_u64()
    };
    let (kernel, engine) = took("kernel").zip(took("engine")).with_context(|| status.to_string())?;
    ensure!(engine < kernel, "the engine took {engine} ms, the kernel {kernel} ms");
    Ok(())
}

fn logs_are_told_as_text_and_as_json(machine: &Machine) -> Result<()> {
    let text = machine.ok(&["logs", "-n", "3"])?;
    ensure!((1..=3).contains(&text.lines().count()), "{text}");
    let told: Value = serde_json::from_str(&machine.ok(&["--json", "logs", "--daemon"])?)?;
    ensure!(told["text"].as_str().is_some_and(|text| text.contains("caisson-host starts")), "{told}");
    ensure!(Path::new(told["path"].as_str().unwrap_or_default()).is_file(), "{told}");
    let output = machine.caisson(&["logs", "--json", "--follow"]).in_time()?;
    ensure!(!output.status.success(), "{}", caisson_tests::machine::told(&output));
    Ok(())
}

fn the_context_is_made_and_the_current_one_left(machine: &Machine) -> Result<()> {
    let docker = |args: &[&str]| -> Result<String> {
        let output = machine.as_user(&mut Command::new(cli::program()?)).args(args).in_time()?;
        ensure!(output.status.success(), "{}", told(&output));
        Ok(String::from_utf8(output.stdout)?.trim_end().to_owned())
    };
    ensure!(docker(&["context", "show"])? == "default");
    let version = docker(&["--context", "caisson", "version", "--format", "{{.Server.Version}}"])?;
    ensure!(!version.is_empty());
    Ok(())
}

fn limits_hold(machine: &Machine) -> Result<()> {
    let told = machine.docker().ok([
        "run",
        "--rm",
        "-m",
        "64m",
        "--cpus",
        "0.5",
        "--pids-limit",
        "50",
        "busybox",
        "sh",
        "-c",
        "cd /sys/fs/cgroup; cat memory.max cpu.max pids.max",
    ])?;
    ensure!(told == "67108864\n50000 100000\n50", "{told}");
    let answer = machine.docker().run([
        "run",
        "--rm",
        "-m",
        "16m",
        "--memory-swap",
        "16m",
        "busybox",
        "sh",
        "-c",
        "tail /dev/zero",
    ])?;
    ensure!(answer.status == 137, "{answer:?}");
    Ok(())
}

fn a_terminal_works(machine: &Machine) -> Result<()> {
    // script(1) gives the CLI a terminal of its own, as a person has one.
    let docker = cli::program()?;
    let run = format!("{} --context caisson run --rm -it busybox sh -c 'tty; stty size'", docker.display());
    let mut script = Command::new("script");
    let output = machine
        .as_user(&mut script)
        .args(["-qefc", &format!("stty rows 33 cols 99; {run}"), "/dev/null"])
        .in_time()?;
    let text = told(&output);
    ensure!(output.status.success() && text.contains("/dev/pts/0") && text.contains("33 99"), "{text}");
    Ok(())
}

fn a_port_taken_names_its_holder(machine: &Machine) -> Result<()> {
    let taken = TcpListener::bind("127.0.0.1:0")?;
    let port = taken.local_addr()?.port();
    let publish = format!("127.0.0.1:{port}:80");
    let answer = machine.docker().run(["run", "--name", "unlucky", "-d", "-p", &publish, "web"])?;
    ensure!(answer.status == 125, "{answer:?}");
    ensure!(answer.err.contains(&port.to_string()), "{}", answer.err);
    ensure!(answer.err.contains(&std::process::id().to_string()), "the holder is not named: {}", answer.err);
    drop(taken);
    machine.docker().ok(["start", "unlucky"])?;
    machine.fetch(&format!("http://127.0.0.1:{port}/"))?;
    machine.docker().ok(["rm", "-f", "unlucky"])?;
    Ok(())
}

/// Starts the machine as a user without any right to ports below 1024, in a network of its own, which has the kernel's own bound.
const START_UNPRIVILEGED: &str = "ip link set lo up; exec setpriv --inh-caps=-net_bind_service --bounding-set=-net_bind_service \"$1\" start";

fn a_port_that_takes_an_administrator_is_told(machine: &Machine) -> Result<()> {
    machine.ok(&["stop"])?;
    let mut start = Command::new("unshare");
    machine.as_user(&mut start).args(["--net", "sh", "-ec", START_UNPRIVILEGED, "sh"]);
    let output = start.arg(machine.caisson(&[]).get_program()).in_time()?;
    ensure!(output.status.success(), "{}", told(&output));
    let asked = ports_of_an_administrator(machine);
    machine.ok(&["stop"])?;
    machine.ok(&["start"])?;
    asked
}

/// A port below the bound of the daemon's own network, one above it, and the first again once the bound is as low.
fn ports_of_an_administrator(machine: &Machine) -> Result<()> {
    let docker = machine.docker();
    let publish = |port: &str| docker.run(["run", "-d", "--name", "low", "-p", port, "web"]);
    let refused = publish("127.0.0.1:1023:80")?;
    let why = "permission denied: port 1023 is below 1024, which only an administrator may use";
    // The CLI's status for whatever says that permission is denied.
    ensure!(refused.status == 126 && refused.err.contains(why), "{refused:?}");
    ensure!(refused.err.contains("net.ipv4.ip_unprivileged_port_start"), "no remedy: {refused:?}");
    docker.ok(["rm", "low"])?;
    publish("127.0.0.1:1024:80")?.ok()?;
    docker.ok(["rm", "-f", "low"])?;
    let daemon = *machine.processes("caisson-host")?.first().context("no daemon")?;
    let in_its_network = |script: &str| -> Result<String> {
        let network = format!("--net=/proc/{daemon}/ns/net");
        let output = Command::new("nsenter").args([&network, "sh", "-ec", script]).in_time()?;
        ensure!(output.status.success(), "{}", told(&output));
        Ok(String::from_utf8(output.stdout)?)
    };
    in_its_network(
        "test $(readlink /proc/self/ns/net) != $(readlink /proc/$PPID/ns/net); \
         echo 1023 >/proc/sys/net/ipv4/ip_unprivileged_port_start",
    )?;
    publish("127.0.0.1:1023:80")?.ok()?;
    let fetch =
        "curl --silent --show-error --max-time 30 --retry 20 --retry-all-errors http://127.0.0.1:1023/";
    let page = in_its_network(fetch)?;
    ensure!(page.contains("web"), "{page}");
    docker.ok(["rm", "-f", "low"])?;
    Ok(())
}

fn containers_survive_a_restart_of_the_machine(machine: &Machine) -> Result<()> {
    let docker = machine.docker();
    docker.ok([
        "run",
        "-d",
        "--name",
        "kept",
        "-p",
        "28099:80",
        "web",
        "sh",
        "-c",
        "echo once > /kept; exec httpd -f -p 80 -h /www",
    ])?;
    machine.fetch("http://127.0.0.1:28099/")?;
    machine.ok(&["restart"])?;
    ensure!(machine.is_closed("http://127.0.0.1:28099/")?, "a port outlived its machine");
    let status = docker.ok(["inspect", "-f", "{{.State.Status}}", "kept"])?;
    ensure!(status == "exited", "{status}");
    docker.ok(["start", "kept"])?;
    machine.fetch("http://127.0.0.1:28099/")?;
    ensure!(docker.ok(["ps", "-q", "--filter", "name=kept"])?.lines().count() == 1);
    docker.ok(["rm", "-f", "kept"])?;
    Ok(())
}

fn a_client_boots_a_stopped_machine(machine: &Machine) -> Result<()> {
    machine.ok(&["stop", "--machine-only"])?;
    ensure!(state(machine)? == "stopped");
    ensure!(machine.processes("qemu-system-x86_64")?.is_empty());
    ensure!(machine.docker().ok(["run", "--rm", "busybox", "echo", "served"])? == "served");
    ensure!(state(machine)? == "running");
    Ok(())
}

fn a_killed_qemu_is_noticed_and_the_next_client_boots(machine: &Machine) -> Result<()> {
    let docker = machine.docker();
    docker.ok(["run", "-d", "--name", "cut", "--restart", "no", "busybox", "sleep", "1000"])?;
    for qemu in machine.processes("qemu-system-x86_64")? {
        kill(qemu)?;
    }
    ensure!(
        docker.ok(["inspect", "-f", "{{.State.Status}}", "cut"])? == "exited",
        "a container outlived its machine"
    );
    ensure!(state(machine)? == "running");
    ensure!(docker.ok(["run", "--rm", "busybox", "echo", "again"])? == "again");
    docker.ok(["rm", "cut"])?;
    Ok(())
}

fn a_killed_daemon_leaves_nothing_behind(machine: &Machine) -> Result<()> {
    let qemu = machine.processes("qemu-system-x86_64")?;
    ensure!(qemu.len() == 1, "{qemu:?}");
    for daemon in machine.processes("caisson-host")? {
        kill(daemon)?;
    }
    machine.ok(&["start"])?;
    let now = machine.processes("qemu-system-x86_64")?;
    ensure!(now.len() == 1 && now != qemu, "before {qemu:?}, now {now:?}");
    ensure!(machine.docker().ok(["run", "--rm", "busybox", "echo", "back"])? == "back");
    Ok(())
}

fn a_full_data_disk_loses_nothing(_machine: &Machine) -> Result<()> {
    let small = Machine::new()?;
    let output = small.caisson(&["start"]).env("CAISSON_DISK", "300").in_time()?;
    ensure!(output.status.success(), "{}", told(&output));
    let docker = small.docker();
    docker.load_images()?;
    docker.ok(["create", "--name", "before", "busybox", "echo", "still here"])?;
    let fill = ["run", "--name", "filler", "busybox", "dd", "if=/dev/zero", "of=/fill", "bs=1M"];
    let answer = docker.run(fill)?;
    ensure!(answer.status == 1 && answer.err.contains("No space left on device"), "{answer:?}");
    let answer = docker.feed(["import", "-", "one:more"], &vec![0x5A; 1 << 20])?;
    ensure!(answer.status == 1, "{answer:?}");
    ensure!(docker.ok(["images", "-q"])?.lines().count() == 3, "an image came or went");
    docker.ok(["rm", "filler"])?;
    ensure!(docker.ok(["start", "-a", "before"])? == "still here");
    Ok(())
}

fn a_missing_program_is_named(_machine: &Machine) -> Result<()> {
    let other = Machine::new()?;
    let output = other.caisson(&["start"]).env("PATH", other.home()).in_time()?;
    let text = told(&output);
    ensure!(!output.status.success(), "{text}");
    ensure!(text.contains("qemu-system-x86_64") && text.contains("qemu-system-x86"), "{text}");
    Ok(())
}

fn a_missing_image_is_named(_machine: &Machine) -> Result<()> {
    let other = Machine::new()?;
    let none = other.home().join("no-image");
    let output = other.caisson(&["start"]).env("CAISSON_VM_IMAGE", &none).in_time()?;
    let text = told(&output);
    ensure!(!output.status.success() && text.contains(&none.display().to_string()), "{text}");
    Ok(())
}
