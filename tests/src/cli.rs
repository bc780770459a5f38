//! The real `docker` command, with a configuration of its own.

use std::ffi::OsStr;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use anyhow::{Context, Result, ensure};

use crate::bounded::{self, Bounded};
use crate::fixtures;

/// `docker`, pointed at one engine.
#[derive(Clone)]
pub struct Docker {
    host: String,
    config: PathBuf,
}

/// How a `docker` command ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The exit status; 128 + n for signal n.
    pub status: i32,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

impl Answer {
    /// The output of a command that had to succeed, without the last line's end.
    pub fn ok(self) -> Result<String> {
        ensure!(self.status == 0, "docker ended with {}: {}{}", self.status, self.err, self.out);
        Ok(self.out.trim_end_matches('\n').to_owned())
    }
}

impl Docker {
    /// Commands to the engine behind `socket`; the CLI's configuration lies in `home`.
    pub fn new(socket: &Path, home: &Path) -> Self {
        Self { host: format!("unix://{}", socket.display()), config: home.join("docker-config") }
    }

    /// The command, ready to be spawned.
    pub fn command<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>) -> Result<Command> {
        let mut command = Command::new(program()?);
        command.env("DOCKER_CONFIG", &self.config).env("DOCKER_HOST", &self.host).args(args);
        Ok(command)
    }

    /// Runs `docker ARGS` to its end, with nothing on standard input. One that hangs is killed, and is an error.
    pub fn run<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>) -> Result<Answer> {
        Ok(answer(self.command(args)?.in_time()?))
    }

    /// Runs `docker ARGS`, which has to succeed, and returns its output.
    pub fn ok<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>) -> Result<String> {
        self.run(args)?.ok()
    }

    /// Runs `docker ARGS` with `input` on standard input, then its end.
    pub fn feed<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>, input: &[u8]) -> Result<Answer> {
        let mut child = self.spawn(args)?;
        let mut stdin = child.stdin.take().context("spawned with a pipe")?;
        let input = input.to_owned();
        let feeder = std::thread::spawn(move || stdin.write_all(&input));
        let output = child.wait_with_output()?;
        // A command that did not read all of it is judged by its answer, not by the broken pipe.
        let _ = feeder.join();
        Ok(answer(output))
    }

    /// Starts `docker ARGS` with pipes for all three streams, which end in time: one that hangs is killed.
    pub fn spawn<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>) -> Result<Child> {
        let mut command = self.command(args)?;
        let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        bounded::watch(&child, bounded::told(&command))?;
        Ok(child)
    }

    /// Loads the images that cases run: `busybox`, `hello-world` and `web`.
    pub fn load_images(&self) -> Result<()> {
        let images = fixtures::images()?;
        for name in ["busybox.tar", "hello-world.tar", "web.tar"] {
            self.ok([OsStr::new("load"), OsStr::new("-qi"), images.join(name).as_os_str()])?;
        }
        Ok(())
    }
}

fn answer(output: Output) -> Answer {
    use std::os::unix::process::ExitStatusExt;
    let status = output.status;
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    let status = status.code().or(status.signal().map(|signal| 128 + signal)).unwrap_or(-1);
    Answer { status, out: text(output.stdout), err: text(output.stderr) }
}

/// The system's `docker` where there is one, else the reference's.
pub fn program() -> Result<PathBuf> {
    let path = std::env::var_os("PATH").context("no PATH")?;
    match std::env::split_paths(&path).map(|dir| dir.join("docker")).find(|docker| docker.exists()) {
        Some(docker) => Ok(docker),
        None => Ok(fixtures::reference()?.join("usr/bin/docker")),
    }
}
