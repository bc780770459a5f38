//! What goes wrong inside the machine, or between it and a host of another version.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use caisson_tests::bounded::Bounded;
use caisson_tests::machine::{Machine, told};
use caisson_tests::subject::Subject;
use serde_json::Value;

use crate::state;

machine_cases![
    a_killed_engine_comes_back_and_its_containers_go_on,
    an_engine_killed_again_and_again_loses_no_container,
    a_short_soak_loses_and_leaves_nothing,
    an_image_of_another_version_is_refused_before_it_boots,
    a_guest_of_another_version_is_refused_and_ends,
];

/// When the engine that answers now was started, as the machine counts: another one after a restart.
fn engine_pid(machine: &Machine) -> Result<String> {
    machine.docker().ok([
        "run",
        "--rm",
        "--privileged",
        "--pid",
        "host",
        "--network",
        "none",
        "busybox",
        "pidof",
        "caisson-engine",
    ])
}

fn a_killed_engine_comes_back_and_its_containers_go_on(machine: &Machine) -> Result<()> {
    let docker = machine.docker();
    docker.ok(["run", "-d", "--name", "tough", "-p", "28098:80", "web"])?;
    let inspect = ["inspect", "-f", "{{.State.Status}} {{.State.Pid}} {{.State.StartedAt}}", "tough"];
    let before = (docker.ok(inspect)?, engine_pid(machine)?);
    machine.fetch("http://127.0.0.1:28098/")?;

    machine.kill_engine()?;

    // The next client waits in line for the next engine, and sees the container as it was: the same process.
    ensure!(docker.ok(inspect)? == before.0, "was {}", before.0);
    ensure!(engine_pid(machine)? != before.1, "the engine was not killed");
    machine.fetch("http://127.0.0.1:28098/")?;
    let status = machine.status()?;
    ensure!(status["state"]["engine"]["kind"] == "up", "{status}");
    ensure!(docker.ok(["ps", "-a", "--filter", "name=tough", "--format", "{{.Names}}"])? == "tough");
    docker.ok(["rm", "-f", "tough"])?;
    ensure!(machine.is_closed("http://127.0.0.1:28098/")?, "the port outlived its container");
    Ok(())
}

fn an_engine_killed_again_and_again_loses_no_container(machine: &Machine) -> Result<()> {
    let docker = machine.docker();
    docker.ok(["run", "-d", "--name", "counter", "busybox", "sh", "-c", "echo first; exec sleep 1000"])?;
    for _ in 0..3 {
        machine.kill_engine()?;
        ensure!(docker.ok(["logs", "counter"])? == "first");
    }
    ensure!(docker.ok(["inspect", "-f", "{{.State.Status}}", "counter"])? == "running");
    docker.ok(["rm", "-f", "counter"])?;
    Ok(())
}

/// As natively, and here containers have cgroups.
fn a_short_soak_loses_and_leaves_nothing(machine: &Machine) -> Result<()> {
    caisson_tests::soak::soak(machine, 60, u64::from(std::process::id())).map(drop)
}

fn an_image_of_another_version_is_refused_before_it_boots(machine: &Machine) -> Result<()> {
    let ours = machine.image().canonicalize()?;
    let other = machine.home().join("other-image");
    std::fs::create_dir(&other)?;
    for file in ["kernel", "initrd", "root.erofs"] {
        std::os::unix::fs::symlink(ours.join(file), other.join(file))?;
    }
    let mut manifest: Value = serde_json::from_slice(&std::fs::read(ours.join("manifest.json"))?)?;
    let protocol = manifest["protocol"].as_u64().context("the manifest has no protocol")?;
    manifest["protocol"] = (protocol + 1).into();
    std::fs::write(other.join("manifest.json"), manifest.to_string())?;
    refused(machine, &other, &format!("the machine's image speaks protocol {}", protocol + 1))
}

fn a_guest_of_another_version_is_refused_and_ends(machine: &Machine) -> Result<()> {
    let other = std::env::var_os("CAISSON_OTHER_VERSION_IMAGE")
        .map(PathBuf::from)
        .context("CAISSON_OTHER_VERSION_IMAGE is not set: scripts/test machine builds that image")?;
    refused(machine, &other, &format!("the machine speaks protocol {}", u32::MAX))
}

/// Starts the machine with an image that does not fit: it is told why, nothing is left running, and with the right image
/// everything is there as it was.
fn refused(machine: &Machine, image: &Path, why: &str) -> Result<()> {
    let docker = machine.docker();
    docker.ok(["create", "--name", "waiting", "busybox", "echo", "still here"])?;
    machine.ok(&["stop"])?;
    let output = machine.caisson(&["start"]).env("CAISSON_VM_IMAGE", image).in_time()?;
    let text = told(&output);
    ensure!(!output.status.success() && text.contains(why), "{text}");
    ensure!(text.contains("install or build both again"), "it is not said what to do: {text}");
    ensure!(state(machine)? == "failed");
    ensure!(machine.processes("qemu-system-x86_64")?.is_empty(), "a machine that was refused still runs");
    machine.ok(&["stop"])?;
    machine.ok(&["start"])?;
    ensure!(docker.ok(["start", "-a", "waiting"])? == "still here");
    docker.ok(["rm", "waiting"])?;
    Ok(())
}
