//! What the machine's kernel counts of a container, as clients are told: memory, processes and the disk, which only cgroup v2 with all
//! its controllers knows.

use std::io::{BufRead, BufReader};

use anyhow::{Context, Result, ensure};
use caisson_tests::machine::Machine;
use caisson_tests::subject::Subject;
use serde_json::Value;

use crate::flows::first_line;

machine_cases![the_cli_shows_what_a_container_holds, samples_tell_of_limits_and_the_disk];

/// How much is written to the disk, in MB of 2^20 bytes.
const WRITTEN: &str = "5";

/// A container that may have 64 MiB and 50 processes, holds 20 MiB, and has written some to the disk.
fn hold(machine: &Machine, name: &str) -> Result<()> {
    let script = "dd if=/dev/zero of=/held/20 bs=1M count=20 && dd if=/dev/zero of=/written bs=1M count=$1 conv=fsync && \
        echo held; exec sleep 1000";
    let limits = ["--memory", "64m", "--pids-limit", "50", "--tmpfs", "/held"];
    let run = [&["run", "-d", "--name", name], &limits[..], &["busybox", "sh", "-c", script, "sh", WRITTEN]];
    machine.docker().ok(run.concat())?;
    let told = first_line(machine, name)?;
    ensure!(told == "held\n", "{told}");
    Ok(())
}

fn the_cli_shows_what_a_container_holds(machine: &Machine) -> Result<()> {
    hold(machine, "holds")?;
    let line = machine.docker().ok(["stats", "--no-stream", "--format", "json", "holds"])?;
    machine.docker().ok(["rm", "-f", "holds"])?;
    let told: Value = serde_json::from_str(&line)?;
    let text = |name: &str| told[name].as_str().unwrap_or_default();
    let held = text("MemUsage").strip_suffix("MiB / 64MiB").with_context(|| line.clone())?;
    ensure!((20.0..64.0).contains(&held.parse::<f64>()?), "{line}");
    ensure!(text("PIDs").parse::<u32>()? >= 1, "{line}");
    let (_, written) = text("BlockIO").split_once(" / ").with_context(|| line.clone())?;
    ensure!(written != "0B", "{line}");
    Ok(())
}

/// The first two of the samples that keep coming.
fn two_samples(machine: &Machine, name: &str) -> Result<[Value; 2]> {
    let path = format!("/containers/{name}/stats?stream=1");
    let (head, body) = machine.api().get_open(&path, &[("Connection", "close")])?;
    ensure!(head.starts_with("HTTP/1.1 200 "), "{head}");
    let mut lines = BufReader::new(body).lines();
    let mut sample = || -> Result<Value> {
        // Each comes in a chunk, whose length is on a line of its own.
        let line = lines.find(|line| line.as_ref().map_or(true, |line| line.starts_with('{')));
        Ok(serde_json::from_str(&line.context("the stream is over")??)?)
    };
    Ok([sample()?, sample()?])
}

fn samples_tell_of_limits_and_the_disk(machine: &Machine) -> Result<()> {
    hold(machine, "sampled")?;
    let samples = two_samples(machine, "sampled")?;
    machine.docker().ok(["rm", "-f", "sampled"])?;
    for sample in &samples {
        let number = |pointer: &str| sample.pointer(pointer).and_then(Value::as_u64);
        ensure!(number("/pids_stats/limit") == Some(50), "{sample}");
        ensure!(number("/pids_stats/current") >= Some(1), "{sample}");
        ensure!(number("/memory_stats/limit") == Some(64 << 20), "{sample}");
        ensure!(number("/memory_stats/usage") > Some(20 << 20), "{sample}");
        ensure!(written(sample) >= WRITTEN.parse::<u64>()? << 20, "{sample}");
    }
    let [first, second] = samples;
    ensure!(second["precpu_stats"] == first["cpu_stats"], "{first}\n{second}");
    Ok(())
}

/// How many bytes went to the disks.
fn written(sample: &Value) -> u64 {
    let entries = sample["blkio_stats"]["io_service_bytes_recursive"].as_array();
    let writes = entries.into_iter().flatten().filter(|entry| entry["op"] == "write");
    writes.filter_map(|entry| entry["value"].as_u64()).sum()
}
