//! A soak: containers made, run, exec'ed and removed by several clients while the engine is killed at random moments, some of them with health
//! checks, restart policies, volumes and networks of their own. Afterwards nothing may be left of them, and none may have been lost on the way.
//!
//! The last tenth of them lives with one engine that nobody kills, so that what an engine leaks while it lives shows, too.
//!
//! What a client was told has to stay true: a container that was made is there until its removal was asked for, one that was
//! started runs, one that was removed does not come back. A call that got no answer, because the engine was killed, may have been
//! done or not; the client looks, and goes on from what it finds.

pub mod mortal;

use std::collections::BTreeSet;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use self::mortal::{FILES_MORE, Mortal};
use crate::api::{Answer, Api};

/// How many clients there are at once.
const CLIENTS: usize = 6;
/// How often something that an engine does by itself is asked for until it must have happened; there is no event that outlives the engine.
const LOOKS: usize = 1500;
const BETWEEN_LOOKS: Duration = Duration::from_millis(20);

/// Random numbers that a seed repeats: SplitMix64.
pub struct Dice(u64);

impl Dice {
    /// Those of a seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next, below `bound`.
    pub fn roll(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }
}

/// What a soak came to.
#[derive(Debug)]
pub struct Outcome {
    /// How many containers were made and removed.
    pub containers: usize,
    /// How often the engine was killed.
    pub kills: usize,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} containers and {} kills", self.containers, self.kills)
    }
}

/// What becomes of a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Life {
    GoesAtItsEnd,
    EndsByItself,
    NeverRuns,
    Stopped,
    Restarts,
    /// Its policy starts it again twice.
    FailsAgain,
    Execs,
    Checked,
    /// One with a name, and one without.
    Volumes,
    OwnNetwork,
}

impl Life {
    const ALL: [Self; 10] = [
        Self::GoesAtItsEnd,
        Self::EndsByItself,
        Self::NeverRuns,
        Self::Stopped,
        Self::Restarts,
        Self::FailsAgain,
        Self::Execs,
        Self::Checked,
        Self::Volumes,
        Self::OwnNetwork,
    ];

    fn ends_by_itself(self) -> bool {
        matches!(self, Self::GoesAtItsEnd | Self::EndsByItself | Self::FailsAgain)
    }

    fn wish(self, name: &str) -> Value {
        let script = if self.ends_by_itself() { "echo out; exit 3" } else { "sleep 1000" };
        let policy = match self {
            Self::Restarts => json!({"Name": "always"}),
            Self::FailsAgain => json!({"Name": "on-failure", "MaximumRetryCount": 2}),
            _ => json!({"Name": "no"}),
        };
        let mut wish = json!({
            "Image": "busybox", "Cmd": ["sh", "-c", script], "StopSignal": "KILL",
            "HostConfig": {"NetworkMode": name, "AutoRemove": self == Self::GoesAtItsEnd, "RestartPolicy": policy},
        });
        match self {
            Self::Checked => wish["Healthcheck"] = json!({"Test": ["CMD", "true"], "Interval": 50_000_000}),
            Self::Volumes => {
                wish["Volumes"] = json!({"/anonymous": {}});
                wish["HostConfig"]["Binds"] = json!([format!("{name}:/named")]);
            }
            _ => {}
        }
        wish
    }
}

struct Soak<'a> {
    engine: &'a dyn Mortal,
    seed: u64,
    containers: usize,
    next: AtomicUsize,
    /// Nobody is killed any more.
    spared: AtomicBool,
    ids: Mutex<BTreeSet<String>>,
    failures: Mutex<Vec<anyhow::Error>>,
}

/// Lives through so many containers on an engine of its own, which has the images.
///
/// # Errors
/// The first thing that was lost or left, with the seed that repeats the choices (not the moments).
pub fn soak(engine: &dyn Mortal, containers: usize, seed: u64) -> Result<Outcome> {
    // What the first container on a bridge brings stays.
    engine.docker().ok(["run", "--rm", "busybox", "true"])?;
    let before = engine.traces(&BTreeSet::new())?;
    let soak = Soak {
        engine,
        seed,
        containers,
        next: AtomicUsize::new(0),
        spared: AtomicBool::new(false),
        ids: Mutex::default(),
        failures: Mutex::default(),
    };
    let kills = std::thread::scope(|scope| {
        let killer = scope.spawn(|| {
            let killed = engine.kill_until(&soak.spared, &mut Dice::new(seed ^ 0xdead));
            killed.inspect_err(|_| soak.stop())
        });
        let clients: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(|| soak.client())).collect();
        for client in clients {
            if client.join().is_err() {
                soak.fail(anyhow::anyhow!("a client panicked"));
            }
        }
        soak.spared.store(true, Ordering::Relaxed);
        killer.join().map_err(|_| anyhow::anyhow!("the killer panicked"))?
    })
    .with_context(|| format!("seed {seed}"))?;
    let failures = soak.failures.into_inner().unwrap_or_else(PoisonError::into_inner);
    if let Some(first) = failures.into_iter().next() {
        return Err(first.context(format!("seed {seed}, after {kills} kills")));
    }
    let ids = soak.ids.into_inner().unwrap_or_else(PoisonError::into_inner);
    let after = engine.traces(&ids)?;
    ensure!(
        after.seen == before.seen && after.files <= before.files + FILES_MORE,
        "seed {seed}: left over\nbefore:\n{before}\nafter:\n{after}"
    );
    Ok(Outcome { containers, kills })
}

impl Soak<'_> {
    fn fail(&self, error: anyhow::Error) {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner).push(error);
        self.stop();
    }

    /// No more lives are begun.
    fn stop(&self) {
        self.next.store(self.containers, Ordering::Relaxed);
    }

    fn client(&self) {
        loop {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            if number >= self.containers {
                return;
            }
            if number >= self.containers - self.containers / 10 {
                self.spared.store(true, Ordering::Relaxed);
            }
            let mut dice = Dice::new(self.seed.wrapping_add(number as u64));
            if let Err(error) = self.one_life(number, &mut dice) {
                self.fail(error.context(format!("container {number}")));
                return;
            }
        }
    }

    fn one_life(&self, number: usize, dice: &mut Dice) -> Result<()> {
        let name = format!("soak-{number}");
        let life = Life::ALL[dice.roll(Life::ALL.len() as u64) as usize];
        let mut wish = life.wish(&name);
        if life == Life::OwnNetwork {
            self.insist_with("/networks/create", &json!({"Name": name}), &[201, 409])?;
        } else {
            wish["HostConfig"]["NetworkMode"] = json!(["bridge", "none"][dice.roll(2) as usize]);
        }
        let id = self.create(&name, &wish)?;
        self.ids.lock().unwrap_or_else(PoisonError::into_inner).insert(id.clone());
        self.live(life, &id)?;
        match life {
            Life::Volumes => self.delete(&format!("/volumes/{name}")),
            Life::OwnNetwork => self.delete(&format!("/networks/{name}")),
            _ => Ok(()),
        }
    }

    /// From its start to its removal.
    fn live(&self, life: Life, id: &str) -> Result<()> {
        if life == Life::NeverRuns {
            return self.remove(id);
        }
        self.start(id, life.ends_by_itself())?;
        match life {
            Life::GoesAtItsEnd => return self.is_gone(id),
            Life::EndsByItself | Life::FailsAgain => self.has_ended(id)?,
            Life::Checked => self.is_healthy(id)?,
            Life::Execs => {
                self.runs(id)?;
                self.exec(id)?;
                self.runs(id)?;
            }
            Life::Stopped => {
                self.runs(id)?;
                self.insist(&format!("/containers/{id}/stop"), &[204, 304])?;
                self.has_ended(id)?;
            }
            Life::NeverRuns | Life::Restarts | Life::Volumes | Life::OwnNetwork => self.runs(id)?,
        }
        self.remove(id)
    }

    fn api(&self) -> Api {
        self.engine.api()
    }

    /// Asks until there is an answer.
    fn ask(&self, ask: impl Fn(&Api) -> Result<Answer>) -> Result<Answer> {
        for _ in 0..LOOKS {
            // What has no answer was asked of an engine that is dead.
            if let Ok(answer) = ask(&self.api()) {
                return Ok(answer);
            }
            std::thread::sleep(BETWEEN_LOOKS);
        }
        bail!("the engine does not answer any more")
    }

    /// Posts until there is an answer, which has to be one of these.
    fn insist(&self, path: &str, statuses: &[u16]) -> Result<u16> {
        self.insist_with(path, &Value::Null, statuses)
    }

    fn insist_with(&self, path: &str, body: &Value, statuses: &[u16]) -> Result<u16> {
        let answer = self.ask(|api| api.post(path, body))?;
        ensure!(statuses.contains(&answer.status), "{path}: {} {}", answer.status, text(&answer));
        Ok(answer.status)
    }

    fn create(&self, name: &str, wish: &Value) -> Result<String> {
        let answer = self.ask(|api| api.post(&format!("/containers/create?name={name}"), wish))?;
        match answer.status {
            201 => Ok(answer.json()?["Id"].as_str().context("no id")?.to_owned()),
            // The call before had no answer, and made it.
            409 => {
                let found = self.inspect(name)?.with_context(|| format!("{name} is taken and not there"))?;
                Ok(found["Id"].as_str().context("no id")?.to_owned())
            }
            other => bail!("create {name}: {other} {}", text(&answer)),
        }
    }

    fn start(&self, id: &str, may_be_gone: bool) -> Result<()> {
        let statuses: &[u16] = if may_be_gone { &[204, 304, 404, 409] } else { &[204, 304] };
        self.insist(&format!("/containers/{id}/start"), statuses).map(drop)
    }

    fn inspect(&self, id: &str) -> Result<Option<Value>> {
        let answer = self.ask(|api| api.get(&format!("/containers/{id}/json")))?;
        match answer.status {
            200 => answer.json().map(Some),
            404 => Ok(None),
            other => bail!("inspect {id}: {other} {}", text(&answer)),
        }
    }

    fn runs(&self, id: &str) -> Result<()> {
        let found = self.inspect(id)?.with_context(|| format!("{id} is lost"))?;
        ensure!(found["State"]["Running"] == true, "{id} does not run: {}", found["State"]);
        Ok(())
    }

    fn has_ended(&self, id: &str) -> Result<()> {
        for _ in 0..LOOKS {
            let found = self.inspect(id)?.with_context(|| format!("{id} is lost"))?;
            if found["State"]["Status"] == "exited" {
                let code = found["State"]["ExitCode"].as_i64();
                ensure!(code == Some(3) || code == Some(137), "{id} ended with {code:?}");
                return Ok(());
            }
            if found["State"]["Status"] == "created" {
                // A start that the engine's death cut short is as if it had not been asked for.
                self.start(id, false)?;
            }
            std::thread::sleep(BETWEEN_LOOKS);
        }
        bail!("{id} does not end")
    }

    fn is_healthy(&self, id: &str) -> Result<()> {
        for _ in 0..LOOKS {
            let found = self.inspect(id)?.with_context(|| format!("{id} is lost"))?;
            ensure!(found["State"]["Running"] == true, "{id} does not run: {}", found["State"]);
            match found["State"]["Health"]["Status"].as_str() {
                Some("healthy") => return Ok(()),
                Some("starting") => std::thread::sleep(BETWEEN_LOOKS),
                other => bail!("{id} is {other:?}: {}", found["State"]["Health"]),
            }
        }
        bail!("{id} does not become healthy")
    }

    fn is_gone(&self, id: &str) -> Result<()> {
        for _ in 0..LOOKS {
            match self.inspect(id)? {
                None => return Ok(()),
                Some(found) if found["State"]["Status"] == "created" => self.start(id, true)?,
                Some(_) => {}
            }
            std::thread::sleep(BETWEEN_LOOKS);
        }
        bail!("{id} does not go")
    }

    fn delete(&self, path: &str) -> Result<()> {
        let answer = self.ask(|api| api.delete(path))?;
        // Gone already, by a call that had no answer.
        ensure!(matches!(answer.status, 204 | 404), "remove {path}: {} {}", answer.status, text(&answer));
        Ok(())
    }

    fn remove(&self, id: &str) -> Result<()> {
        self.delete(&format!("/containers/{id}?force=1&v=1"))?;
        ensure!(self.inspect(id)?.is_none(), "{id} is still there");
        Ok(())
    }

    /// Runs a program in the container. An engine that was killed forgets its execs; then it is as if it had not been asked.
    fn exec(&self, id: &str) -> Result<()> {
        let wish = json!({"Cmd": ["sh", "-c", "exit 7"]});
        let made = self.ask(|api| api.post(&format!("/containers/{id}/exec"), &wish))?;
        ensure!(made.status == 201, "exec in {id}: {} {}", made.status, text(&made));
        let exec = made.json()?["Id"].as_str().context("no id")?.to_owned();
        let started = self.ask(|api| api.post(&format!("/exec/{exec}/start"), &json!({"Detach": true})))?;
        ensure!(
            matches!(started.status, 200 | 404 | 409),
            "start of an exec: {} {}",
            started.status,
            text(&started)
        );
        for _ in 0..LOOKS {
            let told = self.ask(|api| api.get(&format!("/exec/{exec}/json")))?;
            if told.status == 404 {
                return Ok(());
            }
            let told = told.json()?;
            if told["Running"] == false {
                ensure!(told["ExitCode"] == 7 || told["ExitCode"].is_null(), "{told}");
                return Ok(());
            }
            std::thread::sleep(BETWEEN_LOOKS);
        }
        bail!("exec {exec} does not end")
    }
}

fn text(answer: &Answer) -> String {
    String::from_utf8_lossy(&answer.body).into_owned()
}
