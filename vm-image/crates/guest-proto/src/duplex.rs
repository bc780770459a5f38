//! A stream whose two directions end each on its own, over vsock connections where they cannot.
//!
//! Docker's attach, exec and build need half-close: "that was all of my input, now send me the rest of your output".
//! vsock has it on paper (`VIRTIO_VSOCK_SHUTDOWN_F_SEND`), but what lies between the two ends need not keep it. Our own
//! device under QEMU does; `vhost-device-vsock` 0.3 turned an end of input on the host into a shutdown of both
//! directions, after which the guest could not answer, and did not pass on the guest's at all; hvsocket and
//! Virtualization.framework have histories of their own. So the end of a direction is said in band, the same on all of
//! them, and the connection below is only ever closed as a whole.
//!
//! On the wire each direction is a row of chunks: a length as a little-endian `u32`, then that many bytes; a length of
//! 0 ends the direction. A connection that closes without it was torn down, which a reader gets as an error and so can
//! tell from an end. No chunk with its header is longer than [`MAX_CHUNK`]; a reader takes longer ones as they come.
//!
//! Where the connection writes several pieces at once, a chunk is written from where its data lies, and only what does not go at once is
//! copied. It is read with the header of the next one behind it where there is room for that, so that in a full stream each chunk is one system
//! call.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::Connection;

/// The longest write to the connection below, in bytes: a chunk with its header. It is what Linux holds of a vsock stream unless it is told
/// otherwise, so that all that is there goes in one system call, and on in one. A call costs an emulated guest as much as many KiB do: measured
/// under QEMU, a fifth more than with chunks of 64 KiB.
const MAX_CHUNK: usize = 256 * 1024;

const HEADER: usize = 4;
/// The most that is taken by one write to a [`Duplex`].
pub(crate) const MAX_DATA: usize = MAX_CHUNK - HEADER;

/// A stream with half-close over a connection without.
///
/// Both sides wrap API, RELAY and PORTS streams in it. `shutdown` ends the direction that this side writes; the other
/// side then reads an end of file, and can go on writing. Dropping it closes the connection, and what the other side
/// has not read by then may be lost unless it was followed by `shutdown`.
#[derive(Debug)]
pub struct Duplex<S> {
    connection: S,
    incoming: Incoming,
    outgoing: Outgoing,
}

#[derive(Debug)]
enum Incoming {
    /// In the header of a chunk, of which so many bytes were read.
    Header {
        bytes: [u8; HEADER],
        read: usize,
    },
    /// In a chunk, of which so many bytes are to come.
    Data {
        left: usize,
    },
    Ended,
}

#[derive(Debug, Default)]
struct Outgoing {
    /// What is left of a chunk whose beginning was written; `written` bytes of it have gone, too.
    rest: Vec<u8>,
    written: usize,
    ended: bool,
}

impl<S> Duplex<S> {
    /// Wraps a connection of which nothing has been read or written yet.
    pub fn new(connection: S) -> Self {
        Self { connection, incoming: Incoming::START, outgoing: Outgoing::default() }
    }
}

impl Incoming {
    const START: Self = Self::Header { bytes: [0; HEADER], read: 0 };

    /// Where a reader stands that has `left` bytes of its chunk before it, or else this beginning of the next header behind it.
    fn after(left: usize, header: &[u8]) -> Self {
        if left > 0 {
            return Self::Data { left };
        }
        let mut bytes = [0; HEADER];
        bytes[..header.len()].copy_from_slice(header);
        if header.len() == HEADER { Self::chunk(bytes) } else { Self::Header { bytes, read: header.len() } }
    }

    fn chunk(header: [u8; HEADER]) -> Self {
        match u32::from_le_bytes(header) {
            0 => Self::Ended,
            left => Self::Data { left: left as usize },
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Duplex<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        loop {
            match &mut this.incoming {
                Incoming::Ended => return Poll::Ready(Ok(())),
                Incoming::Header { bytes, read } => {
                    *read += ready!(poll_some(&mut this.connection, cx, &mut bytes[*read..]))?;
                    if *read == HEADER {
                        this.incoming = Incoming::chunk(*bytes);
                    }
                }
                Incoming::Data { left } => {
                    let room = buf.initialize_unfilled();
                    if room.is_empty() {
                        return Poll::Ready(Ok(()));
                    }
                    // The next header comes along where there is room for it; it stays behind what is filled.
                    let wanted = room.len().min(*left + HEADER);
                    let read = ready!(poll_some(&mut this.connection, cx, &mut room[..wanted]))?;
                    let data = read.min(*left);
                    this.incoming = Incoming::after(*left - data, &room[data..read]);
                    buf.advance(data);
                    return Poll::Ready(Ok(()));
                }
            }
        }
    }
}

/// Reads at least one byte; a connection that is closed here was torn down.
fn poll_some<S: AsyncRead + Unpin>(
    connection: &mut S,
    cx: &mut Context<'_>,
    into: &mut [u8],
) -> Poll<io::Result<usize>> {
    let mut buf = ReadBuf::new(into);
    ready!(Pin::new(connection).poll_read(cx, &mut buf))?;
    match buf.filled().len() {
        0 => Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
        read => Poll::Ready(Ok(read)),
    }
}

impl<S: AsyncWrite + Unpin> Duplex<S> {
    /// Writes what is left of the chunk that is on its way.
    fn poll_rest(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Outgoing { rest, written, .. } = &mut self.outgoing;
        while *written < rest.len() {
            *written +=
                at_least_one(ready!(Pin::new(&mut self.connection).poll_write(cx, &rest[*written..]))?)?;
        }
        // Thousands of streams are idle at a time, and none of them is to keep a chunk for that.
        *rest = Vec::new();
        *written = 0;
        Poll::Ready(Ok(()))
    }

    /// Begins a chunk; nothing is on its way yet. Once any of it is written the whole chunk is taken: what does not go now
    /// goes with the next write, flush or shutdown.
    fn poll_chunk(&mut self, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<()>> {
        let header = u32::try_from(data.len()).expect("MAX_DATA fits in a u32").to_le_bytes();
        let written = at_least_one(ready!(poll_pair(&mut self.connection, cx, &header, data))?)?;
        self.outgoing.rest = match written.checked_sub(HEADER) {
            Some(of_data) => data[of_data..].to_vec(),
            None => [&header[written..], data].concat(),
        };
        Poll::Ready(Ok(()))
    }
}

/// Writes both as one, as far as they go.
fn poll_pair<S: AsyncWrite + Unpin>(
    connection: &mut S,
    cx: &mut Context<'_>,
    header: &[u8],
    data: &[u8],
) -> Poll<io::Result<usize>> {
    let connection = Pin::new(connection);
    if connection.is_write_vectored() {
        connection.poll_write_vectored(cx, &[IoSlice::new(header), IoSlice::new(data)])
    } else {
        connection.poll_write(cx, &[header, data].concat())
    }
}

fn at_least_one(written: usize) -> io::Result<usize> {
    if written == 0 { Err(io::ErrorKind::WriteZero.into()) } else { Ok(written) }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Duplex<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        if self.outgoing.ended {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        ready!(self.poll_rest(cx))?;
        let taken = data.len().min(MAX_DATA);
        if taken == 0 {
            return Poll::Ready(Ok(0));
        }
        ready!(self.poll_chunk(cx, &data[..taken]))?;
        Poll::Ready(Ok(taken))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_rest(cx))?;
        Pin::new(&mut self.connection).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_rest(cx))?;
        if !self.outgoing.ended {
            ready!(self.poll_chunk(cx, &[]))?;
            self.outgoing.ended = true;
        }
        self.poll_flush(cx)
    }
}

impl<S: Connection> Connection for Duplex<S> {
    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match self.incoming {
            // What follows an end is the connection's own.
            Incoming::Ended => poll_some(&mut self.connection, cx, &mut [0]).map(|_closed| ()),
            Incoming::Header { .. } | Incoming::Data { .. } => self.connection.poll_gone(cx),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    /// Two ends that talk through a connection that holds `room` bytes each way.
    fn ends(room: usize) -> (Duplex<tokio::io::DuplexStream>, Duplex<tokio::io::DuplexStream>) {
        let (near, far) = tokio::io::duplex(room);
        (Duplex::new(near), Duplex::new(far))
    }

    #[tokio::test]
    async fn an_answer_comes_after_the_question_has_ended() {
        let (mut client, mut server) = ends(64);
        let serve = async {
            let mut question = String::new();
            server.read_to_string(&mut question).await.unwrap();
            server.write_all(question.to_uppercase().as_bytes()).await.unwrap();
            server.shutdown().await.unwrap();
        };
        let ask = async {
            client.write_all(b"what?").await.unwrap();
            client.shutdown().await.unwrap();
            let mut answer = String::new();
            client.read_to_string(&mut answer).await.unwrap();
            answer
        };
        assert_eq!(tokio::join!(serve, ask).1, "WHAT?");
    }

    #[tokio::test]
    async fn bytes_arrive_whole_and_in_order_through_any_connection() {
        let sent: Vec<u8> = (0..200_000u32).map(|n| (n % 251) as u8).collect();
        for room in [1, 3, 4096, 1 << 20] {
            let (mut near, mut far) = ends(room);
            let write = async {
                near.write_all(&sent).await.unwrap();
                near.shutdown().await.unwrap();
            };
            let mut received = Vec::new();
            let (_, read) = tokio::join!(write, far.read_to_end(&mut received));
            read.unwrap();
            assert!(received == sent, "room {room}");
        }
    }

    /// Counts the system calls that it would be.
    struct Counted<S> {
        stream: S,
        calls: usize,
    }

    impl<S: AsyncRead + Unpin> AsyncRead for Counted<S> {
        fn poll_read(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            buf: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            self.calls += 1;
            Pin::new(&mut self.stream).poll_read(cx, buf)
        }
    }

    impl<S: AsyncWrite + Unpin> AsyncWrite for Counted<S> {
        fn poll_write(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            data: &[u8],
        ) -> Poll<io::Result<usize>> {
            self.calls += 1;
            Pin::new(&mut self.stream).poll_write(cx, data)
        }

        fn is_write_vectored(&self) -> bool {
            self.stream.is_write_vectored()
        }

        fn poll_write_vectored(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            parts: &[IoSlice<'_>],
        ) -> Poll<io::Result<usize>> {
            self.calls += 1;
            Pin::new(&mut self.stream).poll_write_vectored(cx, parts)
        }

        fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.stream).poll_flush(cx)
        }

        fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.stream).poll_shutdown(cx)
        }
    }

    #[tokio::test]
    async fn a_chunk_is_one_call_on_either_side() {
        const CHUNKS: usize = 8;
        let (near, far) = tokio::io::duplex(1 << 20);
        let mut near = Duplex::new(Counted { stream: near, calls: 0 });
        let mut far = Duplex::new(Counted { stream: far, calls: 0 });
        let mut buffer = [0; 1000];
        for _ in 0..CHUNKS {
            near.write_all(&[7; 500]).await.unwrap();
        }
        assert_eq!(near.connection.calls, CHUNKS);
        for _ in 0..CHUNKS {
            assert_eq!(far.read(&mut buffer).await.unwrap(), 500);
        }
        assert_eq!(far.connection.calls, CHUNKS + 1, "and the first header");
    }

    #[tokio::test]
    async fn a_write_that_has_to_wait_takes_nothing_and_holds_nothing() {
        let (near, mut far) = tokio::io::duplex(HEADER + 2);
        let mut duplex = Duplex::new(near);
        assert_eq!(duplex.write(b"hello").await.unwrap(), 5);
        assert_eq!(duplex.outgoing.rest, b"llo");
        let mut write = Box::pin(duplex.write(b"there"));
        assert!(std::future::poll_fn(|cx| Poll::Ready(write.as_mut().poll(cx).is_pending())).await);
        drop(write);
        let mut wire = [0; HEADER + 5];
        tokio::join!(duplex.flush(), far.read_exact(&mut wire)).1.unwrap();
        assert_eq!(&wire, b"\x05\0\0\0hello");
        assert_eq!(duplex.outgoing.rest.capacity(), 0);
    }

    #[tokio::test]
    async fn a_connection_that_closes_without_an_end_is_an_error() {
        for written in [&b""[..], &[5], &[5, 0, 0, 0], &[5, 0, 0, 0, b'h', b'i']] {
            let (mut near, far) = tokio::io::duplex(64);
            near.write_all(written).await.unwrap();
            drop(near);
            let read = Duplex::new(far).read_to_end(&mut Vec::new()).await;
            assert_eq!(read.unwrap_err().kind(), io::ErrorKind::ConnectionReset, "{written:?}");
        }
    }

    #[tokio::test]
    async fn no_write_is_longer_than_the_limit_and_an_end_comes_once() {
        let (near, mut far) = tokio::io::duplex(1 << 20);
        let mut duplex = Duplex::new(near);
        assert_eq!(duplex.write(&[7; 1 << 19]).await.unwrap(), MAX_DATA);
        duplex.shutdown().await.unwrap();
        duplex.shutdown().await.unwrap();
        assert_eq!(duplex.write(b"late").await.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
        drop(duplex);
        let mut wire = Vec::new();
        far.read_to_end(&mut wire).await.unwrap();
        assert_eq!(wire.len(), MAX_CHUNK + HEADER);
        assert_eq!(wire[..HEADER], (MAX_DATA as u32).to_le_bytes());
        assert_eq!(wire[MAX_CHUNK..], [0; HEADER]);
    }
}
