//! What the host and the machine say to each other, read by either side: frames, messages, chunks with half-close.
//!
//! The first byte says what is expected, and whether it comes in chunks. Nothing panics; nobody makes a reader hold more than
//! the longest frame and a small multiple of what was really sent; and what is understood is understood again when it is
//! said again.
//!
//! The fuzz target takes it from here, and so does the test of the seeds in `caisson-guest-proto`.

use std::alloc::{GlobalAlloc, Layout, System};
use std::fmt::Debug;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::task::{Context, Poll, Waker};

use caisson_guest_proto::{
    Duplex, EgressReply, EgressRequest, FrameReader, FromGuest, MAX_FRAME, PortsReply, PortsRequest,
    RelayReply, RelayRequest, ToGuest, frame, read_frame, read_message,
};
use serde::{Serialize, de::DeserializeOwned};
use tokio::io::AsyncRead;

/// Knows how much is held, and the most that was.
struct Counted;

static HELD: AtomicUsize = AtomicUsize::new(0);
static MOST: AtomicUsize = AtomicUsize::new(0);

// SAFETY: it is the system's allocator, whose promises it passes on.
unsafe impl GlobalAlloc for Counted {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let held = HELD.fetch_add(layout.size(), Relaxed) + layout.size();
        MOST.fetch_max(held, Relaxed);
        // SAFETY: the caller's promises are the system's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size(), Relaxed);
        // SAFETY: as above.
        unsafe { System.dealloc(memory, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counted = Counted;

/// Says that a stream of these bytes is in chunks.
pub(crate) const CHUNKED: u8 = 0x80;

/// A row of frames doubles its buffer as it grows; a body has one of its own while it is read.
const BUFFERS: usize = 3 * MAX_FRAME;

/// What a byte of JSON can become: the shortest forward or route is several bytes for each that it takes.
const BYTES_PER_BYTE: usize = 16;

/// Reads this as either side would. Gives how much of it was understood, in messages; nothing if it does not say what it is.
pub(crate) fn read(bytes: &[u8]) -> Option<usize> {
    let (kind, bytes) = bytes.split_first()?;
    let before = HELD.load(Relaxed);
    assert!(before > 0, "what is held is not counted");
    MOST.store(before, Relaxed);
    let understood = match kind & CHUNKED {
        0 => converse(kind & !CHUNKED, || bytes),
        _ => converse(kind & !CHUNKED, || Duplex::new(bytes)),
    };
    let most = MOST.load(Relaxed).saturating_sub(before);
    assert!(most <= BUFFERS + BYTES_PER_BYTE * bytes.len(), "{} bytes made it hold {most}", bytes.len());
    Some(understood)
}

fn converse<S: AsyncRead + Unpin>(kind: u8, stream: impl Fn() -> S) -> usize {
    match kind {
        0 => frames::<FromGuest, S>(stream),
        1 => frames::<ToGuest, S>(stream),
        2 => frames::<PortsRequest, S>(stream),
        3 => frames::<PortsReply, S>(stream),
        4 => frames::<EgressRequest, S>(stream),
        5 => frames::<EgressReply, S>(stream),
        6 => frames::<RelayRequest, S>(stream),
        7 => frames::<RelayReply, S>(stream),
        _ => messages(stream()),
    }
}

/// A row of frames, by both ways of reading them.
fn frames<T: Serialize + DeserializeOwned + PartialEq + Debug, S: AsyncRead + Unpin>(
    stream: impl Fn() -> S,
) -> usize {
    let (mut one_by_one, mut ahead, mut understood) = (stream(), FrameReader::new(stream()), 0);
    loop {
        let read: Result<Option<T>, _> = now(read_frame(&mut one_by_one));
        let read_ahead: Result<Option<T>, _> = now(ahead.next());
        match (read, read_ahead) {
            (Ok(Some(message)), Ok(Some(same))) => {
                assert_eq!(message, same);
                understood += 1;
                // What it is when it is written in full may be longer than a frame.
                if let Ok(bytes) = frame::encode(&message) {
                    assert_eq!(frame::decode::<T>(&bytes[frame::HEADER..]).expect("our own words"), message);
                }
            }
            (Ok(None), Ok(None)) | (Err(_), Err(_)) => return understood,
            (read, read_ahead) => panic!("{read:?}, but read ahead {read_ahead:?}"),
        }
    }
}

fn messages(mut stream: impl AsyncRead + Unpin) -> usize {
    let (mut message, mut understood) = (Vec::new(), 0);
    while let Ok(true) = now(read_message(&mut stream, &mut message)) {
        understood += 1;
    }
    understood
}

/// Bytes that are there make nobody wait.
fn now<T>(work: impl Future<Output = T>) -> T {
    match pin!(work).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(done) => done,
        Poll::Pending => panic!("it waits for bytes that are there"),
    }
}
