//! Engines that may be killed at any moment, and what shows that they have left something behind.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::{BETWEEN_LOOKS, Dice, LOOKS};
use crate::engine::Engine;
use crate::machine::Machine;
use crate::subject::Subject;

/// How many more files an engine may have open after its work than before: connections that its clients have just closed.
pub(super) const FILES_MORE: usize = 8;

/// An engine that something starts again when it is killed.
pub trait Mortal: Subject {
    /// Kills it at random moments until it is to be spared; returns how often. There is one that answers, or is about to, at the end.
    fn kill_until(&self, spared: &AtomicBool, dice: &mut Dice) -> Result<usize>;

    /// What containers, of these ids among others, leave behind if they leave anything.
    fn traces(&self, ids: &BTreeSet<String>) -> Result<Traces>;
}

/// What there is of containers.
#[derive(Debug)]
pub struct Traces {
    /// Processes, mounts, links, folders and cgroups.
    pub(super) seen: String,
    /// How many files the engine has open.
    pub(super) files: usize,
}

impl fmt::Display for Traces {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}\nfiles {}", self.seen, self.files)
    }
}

/// Looks until twice the same is seen: shims and their children end a moment after their containers.
fn settled(mut look: impl FnMut() -> Result<String>) -> Result<String> {
    let mut seen = look()?;
    for _ in 0..LOOKS {
        std::thread::sleep(BETWEEN_LOOKS * 10);
        let again = look()?;
        if again == seen {
            break;
        }
        seen = again;
    }
    Ok(seen)
}

impl Mortal for Engine {
    fn kill_until(&self, spared: &AtomicBool, dice: &mut Dice) -> Result<usize> {
        let mut kills = 0;
        while !spared.load(Ordering::Relaxed) {
            // The moment of the kill is what is random here, and waited for.
            std::thread::sleep(Duration::from_millis(50 + dice.roll(900)));
            self.crash()?;
            kills += 1;
            self.start_again()?;
        }
        Ok(kills)
    }

    fn traces(&self, ids: &BTreeSet<String>) -> Result<Traces> {
        let home = self.home().to_str().context("a folder is plain text")?;
        let script = format!(
            "echo mounts $(grep -c . /proc/self/mountinfo); ls /sys/class/net; \
             ls -A /run/caisson/* {home}/data/containers {home}/data/volumes; ip netns list 2>/dev/null; \
             ps -eo comm= | grep -vE '^(ps|grep|sh|nsenter)$' | sort"
        );
        let seen = settled(|| self.namespaces().shell(&script))?;
        // Those of others may be there as well.
        let groups = self.namespaces().shell("find /sys/fs/cgroup -type d 2>/dev/null || true")?;
        let is_left = |path: &&str| path.rsplit('/').next().is_some_and(|name| ids.contains(name));
        let left = groups.lines().filter(is_left).count();
        let files = std::fs::read_dir(format!("/proc/{}/fd", self.pid()?))?.count();
        Ok(Traces { seen: format!("{seen}\ncgroups {left}"), files })
    }
}

/// What runs a script in a container that sees the whole machine.
const INSIDE: [&str; 9] =
    ["run", "--rm", "--privileged", "--pid=host", "--cgroupns=host", "--network=none", "busybox", "sh", "-c"];

/// Not of this container itself: its own cgroup, folders and processes are left out.
const TRACES: &str = r#"
own=$(hostname) root=/proc/1/root
echo mounts $(grep -c . /proc/1/mountinfo)
tail -n +3 /proc/1/net/dev | cut -d: -f1
ls -A $root/run/caisson/engine/* $root/var/lib/caisson/containers $root/var/lib/caisson/volumes | grep -v "^$own"
find $root/sys/fs/cgroup -type d | grep -v "$own" | sort
for process in /proc/[0-9]*; do
    grep -q "$own" $process/cgroup || readlink $process/exe
done | sort
echo files $(ls /proc/$(pidof caisson-engine)/fd | grep -c .)
"#;

impl Machine {
    /// Kills the engine from a container that sees every process of the machine. Its own connection ends with the engine; the next
    /// client waits for the next one.
    pub fn kill_engine(&self) -> Result<()> {
        let kill = INSIDE.into_iter().chain(["kill -9 $(pidof caisson-engine)"]);
        let answer = self.docker().run(kill)?;
        ensure!(!answer.err.contains("pidof") && !answer.err.contains("kill:"), "{answer:?}");
        Ok(())
    }
}

impl Mortal for Machine {
    fn kill_until(&self, spared: &AtomicBool, dice: &mut Dice) -> Result<usize> {
        let mut kills = 0;
        while !spared.load(Ordering::Relaxed) {
            // The moment of the kill is what is random here, and waited for.
            std::thread::sleep(Duration::from_millis(dice.roll(3000)));
            self.kill_engine()?;
            kills += 1;
        }
        Ok(kills)
    }

    fn traces(&self, _ids: &BTreeSet<String>) -> Result<Traces> {
        let look = || {
            let told = self.docker().ok(INSIDE.into_iter().chain([TRACES]))?;
            let (seen, files) = told.rsplit_once("\nfiles ").with_context(|| format!("no files: {told}"))?;
            Ok((seen.to_owned(), files.trim().parse::<usize>()?))
        };
        let seen = settled(|| look().map(|(seen, _)| seen))?;
        let (_, files) = look()?;
        Ok(Traces { seen, files })
    }
}
