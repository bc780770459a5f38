//! What an older daemon may have left running: recognised beyond doubt, then ended.
//!
//! Children die with their parent (see `process`), so there is nothing to find but in rare cases, such as a program with
//! file capabilities, for which the kernel drops the death signal. A record names each process by number *and* start time, in the
//! same boot; another process that has got the number since has another start time, and is left alone.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};

/// How long a killed process may take to give back its memory and files.
const LONGEST_END: Timespec = Timespec { tv_sec: 10, tv_nsec: 0 };

/// The record of a machine's processes, in its private directory.
#[derive(Debug)]
pub(super) struct Records {
    file: PathBuf,
    entries: Vec<Entry>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Entry {
    name: String,
    pid: i32,
    /// In the kernel's ticks since boot: proc_pid_stat(5), field 22.
    started: u64,
    boot: String,
}

impl Records {
    /// Ends what the record of this directory names, and begins a new one.
    pub(super) fn end_leftovers(dir: &Path) -> Self {
        let file = dir.join("processes.json");
        let old = fs::read(&file).ok().and_then(|bytes| serde_json::from_slice::<Vec<Entry>>(&bytes).ok());
        for entry in old.unwrap_or_default() {
            match entry.end() {
                Ok(true) => tracing::warn!(name = entry.name, pid = entry.pid, "ended a leftover"),
                Ok(false) => {}
                Err(error) => {
                    tracing::warn!(name = entry.name, pid = entry.pid, %error, "cannot end a leftover");
                }
            }
        }
        Self { file, entries: Vec::new() }
    }

    /// Writes a process of ours down. Without the record all still works, so a failure is only logged.
    pub(super) fn add(&mut self, name: &str, pid: u32) {
        let Some(entry) = i32::try_from(pid).ok().and_then(|pid| Entry::of(name, pid)) else { return };
        self.entries.push(entry);
        let written = serde_json::to_vec(&self.entries).map_err(io::Error::from);
        if let Err(error) = written.and_then(|bytes| fs::write(&self.file, bytes)) {
            tracing::warn!(file = %self.file.display(), %error, "cannot record the machine's processes");
        }
    }
}

impl Entry {
    fn of(name: &str, pid: i32) -> Option<Self> {
        Some(Self { name: name.into(), pid, started: started(pid)?, boot: boot() })
    }

    /// Kills the process if it is the very one, and waits for its end: one that is on its way out already still holds the disk.
    /// The descriptor is taken first, so that its number cannot change hands.
    fn end(&self) -> io::Result<bool> {
        let Some(pid) = Pid::from_raw(self.pid) else { return Ok(false) };
        let Ok(process) = pidfd_open(pid, PidfdFlags::empty()) else { return Ok(false) };
        if started(self.pid) != Some(self.started) || boot() != self.boot {
            return Ok(false);
        }
        pidfd_send_signal(&process, Signal::KILL)?;
        let over = poll(&mut [PollFd::new(&process, PollFlags::IN)], Some(&LONGEST_END))? > 0;
        if over { Ok(true) } else { Err(io::ErrorKind::TimedOut.into()) }
    }
}

/// When the process began, in ticks since boot.
fn started(pid: i32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is the name in brackets and may hold anything; field 22 is the 20th after it.
    stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()
}

fn boot() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use std::{os::unix::process::ExitStatusExt, process::Command};

    use super::*;

    #[test]
    fn a_leftover_is_ended() {
        let dir = tempfile::tempdir().unwrap();
        let mut child = Command::new("sleep").arg("1000").spawn().unwrap();
        Records::end_leftovers(dir.path()).add("sleep", child.id());
        Records::end_leftovers(dir.path());
        assert!(child.try_wait().unwrap().is_some(), "it is over, not only told to end");
        assert_eq!(child.wait().unwrap().signal(), Some(9));
    }

    #[test]
    fn a_process_that_got_the_number_later_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let mut child = Command::new("sleep").arg("1000").spawn().unwrap();
        let mut records = Records::end_leftovers(dir.path());
        records.add("sleep", child.id());
        records.entries[0].started -= 1;
        fs::write(&records.file, serde_json::to_vec(&records.entries).unwrap()).unwrap();
        Records::end_leftovers(dir.path());
        assert!(child.try_wait().unwrap().is_none());
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn a_broken_record_is_no_record() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("processes.json"), "{").unwrap();
        assert!(Records::end_leftovers(dir.path()).entries.is_empty());
    }
}
