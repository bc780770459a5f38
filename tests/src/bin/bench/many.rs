//! Many containers: started at once, and listed.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use caisson_tests::api::Answer;
use caisson_tests::engine::Engine;
use caisson_tests::subject::Subject;
use serde_json::{Value, json};

use crate::measure::{Pair, in_turn, median};

const AT_ONCE: usize = 100;
const LISTED: usize = 1000;
/// How often so many are started: that takes dockerd half a minute.
const STARTS: usize = 3;
/// How many clients make and remove what is listed.
const CLIENTS: usize = 4;

/// Prints this part's rows.
pub(crate) fn run(engines: &Pair) -> Result<()> {
    engines.row("100 containers started at once, median of 3", start_at_once)?;
    for engine in engines.both() {
        by_several(LISTED, CLIENTS, |number| create(engine, &format!("listed-{number}"), "true").map(drop))?;
        ensure!(list(engine)?.json()?.as_array().is_some_and(|all| all.len() >= LISTED));
    }
    // Until all of it is there: what a client makes of it is not the engine's time.
    in_turn(engines, "list 1000 containers by API", |on| list(on).map(drop))?;
    in_turn(engines, "docker ps -a with 1000 containers", |on| on.docker().ok(["ps", "-a"]).map(drop))?;
    for engine in engines.both() {
        let removed = engine.api().post("/containers/prune", &Value::Null)?;
        ensure!(removed.status == 200, "prune: {}", removed.status);
    }
    Ok(())
}

fn list(on: &Engine) -> Result<Answer> {
    let listed = on.api().get("/containers/json?all=1")?;
    ensure!(listed.status == 200, "list: {}", listed.status);
    Ok(listed)
}

fn create(on: &Engine, name: &str, command: &str) -> Result<String> {
    let config = json!({"Image": "busybox", "Cmd": ["sh", "-c", command], "StopSignal": "KILL"});
    let created = on.api().post(&format!("/containers/create?name={name}"), &config)?;
    Ok(created.json()?["Id"].as_str().with_context(|| format!("create: {}", created.status))?.to_owned())
}

/// The milliseconds until all of them run, each with a network of its own.
fn start_at_once(on: &Engine) -> Result<f64> {
    let times = (0..STARTS).map(|round| start_round(on, round)).collect::<Result<Vec<_>>>()?;
    Ok(median(times))
}

fn start_round(on: &Engine, round: usize) -> Result<Duration> {
    let ids = (0..AT_ONCE).map(|number| create(on, &format!("at-once-{round}-{number}"), "sleep 1000"));
    let ids = ids.collect::<Result<Vec<_>>>()?;
    let begin = Instant::now();
    by_several(AT_ONCE, AT_ONCE, |number| {
        let started = on.api().post(&format!("/containers/{}/start", ids[number]), &Value::Null)?;
        ensure!(started.status == 204, "start: {}", String::from_utf8_lossy(&started.body));
        Ok(())
    })?;
    let took = begin.elapsed();
    by_several(AT_ONCE, CLIENTS, |number| {
        let removed = on.api().delete(&format!("/containers/{}?force=1", ids[number]))?;
        ensure!(removed.status == 204, "remove: {}", removed.status);
        Ok(())
    })?;
    Ok(took)
}

/// Does something so many times, with so many clients at once.
fn by_several(times: usize, clients: usize, work: impl Fn(usize) -> Result<()> + Sync) -> Result<()> {
    std::thread::scope(|scope| {
        let share = |client: usize| (client..times).step_by(clients);
        let work = &work;
        let threads: Vec<_> =
            (0..clients).map(|client| scope.spawn(move || share(client).try_for_each(work))).collect();
        threads.into_iter().try_for_each(|thread| thread.join().map_err(|_| anyhow!("a client panicked"))?)
    })
}
