//! Mount, network and pid namespaces that live as long as a value of this process.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::bounded::{self, Bounded};
use anyhow::{Context, Result, ensure};

/// The first process of the namespaces. It reaps orphans, and ends when its standard input does: so everything in the
/// namespaces ends with the process that made them, however that ends.
///
/// `/sys/fs/cgroup` becomes the v2 tree where this system is a v1 hybrid, for the engines that ask for it.
const FIRST_PROCESS: &str = r#"
set -e
mount --make-rprivate /
mount -t tmpfs tmpfs /run
if [ "$1" = unified ] && [ -d /sys/fs/cgroup/unified ]; then mount --bind /sys/fs/cgroup/unified /sys/fs/cgroup; fi
ip link set lo up
echo ready
while read -r _; do :; done
"#;

/// Namespaces of their own, private from this system's.
pub struct Namespaces {
    first: Child,
    pid: u32,
}

/// Which cgroup tree the namespaces show at `/sys/fs/cgroup`.
#[derive(Clone, Copy)]
pub enum Cgroups {
    /// The v2 tree, even where the system is a v1 hybrid (then without controllers).
    Unified,
    /// What the system has.
    AsSystem,
}

impl Namespaces {
    /// Makes the namespaces; needs root.
    pub fn new(cgroups: Cgroups) -> Result<Self> {
        ensure!(
            rustix::process::geteuid().is_root(),
            "engines run in namespaces of their own, which takes root"
        );
        let cgroups = match cgroups {
            Cgroups::Unified => "unified",
            Cgroups::AsSystem => "system",
        };
        let mut first = Command::new("unshare")
            .args(["--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"])
            .args(["bash", "-c", FIRST_PROCESS, "namespaces", cgroups])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("could not run unshare")?;
        let out = first.stdout.take().context("unshare has no output")?;
        let mut line = String::new();
        BufReader::new(out).read_line(&mut line)?;
        ensure!(line == "ready\n", "namespaces could not be made; the reason is above");
        let pid = child_of(first.id())?;
        Ok(Self { first, pid })
    }

    /// Where the network namespace is.
    pub fn network(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/ns/net", self.pid))
    }

    /// A command that will run inside.
    pub fn command(&self, program: impl AsRef<Path>) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--target={}", self.pid)).args(["--mount", "--net", "--pid", "--"]);
        command.arg(program.as_ref());
        command
    }

    /// The standard output of a shell line that runs inside.
    pub fn shell(&self, line: &str) -> Result<String> {
        let output = self.command("sh").args(["-c", line]).in_time()?;
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(output.status.success(), "`{line}` failed: {error}");
        Ok(String::from_utf8(output.stdout)?)
    }
}

impl Drop for Namespaces {
    fn drop(&mut self) {
        if let Some(mut input) = self.first.stdin.take() {
            // The end of its input is what ends it; the flush says nothing that it waits for.
            let _ = input.flush();
        }
        // It has ended, or is ended by this.
        let _ = bounded::watch(&self.first, "the first process of the namespaces".to_owned());
        let _ = self.first.wait();
    }
}

/// The only child of a process that has forked once.
pub fn child_of(pid: u32) -> Result<u32> {
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))?;
    let child = children.split_whitespace().next().context("the process has no child")?;
    Ok(child.parse()?)
}
