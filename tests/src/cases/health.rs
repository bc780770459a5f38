//! Health checks.

use std::io::{BufRead, BufReader};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::cases;
use crate::subject::Subject;

cases![
    a_container_becomes_healthy_and_unhealthy,
    a_start_period_forgives,
    a_check_that_hangs_is_killed,
    the_shell_and_the_image_s_check_are_obeyed,
    the_last_results_are_told,
    lists_tell_and_filter_by_health,
    a_container_that_ended_is_not_healthy,
    a_paused_container_is_not_probed,
    bad_times_are_refused,
];

/// When a health that does not come is a failure.
const GIVE_UP: Duration = Duration::from_secs(60);

/// Runs a container with a check, and `options` before the image.
fn run(on: &dyn Subject, name: &str, check: &str, options: &[&str]) -> Result<()> {
    let mut words = vec!["run", "-d", "--name", name, "--health-cmd", check, "--health-interval", "100ms"];
    words.extend_from_slice(options);
    words.extend_from_slice(&["busybox", "sleep", "1000"]);
    on.docker().ok(words)?;
    Ok(())
}

fn health(on: &dyn Subject, name: &str) -> Result<Value> {
    Ok(on.api().get(&format!("/containers/{name}/json"))?.json()?["State"]["Health"].clone())
}

/// Asks until the health is as wanted; a check's result is no event unless it changes the status.
fn until(on: &dyn Subject, name: &str, wanted: impl Fn(&Value) -> bool) -> Result<Value> {
    let give_up = Instant::now() + GIVE_UP;
    loop {
        let health = health(on, name)?;
        if wanted(&health) {
            return Ok(health);
        }
        ensure!(Instant::now() < give_up, "{health}");
    }
}

fn a_container_becomes_healthy_and_unhealthy(on: &dyn Subject) -> Result<()> {
    let docker = on.docker();
    let mut events = docker.spawn(["events", "--filter", "container=changes", "--format", "{{.Action}}"])?;
    let mut told = BufReader::new(events.stdout.take().context("spawned with a pipe")?).lines();
    // dockerd's and ours: a subscriber is there when it is told of something.
    loop {
        docker.ok(["create", "--name", "changes", "busybox"])?;
        docker.ok(["rm", "changes"])?;
        if told.next().context("an event")?? == "create" {
            break;
        }
    }
    run(on, "changes", "test -e /healthy", &["--health-retries", "2"])?;
    ensure!(
        health(on, "changes")?["Status"] == "starting" || health(on, "changes")?["Status"] == "unhealthy"
    );
    until(on, "changes", |health| health["Status"] == "unhealthy")?;
    docker.ok(["exec", "changes", "touch", "/healthy"])?;
    let healthy = until(on, "changes", |health| health["Status"] == "healthy")?;
    ensure!(healthy["FailingStreak"] == 0, "{healthy}");
    docker.ok(["exec", "changes", "rm", "/healthy"])?;
    let unhealthy = until(on, "changes", |health| health["Status"] == "unhealthy")?;
    ensure!(unhealthy["FailingStreak"].as_i64() >= Some(2), "{unhealthy}");
    docker.ok(["rm", "-f", "changes"])?;
    let mut changes = Vec::new();
    for line in told {
        let line = line?;
        if line.starts_with("health_status") {
            changes.push(line);
        } else if line == "die" {
            break;
        }
    }
    events.kill()?;
    events.wait()?;
    let expected = ["health_status: unhealthy", "health_status: healthy", "health_status: unhealthy"];
    ensure!(changes == expected, "{changes:?}");
    Ok(())
}

fn a_start_period_forgives(on: &dyn Subject) -> Result<()> {
    let options = ["--health-start-period", "1h", "--health-start-interval", "50ms", "--health-retries", "1"];
    run(on, "forgiven", "test -e /healthy", &options)?;
    let starting = until(on, "forgiven", |health| health["Log"].as_array().is_some_and(|log| log.len() > 2))?;
    ensure!(starting["Status"] == "starting" && starting["FailingStreak"] == 0, "{starting}");
    on.docker().ok(["exec", "forgiven", "touch", "/healthy"])?;
    until(on, "forgiven", |health| health["Status"] == "healthy")?;
    on.docker().ok(["exec", "forgiven", "rm", "/healthy"])?;
    until(on, "forgiven", |health| health["Status"] == "unhealthy")
        .context("once healthy, nothing is forgiven")?;
    on.docker().ok(["rm", "-f", "forgiven"])?;
    Ok(())
}

fn a_check_that_hangs_is_killed(on: &dyn Subject) -> Result<()> {
    let options = ["--health-timeout", "200ms", "--health-retries", "1"];
    run(on, "hangs", "echo before; exec sleep 1234", &options)?;
    until(on, "hangs", |health| health["Status"] == "unhealthy")?;
    // On a busy computer the time may be over before a check has said anything; not for all of them.
    until(on, "hangs", |health| {
        let told = |result: &Value| {
            result["ExitCode"] == -1 && result["Output"] == "Health check exceeded timeout (200ms): before\n"
        };
        health["Log"].as_array().is_some_and(|log| log.iter().any(told))
    })?;
    // One may be running now, but they do not add up.
    let running = on.docker().ok(["exec", "hangs", "sh", "-c", "pgrep -f 'sleep 1234' | wc -l"])?;
    ensure!(running.trim().parse::<u32>()? <= 2, "{running}");
    on.docker().ok(["rm", "-f", "hangs"])?;
    Ok(())
}

fn the_shell_and_the_image_s_check_are_obeyed(on: &dyn Subject) -> Result<()> {
    let interval = 100_000_000;
    for (name, check, wanted) in [
        ("kind1", json!({"Test": ["CMD", "test", "1", "=", "1"], "Interval": interval}), "healthy"),
        ("kind2", json!({"Test": ["CMD", "test 1 = 1"], "Interval": interval, "Retries": 1}), "unhealthy"),
        (
            "kind3",
            json!({"Test": ["CMD-SHELL", "test $0 = /bin/sh || test -n \"$0\""], "Interval": interval}),
            "healthy",
        ),
    ] {
        let body = json!({"Image": "busybox", "Cmd": ["sleep", "1000"], "Healthcheck": check});
        let created = on.api().post(&format!("/containers/create?name={name}"), &body)?;
        ensure!(created.status == 201, "{}", created.json()?);
        ensure!(health(on, name)?.is_null(), "before the start there is none");
        on.docker().ok(["start", name])?;
        until(on, name, |health| health["Status"] == wanted).context(name)?;
        on.docker().ok(["rm", "-f", name])?;
    }
    run(on, "kind4", "true", &["--label", "x"])?;
    on.docker().ok(["rm", "-f", "kind4"])?;
    on.docker().ok(["run", "-d", "--name", "kind5", "--no-healthcheck", "busybox", "sleep", "1000"])?;
    ensure!(health(on, "kind5")?.is_null());
    on.docker().ok(["rm", "-f", "kind5"])?;
    Ok(())
}

fn the_last_results_are_told(on: &dyn Subject) -> Result<()> {
    // Of two streams the order is open, and so what is cut off: the long one is alone.
    run(on, "both-streams", "echo out; echo err >&2", &[])?;
    until(on, "both-streams", |health| {
        let output = health["Log"][0]["Output"].as_str();
        output.is_some_and(|output| output.contains("out\n") && output.contains("err\n"))
    })?;
    run(on, "results", "echo out; head -c 5000 /dev/zero | tr '\\0' x; exit 3", &[])?;
    let full = until(on, "results", |health| health["FailingStreak"].as_i64() > Some(6))?;
    let log = full["Log"].as_array().context("a log")?;
    ensure!(log.len() == 5, "{} results", log.len());
    for result in log {
        let output = result["Output"].as_str().context("text")?;
        ensure!(result["ExitCode"] == 3 && output.len() == 4096 + 3 && output.ends_with("x..."), "{result}");
        ensure!(output.starts_with("out\n"), "{result}");
        ensure!(result["Start"].as_str() < result["End"].as_str(), "{result}");
    }
    on.docker().ok(["rm", "-f", "both-streams", "results"])?;
    Ok(())
}

fn lists_tell_and_filter_by_health(on: &dyn Subject) -> Result<()> {
    run(on, "listed1", "true", &["--label", "healthtest"])?;
    run(on, "listed2", "false", &["--label", "healthtest", "--health-retries", "1"])?;
    on.docker().ok([
        "run",
        "-d",
        "--name",
        "listed3",
        "--label",
        "healthtest",
        "--health-cmd",
        "true",
        "busybox",
        "sleep",
        "1000",
    ])?;
    on.docker().ok([
        "run",
        "-d",
        "--name",
        "listed4",
        "--label",
        "healthtest",
        "busybox",
        "sleep",
        "1000",
    ])?;
    until(on, "listed1", |health| health["Status"] == "healthy")?;
    until(on, "listed2", |health| health["Status"] == "unhealthy")?;
    for (health, name, shown) in [
        ("healthy", "listed1", "(healthy)"),
        ("unhealthy", "listed2", "(unhealthy)"),
        ("starting", "listed3", "(health: starting)"),
        ("none", "listed4", ""),
    ] {
        let filter = format!("health={health}");
        let words =
            ["ps", "--filter", "label=healthtest", "--filter", &filter, "--format", "{{.Names}} {{.Status}}"];
        let told = on.docker().ok(words)?;
        ensure!(told.starts_with(&format!("{name} Up ")) && told.lines().count() == 1, "{health}: {told}");
        ensure!(told.ends_with(shown) && told.contains('(') != shown.is_empty(), "{health}: {told}");
    }
    on.docker().ok(["rm", "-f", "listed1", "listed2", "listed3", "listed4"])?;
    Ok(())
}

fn a_container_that_ended_is_not_healthy(on: &dyn Subject) -> Result<()> {
    run(on, "over", "true", &[])?;
    until(on, "over", |health| health["Status"] == "healthy")?;
    on.docker().ok(["stop", "-t", "0", "over"])?;
    ensure!(health(on, "over")?["Status"] == "unhealthy", "{}", health(on, "over")?);
    on.docker().ok(["start", "over"])?;
    let again = until(on, "over", |health| health["Status"] == "healthy")?;
    ensure!(again["Log"].as_array().is_some_and(|log| log.len() > 1), "the log goes on: {again}");
    on.docker().ok(["rm", "-f", "over"])?;
    Ok(())
}

fn a_paused_container_is_not_probed(on: &dyn Subject) -> Result<()> {
    run(on, "sleeping", "true", &[])?;
    until(on, "sleeping", |health| health["Status"] == "healthy")?;
    on.docker().ok(["pause", "sleeping"])?;
    ensure!(health(on, "sleeping")?["Status"] == "unhealthy");
    let refused = on.docker().run(["exec", "sleeping", "true"])?;
    ensure!(
        refused.status == 1
            && refused.err.contains("Container sleeping is paused, unpause the container before exec"),
        "{refused:?}"
    );
    on.docker().ok(["unpause", "sleeping"])?;
    until(on, "sleeping", |health| health["Status"] == "healthy")?;
    on.docker().ok(["rm", "-f", "sleeping"])?;
    Ok(())
}

fn bad_times_are_refused(on: &dyn Subject) -> Result<()> {
    for (check, message) in [
        (json!({"Interval": 5}), "Interval in Healthcheck cannot be less than 1ms"),
        (json!({"StartPeriod": -5}), "StartPeriod in Healthcheck cannot be less than 1ms"),
        (json!({"Retries": -1}), "Retries in Healthcheck cannot be negative"),
    ] {
        let answer =
            on.api().post("/containers/create", &json!({"Image": "busybox", "Healthcheck": check}))?;
        ensure!(
            answer.status == 400 && answer.json()?["message"] == message,
            "{} {}",
            answer.status,
            answer.json()?
        );
    }
    Ok(())
}
