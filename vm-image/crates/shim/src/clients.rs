//! Connections: one request each, then a reply, a wait, or the container's streams.
//!
//! A client that reads slowly: its bytes queue up to [`QUEUE`]; then the shim stops reading the streams that this client is attached to, and the
//! container waits at its next write, as it does under dockerd (whose queue is 1 MB). No byte is lost, memory is bounded, and
//! `docker run … | less` works; the price is that a stopped client stops the container, until it goes on or goes away. After the
//! container's end what is left in its pipes (64 KiB each) is queued beyond the bound, so that its end is never held up.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;

use caisson_shim::proto::{self, Reply, Request};
use rustix::event::PollFlags;

use crate::output::StreamName;

/// How many bytes wait for a client before the container does.
const QUEUE: usize = 256 << 10;

/// Requests are small.
const LONGEST_REQUEST: usize = 16 << 10;

/// What a connection is for.
#[derive(Debug)]
enum Purpose {
    /// Its request is not complete yet.
    Asking(Vec<u8>),
    /// It wants to know the container's end.
    Waiting,
    /// It has the container's streams.
    Attached {
        /// Its input goes to the container; ends with the input.
        stdin: bool,
        stdout: bool,
        stderr: bool,
        /// Its side of the stream has ended.
        silent: bool,
    },
    /// It has all that it will get; closed when that is delivered.
    Served,
}

/// A connection.
#[derive(Debug)]
pub(crate) struct Client {
    stream: UnixStream,
    purpose: Purpose,
    queue: Vec<u8>,
}

/// What came from a client.
#[derive(Debug)]
pub(crate) enum Event {
    Asked(Request),
    Typed(Vec<u8>),
    StoppedTyping,
}

/// All connections, by a number that is never used twice.
#[derive(Debug, Default)]
pub(crate) struct Clients {
    open: BTreeMap<u64, Client>,
    next: u64,
}

impl Clients {
    pub(crate) fn add(&mut self, stream: UnixStream) -> io::Result<()> {
        stream.set_nonblocking(true)?;
        self.open
            .insert(self.next, Client { stream, purpose: Purpose::Asking(Vec::new()), queue: Vec::new() });
        self.next += 1;
        Ok(())
    }

    /// Who to watch, and for what. `typing` tells whether the container's stdin takes more.
    pub(crate) fn interests(&self, typing: bool) -> impl Iterator<Item = (u64, &UnixStream, PollFlags)> {
        self.open.iter().filter_map(move |(id, client)| {
            let reading = match client.purpose {
                Purpose::Asking(_) => true,
                Purpose::Attached { silent: true, .. } | Purpose::Waiting | Purpose::Served => false,
                Purpose::Attached { stdin, .. } => typing || !stdin,
            };
            let mut flags = PollFlags::empty();
            flags.set(PollFlags::IN, reading);
            flags.set(PollFlags::OUT, !client.queue.is_empty());
            // Who has typed and gone is not looked at until the container takes more: what was typed counts.
            let held_back =
                matches!(client.purpose, Purpose::Attached { stdin: true, silent: false, .. }) && !reading;
            (!held_back || !client.queue.is_empty()).then_some((*id, &client.stream, flags))
        })
    }

    /// Whether all who want this stream have room for more of it.
    pub(crate) fn have_room(&self, name: StreamName) -> bool {
        self.open.values().all(|client| !client.wants(name) || client.queue.len() < QUEUE)
    }

    pub(crate) fn are_all_served(&self) -> bool {
        self.open.is_empty()
    }

    /// Something can be read from, or written to, a client.
    pub(crate) fn attend(&mut self, id: u64, flags: PollFlags) -> Option<Event> {
        let client = self.open.get_mut(&id)?;
        let event = if flags.intersects(PollFlags::IN) { client.read() } else { Ok(None) };
        let gone = flags.intersects(PollFlags::HUP | PollFlags::ERR) && !flags.intersects(PollFlags::IN);
        match event {
            Ok(event) if !gone => {
                self.flush(id);
                event
            }
            // It has gone away; nobody misses the rest.
            _ => {
                self.open.remove(&id);
                None
            }
        }
    }

    /// Answers a request, which is all this client gets.
    pub(crate) fn reply(&mut self, id: u64, reply: &Reply) {
        self.send(id, reply, Purpose::Served);
    }

    /// Answers when the container ends.
    pub(crate) fn wait(&mut self, id: u64) {
        if let Some(client) = self.open.get_mut(&id) {
            client.purpose = Purpose::Waiting;
        }
    }

    pub(crate) fn attach(&mut self, id: u64, stdin: bool, stdout: bool, stderr: bool) {
        self.send(id, &Reply::Attached, Purpose::Attached { stdin, stdout, stderr, silent: false });
    }

    /// Closes an attached client when it has its bytes.
    pub(crate) fn detach(&mut self, id: u64) {
        if let Some(client) = self.open.get_mut(&id) {
            client.purpose = Purpose::Served;
        }
        self.flush(id);
    }

    /// Gives the container's output to all who want it; `framed` in Docker's multiplexed format.
    pub(crate) fn deliver(&mut self, name: StreamName, bytes: &[u8], framed: bool) {
        let ids: Vec<u64> =
            self.open.iter().filter(|(_, client)| client.wants(name)).map(|(id, _)| *id).collect();
        for id in ids {
            let Some(client) = self.open.get_mut(&id) else { continue };
            if framed {
                let length = u32::try_from(bytes.len()).expect("a chunk is 16 KiB");
                client.queue.extend([name as u8, 0, 0, 0]);
                client.queue.extend(length.to_be_bytes());
            }
            client.queue.extend_from_slice(bytes);
            self.flush(id);
        }
    }

    /// The container has ended: answers those who wait, and lets the attached go.
    pub(crate) fn finish(&mut self, ended: &Reply) {
        let ids: Vec<u64> = self.open.keys().copied().collect();
        for id in ids {
            match self.open.get(&id).map(|client| &client.purpose) {
                Some(Purpose::Waiting) => self.reply(id, ended),
                Some(Purpose::Attached { .. }) => self.detach(id),
                // Served already; or it has not said what it wants, and will be answered if it does before the others are served.
                _ => {}
            }
        }
    }

    /// Lets go of who has not said what it wants: there is nobody left to answer.
    pub(crate) fn dismiss_the_undecided(&mut self) {
        self.open.retain(|_, client| !matches!(client.purpose, Purpose::Asking(_)));
    }

    fn send(&mut self, id: u64, reply: &Reply, then: Purpose) {
        let Some(client) = self.open.get_mut(&id) else { return };
        match proto::encode(reply) {
            Ok(frame) => client.queue.extend(frame),
            Err(error) => eprintln!("reply to a client: {error}"),
        }
        client.purpose = then;
        self.flush(id);
    }

    /// Writes what the client takes now, and closes the connection of one who has everything.
    fn flush(&mut self, id: u64) {
        let Some(client) = self.open.get_mut(&id) else { return };
        let written = client.write();
        if written.is_err() || (client.queue.is_empty() && matches!(client.purpose, Purpose::Served)) {
            self.open.remove(&id);
        }
    }
}

impl Client {
    fn wants(&self, name: StreamName) -> bool {
        match self.purpose {
            Purpose::Attached { stdout, stderr, .. } => match name {
                StreamName::Stdout => stdout,
                StreamName::Stderr => stderr,
            },
            _ => false,
        }
    }

    fn read(&mut self) -> io::Result<Option<Event>> {
        let mut chunk = [0; 16 << 10];
        let length = match self.stream.read(&mut chunk) {
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
                return Ok(None);
            }
            read => read?,
        };
        let bytes = &chunk[..length];
        match &mut self.purpose {
            Purpose::Asking(_) if length == 0 => Err(io::ErrorKind::UnexpectedEof.into()),
            Purpose::Asking(so_far) => {
                so_far.extend_from_slice(bytes);
                let Some((request, used)) = proto::decode(so_far, LONGEST_REQUEST)? else { return Ok(None) };
                if used != so_far.len() {
                    return Err(io::Error::new(io::ErrorKind::InvalidData, "more than one request"));
                }
                Ok(Some(Event::Asked(request)))
            }
            Purpose::Attached { stdin, silent, .. } => {
                *silent = length == 0;
                Ok(match (*stdin, length) {
                    (false, _) => None,
                    (true, 0) => Some(Event::StoppedTyping),
                    (true, _) => Some(Event::Typed(bytes.to_vec())),
                })
            }
            Purpose::Waiting | Purpose::Served => Ok(None),
        }
    }

    fn write(&mut self) -> io::Result<()> {
        while !self.queue.is_empty() {
            match self.stream.write(&self.queue) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(length) => drop(self.queue.drain(..length)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}
