//! All streams of one machine, as a pure thing: packets of the guest's go in, packets for the guest come out, and the
//! host's ends read and write in between. No I/O, no waiting; [`Mux`] only keeps who is to be woken.
//!
//! Flow control is virtio's credit (1.2, section 5.10.6.3): each side tells how much it can hold and how much it has
//! taken out, and the other never sends more than fits. So neither direction of a stream can ever stand in the way of the
//! other one, nor one stream in the way of another.

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    io::{self, IoSlice, Read},
    task::{Context, Poll, Waker},
};

use caisson_hypervisor::{ConnectError, GuestVsockPort};
use tokio::sync::oneshot;

use super::packet::{HEADER, NO_MORE_RECEIVE, NO_MORE_SEND, Op, Packet, Ports};

/// How much of a stream is held for the host's side, and for the guest's.
const BUFFER: u32 = 256 << 10;
/// How much is taken out before the guest is told so, if nothing else is said to it.
const TELL_AFTER: u32 = BUFFER / 4;
/// How many packets of a stream may be with the guest at a time, however large its buffers are; what they occupy is the tighter bound.
const MAX_UNDERWAY: usize = 1024;
/// How many answers the guest may have coming before no more of its packets are looked at. They take 2 MB, and a guest that takes
/// what it is sent never has so many, not even while ten thousand of its streams end and as many begin. One that was stopped
/// sooner might stand still for good: Linux looks at nothing that it is sent while as many answers of its own as fit into a ring wait to be
/// taken (`virtio_transport_more_replies` in net/vmw_vsock/virtio_transport.c).
const MAX_ANSWERS: usize = 1 << 16;
/// How many streams there may be before the guest is refused one more. One that the host has let go of is there until the guest has, too.
const MAX_STREAMS: usize = 1 << 16;
/// Where the host's own ports begin: above all that are given names.
const FIRST_PORT: u32 = 1 << 30;

/// A stream's number on the host; ports can come again while the host still reads an old stream, numbers never do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct StreamId(u64);

/// A guest's stream to a port of the host's that somebody may listen on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Arrival {
    pub(super) port: u32,
    pub(super) stream: StreamId,
}

/// Who waits for a stream of the host's to be accepted.
pub(super) type Opened = oneshot::Sender<Result<(), ConnectError>>;

/// All streams of one machine.
#[derive(Default)]
pub(super) struct Mux {
    streams: HashMap<StreamId, Stream>,
    /// The streams that the guest knows of too.
    wired: HashMap<Ports, StreamId>,
    /// The streams for which the guest is still to be asked, the first first. They go before all else.
    requests: BTreeSet<StreamId>,
    /// Packets without data, each the answer to one of the guest's, which go next.
    answers: VecDeque<Packet>,
    /// Streams that may have something for the guest.
    ready: VecDeque<StreamId>,
    last: u64,
    next_port: u32,
    closed: bool,
}

struct Stream {
    ports: Ports,
    opening: Option<Opened>,
    from_guest: VecDeque<u8>,
    to_guest: VecDeque<u8>,
    /// The guest will send no more.
    guest_ended: bool,
    /// The guest will take no more.
    guest_deaf: bool,
    /// The host will send no more once `to_guest` is empty.
    host_ended: bool,
    /// The host's end was dropped: nobody reads.
    host_gone: bool,
    /// What the guest was told of those two, in the protocol's flags.
    told: u32,
    /// Whether the guest knows of it.
    wired: bool,
    /// Whether it is among the ready ones.
    ready: bool,
    guest_holds: u32,
    guest_took: u32,
    sent: u32,
    /// How far `sent` was behind each packet of data that the guest has not taken all of.
    underway: VecDeque<u32>,
    /// The size of the guest's buffer that the last one went into.
    guest_buffer: usize,
    took: u32,
    told_took: u32,
    reader: Option<Waker>,
    writer: Option<Waker>,
    /// Who waits for the guest to let go of it.
    watcher: Option<Waker>,
}

impl Stream {
    fn new(ports: Ports, opening: Option<Opened>) -> Self {
        Self {
            ports,
            opening,
            from_guest: VecDeque::new(),
            to_guest: VecDeque::new(),
            guest_ended: false,
            guest_deaf: false,
            host_ended: false,
            host_gone: false,
            told: 0,
            wired: true,
            ready: false,
            guest_holds: 0,
            guest_took: 0,
            sent: 0,
            underway: VecDeque::new(),
            guest_buffer: 0,
            took: 0,
            told_took: 0,
            reader: None,
            writer: None,
            watcher: None,
        }
    }

    /// How much more the guest can hold.
    fn credit(&self) -> usize {
        if self.occupies_enough() {
            return 0;
        }
        let underway = self.sent.wrapping_sub(self.guest_took);
        self.guest_holds.saturating_sub(underway) as usize
    }

    /// Whether what is with the guest occupies twice what it said it can hold, as Linux' own streams may (SO_RCVBUF in socket(7)).
    ///
    /// A packet occupies a whole buffer of the guest's, however little lies in it, unless it is so little that Linux puts it into the one before
    /// (128 bytes). What waits meanwhile goes together, so that nothing is lost but the haste, and Linux tells when everything was taken.
    fn occupies_enough(&self) -> bool {
        let occupied = self.underway.len() * self.guest_buffer;
        occupied >= 2 * self.guest_holds as usize || self.underway.len() >= MAX_UNDERWAY
    }

    /// What each packet of the guest's says of how much it can hold, and how much it has taken.
    fn hear_credit(&mut self, packet: Packet) {
        self.guest_holds = packet.buf_alloc;
        self.guest_took = packet.fwd_cnt;
        let left = self.sent.wrapping_sub(self.guest_took);
        let taken = |end: u32| self.sent.wrapping_sub(end) >= left;
        while self.underway.front().is_some_and(|end| taken(*end)) {
            self.underway.pop_front();
        }
        let_go(&mut self.underway);
    }

    /// What the guest should be told about ends, in the protocol's flags.
    fn to_tell(&self) -> u32 {
        let receive = if self.host_gone { NO_MORE_RECEIVE } else { 0 };
        let send = if self.host_ended && self.to_guest.is_empty() { NO_MORE_SEND } else { 0 };
        receive | send
    }

    fn has_packet(&self) -> bool {
        let data = !self.to_guest.is_empty() && self.credit() > 0;
        let ends = self.to_tell() & !self.told != 0;
        let credit = self.took.wrapping_sub(self.told_took) >= TELL_AFTER && !self.guest_ended;
        self.wired && self.opening.is_none() && (data || ends || credit)
    }

    fn packet(&mut self, op: Op, flags: u32, len: usize) -> Packet {
        self.told_took = self.took;
        let len = u32::try_from(len).expect("data is cut to a packet's size before");
        Packet { ports: self.ports, op, flags, len, buf_alloc: BUFFER, fwd_cnt: self.took }
    }

    /// The next packet for the guest, its data in `data`.
    fn next_packet(&mut self, most: usize, data: &mut Vec<u8>) -> Packet {
        let size = self.to_guest.len().min(self.credit()).min(most);
        if size > 0 {
            data.resize(size, 0);
            self.to_guest.read_exact(data).expect("it holds at least that much");
            let_go(&mut self.to_guest);
            self.sent = self.sent.wrapping_add(size as u32);
            self.underway.push_back(self.sent);
            self.guest_buffer = HEADER + most;
            wake(&mut self.writer);
            return self.packet(Op::Data, 0, size);
        }
        let ends = self.to_tell();
        if ends & !self.told != 0 {
            self.told = ends;
            return self.packet(Op::Shutdown, ends, 0);
        }
        self.packet(Op::CreditUpdate, 0, 0)
    }

    fn take_in(&mut self, data: &[u8]) {
        if self.host_gone {
            self.took = self.took.wrapping_add(data.len() as u32);
        } else {
            self.from_guest.extend(data);
            wake(&mut self.reader);
        }
    }

    /// The guest will take no more, and gets nothing of what is left.
    fn deafen(&mut self) {
        self.guest_deaf = true;
        self.to_guest = VecDeque::new();
        self.underway = VecDeque::new();
    }

    /// The guest knows of it no more.
    fn cut(&mut self, why: impl FnOnce() -> ConnectError) {
        self.wired = false;
        self.guest_ended = true;
        self.deafen();
        if let Some(opening) = self.opening.take() {
            // Nobody waits any more: fine.
            let _ = opening.send(Err(why()));
        }
        wake(&mut self.reader);
        wake(&mut self.writer);
        wake(&mut self.watcher);
    }
}

/// Thousands of streams are idle at a time, and none of them is to keep its buffers for that.
fn let_go<T>(buffer: &mut VecDeque<T>) {
    if buffer.is_empty() {
        *buffer = VecDeque::new();
    }
}

fn wake(waker: &mut Option<Waker>) {
    if let Some(waker) = waker.take() {
        waker.wake();
    }
}

impl Mux {
    /// A packet of the guest's with its data. Gives the stream if it opens one; the caller accepts or refuses it.
    pub(super) fn receive(&mut self, packet: Packet, data: &[u8]) -> Option<Arrival> {
        let Some(id) = self.wired.get(&packet.ports).copied() else {
            return self.receive_unknown(packet);
        };
        let stream = self.streams.get_mut(&id)?;
        stream.hear_credit(packet);
        match packet.op {
            Op::Response => {
                if let Some(opening) = stream.opening.take() {
                    // Nobody waits any more: the host's end is dropped, and that closes the stream.
                    let _ = opening.send(Ok(()));
                }
            }
            Op::Data if stream.from_guest.len() + data.len() > BUFFER as usize => self.reset(id),
            Op::Data => stream.take_in(data),
            Op::Shutdown => self.guest_shuts(id, packet.flags),
            Op::Reset => self.cut(id),
            Op::CreditRequest => {
                let update = stream.packet(Op::CreditUpdate, 0, 0);
                self.answer(update);
            }
            Op::CreditUpdate => {}
            Op::Request => self.reset(id),
        }
        self.make_ready(id);
        None
    }

    fn receive_unknown(&mut self, packet: Packet) -> Option<Arrival> {
        match packet.op {
            Op::Request if !self.closed && self.streams.len() < MAX_STREAMS => {
                let stream = self.insert(packet.ports, None);
                self.streams.get_mut(&stream)?.hear_credit(packet);
                Some(Arrival { port: packet.ports.host, stream })
            }
            Op::Reset => None,
            _ => {
                self.answer(reset_of(packet.ports));
                None
            }
        }
    }

    /// The guest's stream was taken by somebody.
    pub(super) fn accept(&mut self, id: StreamId) {
        if let Some(stream) = self.streams.get_mut(&id) {
            let response = stream.packet(Op::Response, 0, 0);
            self.answer(response);
        }
    }

    /// Nobody takes the guest's stream.
    pub(super) fn refuse(&mut self, id: StreamId) {
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.host_gone = true;
        }
        self.reset(id);
    }

    /// Ends a stream at once, on both sides. What the guest has sent can still be read.
    fn reset(&mut self, id: StreamId) {
        if let Some(stream) = self.streams.get(&id) {
            self.answer(reset_of(stream.ports));
        }
        self.cut(id);
    }

    fn answer(&mut self, packet: Packet) {
        self.answers.push_back(packet);
    }

    /// Whether nothing more is to be [received](Self::receive) before the guest has taken some of what there is for it.
    pub(super) fn is_full(&self) -> bool {
        self.answers.len() >= MAX_ANSWERS
    }

    /// Asks the guest for a stream to a port; `opened` is told whether it accepts.
    pub(super) fn open(&mut self, port: GuestVsockPort, opened: Opened) -> StreamId {
        let ports = self.free_ports(port.0);
        let id = self.insert(ports, Some(opened));
        if self.closed {
            self.cut(id);
        } else {
            self.requests.insert(id);
        }
        id
    }

    fn free_ports(&mut self, guest: u32) -> Ports {
        loop {
            let host = FIRST_PORT + self.next_port;
            self.next_port = (self.next_port + 1) % FIRST_PORT;
            let ports = Ports { host, guest };
            if !self.wired.contains_key(&ports) {
                return ports;
            }
        }
    }

    fn insert(&mut self, ports: Ports, opening: Option<Opened>) -> StreamId {
        self.last += 1;
        let id = StreamId(self.last);
        self.streams.insert(id, Stream::new(ports, opening));
        self.wired.insert(ports, id);
        id
    }

    fn guest_shuts(&mut self, id: StreamId, flags: u32) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        stream.guest_ended |= flags & NO_MORE_SEND != 0;
        if flags & NO_MORE_RECEIVE != 0 {
            stream.deafen();
        }
        wake(&mut stream.reader);
        wake(&mut stream.writer);
        // A guest that does neither any more waits for this answer to forget the stream (section 5.10.6.5).
        if stream.guest_ended && stream.guest_deaf {
            self.reset(id);
        }
    }

    fn cut(&mut self, id: StreamId) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        let port = GuestVsockPort(stream.ports.guest);
        stream.cut(|| ConnectError::Refused(port));
        self.wired.remove(&stream.ports);
        self.requests.remove(&id);
        if stream.host_gone {
            self.streams.remove(&id);
        }
    }

    fn make_ready(&mut self, id: StreamId) {
        if let Some(stream) = self.streams.get_mut(&id)
            && !stream.ready
            && stream.has_packet()
        {
            stream.ready = true;
            self.ready.push_back(id);
        }
    }

    /// Whether [`next_packet`](Self::next_packet) would give one.
    pub(super) fn has_packet(&mut self) -> bool {
        while let Some(id) = self.ready.front() {
            match self.streams.get_mut(id) {
                Some(stream) if stream.has_packet() => return true,
                Some(stream) => stream.ready = false,
                None => {}
            }
            self.ready.pop_front();
        }
        !self.requests.is_empty() || !self.answers.is_empty()
    }

    /// The next packet for the guest, with at most so many bytes of data, which are put into `data`. Streams take turns.
    pub(super) fn next_packet(&mut self, most: usize, data: &mut Vec<u8>) -> Option<Packet> {
        data.clear();
        if let Some(packet) = self.next_request().or_else(|| self.answers.pop_front()) {
            return Some(packet);
        }
        if !self.has_packet() {
            return None;
        }
        let id = self.ready.pop_front()?;
        let stream = self.streams.get_mut(&id)?;
        stream.ready = false;
        let packet = stream.next_packet(most, data);
        self.make_ready(id);
        Some(packet)
    }

    fn next_request(&mut self) -> Option<Packet> {
        let id = self.requests.pop_first()?;
        Some(self.streams.get_mut(&id)?.packet(Op::Request, 0, 0))
    }

    /// The machine is gone: every stream ends, and none is opened any more.
    pub(super) fn close(&mut self) {
        self.closed = true;
        for id in self.streams.keys().copied().collect::<Vec<_>>() {
            self.cut(id);
        }
        self.answers.clear();
    }

    /// Reads what the guest has sent, for the host's end. `true` if the guest has to be told.
    pub(super) fn poll_read(
        &mut self,
        id: StreamId,
        cx: &Context<'_>,
        buf: &mut [u8],
    ) -> Poll<io::Result<(usize, bool)>> {
        let Some(stream) = self.streams.get_mut(&id) else { return Poll::Ready(Ok((0, false))) };
        let size = stream.from_guest.read(buf)?;
        if size == 0 && !buf.is_empty() && !stream.guest_ended {
            stream.reader = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let_go(&mut stream.from_guest);
        stream.took = stream.took.wrapping_add(size as u32);
        self.make_ready(id);
        Poll::Ready(Ok((size, self.has_packet())))
    }

    /// Takes what the host's end has for the guest: `parts`, one behind the other, as far as there is room.
    pub(super) fn poll_write(
        &mut self,
        id: StreamId,
        cx: &Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let Some(stream) = self.streams.get_mut(&id) else {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        };
        if stream.guest_deaf || stream.host_ended {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let before = stream.to_guest.len();
        if before == BUFFER as usize {
            stream.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        for part in parts {
            let room = BUFFER as usize - stream.to_guest.len();
            stream.to_guest.extend(&part[..part.len().min(room)]);
        }
        let taken = stream.to_guest.len() - before;
        self.make_ready(id);
        Poll::Ready(Ok(taken))
    }

    /// Ready once the guest has let go of the stream; the host's end can still read what the guest sent.
    pub(super) fn poll_gone(&mut self, id: StreamId, cx: &Context<'_>) -> Poll<()> {
        match self.streams.get_mut(&id) {
            Some(stream) if stream.wired => {
                stream.watcher = Some(cx.waker().clone());
                Poll::Pending
            }
            _ => Poll::Ready(()),
        }
    }

    /// The host's end will write no more.
    pub(super) fn shut(&mut self, id: StreamId) {
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.host_ended = true;
            self.make_ready(id);
        }
    }

    /// The host's end was dropped: what it wrote still goes to the guest, what the guest sends is thrown away.
    pub(super) fn abandon(&mut self, id: StreamId) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        if stream.opening.is_some() {
            return self.give_up(id);
        }
        stream.host_ended = true;
        stream.host_gone = true;
        stream.took = stream.took.wrapping_add(stream.from_guest.len() as u32);
        stream.from_guest = VecDeque::new();
        if stream.wired {
            self.make_ready(id);
        } else {
            self.streams.remove(&id);
        }
    }

    /// Forgets a stream that the guest has not accepted. One that stands still answers none of what it is asked, so that nothing must be left
    /// of that; if it accepts after all, it hears that there is no such stream.
    fn give_up(&mut self, id: StreamId) {
        self.requests.remove(&id);
        if let Some(stream) = self.streams.remove(&id) {
            self.wired.remove(&stream.ports);
        }
    }
}

/// The end of a stream, at once.
fn reset_of(ports: Ports) -> Packet {
    Packet { ports, op: Op::Reset, flags: 0, len: 0, buf_alloc: 0, fwd_cnt: 0 }
}

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;
