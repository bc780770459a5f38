//! Copying between two streams.

use std::{io, pin::pin};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, split};

/// One direction's buffer. Larger ones gain nothing measurable over vsock, whose own buffers are 64 KiB and up.
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

/// Copies one direction to its end, or until nobody takes it; fails if the side that it comes from is torn down.
async fn one_way(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let count = from.read(&mut buffer).await?;
        if count == 0 {
            // Whether the other side still listens makes no difference any more.
            let _ = to.shutdown().await;
            return Ok(());
        }
        if to.write_all(&buffer[..count]).await.is_err() || to.flush().await.is_err() {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
