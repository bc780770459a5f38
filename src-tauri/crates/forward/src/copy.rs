//! Copying between two streams.

use std::{
    cell::RefCell,
    future::poll_fn,
    io,
    pin::{Pin, pin},
    task::{Poll, ready},
};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf, split};

/// The most that is read at once. Larger ones gain nothing measurable over vsock, whose own buffers are 64 KiB and up.
const BUFFER_BYTES: usize = 64 << 10;

/// Copies both ways until both directions have ended, passing each one's end on as soon as it comes. A side that is torn
/// down ends both.
///
/// When a side takes no more, the other direction still goes on to its end: a server that refuses an upload in its middle
/// answers and closes, and its answer is to be carried.
pub(crate) async fn both_ways(
    a: &mut (impl AsyncRead + AsyncWrite + Unpin + ?Sized),
    b: &mut (impl AsyncRead + AsyncWrite + Unpin + ?Sized),
) -> io::Result<()> {
    let ((a_reads, a_writes), (b_reads, b_writes)) = (split(a), split(b));
    let (there, back) = (pin!(one_way(a_reads, b_writes)), pin!(one_way(b_reads, a_writes)));
    tokio::try_join!(there, back).map(drop)
}

/// Copies both ways until both directions have ended, as [`both_ways`], but a side that takes no more ends both: of a
/// connection that was reset nothing is left.
pub(crate) async fn both_ways_or_neither(
    a: &mut (impl AsyncRead + AsyncWrite + Unpin + ?Sized),
    b: &mut (impl AsyncRead + AsyncWrite + Unpin + ?Sized),
) -> io::Result<()> {
    let ((a_reads, a_writes), (b_reads, b_writes)) = (split(a), split(b));
    let (there, back) = (pin!(one_way_or_not(a_reads, b_writes)), pin!(one_way_or_not(b_reads, a_writes)));
    tokio::try_join!(there, back).map(drop)
}

/// Copies one direction to its end, or until nobody takes it; fails if the side that it comes from is torn down.
async fn one_way(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin) -> io::Result<()> {
    while let Some(bytes) = read_some(&mut from).await? {
        if to.write_all(&bytes).await.is_err() || to.flush().await.is_err() {
            return Ok(());
        }
    }
    // Whether the other side still listens makes no difference any more.
    let _ = to.shutdown().await;
    Ok(())
}

/// Copies one direction to its end; fails if either side is torn down.
async fn one_way_or_not(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin) -> io::Result<()> {
    while let Some(bytes) = read_some(&mut from).await? {
        to.write_all(&bytes).await?;
        to.flush().await?;
    }
    to.shutdown().await
}

/// Reads what is there, once something is; `None` at the end. A reader that waits holds no buffer.
async fn read_some(from: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<Vec<u8>>> {
    poll_fn(|cx| {
        SCRATCH.with_borrow_mut(|scratch| {
            let mut buffer = ReadBuf::new(scratch);
            ready!(Pin::new(&mut *from).poll_read(cx, &mut buffer))?;
            let bytes = buffer.filled();
            Poll::Ready(Ok((!bytes.is_empty()).then(|| bytes.to_vec())))
        })
    })
    .await
}

thread_local! {
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; BUFFER_BYTES].into());
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncReadExt;

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
        let error = both_ways(&mut client_end, &mut caisson_guest_proto::Duplex::new(server_end)).await;
        assert_eq!(error.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    }
}
