//! What a log's writer has not read: known so that another can go on if it is killed. See [`super::ring`].

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;

use rustix::io::ioctl_fionread;
use rustix::pipe::fcntl_getpipe_size;

use super::ring::PREFIX;

/// The reader's end of the pipe, and where in it entries begin.
#[derive(Debug)]
pub(super) struct Unread {
    from: OwnedFd,
    /// How many bytes the pipe holds.
    holds: usize,
    /// How many bytes the writer has been offered: they are in the pipe, or wait for it, or have been read.
    offered: u64,
    /// The numbers of the bytes with which entries begin, of those that it may not have read.
    begins: VecDeque<u64>,
}

impl Unread {
    /// Of a pipe through which nothing has gone yet.
    pub(super) fn of(from: OwnedFd) -> io::Result<Self> {
        let holds = fcntl_getpipe_size(&from)?;
        Ok(Self { from, holds, offered: 0, begins: VecDeque::new() })
    }

    /// An entry begins so many bytes behind those that were offered. One that is taken back is followed by another there.
    pub(super) fn note(&mut self, ahead: usize) {
        let begin = self.offered + ahead as u64;
        if self.begins.back() != Some(&begin) {
            self.begins.push_back(begin);
        }
    }

    /// The same of all of these entries, the first of which begins there.
    pub(super) fn note_all(&mut self, mut ahead: usize, entries: &[u8]) {
        let mut rest = entries;
        while let Some((prefix, after)) = rest.split_first_chunk::<PREFIX>() {
            self.note(ahead);
            let length = u32::from_le_bytes(*prefix) as usize;
            ahead += PREFIX + length;
            rest = after.get(length..).unwrap_or_default();
        }
    }

    /// So many bytes more have been offered, and so many wait now for the pipe.
    pub(super) fn offer(&mut self, bytes: usize, waiting: usize) {
        self.offered += bytes as u64;
        let read = self.offered.saturating_sub((self.holds + waiting) as u64);
        while self.begins.front().is_some_and(|begin| *begin < read) {
            self.begins.pop_front();
        }
    }

    /// How many entries are remembered.
    #[cfg(test)]
    pub(super) fn notes(&self) -> usize {
        self.begins.len()
    }

    /// The entries that are whole of what was not read, with those that wait. Nobody reads any more.
    pub(super) fn into_entries(self, waiting: &[u8]) -> io::Result<Vec<u8>> {
        let in_pipe = usize::try_from(ioctl_fionread(&self.from)?).unwrap_or(self.holds);
        let mut left = vec![0; in_pipe];
        File::from(self.from).read_exact(&mut left)?;
        left.extend_from_slice(waiting);
        let first = self.offered - left.len() as u64;
        let begin = self.begins.iter().find(|begin| **begin >= first).unwrap_or(&self.offered);
        // One that has not been offered is not among them.
        let torn = usize::try_from(begin - first).unwrap_or(usize::MAX).min(left.len());
        left.drain(..torn);
        Ok(left)
    }
}
