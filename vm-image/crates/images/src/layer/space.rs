//! A disk is not filled to its last byte by an archive: what keeps the engine itself alive needs room too.

use std::io;
use std::path::Path;

use rustix::fs::{self, Mode, OFlags};
use std::os::fd::OwnedFd;

/// How much may be written before the free space is asked for again.
const ASK_EVERY: u64 = 32 << 20;

/// Watches the free space of the file system that something is unpacked to.
#[derive(Debug)]
pub(crate) struct Space {
    directory: OwnedFd,
    keep_free: u64,
    unasked: u64,
}

impl Space {
    pub(crate) fn of(directory: &Path, keep_free: u64) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Self::below(fs::open(directory, flags, Mode::empty())?, keep_free)
    }

    pub(crate) fn below(directory: OwnedFd, keep_free: u64) -> io::Result<Self> {
        // The first bytes ask already.
        Ok(Self { directory, keep_free, unasked: ASK_EVERY })
    }

    /// Says that so many bytes are about to be written; `false` if the disk would be too full after that.
    pub(crate) fn take(&mut self, bytes: u64) -> io::Result<bool> {
        self.unasked = self.unasked.saturating_add(bytes);
        if self.unasked < ASK_EVERY {
            return Ok(true);
        }
        self.unasked = 0;
        let stat = fs::fstatvfs(&self.directory)?;
        let free = stat.f_bavail.saturating_mul(stat.f_frsize);
        Ok(free.saturating_sub(bytes) >= self.keep_free)
    }
}
