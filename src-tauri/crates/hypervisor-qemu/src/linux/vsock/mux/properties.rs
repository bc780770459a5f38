//! What holds whatever the guest sends, and whatever the host's ends do meanwhile.
//!
//! Beside the [`Mux`] goes a simple account of every stream. What the guest may say is anything: any operation on any ports, flags that are
//! none, credit that it never got, more data than it may send.

use std::{
    collections::{BTreeMap, HashSet},
    sync::LazyLock,
};

use proptest::{
    prelude::*,
    sample::{Index, select},
    test_runner::{Config, TestCaseResult},
};

use super::*;

/// Few, so that they come again and again.
const GUEST_PORTS: u32 = 3;
const HOST_PORT: u32 = 1024;

#[derive(Debug, Clone)]
enum Step {
    /// The guest sends a packet: of a stream that there is, or of any ports.
    Guest {
        of: Option<Index>,
        guest: u32,
        op: Op,
        flags: u32,
        len: usize,
        credit: Credit,
    },
    /// The guest takes packets into buffers of this size.
    Take {
        packets: usize,
        most: usize,
    },
    /// The host asks for a stream.
    Open {
        guest: u32,
    },
    /// An end of the host's reads, writes, ends its own direction, or is dropped.
    Read {
        end: Index,
        most: usize,
    },
    Write {
        end: Index,
        size: usize,
    },
    Shut {
        end: Index,
    },
    Drop {
        end: Index,
    },
    /// The machine is gone.
    Close,
}

/// What a packet says of the guest's buffer.
#[derive(Debug, Clone)]
enum Credit {
    /// It can hold so much, and has taken some more of what it got.
    True { holds: u32, takes: Index },
    /// Anything.
    Any { holds: u32, took: u32 },
}

fn length() -> impl Strategy<Value = usize> {
    prop_oneof![4 => 0usize..20, 3 => 0usize..5000, 2 => 0usize..100_000, 1 => 0usize..400_000]
}

fn credit() -> impl Strategy<Value = Credit> {
    let holds = prop_oneof![1 => Just(0), 4 => 0u32..20_000, 2 => any::<u32>()];
    prop_oneof![
        9 => (holds.clone(), any::<Index>()).prop_map(|(holds, takes)| Credit::True { holds, takes }),
        1 => (holds, any::<u32>()).prop_map(|(holds, took)| Credit::Any { holds, took }),
    ]
}

fn guest_step() -> impl Strategy<Value = Step> {
    let op = prop_oneof![
        3 => Just(Op::Request),
        3 => Just(Op::Response),
        1 => Just(Op::Reset),
        2 => Just(Op::Shutdown),
        6 => Just(Op::Data),
        4 => Just(Op::CreditUpdate),
        1 => Just(Op::CreditRequest),
    ];
    let flags = prop_oneof![4 => 0u32..4, 1 => any::<u32>()];
    let of = prop::option::weighted(0.8, any::<Index>());
    (of, 0..GUEST_PORTS, op, flags, length(), credit())
        .prop_map(|(of, guest, op, flags, len, credit)| Step::Guest { of, guest, op, flags, len, credit })
}

fn step() -> impl Strategy<Value = Step> {
    let end = any::<Index>;
    let most = prop_oneof![1 => Just(0usize), 6 => select(vec![1, 600, 4096, 65_536])];
    prop_oneof![
        300 => guest_step(),
        200 => (1usize..50, most).prop_map(|(packets, most)| Step::Take { packets, most }),
        60 => (0..GUEST_PORTS).prop_map(|guest| Step::Open { guest }),
        100 => (end(), length()).prop_map(|(end, most)| Step::Read { end, most }),
        150 => (end(), length()).prop_map(|(end, size)| Step::Write { end, size }),
        30 => end().prop_map(|end| Step::Shut { end }),
        50 => end().prop_map(|end| Step::Drop { end }),
        1 => Just(Step::Close),
    ]
}

/// The account of one stream.
struct Account {
    ports: Ports,
    /// Whoever waits for the guest to accept it.
    opening: Option<oneshot::Receiver<Result<(), ConnectError>>>,
    /// Whether the guest was asked for it.
    asked: bool,
    /// Whether the guest knows of it, or is about to.
    wired: bool,
    guest_ended: bool,
    guest_deaf: bool,
    shut: bool,
    dropped: bool,
    told: u32,
    /// Bytes that the guest has sent, and how many of them the host has taken.
    heard: u64,
    taken: u64,
    /// Bytes that the host has written and the guest was sent. They differ by what waits.
    written: u64,
    sent: u64,
    /// Where packets of data ended that the guest has not taken all of, and how much it took; unknown of a liar.
    underway: Vec<u64>,
    /// The size of the buffer that the last packet of data went into.
    buffer: u64,
    guest_took: u64,
    lied: bool,
    said: (u32, u32),
}

impl Account {
    fn new(ports: Ports) -> Self {
        Self {
            ports,
            opening: None,
            asked: true,
            wired: true,
            guest_ended: false,
            guest_deaf: false,
            shut: false,
            dropped: false,
            told: 0,
            heard: 0,
            taken: 0,
            written: 0,
            sent: 0,
            underway: Vec::new(),
            buffer: 0,
            guest_took: 0,
            lied: false,
            said: (0, 0),
        }
    }

    /// How much more the guest has said that it can hold.
    fn credit(&self) -> u64 {
        let (holds, took) = self.said;
        u64::from(holds.saturating_sub((self.sent as u32).wrapping_sub(took)))
    }

    /// Whether the guest's buffers that its packets occupy are all that it may have.
    fn occupies_enough(&self) -> bool {
        let packets = self.underway.len() as u64;
        packets * self.buffer >= 2 * u64::from(self.said.0) || packets >= MAX_UNDERWAY as u64
    }

    fn waiting(&self) -> u64 {
        self.written - self.sent
    }

    fn to_tell(&self) -> u32 {
        let receive = if self.dropped { NO_MORE_RECEIVE } else { 0 };
        let send = if self.shut && self.waiting() == 0 { NO_MORE_SEND } else { 0 };
        receive | send
    }

    /// The guest takes nothing more: what waits is thrown away.
    fn deafen(&mut self) {
        self.guest_deaf = true;
        self.written = self.sent;
    }

    fn cut(&mut self) -> TestCaseResult {
        self.wired = false;
        self.guest_ended = true;
        self.deafen();
        match self.opening.take() {
            Some(mut opening) => {
                prop_assert!(matches!(opening.try_recv(), Ok(Err(_))), "who waits is not told of the end");
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn is_forgotten(&self) -> bool {
        self.dropped && !self.wired
    }
}

/// The bytes of a direction from there on: each tells where it is.
fn bytes(from: u64, len: usize) -> &'static [u8] {
    const ROUND: usize = 251;
    static ALL: LazyLock<Vec<u8>> = LazyLock::new(|| (0..ROUND as u8).cycle().take(1 << 20).collect());
    &ALL[(from % ROUND as u64) as usize..][..len]
}

#[derive(Default)]
struct Bench {
    mux: Mux,
    accounts: BTreeMap<StreamId, Account>,
    closed: bool,
}

impl Bench {
    fn take(&mut self, step: Step) -> TestCaseResult {
        match step {
            Step::Guest { of, guest, op, flags, len, credit } => {
                let ports = self.ports_of(of).unwrap_or(Ports { host: HOST_PORT, guest });
                self.guest_says(ports, op, flags, len, &credit)?;
            }
            Step::Take { packets, most } => {
                for _ in 0..packets {
                    if !self.next_packet(most)? {
                        break;
                    }
                }
            }
            Step::Open { guest } => self.open(guest)?,
            Step::Read { end, most } => self.on(end, |bench, id| bench.read(id, most))?,
            Step::Write { end, size } => self.on(end, |bench, id| bench.write(id, size))?,
            Step::Shut { end } => self.on(end, |bench, id| {
                bench.mux.shut(id);
                bench.account(id).shut = true;
                Ok(())
            })?,
            Step::Drop { end } => self.on(end, Self::drop_end)?,
            Step::Close => {
                self.mux.close();
                self.closed = true;
                for account in self.accounts.values_mut().filter(|account| account.wired) {
                    account.cut()?;
                }
            }
        }
        self.accounts.retain(|_, account| !account.is_forgotten());
        self.holds()
    }

    fn ports_of(&self, stream: Option<Index>) -> Option<Ports> {
        let wired: Vec<_> = self.accounts.values().filter(|account| account.wired).collect();
        Some(stream.filter(|_| !wired.is_empty())?.get(&wired).ports)
    }

    /// Does something with one of the ends that the host holds.
    fn on(&mut self, end: Index, work: impl FnOnce(&mut Self, StreamId) -> TestCaseResult) -> TestCaseResult {
        let held: Vec<_> = self.accounts.iter().filter(|(_, account)| !account.dropped).collect();
        if held.is_empty() {
            return Ok(());
        }
        let id = *end.get(&held).0;
        work(self, id)
    }

    fn account(&mut self, id: StreamId) -> &mut Account {
        self.accounts.get_mut(&id).expect("it is accounted for")
    }

    fn wired(&self, ports: Ports) -> Option<StreamId> {
        let mut wired = self.accounts.iter().filter(|(_, account)| account.wired && account.ports == ports);
        wired.next().map(|(id, _)| *id)
    }

    fn guest_says(
        &mut self,
        ports: Ports,
        op: Op,
        flags: u32,
        len: usize,
        credit: &Credit,
    ) -> TestCaseResult {
        let known = self.wired(ports);
        let (said, data) = match known.map(|id| self.account(id)) {
            Some(account) => (account.says(credit), bytes(account.heard, len)),
            None => (Account::new(ports).says(credit), bytes(0, len)),
        };
        let packet = Packet { ports, op, flags, len: len as u32, buf_alloc: said.0, fwd_cnt: said.1 };
        let data = if op == Op::Data { data } else { &[] };
        let answers = self.mux.answers.len();
        let arrival = self.mux.receive(packet, data);
        match known {
            Some(id) => {
                prop_assert_eq!(arrival, None);
                self.account(id).hears(packet)?;
            }
            None => {
                prop_assert_eq!(arrival.is_some(), op == Op::Request && !self.closed);
                if let Some(arrival) = arrival {
                    self.arrives(arrival, packet)?;
                }
            }
        }
        prop_assert!(self.mux.answers.len() <= answers + 1, "more than one answer to one packet");
        Ok(())
    }

    /// As the device does: somebody listens there, or nobody.
    fn arrives(&mut self, arrival: Arrival, packet: Packet) -> TestCaseResult {
        prop_assert_eq!(arrival.port, packet.ports.host);
        if packet.flags % 4 == 3 {
            self.mux.refuse(arrival.stream);
            return Ok(());
        }
        self.mux.accept(arrival.stream);
        let account = Account { said: (packet.buf_alloc, packet.fwd_cnt), ..Account::new(packet.ports) };
        let lied = packet.fwd_cnt != 0;
        prop_assert!(
            self.accounts.insert(arrival.stream, Account { lied, ..account }).is_none(),
            "a number came again"
        );
        Ok(())
    }

    fn open(&mut self, guest: u32) -> TestCaseResult {
        let (opened, mut opening) = oneshot::channel();
        let id = self.mux.open(GuestVsockPort(guest), opened);
        let ports = self.mux.streams[&id].ports;
        prop_assert_eq!(ports.guest, guest);
        prop_assert!(ports.host >= FIRST_PORT && self.wired(ports).is_none(), "ports of another stream");
        let mut account = Account { asked: false, ..Account::new(ports) };
        if self.closed {
            prop_assert!(matches!(opening.try_recv(), Ok(Err(_))));
            account.cut()?;
        } else {
            account.opening = Some(opening);
        }
        prop_assert!(self.accounts.insert(id, account).is_none(), "a number came again");
        Ok(())
    }

    fn read(&mut self, id: StreamId, most: usize) -> TestCaseResult {
        let mut buf = vec![0; most];
        let read = self.mux.poll_read(id, &Context::from_waker(Waker::noop()), &mut buf);
        let account = self.account(id);
        let there = account.heard - account.taken;
        match read {
            // A read may give less than there is: what lies in one piece.
            Poll::Ready(read) => {
                let size = read.expect("reading does not fail").0;
                prop_assert!(size <= most && size as u64 <= there, "more than the guest has sent");
                prop_assert!(
                    size > 0 || most == 0 || account.guest_ended && there == 0,
                    "an end that is none"
                );
                prop_assert!(buf[..size] == *bytes(account.taken, size), "other bytes came out");
                account.taken += size as u64;
            }
            Poll::Pending => {
                prop_assert!(there == 0 && most > 0 && !account.guest_ended, "it waits for nothing");
            }
        }
        Ok(())
    }

    fn write(&mut self, id: StreamId, size: usize) -> TestCaseResult {
        let data = bytes(self.account(id).written, size);
        let (one, other) = data.split_at(size / 3);
        let parts = [IoSlice::new(one), IoSlice::new(other)];
        let written = self.mux.poll_write(id, &Context::from_waker(Waker::noop()), &parts);
        let account = self.account(id);
        let room = u64::from(BUFFER) - account.waiting();
        match written {
            Poll::Ready(Ok(written)) => {
                prop_assert!(!account.guest_deaf && !account.shut && room > 0);
                prop_assert_eq!(written as u64, room.min(size as u64));
                account.written += written as u64;
            }
            Poll::Ready(Err(_)) => prop_assert!(account.guest_deaf || account.shut),
            Poll::Pending => prop_assert!(room == 0 && !account.guest_deaf && !account.shut),
        }
        Ok(())
    }

    fn drop_end(&mut self, id: StreamId) -> TestCaseResult {
        self.mux.abandon(id);
        let account = self.account(id);
        account.dropped = true;
        account.shut = true;
        account.taken = account.heard;
        if account.opening.take().is_some() {
            account.wired = false;
        }
        Ok(())
    }

    /// The guest takes a packet, if there is one.
    fn next_packet(&mut self, most: usize) -> Result<bool, TestCaseError> {
        let is_one = self.mux.has_packet();
        let mut data = vec![1];
        let packet = self.mux.next_packet(most, &mut data);
        prop_assert_eq!(packet.is_some(), is_one);
        let Some(packet) = packet else {
            prop_assert!(data.is_empty());
            self.nothing_waits()?;
            return Ok(false);
        };
        prop_assert_eq!(packet.len as usize, data.len());
        prop_assert!(data.len() <= most && data.is_empty() != (packet.op == Op::Data));
        // A reset may be of a stream that there is no more.
        if packet.op == Op::Reset {
            return Ok(true);
        }
        prop_assert_eq!(packet.buf_alloc, BUFFER);
        match (packet.op, self.wired(packet.ports)) {
            (Op::Response | Op::CreditUpdate, _) => {}
            (Op::Request | Op::Data | Op::Shutdown, Some(id)) => {
                self.account(id).is_told(packet, &data, most)?
            }
            (op, stream) => prop_assert!(false, "{:?} of {:?}", op, stream),
        }
        Ok(true)
    }

    /// Nothing that the guest could be given is kept back.
    fn nothing_waits(&self) -> TestCaseResult {
        prop_assert!(
            self.mux.answers.is_empty() && self.mux.requests.is_empty() && self.mux.ready.is_empty()
        );
        for account in self.accounts.values().filter(|account| account.wired && account.opening.is_none()) {
            let may_be_sent = account.credit() > 0 && !account.occupies_enough();
            prop_assert!(account.waiting() == 0 || !may_be_sent || account.lied, "data was forgotten");
            prop_assert_eq!(account.told, account.to_tell(), "an end was forgotten");
        }
        Ok(())
    }

    fn holds(&self) -> TestCaseResult {
        let Mux { streams, wired, requests, ready, .. } = &self.mux;
        prop_assert_eq!(
            streams.keys().collect::<HashSet<_>>(),
            self.accounts.keys().collect::<HashSet<_>>(),
            "streams are lost, or left"
        );
        let waiting: HashSet<_> = ready.iter().filter(|id| streams.contains_key(id)).collect();
        prop_assert_eq!(
            waiting.len(),
            ready.iter().filter(|id| streams.contains_key(id)).count(),
            "one has two turns"
        );
        for (id, stream) in streams {
            let account = &self.accounts[id];
            prop_assert_eq!(stream.ports, account.ports);
            prop_assert_eq!(stream.wired, account.wired);
            prop_assert_eq!(wired.get(&stream.ports) == Some(id), stream.wired);
            prop_assert_eq!(stream.opening.is_some(), account.opening.is_some());
            // A guest may accept what it is still to be asked for.
            prop_assert_eq!(requests.contains(id), account.wired && !account.asked);
            prop_assert_eq!(waiting.contains(id), stream.ready);
            prop_assert!(stream.ready || !stream.has_packet(), "its turn was forgotten");
            prop_assert_eq!(stream.from_guest.len() as u64, account.heard - account.taken);
            prop_assert_eq!(stream.to_guest.len() as u64, account.waiting());
            prop_assert!(
                stream.from_guest.len() <= BUFFER as usize && stream.to_guest.len() <= BUFFER as usize
            );
            prop_assert!(stream.underway.len() <= MAX_UNDERWAY);
            for (empty, capacity) in [
                (stream.from_guest.is_empty(), stream.from_guest.capacity()),
                (stream.to_guest.is_empty(), stream.to_guest.capacity()),
                (stream.underway.is_empty(), stream.underway.capacity()),
            ] {
                prop_assert!(!empty || capacity == 0, "it keeps a buffer with nothing in it");
            }
        }
        prop_assert_eq!(wired.len(), self.accounts.values().filter(|account| account.wired).count());
        prop_assert_eq!(
            requests.len(),
            self.accounts.values().filter(|account| account.wired && !account.asked).count()
        );
        Ok(())
    }

    /// Both sides let go of all.
    fn end(&mut self) -> TestCaseResult {
        for id in self.accounts.keys().copied().collect::<Vec<_>>() {
            if !self.account(id).dropped {
                self.drop_end(id)?;
            }
        }
        while self.next_packet(1 << 16)? {}
        for account in self.accounts.values().filter(|account| account.wired) {
            let reset = reset_of(account.ports);
            prop_assert_eq!(self.mux.receive(reset, b""), None);
        }
        let Mux { streams, wired, requests, ready, .. } = &self.mux;
        prop_assert!(streams.is_empty() && wired.is_empty() && requests.is_empty() && ready.is_empty());
        prop_assert!(!self.mux.has_packet());
        Ok(())
    }
}

impl Account {
    /// What the guest says of its buffer.
    fn says(&self, credit: &Credit) -> (u32, u32) {
        match credit {
            Credit::Any { holds, took } => (*holds, *took),
            Credit::True { holds, takes } => {
                let took = self.guest_took + takes.index((self.sent - self.guest_took + 1) as usize) as u64;
                (*holds, took as u32)
            }
        }
    }

    fn hears(&mut self, packet: Packet) -> TestCaseResult {
        self.said = (packet.buf_alloc, packet.fwd_cnt);
        let took = u64::from(packet.fwd_cnt);
        self.lied |= took < self.guest_took || took > self.sent;
        if !self.lied {
            self.guest_took = took;
            self.underway.retain(|end| *end > took);
        }
        match packet.op {
            Op::Response => {
                if let Some(mut opening) = self.opening.take() {
                    prop_assert!(matches!(opening.try_recv(), Ok(Ok(()))), "who waits is not told");
                }
            }
            Op::Data => {
                let len = u64::from(packet.len);
                if self.heard - self.taken + len > u64::from(BUFFER) {
                    return self.cut();
                }
                self.heard += len;
                if self.dropped {
                    self.taken = self.heard;
                }
            }
            Op::Shutdown => {
                self.guest_ended |= packet.flags & NO_MORE_SEND != 0;
                if packet.flags & NO_MORE_RECEIVE != 0 {
                    self.deafen();
                }
                if self.guest_ended && self.guest_deaf {
                    return self.cut();
                }
            }
            Op::Reset | Op::Request => return self.cut(),
            Op::CreditUpdate | Op::CreditRequest => {}
        }
        Ok(())
    }

    fn is_told(&mut self, packet: Packet, data: &[u8], most: usize) -> TestCaseResult {
        prop_assert_eq!(packet.fwd_cnt, self.taken as u32, "the guest is told another count than the truth");
        match packet.op {
            Op::Request => {
                prop_assert!(!self.asked);
                self.asked = true;
            }
            Op::Data => {
                prop_assert!(self.opening.is_none(), "the guest has not accepted it");
                prop_assert!(data.len() as u64 <= self.waiting().min(self.credit()), "more than it can hold");
                prop_assert!(data == bytes(self.sent, data.len()), "other bytes came out");
                self.sent += data.len() as u64;
                if !self.lied {
                    prop_assert!(!self.occupies_enough(), "it holds many packets already");
                    self.underway.push(self.sent);
                    self.buffer = (HEADER + most) as u64;
                }
            }
            _ => {
                prop_assert_eq!(packet.flags, self.to_tell());
                prop_assert!(packet.flags & !self.told != 0, "it was told before");
                self.told = packet.flags;
            }
        }
        Ok(())
    }
}

proptest! {
    #![proptest_config(Config { cases: 192, failure_persistence: None, ..Config::default() })]

    #[test]
    fn whatever_the_guest_sends_every_stream_is_as_accounted_for(steps in prop::collection::vec(step(), 1..120)) {
        let mut bench = Bench::default();
        for step in steps {
            bench.take(step)?;
        }
        bench.end()?;
    }
}
