//! Carrying a connection's bytes.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf, split};

/// The most that is read at once, in bytes: two chunks of a stream to the host.
const READ: usize = 64 * 1024;

thread_local! {
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; READ].into());
}

/// Copies both ways until both directions have ended, each on its own; fails when either side breaks.
pub(crate) async fn both_ways(
    a: &mut (impl AsyncRead + AsyncWrite + Unpin),
    b: &mut (impl AsyncRead + AsyncWrite + Unpin),
) -> io::Result<()> {
    let ((a_reads, a_writes), (b_reads, b_writes)) = (split(a), split(b));
    let (there, back) = (pin!(one_way(a_reads, b_writes)), pin!(one_way(b_reads, a_writes)));
    tokio::try_join!(there, back).map(drop)
}

async fn one_way(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin) -> io::Result<()> {
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
