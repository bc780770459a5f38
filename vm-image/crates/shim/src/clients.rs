//! Connections: one request each, then a reply, a wait, news, or the streams of the container or of a process that was added to it.
//!
//! A client that reads slowly: its bytes queue up to [`QUEUE`]; then the shim stops reading the streams that this client is attached to, and the
//! container waits at its next write, as it does under dockerd (whose queue is 1 MB). No byte is lost, memory is bounded, and
//! `docker run … | less` works; the price is that a stopped client stops the container, until it goes on or goes away. After the
//! container's end what is left in its pipes (64 KiB each) is queued beyond the bound, so that its end is never held up; what somebody else goes
//! on writing is not.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::os::unix::net::UnixStream;

use caisson_shim::proto::{self, Reply, Request};
use rustix::event::PollFlags;

use crate::output::StreamName;
use crate::queue::Queue;

/// How many bytes wait for a client before the container does.
const QUEUE: usize = 256 << 10;

/// Requests are small.
const LONGEST_REQUEST: usize = 16 << 10;

/// Whose streams, and whose end: the container's first process', or those of a process that was added to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Whose {
    Container,
    Exec(u64),
}

/// Which streams a client has.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Streams {
    pub(crate) stdin: bool,
    pub(crate) stdout: bool,
    pub(crate) stderr: bool,
}

/// What a connection is for.
#[derive(Debug)]
enum Purpose {
    /// Its request is not complete yet.
    Asking(Vec<u8>),
    /// It wants to know an end.
    Waiting(Whose),
    /// It wants to know what happens to the container, and its end.
    Watching,
    /// It has asked for a process that is on its way.
    Expecting,
    /// It has streams.
    Attached {
        to: Whose,
        streams: Streams,
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
    queue: Queue,
}

/// What came from a client.
#[derive(Debug)]
pub(crate) enum Event {
    Asked(Request),
    Typed(Whose, Vec<u8>),
    StoppedTyping(Whose),
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
        self.open.insert(
            self.next,
            Client { stream, purpose: Purpose::Asking(Vec::new()), queue: Queue::default() },
        );
        self.next += 1;
        Ok(())
    }

    /// Who to watch, and for what. `typing` tells whether somebody's stdin takes more.
    pub(crate) fn interests(
        &self,
        typing: impl Fn(Whose) -> bool,
    ) -> impl Iterator<Item = (u64, &UnixStream, PollFlags)> {
        self.open.iter().filter_map(move |(id, client)| {
            let reading = match client.purpose {
                Purpose::Asking(_) => true,
                Purpose::Attached { silent: true, .. }
                | Purpose::Waiting(_)
                | Purpose::Watching
                | Purpose::Expecting
                | Purpose::Served => false,
                Purpose::Attached { to, streams, .. } => !streams.stdin || typing(to),
            };
            let mut flags = PollFlags::empty();
            flags.set(PollFlags::IN, reading);
            flags.set(PollFlags::OUT, !client.queue.is_empty());
            // Who has typed and gone is not looked at until the container takes more: what was typed counts.
            let typist = |purpose: &Purpose| match purpose {
                Purpose::Attached { streams, silent, .. } => streams.stdin && !silent,
                _ => false,
            };
            let held_back = typist(&client.purpose) && !reading;
            (!held_back || !client.queue.is_empty()).then_some((*id, &client.stream, flags))
        })
    }

    /// Whether all who want this stream have room for more of it.
    pub(crate) fn have_room(&self, of: Whose, name: StreamName) -> bool {
        self.open.values().all(|client| !client.wants(of, name) || client.queue.len() < QUEUE)
    }

    /// Whether everybody has what they asked for. Who has not said what they want does not count: there may be nobody left to answer.
    pub(crate) fn are_all_served(&self) -> bool {
        self.open.values().all(|client| matches!(client.purpose, Purpose::Asking(_)))
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

    /// Answers at an end.
    pub(crate) fn wait(&mut self, id: u64, of: Whose) {
        if let Some(client) = self.open.get_mut(&id) {
            client.purpose = Purpose::Waiting(of);
        }
    }

    /// Answers with what is so, goes on with what is [`told`](Self::tell), and ends with the container's end.
    pub(crate) fn watch(&mut self, id: u64, now: &Reply) {
        self.send(id, now, Purpose::Watching);
    }

    /// Tells those who watch. One that has not taken what it was told before goes without.
    pub(crate) fn tell(&mut self, news: &Reply) {
        let watches =
            |client: &Client| matches!(client.purpose, Purpose::Watching) && client.queue.is_empty();
        let ids: Vec<u64> =
            self.open.iter().filter(|(_, client)| watches(client)).map(|(id, _)| *id).collect();
        for id in ids {
            self.send(id, news, Purpose::Watching);
        }
    }

    /// Answers when a process has begun, or could not.
    pub(crate) fn expect(&mut self, id: u64) {
        if let Some(client) = self.open.get_mut(&id) {
            client.purpose = Purpose::Expecting;
        }
    }

    /// Answers, and turns the connection into streams.
    pub(crate) fn attach(&mut self, id: u64, reply: &Reply, to: Whose, streams: Streams) {
        self.send(id, reply, Purpose::Attached { to, streams, silent: false });
    }

    /// Closes an attached client when it has its bytes.
    pub(crate) fn detach(&mut self, id: u64) {
        if let Some(client) = self.open.get_mut(&id) {
            client.purpose = Purpose::Served;
        }
        self.flush(id);
    }

    /// Gives output to all who want it; `framed` in Docker's multiplexed format.
    pub(crate) fn deliver(&mut self, of: Whose, name: StreamName, bytes: &[u8], framed: bool) {
        let ids: Vec<u64> =
            self.open.iter().filter(|(_, client)| client.wants(of, name)).map(|(id, _)| *id).collect();
        for id in ids {
            let Some(client) = self.open.get_mut(&id) else { continue };
            let [a, b, c, d] = u32::try_from(bytes.len()).expect("a chunk is 16 KiB").to_be_bytes();
            let header = [name as u8, 0, 0, 0, a, b, c, d];
            let header = if framed { &header[..] } else { &[] };
            if client.queue.send(header, bytes, &mut client.stream).is_err() {
                self.open.remove(&id);
            }
        }
    }

    /// Somebody has ended: answers those who wait for it, and lets its attached go.
    pub(crate) fn finish(&mut self, whose: Whose, ended: &Reply) {
        let ids: Vec<u64> = self.open.keys().copied().collect();
        for id in ids {
            match self.open.get(&id).map(|client| &client.purpose) {
                Some(Purpose::Waiting(of)) if *of == whose => self.reply(id, ended),
                Some(Purpose::Watching) if whose == Whose::Container => self.reply(id, ended),
                Some(Purpose::Attached { to, .. }) if *to == whose => self.detach(id),
                // Served already; or it has not said what it wants, and will be answered if it does before the others are served.
                _ => {}
            }
        }
    }

    fn send(&mut self, id: u64, reply: &Reply, then: Purpose) {
        let Some(client) = self.open.get_mut(&id) else { return };
        match proto::encode(reply) {
            // What fails now fails again when the rest is sent.
            Ok(frame) => drop(client.queue.send(&frame, &[], &mut client.stream)),
            Err(error) => eprintln!("reply to a client: {error}"),
        }
        client.purpose = then;
        self.flush(id);
    }

    /// Writes what the client takes now, and closes the connection of one who has everything.
    fn flush(&mut self, id: u64) {
        let Some(client) = self.open.get_mut(&id) else { return };
        let written = client.queue.flush(&mut client.stream);
        if written.is_err() || (client.queue.is_empty() && matches!(client.purpose, Purpose::Served)) {
            self.open.remove(&id);
        }
    }
}

impl Client {
    fn wants(&self, of: Whose, name: StreamName) -> bool {
        match self.purpose {
            Purpose::Attached { to, streams, .. } if to == of => match name {
                StreamName::Stdout => streams.stdout,
                StreamName::Stderr => streams.stderr,
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
            Purpose::Attached { to, streams, silent } => {
                *silent = length == 0;
                Ok(match (streams.stdin, length) {
                    (false, _) => None,
                    (true, 0) => Some(Event::StoppedTyping(*to)),
                    (true, _) => Some(Event::Typed(*to, bytes.to_vec())),
                })
            }
            Purpose::Waiting(_) | Purpose::Watching | Purpose::Expecting | Purpose::Served => Ok(None),
        }
    }
}
