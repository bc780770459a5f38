//! A log that the container never waits for: entries that cannot be written yet wait in memory, and one for which there is no room is lost.
//! As in dockerd (`daemon/logger/ring.go`), it is the new one that is lost, and one alone is never too long.
//!
//! What waits for the file is a process of its own ([`super::writer`]), which takes entries from a pipe. It is no thread, because the shim
//! makes the container's processes by cloning itself, and must have one thread for that.
//!
//! So it can be killed, for want of memory. Then another goes on with what is in the pipe and in memory, from the first whole entry on; lost is
//! what the first had taken and not written.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use caisson_shim::{LogFile, proto};
use rustix::event::{PollFd, PollFlags};
use rustix::io::ioctl_fionbio;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::unread::Unread;
use super::{About, BATCH, helper, writer};
use crate::exit;
use crate::queue::Queue;

/// Before each entry in the pipe: its length, as little-endian `u32`.
pub(super) const PREFIX: usize = 4;

/// Who is killed sooner gets no successor: they would follow one another for ever.
const LIVES_AT_LEAST: Duration = Duration::from_secs(1);

/// The exit codes of who was killed begin here.
const KILLED: i32 = 128;

/// Entries on their way to the writer.
#[derive(Debug)]
pub(super) struct Ring {
    /// How many bytes may be on their way.
    room: usize,
    /// What the writer has not been offered yet.
    batch: Vec<u8>,
    /// What it has not taken.
    waiting: Queue,
    /// To the writer; does not block. `None` when it gets no more.
    pipe: Option<File>,
    /// The writer's process, until it has ended.
    writer: Option<OwnedFd>,
    /// What another one needs; `None` if there will be none.
    will: Option<Will>,
    /// No more entries will come.
    ends: bool,
    /// The pipe has taken no more since somebody looked.
    is_full: bool,
}

/// What a writer leaves to the one that goes on when it is killed.
#[derive(Debug)]
struct Will {
    what: LogFile,
    unread: Unread,
    /// When it was started.
    since: Instant,
}

impl Ring {
    /// Starts the writer of a log, with room for so many bytes on the way to it.
    pub(super) fn open(what: &LogFile, room: u64) -> io::Result<Self> {
        let mut ring = Self::new(room);
        ring.start_writer(what.clone(), Vec::new())?;
        Ok(ring)
    }

    /// Without a writer.
    fn new(room: u64) -> Self {
        Self {
            room: usize::try_from(room).unwrap_or(usize::MAX),
            batch: Vec::new(),
            waiting: Queue::default(),
            pipe: None,
            writer: None,
            will: None,
            ends: false,
            is_full: false,
        }
    }

    /// Starts a writer, which gets these entries before all others.
    fn start_writer(&mut self, what: LogFile, mut entries: Vec<u8>) -> io::Result<()> {
        let (from, to) = pipe_with(PipeFlags::CLOEXEC)?;
        ioctl_fionbio(&to, true)?;
        let told = proto::encode(&what)?;
        let child = helper(&[writer::COMMAND.as_ref()], from.as_fd())?;
        self.writer = Some(pidfd_open(child, PidfdFlags::empty())?);
        entries.append(&mut self.batch);
        let mut unread = Unread::of(from)?;
        unread.note_all(told.len(), &entries);
        self.batch = [told, entries].concat();
        self.pipe = Some(to.into());
        self.will = Some(Will { what, unread, since: Instant::now() });
        self.flush();
        Ok(())
    }

    /// Takes an entry, which `write` adds to a buffer; or loses it.
    pub(super) fn take(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        let begin = self.batch.len();
        if let Some(will) = &mut self.will {
            will.unread.note(begin);
        }
        self.batch.extend_from_slice(&[0; PREFIX]);
        write(&mut self.batch);
        let length = u32::try_from(self.batch.len() - begin - PREFIX).expect("a part is 16 KiB");
        self.batch[begin..begin + PREFIX].copy_from_slice(&length.to_le_bytes());
        if self.waiting.len() + self.batch.len() > self.room {
            self.fit_in(begin);
        } else if self.batch.len() >= BATCH {
            self.flush();
        }
    }

    /// The last entry of the batch, which begins there, is too much, unless the writer takes what is before it.
    fn fit_in(&mut self, begin: usize) {
        if self.is_full {
            self.batch.truncate(begin);
            return;
        }
        let entry = self.batch.split_off(begin);
        self.flush();
        if self.waiting.is_empty() || self.waiting.len() + entry.len() <= self.room {
            self.batch = entry;
        }
    }

    /// Gives the writer what it takes now.
    pub(super) fn flush(&mut self) {
        if let Some(pipe) = &mut self.pipe
            && let Err(error) =
                self.waiting.send(&self.batch, &[], pipe).and_then(|()| self.waiting.flush(pipe))
        {
            self.fail(&error.to_string());
        }
        if let Some(will) = &mut self.will {
            will.unread.offer(self.batch.len(), self.waiting.len());
        }
        self.batch.clear();
        self.is_full = !self.waiting.is_empty();
        if self.ends && self.waiting.is_empty() {
            self.pipe = None;
        }
    }

    fn fail(&mut self, reason: &str) {
        eprintln!("write the log: {reason}; entries are lost");
        self.pipe = None;
        self.will = None;
        self.waiting = Queue::default();
    }

    /// No more entries will come: the writer ends when it has all.
    pub(super) fn end(&mut self) {
        self.ends = true;
        self.flush();
    }

    /// What is not in the file by now is lost.
    pub(super) fn give_up(&mut self) {
        let Some(writer) = &self.writer else { return };
        self.will = None;
        // It may have ended by itself.
        let _ = pidfd_send_signal(writer, Signal::KILL);
        if self.pipe.is_some() {
            self.fail("it takes too long");
        }
    }

    /// Whether all that was taken is in the file.
    pub(super) fn is_written(&self) -> bool {
        self.writer.is_none()
    }

    /// What to watch, and for what.
    pub(super) fn interests<'a>(&'a self, mut watch: impl FnMut(About, PollFd<'a>)) {
        if let Some(pipe) = self.pipe.as_ref().filter(|_| !self.waiting.is_empty()) {
            watch(About::Room, PollFd::new(pipe, PollFlags::OUT));
        }
        if let Some(writer) = &self.writer {
            watch(About::Writer, PollFd::new(writer, PollFlags::IN));
        }
    }

    /// The writer has ended: when it has all, or because it failed or was killed.
    pub(super) fn writer_ended(&mut self) {
        let Some(writer) = self.writer.take() else { return };
        // The reason is its own word, on the same stderr.
        let code = exit::reap(writer.as_fd()).unwrap_or(-1);
        let Some(will) = self.will.take() else { return };
        let ended = format!("its writer has ended with code {code}");
        if code >= KILLED && will.since.elapsed() >= LIVES_AT_LEAST {
            match self.go_on(will) {
                Ok(()) => eprintln!("write the log: {ended}; what it had taken is lost, and another goes on"),
                Err(error) => self.fail(&format!("{ended}, and there is no other: {error}")),
            }
        } else if self.pipe.is_some() {
            self.fail(&ended);
        }
    }

    fn go_on(&mut self, Will { what, unread, .. }: Will) -> io::Result<()> {
        let entries = unread.into_entries(&self.waiting.take())?;
        self.start_writer(what, entries)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use caisson_sys::spawn::{Detached, detached};

    use super::*;

    const ROOM: usize = 100_000;

    /// A ring, and the pipe's other end.
    fn ring() -> (Ring, File) {
        let (from, to) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).unwrap();
        let mut ring = Ring::new(ROOM as u64);
        ring.pipe = Some(to.into());
        (ring, from.into())
    }

    /// The same with what a successor needs.
    fn ring_with_will() -> (Ring, File) {
        let (mut ring, from) = ring();
        let what = LogFile {
            path: "log".into(),
            format: caisson_shim::LogFormat::Json,
            max_bytes: None,
            max_files: 1,
            compress: false,
            buffer: None,
            attributes: Default::default(),
        };
        let unread = Unread::of(from.try_clone().unwrap().into()).unwrap();
        ring.will = Some(Will { what, unread, since: Instant::now() });
        (ring, from)
    }

    fn put(ring: &mut Ring, text: &str) {
        ring.take(|into| into.extend_from_slice(text.as_bytes()));
    }

    /// Gives the writer's end all that it takes, and returns the numbers that came.
    fn numbers(ring: &mut Ring, mut from: &File) -> Vec<u32> {
        let mut all = Vec::new();
        loop {
            ring.flush();
            let mut some = vec![0; 1 << 20];
            let Ok(length @ 1..) = from.read(&mut some) else { break };
            all.extend_from_slice(&some[..length]);
        }
        numbers_in(&all)
    }

    fn numbers_in(mut rest: &[u8]) -> Vec<u32> {
        let mut numbers = Vec::new();
        while let Some((prefix, after)) = rest.split_first_chunk() {
            let (entry, next) = after.split_at(u32::from_le_bytes(*prefix) as usize);
            numbers.push(std::str::from_utf8(entry).unwrap().parse().unwrap());
            rest = next;
        }
        numbers
    }

    #[test]
    fn a_writer_that_stands_still_costs_the_newest_entries_and_bounded_memory() {
        let (mut ring, from) = ring();
        let pipe_holds = rustix::pipe::fcntl_getpipe_size(&from).unwrap();
        for number in 0..100_000 {
            put(&mut ring, &format!("{number:08}"));
            assert!(ring.waiting.len() + ring.batch.len() <= ROOM);
        }
        let kept = numbers(&mut ring, &from);
        let fit = |bytes: usize| bytes / (PREFIX + 8);
        assert!((fit(ROOM)..=fit(ROOM + pipe_holds)).contains(&kept.len()), "{} entries", kept.len());
        assert!(kept.iter().copied().eq(0..kept.len() as u32), "the first ones, whole, in order");
        // It goes on when the writer does.
        put(&mut ring, "7");
        assert_eq!(numbers(&mut ring, &from), [7]);
    }

    #[test]
    fn small_room_is_enough_for_a_writer_that_keeps_up() {
        let (mut ring, from) = ring();
        ring.room = 0;
        for number in 0..1000 {
            put(&mut ring, &number.to_string());
        }
        assert!(numbers(&mut ring, &from).into_iter().eq(0..1000));
    }

    #[test]
    fn a_writer_that_is_gone_costs_entries_and_nothing_else() {
        let (mut ring, from) = ring();
        drop(from);
        for _ in 0..10_000 {
            put(&mut ring, "1");
        }
        assert!(ring.pipe.is_none() && ring.waiting.is_empty() && ring.batch.len() < BATCH);
    }

    #[test]
    fn the_end_comes_when_the_writer_has_all() {
        let (mut ring, from) = ring();
        for number in 0..10_000 {
            put(&mut ring, &number.to_string());
        }
        ring.end();
        assert!(ring.pipe.is_some());
        numbers(&mut ring, &from);
        assert!(ring.pipe.is_none());
    }

    /// What is left when the writer is killed that has read so many bytes.
    fn left_after(read: usize) -> Vec<u32> {
        let (mut ring, mut from) = ring_with_will();
        for number in 0..20_000 {
            put(&mut ring, &number.to_string());
        }
        ring.flush();
        from.read_exact(&mut vec![0; read]).unwrap();
        let will = ring.will.take().unwrap();
        let mut entries = will.unread.into_entries(&ring.waiting.take()).unwrap();
        // What has not been offered comes after it.
        entries.append(&mut ring.batch);
        numbers_in(&entries)
    }

    #[test]
    fn a_successor_gets_the_rest_by_whole_entries() {
        let all = left_after(0);
        assert!(all.iter().copied().eq(0..all.len() as u32) && all.len() > 10_000);
        let length = |number: u32| PREFIX + number.to_string().len();
        for read in 1..40 {
            let mut begin = 0;
            let first = (0..).find(|number| {
                let is_unread = begin >= read;
                begin += length(*number);
                is_unread
            });
            assert_eq!(left_after(read), all[first.unwrap() as usize..], "{read} bytes read");
        }
    }

    #[test]
    fn of_what_was_read_nothing_is_kept() {
        let (mut ring, from) = ring_with_will();
        for number in 0..100_000_u32 {
            put(&mut ring, &number.to_string());
            if number % 100 == 0 {
                numbers(&mut ring, &from);
            }
        }
        numbers(&mut ring, &from);
        let will = ring.will.take().unwrap();
        let pipe_holds = rustix::pipe::fcntl_getpipe_size(&from).unwrap();
        assert!(will.unread.notes() <= pipe_holds / PREFIX, "{} of them", will.unread.notes());
        assert!(will.unread.into_entries(&[]).unwrap().is_empty());
    }

    /// A process that has ended so.
    fn ended(program: &str, signal: Option<Signal>) -> OwnedFd {
        let arguments = &["1000".as_ref()];
        let child = Detached { program: std::path::Path::new(program), arguments, descriptors: &[] };
        let process = pidfd_open(detached(&child).unwrap(), PidfdFlags::empty()).unwrap();
        if let Some(signal) = signal {
            pidfd_send_signal(&process, signal).unwrap();
        }
        process
    }

    #[test]
    fn who_fails_or_is_killed_at_once_has_no_successor() {
        let in_an_hour = Instant::now() + Duration::from_secs(3600);
        for (since, writer) in [
            (in_an_hour, ended("/bin/sleep", Some(Signal::KILL))),
            (Instant::now(), ended("/bin/false", None)),
        ] {
            let (mut ring, _from) = ring_with_will();
            if let Some(will) = &mut ring.will {
                will.since = since;
            }
            ring.writer = Some(writer);
            ring.writer_ended();
            for _ in 0..10_000 {
                put(&mut ring, "1");
            }
            ring.flush();
            assert!(ring.pipe.is_none() && ring.waiting.is_empty() && ring.is_written());
        }
    }
}
