//! An engine under test: ours or the reference, natively.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::api::Api;
use crate::bounded;
use crate::cli::Docker;
use crate::namespaces::{Cgroups, Namespaces, child_of};
use crate::subject::Subject;
use crate::{fixtures, output};

/// How long an engine may take to answer its first ping. dockerd needs seconds on a busy machine.
const ANSWERS_WITHIN: Duration = Duration::from_secs(60);

/// Which engine.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// `caisson-engine`, natively.
    Caisson,
    /// Debian's `dockerd`.
    Dockerd,
}

impl Kind {
    /// The prefix of its tests' names.
    pub fn name(self) -> &'static str {
        match self {
            Self::Caisson => "caisson",
            Self::Dockerd => "dockerd",
        }
    }

    fn cgroups(self) -> Cgroups {
        match self {
            Self::Caisson => Cgroups::Unified,
            Self::Dockerd => Cgroups::AsSystem,
        }
    }
}

/// What an engine is told at its start that is only known when the test runs.
#[derive(Debug, Clone, Default)]
pub struct Told {
    /// Arguments that both kinds of engine have.
    pub arguments: Vec<String>,
    /// Variables of its environment.
    pub variables: Vec<(String, String)>,
}

/// A running engine with its namespaces and its data.
pub struct Engine {
    /// Which one it is.
    pub kind: Kind,
    // Dropped first: the engine ends before its folder goes.
    process: Mutex<Child>,
    namespaces: Namespaces,
    home: TempDir,
    setting: Setting,
    told: Told,
}

/// What an engine is started with besides what every engine needs.
#[derive(Clone, Copy, Default)]
pub struct Setting {
    /// A shell line that runs in its namespaces before.
    pub before: &'static str,
    /// More arguments, which both engines understand.
    pub arguments: &'static [&'static str],
}

impl Engine {
    /// Starts an engine with empty data and waits for its first answer.
    pub fn start(kind: Kind) -> Result<Self> {
        Self::start_with(kind, Setting::default())
    }

    /// The same with more arguments.
    pub fn start_with(kind: Kind, setting: Setting) -> Result<Self> {
        Self::start_told(kind, setting, Told::default())
    }

    /// The same with what is only known when the test runs.
    pub fn start_told(kind: Kind, setting: Setting, told: Told) -> Result<Self> {
        let namespaces = Namespaces::new(kind.cgroups())?;
        // Not below anybody's home: a dockerd with users of its own wants a way to its data that is open to all.
        let home = tempfile::Builder::new().prefix("caisson-engine-").tempdir_in("/var/tmp")?;
        if !setting.before.is_empty() {
            namespaces.shell(setting.before)?;
        }
        let process = Mutex::new(spawn(kind, setting, &told, &namespaces, home.path())?);
        let engine = Self { kind, process, namespaces, home, setting, told };
        engine.answers()?;
        Ok(engine)
    }

    /// The socket that clients connect to.
    pub fn socket(&self) -> PathBuf {
        socket(self.home.path())
    }

    /// The folder that holds the data root and the socket.
    pub fn home(&self) -> &Path {
        self.home.path()
    }

    /// The namespaces that are this engine's host.
    pub fn namespaces(&self) -> &Namespaces {
        &self.namespaces
    }

    /// The engine's own process, as this system numbers it.
    pub fn pid(&self) -> Result<u32> {
        child_of(self.process.lock().expect("no test panics with it").id())
    }

    /// Kills the engine like a crash does, and returns once it is gone. Its containers go on.
    pub fn crash(&self) -> Result<()> {
        self.end(Signal::KILL)
    }

    /// Ends the engine in order and returns once it is gone.
    pub fn terminate(&self) -> Result<()> {
        self.end(Signal::TERM)
    }

    /// Starts it again on the same data, and waits for its first answer.
    pub fn start_again(&self) -> Result<()> {
        *self.process.lock().expect("no test panics with it") =
            spawn(self.kind, self.setting, &self.told, &self.namespaces, self.home.path())?;
        self.answers()
    }

    fn end(&self, signal: Signal) -> Result<()> {
        let pid = i32::try_from(self.pid()?)?;
        kill_process(Pid::from_raw(pid).context("pid 0")?, signal)?;
        let mut process = self.process.lock().expect("no test panics with it");
        bounded::watch(&process, format!("{} after a signal", self.kind.name()))?;
        process.wait()?;
        Ok(())
    }

    fn answers(&self) -> Result<()> {
        let give_up = Instant::now() + ANSWERS_WITHIN;
        while self.api().get("/_ping").is_err() {
            if let Some(status) = self.process.lock().expect("no test panics with it").try_wait()? {
                bail!("{} ended ({status}); its log is in tests/output", self.kind.name());
            }
            ensure!(Instant::now() < give_up, "{} does not answer", self.kind.name());
            // Neither engine can tell an outsider that it listens: asking again is the only event there is.
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }
}

impl Subject for Engine {
    fn name(&self) -> &'static str {
        self.kind.name()
    }

    fn docker(&self) -> Docker {
        Docker::new(&self.socket(), self.home.path())
    }

    fn api(&self) -> Api {
        Api::new(self.socket())
    }

    fn on_host(&self, program: &str) -> Command {
        self.namespaces.command(program)
    }

    fn registry_certificates(&self) -> Option<PathBuf> {
        (self.kind == Kind::Caisson).then(|| certificates(self.home.path()))
    }

    fn network(&self) -> Option<PathBuf> {
        Some(self.namespaces.network())
    }
}

fn socket(home: &Path) -> PathBuf {
    home.join("docker.sock")
}

fn certificates(home: &Path) -> PathBuf {
    home.join("certs.d")
}

/// What an engine of this kind writes in its log, all of them in one.
pub fn log(kind: Kind) -> Result<PathBuf> {
    Ok(output()?.join(format!("{}.log", kind.name())))
}

fn spawn(kind: Kind, setting: Setting, told: &Told, namespaces: &Namespaces, home: &Path) -> Result<Child> {
    let log = File::options().create(true).append(true).open(log(kind)?)?;
    let mut command = match kind {
        Kind::Caisson => caisson(namespaces, home)?,
        Kind::Dockerd => dockerd(namespaces, home)?,
    };
    command.args(setting.arguments).args(&told.arguments).envs(told.variables.iter().cloned());
    let process = command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn()?;
    Ok(process)
}

fn caisson(namespaces: &Namespaces, home: &Path) -> Result<Command> {
    let programs = fixtures::programs()?;
    let mut command = namespaces.command(programs.join("caisson-engine"));
    command.arg("--data-root").arg(home.join("data"));
    command.arg("--listen").arg(format!("unix://{}", socket(home).display()));
    command.arg("--registry-certificates").arg(certificates(home));
    command.arg("--exec-root").arg("/run/caisson");
    command.arg("--shim").arg(programs.join("caisson-shim"));
    Ok(command)
}

fn dockerd(namespaces: &Namespaces, home: &Path) -> Result<Command> {
    let reference = fixtures::reference()?;
    let path = format!(
        "{0}/usr/sbin:{0}/usr/bin:{1}",
        reference.display(),
        std::env::var("PATH").context("no PATH")?
    );
    let mut command = namespaces.command(reference.join("usr/sbin/dockerd"));
    command.env("PATH", path).arg("-H").arg(format!("unix://{}", socket(home).display()));
    command.arg("--data-root").arg(home.join("data"));
    command.args(["--exec-root", "/run/docker", "-p", "/run/docker.pid"]);
    Ok(command)
}
