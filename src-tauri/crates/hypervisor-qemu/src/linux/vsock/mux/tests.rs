//! A guest's side of a [`Mux`], played by hand.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::Wake,
};

use super::*;

const LISTENING: u32 = 1024;

/// A guest's side of a mux, driven by hand.
struct Bench {
    mux: Mux,
    data: Vec<u8>,
}

fn bench() -> Bench {
    Bench { mux: Mux::default(), data: Vec::new() }
}

fn packet(ports: Ports, op: Op, flags: u32, len: usize) -> Packet {
    Packet { ports, op, flags, len: len as u32, buf_alloc: 1000, fwd_cnt: 0 }
}

impl Bench {
    fn guest_says(&mut self, ports: Ports, op: Op, flags: u32, data: &[u8]) -> Option<Arrival> {
        self.mux.receive(packet(ports, op, flags, data.len()), data)
    }

    fn for_guest(&mut self) -> Option<(Op, u32, Vec<u8>)> {
        let packet = self.mux.next_packet(600, &mut self.data)?;
        assert_eq!(packet.len as usize, self.data.len());
        Some((packet.op, packet.flags, self.data.clone()))
    }

    /// A stream of the guest's that was accepted.
    fn stream(&mut self) -> (StreamId, Ports) {
        self.stream_from(77)
    }

    fn stream_from(&mut self, guest: u32) -> (StreamId, Ports) {
        let ports = Ports { host: LISTENING, guest };
        let arrival = self.guest_says(ports, Op::Request, 0, b"").unwrap();
        assert_eq!(arrival.port, LISTENING);
        self.mux.accept(arrival.stream);
        assert_eq!(self.for_guest().unwrap().0, Op::Response);
        (arrival.stream, ports)
    }

    fn read(&mut self, id: StreamId) -> Option<Vec<u8>> {
        let mut buf = vec![0; 1 << 20];
        match self.mux.poll_read(id, &Context::from_waker(Waker::noop()), &mut buf) {
            Poll::Ready(read) => Some(buf[..read.unwrap().0].to_vec()),
            Poll::Pending => None,
        }
    }

    fn write(&mut self, id: StreamId, data: &[u8]) -> Option<io::Result<usize>> {
        match self.mux.poll_write(id, &Context::from_waker(Waker::noop()), &[IoSlice::new(data)]) {
            Poll::Ready(written) => Some(written),
            Poll::Pending => None,
        }
    }
}

#[test]
fn each_direction_ends_on_its_own() {
    let mut bench = bench();
    let (id, ports) = bench.stream();
    assert_eq!(bench.write(id, b"all").unwrap().unwrap(), 3);
    bench.mux.shut(id);
    assert_eq!(bench.for_guest(), Some((Op::Data, 0, b"all".to_vec())));
    assert_eq!(bench.for_guest(), Some((Op::Shutdown, NO_MORE_SEND, vec![])));
    assert_eq!(bench.for_guest(), None);
    bench.guest_says(ports, Op::Data, 0, b"answer");
    bench.guest_says(ports, Op::Shutdown, NO_MORE_SEND, b"");
    assert_eq!(bench.read(id).unwrap(), b"answer");
    assert_eq!(bench.read(id).unwrap(), b"", "the end");
}

#[test]
fn nothing_is_sent_that_the_guest_cannot_hold() {
    let mut bench = bench();
    let (id, ports) = bench.stream();
    bench.write(id, &[7; 2000]).unwrap().unwrap();
    assert_eq!(bench.for_guest().unwrap().2.len(), 600);
    assert_eq!(bench.for_guest().unwrap().2.len(), 400);
    assert_eq!(bench.for_guest(), None, "1000 bytes are underway");
    bench.mux.receive(Packet { fwd_cnt: 900, ..packet(ports, Op::CreditUpdate, 0, 0) }, b"");
    assert_eq!(bench.for_guest().unwrap().2.len(), 600);
}

#[test]
fn small_packets_that_nobody_takes_go_together_before_they_fill_the_guest() {
    // Of 644 bytes, in a guest that says it holds 1000: the fourth occupies more than twice as much.
    const FEW: u8 = 4;
    let mut bench = bench();
    let (id, ports) = bench.stream();
    for byte in 0..FEW {
        bench.write(id, &[byte]).unwrap().unwrap();
        assert_eq!(bench.for_guest().unwrap().2, [byte]);
    }
    for _ in 0..3 {
        bench.write(id, b"x").unwrap().unwrap();
        assert_eq!(bench.for_guest(), None);
    }
    let took = |fwd_cnt| Packet { fwd_cnt, ..packet(ports, Op::CreditUpdate, 0, 0) };
    bench.mux.receive(took(1), b"");
    assert_eq!(bench.for_guest().unwrap().2, b"xxx");
    bench.write(id, b"y").unwrap().unwrap();
    assert_eq!(bench.for_guest(), None, "one buffer is free, and taken again");
    bench.mux.receive(took(u32::from(FEW) + 3), b"");
    assert_eq!(bench.for_guest().unwrap().2, b"y");
    bench.mux.receive(took(u32::from(FEW) + 4), b"");
    assert_eq!(bench.mux.streams[&id].underway.capacity(), 0);
}

#[test]
fn streams_that_have_much_to_say_take_turns_and_one_that_may_not_holds_up_none() {
    let mut bench = bench();
    let streams = [1, 2, 3].map(|guest| bench.stream_from(guest));
    let can_hold = |bench: &mut Bench, guest: u32, buf_alloc| {
        let ports = streams[guest as usize - 1].1;
        bench.mux.receive(Packet { buf_alloc, ..packet(ports, Op::CreditUpdate, 0, 0) }, b"");
    };
    for (id, Ports { guest, .. }) in streams {
        can_hold(&mut bench, guest, if guest == 3 { 0 } else { BUFFER });
        assert_eq!(bench.write(id, &[7; BUFFER as usize]).unwrap().unwrap(), BUFFER as usize);
    }
    let turns = |bench: &mut Bench, turns: usize| {
        let next = |_| {
            let packet = bench.mux.next_packet(600, &mut bench.data).unwrap();
            assert_eq!((packet.op, packet.len), (Op::Data, 600));
            packet.ports.guest
        };
        (0..turns).map(next).collect::<Vec<_>>()
    };
    assert_eq!(turns(&mut bench, 6), [1, 2, 1, 2, 1, 2]);
    can_hold(&mut bench, 1, 0);
    assert_eq!(turns(&mut bench, 3), [2, 2, 2]);
    can_hold(&mut bench, 1, BUFFER);
    assert_eq!(turns(&mut bench, 4), [2, 1, 2, 1]);
    can_hold(&mut bench, 3, BUFFER);
    assert_eq!(turns(&mut bench, 6), [2, 1, 3, 2, 1, 3]);
    // Who has something new to say comes last, however much the others have left.
    let (id, ports) = bench.stream_from(4);
    bench.mux.receive(Packet { buf_alloc: BUFFER, ..packet(ports, Op::CreditUpdate, 0, 0) }, b"");
    bench.write(id, &[7; 600]).unwrap().unwrap();
    assert_eq!(turns(&mut bench, 5), [2, 1, 3, 4, 2]);
}

#[test]
fn parts_go_as_one_and_a_stream_that_has_gone_quiet_holds_nothing() {
    let mut bench = bench();
    let (id, ports) = bench.stream();
    let parts = [IoSlice::new(b"what "), IoSlice::new(b""), IoSlice::new(b"now?")];
    let written = bench.mux.poll_write(id, &Context::from_waker(Waker::noop()), &parts);
    assert!(matches!(written, Poll::Ready(Ok(9))));
    assert_eq!(bench.for_guest(), Some((Op::Data, 0, b"what now?".to_vec())));
    bench.guest_says(ports, Op::Data, 0, &[7; 1000]);
    assert_eq!(bench.read(id).unwrap().len(), 1000);
    let stream = &bench.mux.streams[&id];
    assert_eq!((stream.to_guest.capacity(), stream.from_guest.capacity()), (0, 0));
}

#[test]
fn a_writer_waits_when_the_buffer_is_full_while_the_other_direction_flows() {
    let mut bench = bench();
    let (id, ports) = bench.stream();
    let all = vec![1; BUFFER as usize + 5];
    assert_eq!(bench.write(id, &all).unwrap().unwrap(), BUFFER as usize);
    assert!(bench.write(id, b"x").is_none());
    while bench.for_guest().is_some() {}
    bench.guest_says(ports, Op::Data, 0, b"still here");
    assert_eq!(bench.read(id).unwrap(), b"still here");
}

#[test]
fn the_guest_is_told_what_was_read_and_may_not_send_more_than_fits() {
    let mut bench = bench();
    let (id, ports) = bench.stream();
    bench.guest_says(ports, Op::Data, 0, &[0; TELL_AFTER as usize]);
    assert!(!bench.mux.has_packet());
    bench.read(id).unwrap();
    assert_eq!(bench.for_guest().unwrap().0, Op::CreditUpdate);
    bench.guest_says(ports, Op::Data, 0, &vec![0; BUFFER as usize]);
    assert_eq!(bench.for_guest(), None);
    bench.guest_says(ports, Op::Data, 0, b"one too many");
    assert_eq!(bench.for_guest().unwrap().0, Op::Reset);
}

#[test]
fn what_was_sent_before_a_stream_was_closed_can_be_read_after() {
    let mut bench = bench();
    let (id, ports) = bench.stream();
    bench.guest_says(ports, Op::Data, 0, b"last words");
    bench.guest_says(ports, Op::Shutdown, NO_MORE_SEND | NO_MORE_RECEIVE, b"");
    assert_eq!(bench.for_guest().unwrap().0, Op::Reset, "the guest waits for it");
    let again = bench.guest_says(ports, Op::Request, 0, b"").unwrap();
    assert_ne!(again.stream, id, "the guest may use its port again at once");
    assert_eq!(bench.read(id).unwrap(), b"last words");
    assert_eq!(bench.read(id).unwrap(), b"");
    assert!(bench.write(id, b"x").unwrap().is_err());
    bench.mux.abandon(id);
    assert_eq!(bench.mux.streams.len(), 1);
}

#[derive(Default)]
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn that_the_guest_let_go_is_told_to_one_who_does_not_read() {
    const BOTH: u32 = NO_MORE_SEND | NO_MORE_RECEIVE;
    for (op, flags) in [(Op::Shutdown, BOTH), (Op::Reset, 0)] {
        let mut bench = bench();
        let (id, ports) = bench.stream();
        let woken = Arc::<Woken>::default();
        let waker = Waker::from(woken.clone());
        let is_gone = |bench: &mut Bench| bench.mux.poll_gone(id, &Context::from_waker(&waker)).is_ready();
        bench.guest_says(ports, Op::Data, 0, b"last words");
        bench.guest_says(ports, Op::Shutdown, NO_MORE_SEND, b"");
        assert!(!is_gone(&mut bench), "it still takes what it is sent");
        bench.guest_says(ports, op, flags, b"");
        assert!(woken.0.load(Ordering::Relaxed) && is_gone(&mut bench));
        assert_eq!(bench.read(id).unwrap(), b"last words");
    }
}

#[test]
fn a_dropped_end_is_told_at_once_and_what_it_wrote_still_goes() {
    let mut bench = bench();
    let (id, ports) = bench.stream();
    bench.write(id, b"goodbye").unwrap().unwrap();
    bench.guest_says(ports, Op::Data, 0, b"nobody reads this");
    bench.mux.abandon(id);
    assert_eq!(bench.for_guest(), Some((Op::Data, 0, b"goodbye".to_vec())));
    assert_eq!(bench.for_guest(), Some((Op::Shutdown, NO_MORE_SEND | NO_MORE_RECEIVE, vec![])));
    bench.guest_says(ports, Op::Reset, 0, b"");
    assert!(bench.mux.streams.is_empty() && bench.mux.wired.is_empty());
}

#[test]
fn a_stream_into_the_guest_is_accepted_refused_or_given_up() {
    let mut bench = bench();
    for op in [Op::Response, Op::Reset] {
        let (opened, mut answer) = oneshot::channel();
        let id = bench.mux.open(GuestVsockPort(5), opened);
        let request = bench.mux.next_packet(0, &mut Vec::new()).unwrap();
        assert_eq!((request.op, request.ports.guest), (Op::Request, 5));
        assert!(answer.try_recv().is_err(), "not yet");
        bench.guest_says(request.ports, op, 0, b"");
        assert_eq!(answer.try_recv().unwrap().is_ok(), op == Op::Response);
        bench.mux.abandon(id);
    }
    let (opened, _) = oneshot::channel();
    let id = bench.mux.open(GuestVsockPort(5), opened);
    let request = bench.mux.next_packet(0, &mut Vec::new()).unwrap();
    bench.mux.abandon(id);
    bench.guest_says(request.ports, Op::Response, 0, b"");
    assert_eq!(bench.for_guest().unwrap().0, Op::Reset);
}

#[test]
fn of_what_a_guest_that_stands_still_was_asked_nothing_is_left() {
    let mut bench = bench();
    for takes in [true, false] {
        let asked = [(); 3].map(|()| bench.mux.open(GuestVsockPort(5), oneshot::channel().0));
        let mut sent = 0;
        while takes && bench.for_guest().is_some() {
            sent += 1;
        }
        assert_eq!(sent, if takes { asked.len() } else { 0 });
        for id in asked {
            bench.mux.abandon(id);
        }
        assert!(
            bench.mux.streams.is_empty() && bench.mux.wired.is_empty(),
            "it takes what it is sent: {takes}"
        );
        assert_eq!(bench.for_guest(), None);
    }
}

#[test]
fn what_belongs_to_no_stream_is_reset_and_what_nobody_takes_is_refused() {
    let mut bench = bench();
    let ports = Ports { host: 9, guest: 9 };
    assert_eq!(bench.guest_says(ports, Op::Data, 0, b"?"), None);
    assert_eq!(bench.for_guest().unwrap().0, Op::Reset);
    bench.guest_says(ports, Op::Reset, 0, b"");
    assert_eq!(bench.for_guest(), None, "a reset is not answered");
    let arrival = bench.guest_says(ports, Op::Request, 0, b"").unwrap();
    bench.mux.refuse(arrival.stream);
    assert_eq!(bench.for_guest().unwrap().0, Op::Reset);
    assert!(bench.mux.streams.is_empty());
}

#[test]
fn answers_that_the_guest_does_not_take_fill_it_and_what_the_host_asks_does_not() {
    let mut bench = bench();
    let (_, ports) = bench.stream();
    for _ in 0..MAX_ANSWERS {
        bench.mux.open(GuestVsockPort(5), oneshot::channel().0);
    }
    assert!(!bench.mux.is_full());
    let stray = Ports { host: 9, guest: 9 };
    for turn in 0..MAX_ANSWERS / 2 {
        bench.guest_says(ports, Op::CreditRequest, 0, b"");
        assert!(!bench.mux.is_full(), "in turn {turn}");
        bench.guest_says(stray, Op::CreditRequest, 0, b"");
    }
    assert!(bench.mux.is_full());
    for _ in 0..MAX_ANSWERS {
        assert_eq!(bench.for_guest().unwrap().0, Op::Request);
    }
    assert!(bench.mux.is_full(), "none of those was an answer");
    assert_eq!(bench.for_guest().unwrap().0, Op::CreditUpdate);
    assert!(!bench.mux.is_full());
    bench.guest_says(stray, Op::CreditRequest, 0, b"");
    assert!(bench.mux.is_full());
    bench.mux.close();
    assert!(!bench.mux.is_full());
}

#[test]
fn a_guest_that_lets_go_of_no_stream_is_refused_more() {
    let mut bench = bench();
    let ports = |guest| Ports { host: LISTENING, guest };
    for guest in 0..MAX_STREAMS as u32 {
        let arrival = bench.guest_says(ports(guest), Op::Request, 0, b"").unwrap();
        bench.mux.accept(arrival.stream);
        bench.mux.abandon(arrival.stream);
        while bench.for_guest().is_some() {}
    }
    let one_more = ports(MAX_STREAMS as u32);
    assert_eq!(bench.guest_says(one_more, Op::Request, 0, b""), None);
    assert_eq!(bench.for_guest().unwrap().0, Op::Reset);
    bench.guest_says(ports(0), Op::Reset, 0, b"");
    assert!(bench.guest_says(one_more, Op::Request, 0, b"").is_some());
}

#[test]
fn all_ends_with_the_machine() {
    let mut bench = bench();
    let (id, _) = bench.stream();
    let (opened, mut answer) = oneshot::channel();
    bench.mux.open(GuestVsockPort(5), opened);
    bench.mux.close();
    assert_eq!(bench.read(id).unwrap(), b"");
    assert!(bench.write(id, b"x").unwrap().is_err());
    assert!(answer.try_recv().unwrap().is_err());
    let (opened, mut answer) = oneshot::channel();
    bench.mux.open(GuestVsockPort(5), opened);
    assert!(answer.try_recv().unwrap().is_err());
}
