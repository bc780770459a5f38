//! Copying between two streams.

use std::io;
use tokio::io::{AsyncRead, AsyncWrite, copy_bidirectional_with_sizes};

/// One direction's buffer. Larger ones gain nothing measurable over vsock, whose own buffers are 64 KiB and up.
const BUFFER_BYTES: usize = 64 << 10;

/// Copies both ways until both directions have ended, passing each one's end on as soon as it comes; until one breaks,
/// which ends both.
pub(crate) async fn both_ways(
    a: &mut (impl AsyncRead + AsyncWrite + Unpin + ?Sized),
    b: &mut (impl AsyncRead + AsyncWrite + Unpin + ?Sized),
) -> io::Result<()> {
    copy_bidirectional_with_sizes(a, b, BUFFER_BYTES, BUFFER_BYTES).await.map(drop)
}
