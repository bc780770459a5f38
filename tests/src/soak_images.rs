//! A soak of the image store: pulls, loads, imports, commits, pushes, removals and prunes while the engine is killed at random moments.
//!
//! After each kill the next engine must know every image that it had told a client of, and none that nobody asked for; and what it keeps
//! must be whole ([`store_check`](crate::store_check)): every blob has its digest, every layer its files, and nothing is there that
//! nothing needs. A call that got no answer may have been done or not; the soak looks, and goes on from what it finds.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::process::Child;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

use crate::engine::Engine;
use crate::fixtures;
use crate::registry::Registry;
use crate::registry_data::{self, Layer};
use crate::soak::Dice;
use crate::store_check::StoreCheck;
use crate::subject::Subject;

/// How many images the registry has; they share a layer.
const PULLED: u64 = 3;
const COMMITTED: &str = "soak/committed:latest";
const IMPORTED: &str = "soak/imported:latest";
const LOADED: [&str; 2] = ["soak/loaded:a", "soak/loaded:b"];
/// What the container was made from. It is never removed.
const BASE: &str = "busybox:latest";
/// How many files a layer has, and how large they are at most.
const FILES: usize = 150;
const FILE_MAX: u64 = 60_000;
/// The latest moment of a kill, before it is known how long things take.
const FIRST_GUESS: Duration = Duration::from_millis(400);

/// What is asked of the engine that is killed.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Deed {
    Pull(String),
    Load,
    Import,
    Commit,
    Push(String),
    Remove(Vec<String>),
    Prune,
}

/// Names, and the ids of the images that they lead to.
type Names = BTreeMap<String, String>;

struct Soak<'a> {
    engine: &'a Engine,
    registry: Registry,
    home: TempDir,
    dice: Dice,
    check: StoreCheck,
    /// What the engine has told of.
    known: Names,
    /// The latest moment of a kill, for each deed.
    latest: BTreeMap<&'static str, Duration>,
    /// What is mounted when nothing goes on.
    mounts: String,
}

/// How often each deed was killed, and how often its client had its answer before that.
#[derive(Debug, Default)]
pub struct Kills(BTreeMap<&'static str, (usize, usize)>);

impl std::fmt::Display for Kills {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (deed, (kills, answered)) in &self.0 {
            write!(f, "{deed} {kills} (after its answer {answered}), ")?;
        }
        write!(f, "in all {} kills", self.0.values().map(|(kills, _)| kills).sum::<usize>())
    }
}

/// Kills an engine of its own, which has the tests' images and nothing else, so many times. The engine has no images afterwards.
///
/// # Errors
/// The first thing that was lost, left or not whole, with the seed that repeats the choices (not the moments).
pub fn soak(engine: &Engine, kills: usize, seed: u64) -> Result<Kills> {
    let mut soak = Soak::prepare(engine, seed)?;
    let mut done = Kills::default();
    for number in 1..=kills {
        let deed = soak.choose();
        let context = || format!("seed {seed}, kill {number}, of {deed:?}");
        let answered = soak.kill_during(&deed).with_context(context)?;
        let count = done.0.entry(deed.name()).or_default();
        *count = (count.0 + 1, count.1 + usize::from(answered));
        soak.look(&deed, answered).with_context(context)?;
    }
    soak.end().with_context(|| format!("seed {seed}, at the end"))?;
    Ok(done)
}

impl Deed {
    fn name(&self) -> &'static str {
        match self {
            Self::Pull(_) => "pull",
            Self::Load => "load",
            Self::Import => "import",
            Self::Commit => "commit",
            Self::Push(_) => "push",
            Self::Remove(_) => "rmi",
            Self::Prune => "prune",
        }
    }

    /// The names that are there when it was done.
    fn brings(&self) -> Vec<String> {
        match self {
            Self::Pull(name) | Self::Push(name) => vec![name.clone()],
            Self::Load => LOADED.map(str::to_owned).to_vec(),
            Self::Import => vec![IMPORTED.to_owned()],
            Self::Commit => vec![COMMITTED.to_owned()],
            Self::Remove(_) | Self::Prune => Vec::new(),
        }
    }

    /// Whether it may take a name away.
    fn takes(&self, name: &str) -> bool {
        match self {
            Self::Prune => true,
            // A repository's digests go with its last tag.
            Self::Remove(names) => {
                names.iter().any(|gone| gone == name || name.starts_with(&format!("{}@", repository(gone))))
            }
            Self::Pull(_) | Self::Load | Self::Import | Self::Commit | Self::Push(_) => false,
        }
    }
}

impl<'a> Soak<'a> {
    /// Makes what is pulled, loaded and imported, and a container to be committed.
    fn prepare(engine: &'a Engine, seed: u64) -> Result<Self> {
        let home = tempfile::Builder::new().prefix("soak-").tempdir_in(fixtures::scratch()?)?;
        let mut dice = Dice::new(seed);
        let data = home.path().join("registry");
        let shared = Layer::gzip(&layer(&mut dice, "shared")?)?;
        for number in 0..PULLED {
            let own = layer(&mut dice, &format!("own-{number}"))?;
            let own = if number % 2 == 0 { Layer::gzip(&own)? } else { Layer::zstd(&own)? };
            registry_data::put(&data, "soak", &number.to_string(), &[shared.clone(), own])?;
        }
        fs::write(home.path().join("root.tar"), layer(&mut dice, "imported")?)?;
        let docker = engine.docker();
        docker.ok(["rmi", "hello-world", "web"])?;
        docker.ok(["import", &path(&home, "root.tar")?, LOADED[0]])?;
        docker.ok(["tag", LOADED[0], LOADED[1]])?;
        docker.ok(["save", "-o", &path(&home, "images.tar")?, LOADED[0], LOADED[1], BASE])?;
        docker.ok(["rmi", LOADED[0], LOADED[1]])?;
        let script =
            "mkdir /made; for i in $(seq 200); do head -c 20000 /dev/urandom > /made/$i; done; rm /etc/group";
        docker.ok(["run", "--name", "changed", "busybox", "sh", "-c", script])?;
        let registry = Registry::start_with(engine, &data)?;
        let check = StoreCheck::new(&engine.home().join("data/images"));
        let (known, latest, mounts) = (Names::new(), BTreeMap::new(), mounts(engine)?);
        let mut soak = Self { engine, registry, home, dice, check, known, latest, mounts };
        soak.known = soak.names()?;
        Ok(soak)
    }

    /// The next deed: what is there already is removed instead.
    fn choose(&mut self) -> Deed {
        let name = self.registry.name(&format!("soak:{}", self.dice.roll(PULLED)));
        let deed = match self.dice.roll(10) {
            0..=3 => Deed::Pull(name),
            4 => Deed::Load,
            5 => Deed::Import,
            6 => Deed::Commit,
            // Always to a name where nothing is yet.
            7 => Deed::Push(self.registry.name(&format!("pushed-{0}:{0}", self.dice.roll(1 << 32)))),
            8 => Deed::Remove(Vec::new()),
            _ => Deed::Prune,
        };
        let brings = deed.brings();
        let there: Vec<String> = brings.into_iter().filter(|name| self.known.contains_key(name)).collect();
        let all = || self.known.keys().filter(|name| *name != BASE && !name.contains('@')).cloned().collect();
        match deed {
            Deed::Remove(_) if self.known.len() > 1 => Deed::Remove(all()),
            Deed::Remove(_) => Deed::Load,
            deed if there.is_empty() => deed,
            _ => Deed::Remove(there),
        }
    }

    fn begin(&self, deed: &Deed) -> Result<Child> {
        let docker = self.engine.docker();
        match deed {
            Deed::Pull(name) => docker.spawn(["pull", "-q", name]),
            Deed::Load => docker.spawn(["load", "-qi", &path(&self.home, "images.tar")?]),
            Deed::Import => docker.spawn(["import", &path(&self.home, "root.tar")?, IMPORTED]),
            Deed::Commit => docker.spawn(["commit", "changed", COMMITTED]),
            Deed::Push(name) => {
                let from = if self.known.contains_key(COMMITTED) { COMMITTED } else { BASE };
                docker.ok(["tag", from, name])?;
                docker.spawn(["push", "-q", name])
            }
            Deed::Remove(names) => docker.spawn(["rmi".to_owned()].iter().chain(names)),
            Deed::Prune => docker.spawn(["image", "prune", "-af"]),
        }
    }

    /// Kills the engine somewhere in a deed, and starts the next. Says whether the client had its answer.
    fn kill_during(&mut self, deed: &Deed) -> Result<bool> {
        let latest = self.latest.get(deed.name()).copied().unwrap_or(FIRST_GUESS);
        let moment = Duration::from_micros(self.dice.roll(u64::try_from(latest.as_micros())?.max(1)));
        let client = self.begin(deed)?;
        // The moment of the kill is what is random here, and waited for.
        std::thread::sleep(moment);
        self.engine.crash()?;
        let answered = client.wait_with_output()?.status.success();
        self.engine.start_again()?;
        // One kill in four comes after the answer, however fast this computer is.
        self.latest.insert(deed.name(), latest.mul_f64(if answered { 0.85 } else { 1.05 }));
        Ok(answered)
    }

    /// What must be true after a deed that may not have been done.
    fn look(&mut self, deed: &Deed, answered: bool) -> Result<()> {
        let now = self.names()?;
        for (name, id) in &self.known {
            match now.get(name) {
                Some(found) => ensure!(found == id, "{name} leads to {found}, not to {id} any more"),
                None => ensure!(deed.takes(name) && name != BASE, "{name} is lost"),
            }
        }
        let brings = deed.brings();
        let is_of = |name: &str, of: &String| name == of || name.starts_with(&format!("{}@", repository(of)));
        for name in now.keys().filter(|name| !self.known.contains_key(*name)) {
            ensure!(brings.iter().any(|of| is_of(name, of)), "{name} came from nowhere");
        }
        if answered {
            let lost: Vec<_> = brings.iter().filter(|name| !now.contains_key(*name)).collect();
            ensure!(lost.is_empty(), "{lost:?} is lost, which its client was told of");
            if let Deed::Remove(names) = deed {
                ensure!(names.iter().all(|name| !now.contains_key(name)), "what was removed is there");
            }
        }
        self.known = now;
        self.check.run()?;
        self.uses_one()?;
        let mounts = mounts(self.engine)?;
        ensure!(mounts == self.mounts, "other mounts than before:\n{mounts}");
        Ok(())
    }

    /// One of the images is saved, which reads all of it, and one runs.
    fn uses_one(&mut self) -> Result<()> {
        let ids: BTreeSet<&String> = self.known.values().collect();
        let Some(id) = ids.iter().nth(self.dice.roll(ids.len() as u64) as usize) else { return Ok(()) };
        let docker = self.engine.docker();
        docker.ok(["save", "-o", &path(&self.home, "saved.tar")?, id])?;
        let image = if self.known.contains_key(COMMITTED) { COMMITTED } else { BASE };
        docker.ok(["run", "--rm", "--network", "none", image, "true"])?;
        Ok(())
    }

    /// Removes everything; nothing may be left.
    fn end(&mut self) -> Result<()> {
        let docker = self.engine.docker();
        docker.ok(["rm", "changed"])?;
        docker.ok(["image", "prune", "-af"])?;
        ensure!(self.names()?.is_empty(), "images are left: {:?}", self.names()?);
        self.check.is_empty()
    }

    /// What the engine tells of.
    fn names(&self) -> Result<Names> {
        let images = self.engine.api().get("/images/json?all=1&digests=1")?.json()?;
        let mut names = Names::new();
        for image in images.as_array().context("a list")? {
            let id = image["Id"].as_str().context("an id")?;
            let of = |key: &str| image[key].as_array().into_iter().flatten();
            for name in of("RepoTags").chain(of("RepoDigests")).filter_map(|name| name.as_str()) {
                names.insert(name.to_owned(), id.to_owned());
            }
        }
        Ok(names)
    }
}

/// A name without its tag.
fn repository(name: &str) -> &str {
    name.rsplit_once(':').map_or(name, |(repository, _)| repository)
}

fn mounts(engine: &Engine) -> Result<String> {
    engine.namespaces().shell("cut -d' ' -f 5 /proc/self/mountinfo | sort")
}

fn path(home: &TempDir, name: &str) -> Result<String> {
    let path = home.path().join(name).into_os_string().into_string();
    path.map_err(|_| anyhow::anyhow!("a path that is no text"))
}

/// A layer's tar: many files that hardly compress, links to them, and a deletion.
fn layer(dice: &mut Dice, name: &str) -> Result<Vec<u8>> {
    let mut archive = tar::Builder::new(Vec::new());
    let header = |kind, size: usize| {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(size as u64);
        header.set_mode(0o640);
        header.set_mtime(1_700_000_000);
        header
    };
    for number in 0..FILES {
        let length = dice.roll(FILE_MAX) as usize;
        let bytes: Vec<u8> =
            std::iter::repeat_with(|| dice.roll(1 << 62).to_le_bytes()).take(length / 8).flatten().collect();
        let file = format!("{name}/{}/{number}", number % 10);
        archive.append_data(&mut header(tar::EntryType::Regular, bytes.len()), &file, &bytes[..])?;
        if number % 10 == 0 {
            archive.append_link(
                &mut header(tar::EntryType::Link, 0),
                format!("{name}/link-{number}"),
                &file,
            )?;
        }
    }
    archive.append_data(&mut header(tar::EntryType::Regular, 0), format!("{name}/.wh.gone"), &[][..])?;
    Ok(archive.into_inner()?)
}
