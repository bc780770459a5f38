//! Attach, logs and terminals.

use std::io::{Read, Write};

use anyhow::{Context, Result, ensure};

use super::containers::wait_for_log;
use crate::cases;
use crate::subject::Subject;

cases![
    standard_input_reaches_the_container_and_its_end_too,
    a_megabyte_goes_through_unchanged,
    a_terminal_is_a_terminal,
    logs_tail_and_timestamps,
    logs_follow_until_the_end,
    attach_shows_what_is_written,
    standard_error_stays_apart,
];

fn standard_input_reaches_the_container_and_its_end_too(on: &dyn Subject) -> Result<()> {
    let out = on.docker().feed(["run", "--rm", "-i", "busybox", "cat"], b"hi\n")?.ok()?;
    ensure!(out == "hi", "{out}");
    let counted = on.docker().feed(["run", "--rm", "-i", "busybox", "wc", "-c"], b"12345")?.ok()?;
    ensure!(counted.trim() == "5", "{counted}");
    Ok(())
}

fn a_megabyte_goes_through_unchanged(on: &dyn Subject) -> Result<()> {
    let line = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcde\n";
    let input = line.repeat(16 * 1024);
    let answer = on.docker().feed(["run", "--rm", "-i", "busybox", "cat"], input.as_bytes())?;
    ensure!(answer.status == 0 && answer.out == input, "{} bytes came back", answer.out.len());
    Ok(())
}

fn a_terminal_is_a_terminal(on: &dyn Subject) -> Result<()> {
    let answer = on.docker().run([
        "run",
        "--rm",
        "-t",
        "busybox",
        "sh",
        "-c",
        "test -t 0 && test -t 1 && tty && echo done",
    ])?;
    ensure!(answer.status == 0, "{answer:?}");
    ensure!(answer.out.contains("/dev/") && answer.out.ends_with("done\r\n"), "{answer:?}");
    Ok(())
}

fn logs_tail_and_timestamps(on: &dyn Subject) -> Result<()> {
    let docker = on.docker();
    docker.ok([
        "run",
        "--name",
        "logged",
        "busybox",
        "sh",
        "-c",
        "for i in 1 2 3 4; do echo line $i; done",
    ])?;
    ensure!(docker.ok(["logs", "logged"])? == "line 1\nline 2\nline 3\nline 4");
    ensure!(docker.ok(["logs", "--tail", "2", "logged"])? == "line 3\nline 4");
    ensure!(docker.ok(["logs", "--tail", "0", "logged"])?.is_empty());
    let stamped = docker.ok(["logs", "-t", "--tail", "1", "logged"])?;
    let (time, text) = stamped.split_once(' ').context("a time and the line")?;
    ensure!(
        text == "line 4" && time.ends_with('Z') && time.len() == "2026-01-01T00:00:00.000000000Z".len(),
        "{stamped}"
    );
    docker.ok(["rm", "logged"])?;
    Ok(())
}

fn logs_follow_until_the_end(on: &dyn Subject) -> Result<()> {
    let docker = on.docker();
    docker.ok([
        "run",
        "-d",
        "--name",
        "followed",
        "-i",
        "busybox",
        "sh",
        "-c",
        "echo first; read line; echo $line",
    ])?;
    wait_for_log(on, "followed", "first")?;
    let follow = docker.spawn(["logs", "-f", "followed"])?;
    let answer = docker.feed(["attach", "followed"], b"last\n")?;
    ensure!(answer.status == 0, "{answer:?}");
    let followed = follow.wait_with_output()?;
    ensure!(followed.stdout == b"first\nlast\n", "{followed:?}");
    docker.ok(["rm", "followed"])?;
    Ok(())
}

fn attach_shows_what_is_written(on: &dyn Subject) -> Result<()> {
    let docker = on.docker();
    docker.ok(["create", "--name", "attached", "-i", "busybox", "cat"])?;
    let mut start = docker.spawn(["start", "-ai", "attached"])?;
    let mut input = start.stdin.take().context("spawned with a pipe")?;
    let mut output = start.stdout.take().context("spawned with a pipe")?;
    input.write_all(b"ping")?;
    let mut echoed = [0; 4];
    output.read_exact(&mut echoed)?;
    ensure!(&echoed == b"ping");
    drop(input);
    ensure!(start.wait()?.success(), "the end of the input ends cat");
    docker.ok(["rm", "attached"])?;
    Ok(())
}

fn standard_error_stays_apart(on: &dyn Subject) -> Result<()> {
    let docker = on.docker();
    docker.run(["run", "--name", "apart", "busybox", "sh", "-c", "echo out; echo err >&2"])?;
    let logs = docker.run(["logs", "apart"])?;
    ensure!((logs.out.as_str(), logs.err.as_str()) == ("out\n", "err\n"), "{logs:?}");
    docker.ok(["rm", "apart"])?;
    Ok(())
}
