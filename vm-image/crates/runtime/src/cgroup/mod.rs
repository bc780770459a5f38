//! A container's cgroup, version 2 only: made, limited, watched, killed and removed.
//!
//! Where no cgroup2 is mounted, or it may not be written to, a container runs without a cgroup of its own as long as it asks for no limit. A
//! limit that cannot be set is refused: a container that was promised 64 MiB and takes all is worse than none. Device rules are in every
//! container; where they cannot be had, it loses the right to make device nodes instead, and is left with the harmless ones that it is given.

mod devices;
mod freezer;
mod limits;
mod memory;

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, chown};
use std::path::{Component, Path, PathBuf};
use std::time::{Duration, Instant};

use caisson_sys::device_filter;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{CWD, Mode, OFlags, openat, statfs};

use crate::failure::{Context, Failure, text};
use crate::spec::{DeviceRule, Resources};
use limits::{For, Setting, settings};

pub use memory::MemoryEvents;

/// `CGROUP2_SUPER_MAGIC` of `linux/magic.h`.
const CGROUP2_SUPER_MAGIC: i64 = 0x6367_7270;

/// How long the last processes of a killed cgroup may take to be gone.
const EMPTY_WITHIN: Duration = Duration::from_secs(10);

/// Where cgroup2 is mounted: alone, or beside version 1 as systemd's hybrid layout has it.
pub fn mount_point() -> Option<PathBuf> {
    let is_v2 = |path: &Path| statfs(path).is_ok_and(|found| found.f_type == CGROUP2_SUPER_MAGIC);
    ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"].map(PathBuf::from).into_iter().find(|path| is_v2(path))
}

/// A container's cgroup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cgroup {
    directory: PathBuf,
}

impl Cgroup {
    /// The cgroup of a spec's `linux.cgroupsPath`, whether it exists or not. `None` without cgroup2 or without a path.
    pub fn of(cgroups_path: Option<&Path>) -> Option<Self> {
        let inside = cgroups_path?.components().filter(|part| matches!(part, Component::Normal(_)));
        let inside: PathBuf = inside.collect();
        let named = !inside.as_os_str().is_empty();
        named.then(mount_point).flatten().map(|mounted| Self { directory: mounted.join(inside) })
    }

    /// Makes the cgroup with these limits. `None` if it cannot be had and no limit needs it.
    ///
    /// # Errors
    /// A limit that cannot be set, with its name and the reason.
    pub(crate) fn create(
        cgroups_path: Option<&Path>,
        resources: &Resources,
    ) -> Result<Option<Self>, Failure> {
        let wanted = settings(resources, For::New)?;
        let refused = |reason: &str| match wanted.first() {
            Some(setting) => Err(Failure::invalid(format!("cannot set the {}: {reason}", setting.limit))),
            None => Ok(None),
        };
        let Some(cgroup) = Self::of(cgroups_path) else {
            return refused("there is no cgroup v2 on this system, or the container has no path in it");
        };
        if let Err(error) = cgroup.make() {
            return refused(&format!("mkdir {}: {}", cgroup.directory.display(), text(&error)));
        }
        if let Err(failure) = wanted.iter().try_for_each(|setting| cgroup.apply(setting)) {
            // Best effort: what matters is why it is not there.
            let _ = cgroup.remove();
            return Err(failure);
        }
        Ok(Some(cgroup))
    }

    /// Lets a user and group arrange what is below: what the kernel delegates (`/sys/kernel/cgroup/delegate`) becomes theirs.
    ///
    /// # Errors
    /// The first file that cannot be given away.
    pub(crate) fn give(&self, uid: u32, gid: u32) -> Result<(), Failure> {
        let listed = fs::read_to_string("/sys/kernel/cgroup/delegate").unwrap_or_default();
        let files = listed.lines().map(|name| self.directory.join(name)).filter(|file| file.exists());
        for path in std::iter::once(self.directory.clone()).chain(files) {
            chown(&path, Some(uid), Some(gid)).context(|| format!("chown {}", path.display()))?;
        }
        Ok(())
    }

    /// Changes the limits of a container that runs; -1 takes one away, 0 leaves it as it is.
    ///
    /// # Errors
    /// The first limit that cannot be set, with its name and the reason. Those before it are set then.
    pub fn update(&self, resources: &Resources) -> Result<(), Failure> {
        settings(resources, For::Used)?.iter().try_for_each(|setting| self.apply(setting))
    }

    /// Lets the container use only the devices that these rules allow. `false` if that cannot be had here: there is no cgroup, or the kernel
    /// takes no such programs; then the container must not be able to make device nodes.
    ///
    /// # Errors
    /// A rule that is none.
    pub(crate) fn confine(cgroup: Option<&Self>, rules: &[DeviceRule]) -> Result<bool, Failure> {
        let Some(program) = devices::program(rules)? else { return Ok(true) };
        let attach = |cgroup: &Self| device_filter::attach(cgroup.open()?.as_fd(), &program);
        Ok(cgroup.is_some_and(|cgroup| attach(cgroup).is_ok()))
    }

    fn make(&self) -> io::Result<()> {
        if self.directory.exists() {
            // Of a run whose shim was killed. Its counters and limits are not ours.
            self.remove()?;
        }
        let mounted = mount_point().ok_or(io::ErrorKind::NotFound)?;
        let inside = self.directory.strip_prefix(&mounted).map_err(io::Error::other)?;
        let mut directory = mounted.clone();
        for name in inside {
            delegate(&directory);
            directory.push(name);
            match fs::DirBuilder::new().mode(0o755).create(&directory) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    fn apply(&self, setting: &Setting) -> Result<(), Failure> {
        if let Some(controller) = setting.controller {
            let available = fs::read_to_string(self.directory.join("cgroup.controllers")).unwrap_or_default();
            if !available.split_whitespace().any(|name| name == controller) {
                return Err(Failure::invalid(format!(
                    "cannot set the {}: cgroup v2 has no {controller} controller here{}",
                    setting.limit,
                    version_1_note(controller)
                )));
            }
        }
        let file = self.directory.join(&setting.file);
        fs::write(&file, &setting.value).map_err(|error| {
            let (limit, value, file) = (setting.limit, &setting.value, file.display());
            Failure::invalid(format!("cannot set the {limit}: write {value:?} to {file}: {}", text(&error)))
        })
    }

    /// The directory, for a process to be born into.
    pub(crate) fn open(&self) -> io::Result<OwnedFd> {
        Ok(openat(CWD, &self.directory, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)
    }

    /// Where it is in the file system.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// How many processes the kernel has killed here for want of memory.
    pub fn oom_kills(&self) -> u64 {
        let events = fs::read_to_string(self.directory.join("memory.events")).unwrap_or_default();
        counter(&events, "oom_kill")
    }

    /// Kills every process in it and below.
    ///
    /// # Errors
    /// `NotFound` if the cgroup is gone, or the kernel is older than 5.14.
    pub fn kill(&self) -> io::Result<()> {
        fs::write(self.directory.join("cgroup.kill"), "1")
    }

    /// Removes it with all that the container made below it. What still runs in it is killed first. A cgroup that is gone is a success.
    ///
    /// # Errors
    /// What keeps it, for instance processes that cannot be killed.
    pub fn remove(&self) -> io::Result<()> {
        match remove_tree(&self.directory) {
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {}
            done => return done,
        }
        self.kill()?;
        self.wait_until_empty()?;
        remove_tree(&self.directory)
    }

    /// The kernel signals a change of `cgroup.events` as an exceptional condition.
    fn wait_until_empty(&self) -> io::Result<()> {
        let path = self.directory.join("cgroup.events");
        let give_up_at = Instant::now() + EMPTY_WITHIN;
        let events = fs::File::open(&path)?;
        while counter(&fs::read_to_string(&path)?, "populated") != 0 {
            let left = give_up_at.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(io::Error::new(io::ErrorKind::TimedOut, "processes do not end after SIGKILL"));
            }
            let timeout = Timespec::try_from(left).map_err(io::Error::other)?;
            poll(&mut [PollFd::new(&events, PollFlags::PRI)], Some(&timeout))?;
        }
        Ok(())
    }
}

/// Gives every controller that a directory has to the ones below it. Those that cannot be given show when a limit needs them.
fn delegate(directory: &Path) {
    let read = |file: &str| fs::read_to_string(directory.join(file)).unwrap_or_default();
    let enabled = read("cgroup.subtree_control");
    for controller in read("cgroup.controllers").split_whitespace() {
        if !enabled.split_whitespace().any(|name| name == controller) {
            let _ = fs::write(directory.join("cgroup.subtree_control"), format!("+{controller}"));
        }
    }
}

fn remove_tree(directory: &Path) -> io::Result<()> {
    let removed = match fs::remove_dir(directory) {
        Err(error)
            if matches!(error.kind(), io::ErrorKind::ResourceBusy | io::ErrorKind::DirectoryNotEmpty) =>
        {
            for entry in fs::read_dir(directory)?.flatten().filter(|entry| entry.path().is_dir()) {
                remove_tree(&entry.path())?;
            }
            fs::remove_dir(directory)
        }
        removed => removed,
    };
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

/// A line `name value` of one of the kernel's flat files.
fn counter(text: &str, name: &str) -> u64 {
    let line = text.lines().filter_map(|line| line.split_once(' ')).find(|(key, _)| *key == name);
    line.and_then(|(_, value)| value.trim().parse().ok()).unwrap_or(0)
}

fn version_1_note(controller: &str) -> String {
    let name = if controller == "io" { "blkio" } else { controller };
    if Path::new("/sys/fs/cgroup").join(name).is_dir() {
        format!(" ({name} belongs to cgroup v1 on this system)")
    } else {
        String::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_found_by_their_whole_name() {
        let events = "low 0\nhigh 3\noom 2\noom_kill 1\noom_group_kill 9\n";
        assert_eq!((counter(events, "oom_kill"), counter(events, "oom"), counter(events, "none")), (1, 2, 0));
    }

    #[test]
    fn a_path_cannot_climb_out() {
        let Some(mounted) = mount_point() else { return };
        let cgroup = Cgroup::of(Some(Path::new("/docker/../../etc"))).unwrap();
        assert_eq!(cgroup.directory(), mounted.join("docker/etc"));
        assert_eq!(Cgroup::of(Some(Path::new("/"))), None);
    }
}
