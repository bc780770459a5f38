//! Whatever comes from the other side: nothing of it breaks the reader, makes it hold more than the limits say, or is taken for
//! another message than the same bytes at once.

#![expect(clippy::unwrap_used, reason = "a test may panic; its helpers are no test functions to clippy")]

use std::collections::VecDeque;
use std::fmt::Debug;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use caisson_guest_proto::{
    Duplex, EgressReply, EgressRequest, FrameError, FrameReader, FromGuest, MAX_MESSAGE, PortsReply,
    PortsRequest, RelayReply, RelayRequest, ToGuest, frame, read_message, write_message,
};
use proptest::prelude::*;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncReadExt, ReadBuf};

fn on_a_loop<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(work)
}

/// A stream that gives its bytes in pieces of these lengths, again and again, then ends.
struct Pieces {
    bytes: VecDeque<u8>,
    lengths: Vec<usize>,
    turn: usize,
}

impl Pieces {
    fn new(bytes: &[u8], lengths: &[usize]) -> Self {
        Self { bytes: bytes.iter().copied().collect(), lengths: lengths.to_vec(), turn: 0 }
    }
}

impl AsyncRead for Pieces {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let length = self.lengths[self.turn % self.lengths.len()].min(buf.remaining()).min(self.bytes.len());
        self.turn += 1;
        let piece: Vec<u8> = self.bytes.drain(..length).collect();
        buf.put_slice(&piece);
        Poll::Ready(Ok(()))
    }
}

/// What a reader makes of a stream: the messages before the end or the error.
fn read_all<T: DeserializeOwned + Debug>(stream: Pieces) -> (Vec<String>, bool) {
    on_a_loop(async {
        let (mut reader, mut messages) = (FrameReader::new(stream), Vec::new());
        loop {
            match reader.next::<T>().await {
                Ok(Some(message)) => messages.push(format!("{message:?}")),
                Ok(None) => return (messages, true),
                Err(FrameError::Io(error)) => panic!("the stream does not fail: {error}"),
                Err(_) => return (messages, false),
            }
        }
    })
}

/// Bytes that look like frames more often than chance would have it.
fn frames() -> impl Strategy<Value = Vec<u8>> {
    let body = prop_oneof![
        any::<Vec<u8>>(),
        "[{}\\[\\]\":,a-z_0-9 ]{0,80}".prop_map(String::into_bytes),
        Just(br#"{"type":"pong","n":3}"#.to_vec()),
        Just(br#"{"type":"tcp","to":"1.2.3.4:5"}"#.to_vec()),
        Just(br#"{"type":"hello","protocol":1,"version":"v","boot_id":"b"}"#.to_vec()),
        Just(br#"{"id":1,"call":{"type":"unpublish","key":"k"}}"#.to_vec()),
    ];
    let length = prop_oneof![8 => Just(None), 1 => any::<u32>().prop_map(Some)];
    let frame = (body, length).prop_map(|(body, length)| {
        let length = length.unwrap_or(u32::try_from(body.len()).unwrap());
        [&length.to_le_bytes()[..], &body].concat()
    });
    prop_oneof![
        4 => proptest::collection::vec(frame, 0..6).prop_map(|frames| frames.concat()),
        1 => any::<Vec<u8>>(),
    ]
}

fn same_in_any_pieces<T: DeserializeOwned + Debug>(bytes: &[u8], lengths: &[usize]) {
    let at_once = read_all::<T>(Pieces::new(bytes, &[usize::MAX]));
    assert_eq!(read_all::<T>(Pieces::new(bytes, lengths)), at_once);
}

proptest! {
    #[test]
    fn frames_of_any_bytes_in_any_pieces(bytes in frames(), lengths in proptest::collection::vec(1usize..40, 1..8)) {
        same_in_any_pieces::<FromGuest>(&bytes, &lengths);
        same_in_any_pieces::<ToGuest>(&bytes, &lengths);
        same_in_any_pieces::<PortsRequest>(&bytes, &lengths);
        same_in_any_pieces::<PortsReply>(&bytes, &lengths);
        same_in_any_pieces::<EgressRequest>(&bytes, &lengths);
        same_in_any_pieces::<EgressReply>(&bytes, &lengths);
        same_in_any_pieces::<RelayRequest>(&bytes, &lengths);
        same_in_any_pieces::<RelayReply>(&bytes, &lengths);
    }

    #[test]
    fn a_length_is_refused_before_anything_is_held_for_it(length in any::<u32>()) {
        let within = usize::try_from(length).unwrap() <= frame::MAX_FRAME;
        prop_assert_eq!(frame::body_len(length.to_le_bytes()).is_ok(), within);
    }

    #[test]
    fn messages_of_any_bytes(bytes in any::<Vec<u8>>(), lengths in proptest::collection::vec(1usize..9, 1..4)) {
        let read = on_a_loop(async {
            let (mut stream, mut message, mut total) = (Pieces::new(&bytes, &lengths), Vec::new(), 0);
            while let Ok(true) = read_message(&mut stream, &mut message).await {
                assert!(message.capacity() <= 2 * MAX_MESSAGE);
                total += 2 + message.len();
            }
            total
        });
        prop_assert!(read <= bytes.len());
    }

    #[test]
    fn messages_come_out_as_they_went_in(messages in proptest::collection::vec(any::<Vec<u8>>(), 0..8)) {
        let read = on_a_loop(async {
            let (mut near, mut far) = tokio::io::duplex(1 << 20);
            for message in &messages {
                write_message(&mut near, message).await.unwrap();
            }
            drop(near);
            let (mut message, mut read) = (Vec::new(), Vec::new());
            while read_message(&mut far, &mut message).await.unwrap() {
                read.push(message.clone());
            }
            read
        });
        prop_assert_eq!(read, messages);
    }

    #[test]
    fn a_stream_of_any_bytes_ends_or_breaks(bytes in any::<Vec<u8>>(), lengths in proptest::collection::vec(1usize..9, 1..4)) {
        let read = on_a_loop(async {
            let mut read = Vec::new();
            // That it breaks is as good as that it ends.
            let _ = Duplex::new(Pieces::new(&bytes, &lengths)).read_to_end(&mut read).await;
            read
        });
        prop_assert!(read.len() <= bytes.len());
    }
}
