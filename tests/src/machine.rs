//! Caisson's machine, as a user has it: `caisson` in a home of its own.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use crate::api::Api;
use crate::bounded::Bounded;
use crate::cli::Docker;
use crate::repository;
use crate::subject::Subject;

/// A user's home with a machine in it. The machine and its daemon end with the value.
pub struct Machine {
    home: TempDir,
    programs: PathBuf,
}

impl Machine {
    /// A home in which nothing has been started yet.
    pub fn new() -> Result<Self> {
        let programs = match std::env::var_os("CAISSON_HOST_PROGRAMS") {
            Some(given) => PathBuf::from(given),
            None => repository().join("target/release"),
        };
        for name in ["caisson", "caisson-host", "../vm-image/manifest.json"] {
            let needed = programs.join(name);
            ensure!(needed.exists(), "{} is missing: run scripts/build", needed.display());
        }
        // Socket paths end at about a hundred bytes, so the home is not in the repository.
        let home = tempfile::Builder::new().prefix("caisson-").tempdir()?;
        let run = home.path().join("run");
        std::fs::create_dir(&run)?;
        std::fs::set_permissions(&run, std::os::unix::fs::PermissionsExt::from_mode(0o700))?;
        Ok(Self { home, programs })
    }

    /// `caisson ARGS` as this home's user.
    pub fn caisson(&self, args: &[&str]) -> Command {
        let mut command = Command::new(self.programs.join("caisson"));
        self.as_user(&mut command).args(args).stdin(Stdio::null());
        command
    }

    /// Makes a command run as this home's user.
    pub fn as_user<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        for variable in
            ["XDG_DATA_HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME", "XDG_STATE_HOME", "DOCKER_HOST"]
        {
            command.env_remove(variable);
        }
        command
            .env("HOME", self.home.path())
            .env("XDG_RUNTIME_DIR", self.home.path().join("run"))
            .env("DOCKER_CONFIG", self.docker_config())
    }

    /// The machine's image that lies beside the programs.
    pub fn image(&self) -> PathBuf {
        self.programs.join("../vm-image")
    }

    /// The home's folder.
    pub fn home(&self) -> &Path {
        self.home.path()
    }

    /// Where the docker CLI keeps its contexts.
    pub fn docker_config(&self) -> PathBuf {
        self.home.path().join("docker-config")
    }

    /// Runs `caisson ARGS`, which has to succeed, and returns its output.
    pub fn ok(&self, args: &[&str]) -> Result<String> {
        let output = self.caisson(args).in_time()?;
        ensure!(output.status.success(), "caisson {args:?} ended with {}: {}", output.status, told(&output));
        Ok(String::from_utf8(output.stdout)?)
    }

    /// What `caisson status --json` says.
    pub fn status(&self) -> Result<Value> {
        let output = self.caisson(&["status", "--json"]).in_time()?;
        serde_json::from_slice(&output.stdout).with_context(|| told(&output))
    }

    /// Where Docker clients find the engine.
    pub fn socket(&self) -> PathBuf {
        self.home.path().join("run/caisson/docker.sock")
    }

    /// Ends the machine and its daemon, if need be without asking them.
    pub fn end(&self) {
        // A test that failed has said why; one that ended the daemon has nothing to stop.
        let _ = self.caisson(&["stop"]).in_time();
        for name in ["caisson-host", "qemu-system-x86_64"] {
            for process in self.processes(name).unwrap_or_default() {
                // It may be ending already.
                let _ = kill(process);
            }
        }
    }

    /// This home's processes of a name, as this system numbers them.
    pub fn processes(&self, name: &str) -> Result<Vec<u32>> {
        let home = format!("HOME={}", self.home.path().display());
        let mut found = Vec::new();
        for entry in std::fs::read_dir("/proc")?.flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            // A process may end while it is looked at.
            let Ok(environment) = std::fs::read(entry.path().join("environ")) else { continue };
            let Ok(program) = std::fs::read_link(entry.path().join("exe")) else { continue };
            let ours = environment.split(|byte| *byte == 0).any(|variable| variable == home.as_bytes());
            if ours && program.file_name().is_some_and(|file| file == name) {
                found.push(pid);
            }
        }
        Ok(found)
    }
}

/// Both outputs of a command, for an error.
pub fn told(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stderr), String::from_utf8_lossy(&output.stdout))
}

impl Subject for Machine {
    fn name(&self) -> &'static str {
        "machine"
    }

    fn docker(&self) -> Docker {
        Docker::new(&self.socket(), self.home.path())
    }

    fn api(&self) -> Api {
        Api::new(self.socket())
    }

    fn on_host(&self, program: &str) -> Command {
        Command::new(program)
    }
}

/// Kills a process.
pub fn kill(pid: u32) -> Result<()> {
    let pid = Pid::from_raw(i32::try_from(pid)?).context("pid 0")?;
    Ok(kill_process(pid, Signal::KILL)?)
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.end();
    }
}
