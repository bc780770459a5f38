//! Copying between two streams, as both sides do for each connection that goes through them.
//!
//! What is read is written on at once from where it was read to, a buffer that all copies of a thread share. Only what the
//! other side does not take then is kept, until it does, and nothing is read meanwhile: whoever reads slowly is waited for.
//! So an idle copy holds no buffer, and there may be thousands of them.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, split};

use crate::duplex::MAX_DATA;

thread_local! {
    /// As much as fits into one chunk of a [`Duplex`](crate::Duplex).
    static BUFFER: RefCell<Box<[u8]>> = RefCell::new(vec![0; MAX_DATA].into());
}

/// Copies both ways until both directions have ended, passing each one's end on as soon as it comes. A side that is torn
/// down ends both.
///
/// When a side takes no more, the other direction still goes on to its end: a server that refuses an upload in its middle
/// answers and closes, and its answer is to be carried.
///
/// # Errors
/// What a side that is read from says.
pub async fn both_ways(
    a: &mut (impl AsyncRead + AsyncWrite + Unpin + ?Sized),
    b: &mut (impl AsyncRead + AsyncWrite + Unpin + ?Sized),
) -> io::Result<()> {
    let ((a_reads, a_writes), (b_reads, b_writes)) = (split(a), split(b));
    let (there, back) = (pin!(one_way(a_reads, b_writes)), pin!(one_way(b_reads, a_writes)));
    tokio::try_join!(there, back).map(drop)
}

/// Copies both ways until both directions have ended, as [`both_ways`], but a side that takes no more ends both: of a
/// connection that was reset nothing is left.
///
/// # Errors
/// What either side says.
pub async fn both_ways_or_neither(
    a: &mut (impl AsyncRead + AsyncWrite + Unpin + ?Sized),
    b: &mut (impl AsyncRead + AsyncWrite + Unpin + ?Sized),
) -> io::Result<()> {
    let ((a_reads, a_writes), (b_reads, b_writes)) = (split(a), split(b));
    let (there, back) = (pin!(one_way_or_not(a_reads, b_writes)), pin!(one_way_or_not(b_reads, a_writes)));
    tokio::try_join!(there, back).map(drop)
}

/// Copies one direction to its end, or until nobody takes it; fails if the side that it comes from is torn down.
async fn one_way(from: impl AsyncRead + Unpin, to: impl AsyncWrite + Unpin) -> io::Result<()> {
    match pass(from, to).await {
        // Whether the other side still listens makes no difference any more.
        Ok(()) | Err(Broken::To(_)) => Ok(()),
        Err(Broken::From(error)) => Err(error),
    }
}

/// Copies one direction to its end; fails if either side is torn down.
async fn one_way_or_not(from: impl AsyncRead + Unpin, to: impl AsyncWrite + Unpin) -> io::Result<()> {
    pass(from, to).await.map_err(|(Broken::From(error) | Broken::To(error))| error)
}

/// Which side broke.
enum Broken {
    From(io::Error),
    To(io::Error),
}

/// Copies one direction to its end, and passes that on.
async fn pass(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin) -> Result<(), Broken> {
    while let Some(rest) = poll_fn(|cx| poll_some(&mut from, &mut to, cx)).await? {
        to.write_all(&rest).await.map_err(Broken::To)?;
        to.flush().await.map_err(Broken::To)?;
    }
    to.shutdown().await.map_err(Broken::To)
}

/// Reads what is there, once something is, and writes what can be written of it; gives what is left, or `None` at the end.
fn poll_some(
    from: &mut (impl AsyncRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
    cx: &mut Context<'_>,
) -> Poll<Result<Option<Vec<u8>>, Broken>> {
    BUFFER.with_borrow_mut(|buffer| {
        let mut read = tokio::io::ReadBuf::new(buffer);
        ready!(Pin::new(from).poll_read(cx, &mut read)).map_err(Broken::From)?;
        let bytes = read.filled();
        if bytes.is_empty() {
            return Poll::Ready(Ok(None));
        }
        let written = match Pin::new(to).poll_write(cx, bytes) {
            Poll::Ready(written) => written.map_err(Broken::To)?,
            Poll::Pending => 0,
        };
        Poll::Ready(Ok(Some(bytes[written..].to_vec())))
    })
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;

    use super::*;
    use crate::Duplex;

    #[tokio::test]
    async fn an_answer_of_a_server_that_takes_no_more_comes_back() {
        let (mut client, mut client_end) = tokio::io::duplex(1 << 10);
        let (mut server_end, mut server) = tokio::io::duplex(1 << 10);
        client.write_all(b"a long upload").await.unwrap();
        server.write_all(b"too large").await.unwrap();
        drop(server);
        both_ways(&mut client_end, &mut server_end).await.unwrap();
        drop(client_end);
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        assert_eq!(answer, "too large");
    }

    #[tokio::test]
    async fn a_side_that_is_torn_down_ends_both() {
        let (_client, mut client_end) = tokio::io::duplex(1 << 10);
        let (server_end, mut server) = tokio::io::duplex(1 << 10);
        // In the middle of a chunk.
        server.write_all(&[7]).await.unwrap();
        drop(server);
        let error = both_ways(&mut client_end, &mut Duplex::new(server_end)).await;
        assert_eq!(error.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    }

    #[tokio::test]
    async fn of_a_connection_that_is_reset_nothing_is_left() {
        let (mut client, mut client_end) = tokio::io::duplex(1 << 10);
        let (mut server_end, server) = tokio::io::duplex(1 << 10);
        drop(server);
        client.write_all(b"nobody hears this").await.unwrap();
        let error = both_ways_or_neither(&mut client_end, &mut server_end).await;
        assert_eq!(error.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }

    #[tokio::test]
    async fn whole_pieces_go_on_in_order_through_sides_that_take_less() {
        let sent: Vec<u8> = (0..300_000u32).map(|n| (n % 251) as u8).collect();
        for room in [1, 100, 1 << 20] {
            let (mut client, mut client_end) = tokio::io::duplex(1 << 20);
            let (server_end, server) = tokio::io::duplex(room);
            let copy = async { both_ways(&mut client_end, &mut Duplex::new(server_end)).await };
            let send = async {
                client.write_all(&sent).await.unwrap();
                client.shutdown().await.unwrap();
            };
            let receive = async {
                let (mut server, mut received) = (Duplex::new(server), Vec::new());
                server.read_to_end(&mut received).await.unwrap();
                server.shutdown().await.unwrap();
                received
            };
            let (copied, (), received) = tokio::join!(copy, send, receive);
            copied.unwrap();
            assert!(received == sent, "room {room}");
        }
    }
}
