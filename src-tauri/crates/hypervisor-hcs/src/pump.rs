//! A blocking socket as a stream of tokio's: two threads copy.
//!
//! The threads end with the stream: the writer sees the end of its input when the stream is shut down or dropped; when
//! it was dropped it closes the socket for both directions, which ends the reader.

use std::io::{self, Read, Write};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use caisson_hypervisor::VsockStream;
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};
use tokio::runtime::Handle;
use tokio_util::io::SyncIoBridge;

/// What one direction holds when the other side is slow, in bytes.
const BUFFER: usize = 64 * 1024;

/// A connected socket whose calls block.
pub(crate) trait Blocking: Send + Sync + 'static {
    /// Reads some bytes; 0 at the end.
    fn receive(&self, into: &mut [u8]) -> io::Result<usize>;
    /// Writes some bytes.
    fn send(&self, from: &[u8]) -> io::Result<usize>;
    /// Ends the direction to the peer.
    fn end_sending(&self) -> io::Result<()>;
    /// Ends both directions, and the calls that wait.
    fn end(&self) -> io::Result<()>;
}

/// The stream's own side of the threads' work.
struct Pumped {
    ours: DuplexStream,
    dropped: Arc<AtomicBool>,
}

/// Makes a stream of `socket`.
pub(crate) fn stream(socket: impl Blocking) -> io::Result<VsockStream> {
    let (ours, theirs) = tokio::io::duplex(BUFFER);
    let (from_stream, to_stream) = tokio::io::split(theirs);
    let runtime = Handle::current();
    let from_stream = SyncIoBridge::new_with_handle(from_stream, runtime.clone());
    let to_stream = SyncIoBridge::new_with_handle(to_stream, runtime);
    let socket = Arc::new(socket);
    let dropped = Arc::new(AtomicBool::new(false));
    let (reader, writer, gone) = (Arc::clone(&socket), socket, Arc::clone(&dropped));
    thread("hvsocket-read", move || read(&*reader, to_stream))?;
    thread("hvsocket-write", move || write(&*writer, from_stream, &gone))?;
    Ok(Box::new(Pumped { ours, dropped }))
}

fn thread(name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    std::thread::Builder::new().name(name.to_owned()).spawn(work).map(drop)
}

/// From the socket to the stream. Either side's failure is an end for the other, which is all that a stream can say.
fn read(socket: &impl Blocking, mut to: SyncIoBridge<tokio::io::WriteHalf<DuplexStream>>) {
    let mut buffer = vec![0; BUFFER];
    while let Ok(count @ 1..) = socket.receive(&mut buffer) {
        if to.write_all(&buffer[..count]).is_err() {
            break;
        }
    }
    // The stream may be gone already.
    let _ = to.shutdown();
}

/// From the stream to the socket.
fn write(
    socket: &impl Blocking,
    mut from: SyncIoBridge<tokio::io::ReadHalf<DuplexStream>>,
    dropped: &AtomicBool,
) {
    let mut buffer = vec![0; BUFFER];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        if send_all(socket, &buffer[..count]).is_err() {
            break;
        }
    }
    // The peer may be gone already.
    let _ = match dropped.load(Ordering::Acquire) {
        true => socket.end(),
        false => socket.end_sending(),
    };
}

fn send_all(socket: &impl Blocking, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        let sent = socket.send(bytes)?;
        bytes = &bytes[sent..];
    }
    Ok(())
}

impl Drop for Pumped {
    fn drop(&mut self) {
        self.dropped.store(true, Ordering::Release);
    }
}

impl AsyncRead for Pumped {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.ours).poll_read(context, into)
    }
}

impl AsyncWrite for Pumped {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        from: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.ours).poll_write(context, from)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.ours).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.ours).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Shutdown, TcpListener, TcpStream};

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    /// Any stream socket blocks alike; TCP's stands in for Hyper-V's.
    impl Blocking for TcpStream {
        fn receive(&self, into: &mut [u8]) -> io::Result<usize> {
            (&mut &*self).read(into)
        }

        fn send(&self, from: &[u8]) -> io::Result<usize> {
            (&mut &*self).write(from)
        }

        fn end_sending(&self) -> io::Result<()> {
            self.shutdown(Shutdown::Write)
        }

        fn end(&self) -> io::Result<()> {
            self.shutdown(Shutdown::Both)
        }
    }

    fn pair() -> io::Result<(TcpStream, TcpStream)> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let ours = TcpStream::connect(listener.local_addr()?)?;
        Ok((ours, listener.accept()?.0))
    }

    #[tokio::test]
    async fn the_end_of_one_direction_leaves_the_other_open() -> io::Result<()> {
        let (ours, mut peer) = pair()?;
        let mut stream = stream(ours)?;
        stream.write_all(b"question").await?;
        stream.shutdown().await?;
        let peer = std::thread::spawn(move || -> io::Result<Vec<u8>> {
            let mut asked = Vec::new();
            peer.read_to_end(&mut asked)?;
            peer.write_all(b"answer")?;
            Ok(asked)
        });
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await?;
        assert_eq!(answer, b"answer");
        assert_eq!(peer.join().expect("the peer does not panic")?, b"question");
        Ok(())
    }

    #[tokio::test]
    async fn a_dropped_stream_delivers_and_ends_both_directions() -> io::Result<()> {
        let (ours, mut peer) = pair()?;
        let mut stream = stream(ours)?;
        stream.write_all(b"last words").await?;
        drop(stream);
        let heard = tokio::task::spawn_blocking(move || {
            let mut heard = Vec::new();
            peer.read_to_end(&mut heard).map(|_| heard)
        });
        assert_eq!(heard.await.expect("the peer does not panic")?, b"last words");
        Ok(())
    }
}
