//! The rings of a guest that is played by hand: what it lays out in its memory, and when it is woken and wants to be told.
//! Section 2.7 of virtio 1.2 says what lies where.

use std::{fs::File, io::Read};

use caisson_hypervisor::GuestVsockPort;
use rustix::event::{EventfdFlags, eventfd};
use tokio::sync::oneshot;
use vm_memory::{Bytes, GuestAddress};
use vmm_sys_util::eventfd::EFD_NONBLOCK;

use super::{
    super::packet::{HOST_CID, Ports},
    *,
};

const SIZE: u16 = 16;
/// "The device writes into this one" (`VIRTQ_DESC_F_WRITE`).
const WRITABLE: u16 = 2;
/// So far ahead that no buffer of a test comes there.
const NOT_NOW: u16 = 1000;
/// The guest's memory, in bytes.
const MEMORY: usize = 0x10_0000;
/// A buffer's place in it, and its length: more than any packet of a test.
const BUFFER_BYTES: u32 = 4096;

/// A ring of the guest's, at `base` in its memory: descriptors, what is laid out, what is used, and a buffer for each descriptor.
struct Side {
    memory: Memory,
    ring: Ring,
    woken: File,
    base: u64,
    laid_out: u16,
}

impl Side {
    fn new(memory: &Memory, base: u64) -> Self {
        let ring = Ring::new(memory.clone(), SIZE).unwrap();
        let woken = File::from(eventfd(0, EventfdFlags::NONBLOCK).unwrap());
        ring.set_queue_size(SIZE);
        ring.set_queue_info(base, base + 0x1000, base + 0x2000).unwrap();
        ring.set_queue_event_idx(true);
        ring.set_call(Some(woken.try_clone().unwrap()));
        ring.set_queue_ready(true);
        Self { memory: memory.clone(), ring, woken, base, laid_out: 0 }
    }

    fn put(&self, at: u64, bytes: &[u8]) {
        self.memory.memory().write_slice(bytes, GuestAddress(self.base + at)).unwrap();
    }

    /// Lays out a buffer that holds `bytes`, or one that the device may write into.
    fn lay_out(&mut self, bytes: Option<&[u8]>) {
        match bytes {
            Some(bytes) => self.lay_out_as(bytes, bytes.len() as u32, 0),
            None => self.make_room(BUFFER_BYTES),
        }
    }

    /// Lays out a buffer that the device may write so much into.
    fn make_room(&mut self, length: u32) {
        self.lay_out_as(&[], length, WRITABLE);
    }

    fn lay_out_as(&mut self, bytes: &[u8], length: u32, flags: u16) {
        let slot = u64::from(self.laid_out % SIZE);
        let at = 0x3000 + slot * u64::from(BUFFER_BYTES);
        self.put(at, bytes);
        let address = (self.base + at).to_le_bytes();
        self.put(slot * 16, &[&address[..], &length.to_le_bytes(), &flags.to_le_bytes(), &[0, 0]].concat());
        self.put(0x1004 + slot * 2, &(slot as u16).to_le_bytes());
        self.laid_out = self.laid_out.wrapping_add(1);
        self.put(0x1002, &self.laid_out.to_le_bytes());
    }

    /// How many buffers the device has used.
    fn used(&self) -> u16 {
        self.ring.get_ref().get_queue().next_used()
    }

    /// From which used buffer on the guest wants to be woken (`used_event`).
    fn wants_waking_at(&self, used: u16) {
        self.put(0x1004 + u64::from(SIZE) * 2, &used.to_le_bytes());
    }

    /// With which buffer that it lays out the guest is to tell (`avail_event`).
    fn is_to_tell_at(&self) -> u16 {
        let mut event = [0; 2];
        let at = GuestAddress(self.base + 0x2004 + u64::from(SIZE) * 8);
        self.memory.memory().read_slice(&mut event, at).unwrap();
        u16::from_le_bytes(event)
    }

    fn was_woken(&mut self) -> bool {
        self.woken.read(&mut [0; 8]).is_ok()
    }
}

struct Bench {
    device: Device,
    memory: Memory,
    to_guest: Side,
    from_guest: Side,
}

impl Bench {
    fn new() -> Self {
        let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), MEMORY)]).unwrap();
        let memory = GuestMemoryAtomic::new(memory);
        let event = || EventFd::new(EFD_NONBLOCK).unwrap();
        let shared = Arc::new(Shared::new(event()));
        let device = Device::new(shared, HashMap::new(), event(), event());
        let (to_guest, from_guest) = (Side::new(&memory, 0), Side::new(&memory, 0x8_0000));
        Self { device, memory, to_guest, from_guest }
    }

    fn serve(&mut self) {
        self.device.serve(&self.memory, &self.to_guest.ring, &self.from_guest.ring).unwrap();
    }

    /// Something for the guest: it is asked for a stream.
    fn ask_guest(&self) {
        self.device.shared.mux().open(GuestVsockPort(5), oneshot::channel().0);
    }
}

/// A packet of the guest's of a stream that is none.
fn stray(op: Op, len: u32) -> Vec<u8> {
    let ports = Ports { host: 1, guest: 1 };
    let mut bytes = Packet { ports, op, flags: 0, len, buf_alloc: 0, fwd_cnt: 0 }.to_guest();
    bytes[0..8].copy_from_slice(&GUEST_CID.to_le_bytes());
    bytes[8..16].copy_from_slice(&HOST_CID.to_le_bytes());
    bytes.to_vec()
}

/// A packet of the guest's that nothing follows from.
const NOTHING: [u8; HEADER] = [0; HEADER];

#[test]
fn a_guest_at_work_is_not_woken_and_one_that_waits_is() {
    let mut bench = Bench::new();
    for (wants, woken) in [(NOT_NOW, false), (1, true)] {
        bench.from_guest.wants_waking_at(wants);
        bench.to_guest.wants_waking_at(wants);
        bench.from_guest.lay_out(Some(&NOTHING));
        bench.to_guest.lay_out(None);
        bench.ask_guest();
        bench.serve();
        assert_eq!((bench.from_guest.was_woken(), bench.to_guest.was_woken()), (woken, woken), "at {wants}");
    }
}

#[test]
fn what_lies_behind_nonsense_is_looked_at() {
    let mut bench = Bench::new();
    bench.device.memory = Some(bench.memory.clone());
    for packet in [&[7; 3][..], &NOTHING, &[], &NOTHING] {
        bench.from_guest.lay_out(Some(packet));
    }
    let rings = [bench.to_guest.ring.clone(), bench.from_guest.ring.clone()];
    bench.device.handle_event(1, EventSet::IN, &rings, 0).unwrap();
    assert_eq!(bench.from_guest.is_to_tell_at(), 4, "with the next packet");
}

#[test]
fn what_was_used_before_nonsense_is_told() {
    let mut bench = Bench::new();
    bench.device.memory = Some(bench.memory.clone());
    bench.from_guest.lay_out(Some(&NOTHING));
    bench.from_guest.lay_out(Some(&[7; 3]));
    bench.to_guest.lay_out(None);
    bench.to_guest.make_room(3);
    bench.ask_guest();
    bench.ask_guest();
    let rings = [bench.to_guest.ring.clone(), bench.from_guest.ring.clone()];
    bench.device.handle_event(1, EventSet::IN, &rings, 0).unwrap();
    assert_eq!((bench.from_guest.used(), bench.to_guest.used()), (1, 1));
    assert_eq!((bench.from_guest.was_woken(), bench.to_guest.was_woken()), (true, true));
}

#[test]
fn a_guest_that_does_not_take_its_answers_is_not_listened_to_until_it_does() {
    let mut bench = Bench::new();
    let question = stray(Op::CreditRequest, 0);
    let packet = Packet::from_guest(question.as_slice().try_into().unwrap()).unwrap();
    let mut asked = 0;
    let mut mux = bench.device.shared.mux();
    while !mux.is_full() {
        mux.receive(packet, b"");
        asked += 1;
    }
    drop(mux);
    for _ in 0..SIZE {
        bench.from_guest.lay_out(Some(&question));
    }
    bench.serve();
    assert_eq!(bench.from_guest.used(), 0, "what it says stays where it is");
    bench.to_guest.lay_out(None);
    bench.serve();
    assert_eq!((bench.from_guest.used(), bench.to_guest.used()), (1, 1), "as much as it takes");
    assert_eq!(bench.to_guest.is_to_tell_at(), 1, "with the next buffer");
    let mut taken = 1;
    while bench.device.shared.mux().has_packet() {
        bench.to_guest.lay_out(None);
        bench.serve();
        taken += 1;
    }
    assert_eq!(bench.from_guest.used(), SIZE);
    assert_eq!(taken, asked + usize::from(SIZE), "each is answered");
}

#[test]
fn new_room_is_to_be_told_only_while_something_waits_for_it() {
    let mut bench = Bench::new();
    bench.to_guest.lay_out(None);
    bench.to_guest.lay_out(None);
    bench.from_guest.lay_out(Some(&NOTHING));
    bench.ask_guest();
    bench.serve();
    assert_eq!(bench.to_guest.is_to_tell_at(), 0, "long past: there is room, and nothing waits");
    assert_eq!(bench.from_guest.is_to_tell_at(), 1, "with the next packet");
    bench.ask_guest();
    bench.ask_guest();
    bench.serve();
    assert_eq!(bench.to_guest.is_to_tell_at(), 2, "with the next buffer");
    bench.to_guest.lay_out(None);
    bench.serve();
    assert!(!bench.device.shared.mux().has_packet());
}
