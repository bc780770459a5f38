//! Freezing a cgroup: every process in it and below stands still until it is thawed. Version 2's freezer needs no controller
//! (`cgroup.freeze`, kernel documentation "Control Group v2"), and a signal that kills is taken by a frozen process, too.

use std::fs::{self, File};
use std::io::{self, Read, Seek};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::{Cgroup, counter};

/// How long processes may take to stand still: those that wait for a disk take as long as it does.
const FREEZES_WITHIN: Duration = Duration::from_secs(10);

impl Cgroup {
    /// Freezes it, or thaws it; returns when that has come about. Blocks.
    ///
    /// # Errors
    /// What the kernel says; `TimedOut` if its processes do not stand still, which are then let go on.
    pub fn set_frozen(&self, frozen: bool) -> io::Result<()> {
        self.ask_for(frozen)?;
        let reached = self.wait_for(frozen);
        if reached.is_err() && frozen {
            self.ask_for(false)?;
        }
        reached
    }

    /// Whether it was asked to be frozen.
    pub fn is_frozen(&self) -> bool {
        fs::read(self.directory.join("cgroup.freeze")).is_ok_and(|text| text.starts_with(b"1"))
    }

    fn ask_for(&self, frozen: bool) -> io::Result<()> {
        fs::write(self.directory.join("cgroup.freeze"), if frozen { "1" } else { "0" })
    }

    fn wait_for(&self, frozen: bool) -> io::Result<()> {
        let give_up = Instant::now() + FREEZES_WITHIN;
        let mut events = File::open(self.directory.join("cgroup.events"))?;
        loop {
            let mut text = String::new();
            events.rewind()?;
            events.read_to_string(&mut text)?;
            if (counter(&text, "frozen") == 1) == frozen {
                return Ok(());
            }
            let left = give_up.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            // The kernel tells of each change of the file.
            let timeout = Timespec::try_from(left).map_err(io::Error::other)?;
            poll(&mut [PollFd::new(&events, PollFlags::PRI)], Some(&timeout))?;
        }
    }
}
