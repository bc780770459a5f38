//! The guest's console: what QEMU writes to its standard output, copied to a log of a bounded size.
//!
//! A guest may say anything for as long as it likes. QEMU's own files have no limit, so it writes to a pipe and this process
//! to the file. What is in the pipe when QEMU ends is still there to be read: the last lines before a crash.

use std::{
    io::{self, Write},
    time::Duration,
};

use caisson_hypervisor::console::BoundedLog;
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    task::JoinHandle,
};

/// What QEMU is to write the console to.
pub(super) const OUTPUT: &str = "/proc/self/fd/1";
/// The most that is copied at once.
const BUFFER: usize = 16 << 10;
/// How long the last lines of a QEMU that has ended may take to reach the file.
const LAST_LINES: Duration = Duration::from_secs(2);

/// A console that is being recorded, until QEMU ends.
#[derive(Debug)]
pub(super) struct Recording(JoinHandle<()>);

impl Recording {
    /// Records what a QEMU says.
    pub(super) fn start(output: impl AsyncRead + Unpin + Send + 'static, log: BoundedLog) -> Self {
        Self(tokio::spawn(async move {
            if let Err(error) = copy(output, log).await {
                tracing::warn!(%error, "the console cannot be read");
            }
        }))
    }

    /// Returns when all that a QEMU which has ended had said is in the file.
    pub(super) async fn finished(self) {
        if tokio::time::timeout(LAST_LINES, self.0).await.is_err() {
            tracing::warn!("the end of the console is not in its log yet");
        }
    }
}

/// Copies to the end. What cannot be written is lost, but read: a full disk must not hold up the guest.
async fn copy(mut output: impl AsyncRead + Unpin, mut log: impl Write) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER];
    let mut lost = false;
    loop {
        let count = output.read(&mut buffer).await?;
        if count == 0 {
            return Ok(());
        }
        // Small writes to a local file, as the daemon's own log makes them: not worth a thread.
        let written = log.write_all(&buffer[..count]);
        let was_lost = std::mem::replace(&mut lost, written.is_err());
        if let (Err(error), false) = (written, was_lost) {
            tracing::warn!(%error, "the console's output is lost while its log cannot be written");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::VecDeque, fs};

    use caisson_hypervisor::console::begin;

    use super::*;

    #[tokio::test]
    async fn the_last_lines_of_a_writer_that_is_gone_are_in_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("console.log");
        fs::write(&log, "the boot before").unwrap();
        let said = "line\n".repeat(10_000) + "panic\n";
        let output = io::Cursor::new(said.clone().into_bytes());
        Recording::start(output, begin(&log).unwrap()).finished().await;
        assert_eq!(fs::read_to_string(&log).unwrap(), said);
        assert_eq!(fs::read_to_string(dir.path().join("console.log.1")).unwrap(), "the boot before");
    }

    #[tokio::test]
    async fn a_log_that_cannot_be_written_for_a_while_loses_only_that() {
        struct Disk<'a> {
            full: VecDeque<bool>,
            kept: &'a mut Vec<u8>,
        }
        impl Write for Disk<'_> {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                match self.full.pop_front() {
                    Some(true) => Err(io::ErrorKind::StorageFull.into()),
                    Some(false) | None => self.kept.write(bytes),
                }
            }

            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let mut kept = Vec::new();
        let output = [vec![b'a'; BUFFER], vec![b'b'; BUFFER], b"c".to_vec()].concat();
        copy(output.as_slice(), Disk { full: [true, true].into(), kept: &mut kept }).await.unwrap();
        assert_eq!(kept, b"c");
    }
}
