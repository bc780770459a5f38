//! What containers use, and the change of their limits.

use std::io::{BufRead, BufReader};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::cases;
use crate::subject::Subject;

cases![
    a_sample_tells_of_processors_and_networks,
    a_container_that_does_not_run_has_empty_samples,
    samples_that_exclude_each_other_are_refused,
    one_shot_is_a_sample_without_one_before,
    samples_come_until_their_container_is_removed,
    the_cli_shows_what_containers_use,
    an_update_changes_the_restart_policy,
    updates_that_do_not_go_together_are_refused,
];

fn get(on: &dyn Subject, path: &str) -> Result<(u16, Value)> {
    let answer = on.api().get(path)?;
    Ok((answer.status, answer.json()?))
}

fn removed(on: &dyn Subject, name: &str) -> Result<()> {
    on.docker().ok(["rm", "-f", name]).map(drop)
}

fn a_sample_tells_of_processors_and_networks(on: &dyn Subject) -> Result<()> {
    on.docker().ok(["run", "-d", "--name", "used", "busybox", "sh", "-c", "while :; do :; done"])?;
    let (status, stats) = get(on, "/containers/used/stats?stream=false")?;
    removed(on, "used")?;
    ensure!(status == 200 && stats["name"] == "/used", "{stats}");
    let number = |pointer: &str| stats.pointer(pointer).and_then(Value::as_u64).unwrap_or_default();
    ensure!(number("/cpu_stats/online_cpus") > 0, "{stats}");
    ensure!(number("/cpu_stats/system_cpu_usage") > number("/precpu_stats/system_cpu_usage"), "{stats}");
    ensure!(
        number("/cpu_stats/cpu_usage/total_usage") > number("/precpu_stats/cpu_usage/total_usage"),
        "{stats}"
    );
    let interface = &stats["networks"]["eth0"];
    ensure!(interface["rx_bytes"].is_u64() && interface["tx_dropped"] == 0, "{stats}");
    ensure!(stats["networks"].as_object().is_some_and(|all| all.len() == 1), "{stats}");
    Ok(())
}

fn a_container_that_does_not_run_has_empty_samples(on: &dyn Subject) -> Result<()> {
    on.docker().ok(["create", "--name", "unused", "busybox"])?;
    let (status, stats) = get(on, "/containers/unused/stats?stream=false")?;
    removed(on, "unused")?;
    ensure!(status == 200 && stats["name"] == "/unused" && stats["networks"].is_null(), "{stats}");
    ensure!(stats["read"] == NEVER && stats["memory_stats"] == json!({}), "{stats}");
    Ok(())
}

fn samples_that_exclude_each_other_are_refused(on: &dyn Subject) -> Result<()> {
    on.docker().ok(["create", "--name", "both-ways", "busybox"])?;
    let (status, told) = get(on, "/containers/both-ways/stats?stream=true&one-shot=true")?;
    removed(on, "both-ways")?;
    ensure!(status == 400 && told["message"] == "cannot have stream=true and one-shot=true", "{told}");
    Ok(())
}

/// The moment of a sample that there is not.
const NEVER: &str = "0001-01-01T00:00:00Z";

fn one_shot_is_a_sample_without_one_before(on: &dyn Subject) -> Result<()> {
    on.docker().ok(["run", "-d", "--name", "once-used", "busybox", "sh", "-c", "while :; do :; done"])?;
    let (status, stats) = get(on, "/containers/once-used/stats?stream=false&one-shot=true")?;
    removed(on, "once-used")?;
    ensure!(status == 200 && stats["preread"] == NEVER && stats["read"] != NEVER, "{stats}");
    let used = |sample: &str| stats[sample]["cpu_usage"]["total_usage"].as_u64();
    ensure!(used("precpu_stats") == Some(0) && used("cpu_stats") > Some(0), "{stats}");
    ensure!(stats["precpu_stats"].get("system_cpu_usage").is_none(), "{stats}");
    Ok(())
}

fn samples_come_until_their_container_is_removed(on: &dyn Subject) -> Result<()> {
    on.docker().ok(["run", "-d", "--name", "streamed", "busybox", "sh", "-c", "while :; do :; done"])?;
    // The connection's end is the stream's.
    let (head, body) =
        on.api().get_open("/containers/streamed/stats?stream=1", &[("Connection", "close")])?;
    ensure!(head.starts_with("HTTP/1.1 200 "), "{head}");
    let mut lines = BufReader::new(body).lines();
    let mut sample = || -> Result<Value> {
        // Each comes in a chunk, whose length is on a line of its own.
        let line = lines.find(|line| line.as_ref().map_or(true, |line| line.starts_with('{')));
        Ok(serde_json::from_str(&line.context("the stream is over")??)?)
    };
    let (first, second) = (sample()?, sample()?);
    ensure!(first["name"] == "/streamed" && first["preread"] == NEVER, "{first}");
    ensure!(second["preread"] == first["read"] && second["precpu_stats"] == first["cpu_stats"], "{second}");
    let used = |stats: &Value| stats["cpu_stats"]["cpu_usage"]["total_usage"].as_u64();
    ensure!(used(&second) > used(&first), "{first}\n{second}");
    removed(on, "streamed")?;
    // One that is on its way may still come.
    lines.try_for_each(|line| line.map(drop))?;
    Ok(())
}

fn the_cli_shows_what_containers_use(on: &dyn Subject) -> Result<()> {
    let id = on.docker().ok(["run", "-d", "--name", "shown", "busybox", "sleep", "1000"])?;
    let told = on.docker().ok(["stats", "--no-stream", "--format", "{{.Name}} {{.CPUPerc}}", "shown"])?;
    let line = on.docker().ok(["stats", "--no-stream", "--format", "json", "shown"])?;
    removed(on, "shown")?;
    ensure!(told.starts_with("shown ") && told.ends_with('%'), "{told}");
    let told: Value = serde_json::from_str(&line)?;
    ensure!(told["Name"] == "shown" && told["Container"] == "shown" && told["ID"] == id[..12], "{line}");
    let text = |name: &str| told[name].as_str().unwrap_or_default();
    ensure!(text("CPUPerc").ends_with('%') && text("MemPerc").ends_with('%'), "{line}");
    ensure!(["MemUsage", "NetIO", "BlockIO"].iter().all(|pair| text(pair).contains("B / ")), "{line}");
    ensure!(text("PIDs").parse::<u32>().is_ok(), "{line}");
    Ok(())
}

fn an_update_changes_the_restart_policy(on: &dyn Subject) -> Result<()> {
    let docker = on.docker();
    docker.ok(["run", "-d", "--name", "updated", "busybox", "sleep", "1000"])?;
    ensure!(docker.ok(["update", "--restart", "on-failure:3", "updated"])? == "updated");
    let policy = docker.ok(["inspect", "-f", "{{json .HostConfig.RestartPolicy}}", "updated"])?;
    ensure!(policy == r#"{"Name":"on-failure","MaximumRetryCount":3}"#, "{policy}");
    removed(on, "updated")
}

fn updates_that_do_not_go_together_are_refused(on: &dyn Subject) -> Result<()> {
    on.docker().ok(["create", "--rm", "--name", "not-updated", "busybox"])?;
    let id = on.docker().ok(["inspect", "-f", "{{.Id}}", "not-updated"])?;
    let refused = |body: Value| -> Result<(u16, String)> {
        let answer = on.api().post("/containers/not-updated/update", &body)?;
        Ok((answer.status, answer.json()?["message"].as_str().unwrap_or_default().to_owned()))
    };
    let told = refused(json!({"Memory": 5}))?;
    ensure!(told == (400, "Minimum memory limit allowed is 6MB".into()), "{told:?}");
    let told = refused(json!({"RestartPolicy": {"Name": "always"}}))?;
    let why = "Restart policy cannot be updated because AutoRemove is enabled for the container";
    ensure!(told.1 == format!("Cannot update container {id}: {why}"), "{told:?}");
    removed(on, "not-updated")
}
