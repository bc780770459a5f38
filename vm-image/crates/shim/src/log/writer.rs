//! The process that waits for a log's file, so that the shim need not: this same program with [`COMMAND`]. See [`super::ring`].

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd;

use caisson_shim::{LogFile, proto};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;

use super::file::Rotated;
use super::ring::PREFIX;

/// The word that asks for it.
pub(crate) const COMMAND: &str = "--write-log";

/// How much is read at once: what a pipe holds.
const CHUNK: usize = 64 << 10;

/// Writes what comes on the standard input, until that ends: what the log is, and then its entries.
pub(crate) fn write() -> io::Result<()> {
    let mut from = File::from(io::stdin().as_fd().try_clone_to_owned()?);
    let what: LogFile = proto::read_frame(&mut from)?;
    copy(from, Rotated::open(&what)?)
}

fn copy(mut from: File, mut to: Rotated) -> io::Result<()> {
    let mut chunk = vec![0; CHUNK];
    let mut bytes = Vec::new();
    loop {
        wait(&from, &mut to)?;
        match from.read(&mut chunk) {
            Ok(0) => return Ok(()),
            Ok(length) => bytes.extend_from_slice(&chunk[..length]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        let used = take_whole(&bytes, &mut to);
        bytes.drain(..used);
        to.flush();
    }
}

/// Takes the entries that have come whole; how many bytes that were.
fn take_whole(bytes: &[u8], to: &mut Rotated) -> usize {
    let mut rest = bytes;
    while let Some((prefix, after)) = rest.split_first_chunk::<PREFIX>()
        && let Some((entry, next)) = after.split_at_checked(u32::from_le_bytes(*prefix) as usize)
    {
        to.take(|into| into.extend_from_slice(entry));
        rest = next;
    }
    bytes.len() - rest.len()
}

/// Returns when there is something to read. Until then older files are compressed, one after the other.
fn wait(from: &File, to: &mut Rotated) -> io::Result<()> {
    loop {
        let mut watched = vec![PollFd::new(from, PollFlags::IN)];
        watched.extend(to.compressor().map(|process| PollFd::from_borrowed_fd(process, PollFlags::IN)));
        match poll(&mut watched, None) {
            Err(Errno::INTR) => continue,
            other => other?,
        };
        let ready: Vec<bool> = watched.iter().map(|one| !one.revents().is_empty()).collect();
        if ready.get(1) == Some(&true) {
            to.compressed();
        }
        if ready[0] {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write;

    use caisson_shim::LogFormat;

    use super::*;

    #[test]
    fn entries_are_written_whole_however_they_come() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("log");
        let what = LogFile {
            path: path.clone(),
            format: LogFormat::Json,
            // Two entries fill a file.
            max_bytes: Some(8),
            max_files: 3,
            compress: false,
            buffer: None,
            attributes: Default::default(),
        };
        let file = Rotated::open(&what).unwrap();
        let (from, mut to) = io::pipe().unwrap();
        let from = std::os::fd::OwnedFd::from(from);
        let writing = std::thread::spawn(move || copy(from.into(), file));
        for entry in ["one\n", "two\n", "three\n", "four\n", "five\n"] {
            to.write_all(&(entry.len() as u32).to_le_bytes()).unwrap();
            for byte in entry.as_bytes() {
                to.write_all(&[*byte]).unwrap();
            }
        }
        drop(to);
        writing.join().unwrap().unwrap();
        let text = |name: &str| fs::read_to_string(place.path().join(name)).unwrap();
        assert_eq!(
            (text("log.2"), text("log.1"), text("log")),
            ("one\ntwo\n".into(), "three\nfour\n".into(), "five\n".into())
        );
    }
}
