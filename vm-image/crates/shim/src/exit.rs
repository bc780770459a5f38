//! How the container ended, for those who ask and for those who come later.

use std::fs;
use std::io;
use std::os::fd::BorrowedFd;
use std::path::Path;

use caisson_shim::proto::{ExitRecord, StartFailure};
use caisson_sys::replace::{Survives, replace};
use rustix::process::{WaitId, WaitIdOptions, waitid};

use crate::time::now;

/// Reaps the process, which has ended, and says with which code: its own, or 128 and the signal that killed it.
pub(crate) fn reap(process: BorrowedFd<'_>) -> io::Result<i32> {
    loop {
        match waitid(WaitId::PidFd(process), WaitIdOptions::EXITED) {
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
            Ok(status) => {
                let status = status.ok_or_else(|| io::Error::other("no status without WNOHANG"))?;
                let killed = status.terminating_signal().map(|signal| 128 + signal);
                return Ok(status.exit_status().or(killed).unwrap_or(255));
            }
        }
    }
}

/// The record of a container that never ran.
pub(crate) fn never_ran(failure: StartFailure) -> ExitRecord {
    ExitRecord {
        code: failure.kind.exit_code(),
        finished_at: now(),
        oom_killed: false,
        failure: Some(failure),
    }
}

/// Reads a record that was written.
pub(crate) fn read(path: &Path) -> Option<ExitRecord> {
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}

/// Writes the record so that a reader finds all of it or nothing.
///
/// Not synced to the disk: it is for an engine that was away for a moment. After a crash of the whole machine there is no shim and no
/// container either, and an engine that finds neither shim nor record knows what that means.
pub(crate) fn write(record: &ExitRecord, path: &Path) -> io::Result<()> {
    replace(path, &serde_json::to_vec(record)?, Survives::Crash)
}
