//! What the kernel counts of a cgroup's memory, heard of as it changes.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileExt;

use super::{Cgroup, counter};

/// The file is a few short lines.
const LONGEST: usize = 4096;

/// A cgroup's open `memory.events`: an exceptional condition (`POLLPRI`) from a change of any of its counters until they are read. The kernel
/// tells of changes a hundred times a second at most.
#[derive(Debug)]
pub struct MemoryEvents(File);

impl Cgroup {
    /// Opens what tells of its memory.
    ///
    /// # Errors
    /// `NotFound` where the memory controller is not the cgroup's.
    pub fn memory_events(&self) -> io::Result<MemoryEvents> {
        File::open(self.directory.join("memory.events")).map(MemoryEvents)
    }
}

impl MemoryEvents {
    /// Reads how many processes the kernel has killed in it and below for want of memory.
    ///
    /// # Errors
    /// What the kernel says, for instance that the cgroup is gone.
    pub fn oom_kills(&self) -> io::Result<u64> {
        let mut text = [0; LONGEST];
        let length = self.0.read_at(&mut text, 0)?;
        Ok(counter(&String::from_utf8_lossy(&text[..length]), "oom_kill"))
    }
}

impl AsFd for MemoryEvents {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reading_is_of_this_moment() {
        let directory = tempfile::tempdir().unwrap();
        let cgroup = Cgroup { directory: directory.path().to_owned() };
        assert_eq!(cgroup.memory_events().unwrap_err().kind(), io::ErrorKind::NotFound);
        let file = directory.path().join("memory.events");
        std::fs::write(&file, "oom 1\noom_kill 0\n").unwrap();
        let events = cgroup.memory_events().unwrap();
        assert_eq!(events.oom_kills().unwrap(), 0);
        std::fs::write(&file, "oom 3\noom_kill 2\n").unwrap();
        assert_eq!(events.oom_kills().unwrap(), 2);
    }
}
