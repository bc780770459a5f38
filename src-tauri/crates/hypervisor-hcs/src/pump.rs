//! A blocking socket as a stream of tokio's: two threads copy.
//!
//! The threads end with the stream. The writer sees the end of its input when the stream is shut down or dropped. Once
//! everything was sent *and* the stream is dropped, whichever comes last closes the socket for both directions, which
//! ends the reader.

use std::io::{self, IoSlice, Read, Write};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use caisson_hypervisor::{Connection, VsockStream};
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
    socket: Arc<dyn Blocking>,
    over: Arc<Over>,
}

/// What is over of a stream: whoever is second ends the socket.
#[derive(Default)]
struct Over(AtomicBool);

impl Over {
    /// Whether the other was first.
    fn is_second(&self) -> bool {
        self.0.swap(true, Ordering::AcqRel)
    }
}

/// Makes a stream of `socket`.
pub(crate) fn stream(socket: impl Blocking) -> io::Result<VsockStream> {
    let (ours, theirs) = tokio::io::duplex(BUFFER);
    let (from_stream, to_stream) = tokio::io::split(theirs);
    let runtime = Handle::current();
    let from_stream = SyncIoBridge::new_with_handle(from_stream, runtime.clone());
    let to_stream = SyncIoBridge::new_with_handle(to_stream, runtime);
    let socket: Arc<dyn Blocking> = Arc::new(socket);
    let over = Arc::<Over>::default();
    let (reader, writer, sent) = (Arc::clone(&socket), Arc::clone(&socket), Arc::clone(&over));
    thread("hvsocket-read", move || read(&*reader, to_stream))?;
    thread("hvsocket-write", move || write(&*writer, from_stream, &sent))?;
    Ok(Box::new(Pumped { ours, socket, over }))
}

fn thread(name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    std::thread::Builder::new().name(name.to_owned()).spawn(work).map(drop)
}

/// From the socket to the stream. Either side's failure is an end for the other, which is all that a stream can say.
fn read(socket: &dyn Blocking, mut to: SyncIoBridge<tokio::io::WriteHalf<DuplexStream>>) {
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
fn write(socket: &dyn Blocking, mut from: SyncIoBridge<tokio::io::ReadHalf<DuplexStream>>, over: &Over) {
    let mut buffer = vec![0; BUFFER];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        if send_all(socket, &buffer[..count]).is_err() {
            break;
        }
    }
    // The peer may be gone already.
    let _ = match over.is_second() {
        true => socket.end(),
        false => socket.end_sending(),
    };
}

fn send_all(socket: &dyn Blocking, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        let sent = socket.send(bytes)?;
        bytes = &bytes[sent..];
    }
    Ok(())
}

impl Drop for Pumped {
    fn drop(&mut self) {
        if self.over.is_second() {
            // The peer may be gone already.
            let _ = self.socket.end();
        }
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

    fn is_write_vectored(&self) -> bool {
        self.ours.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.ours).poll_write_vectored(context, parts)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.ours).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.ours).poll_shutdown(context)
    }
}

/// The threads' calls do not tell.
impl Connection for Pumped {
    fn poll_gone(&mut self, context: &mut Context<'_>) -> Poll<()> {
        self.ours.poll_gone(context)
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Shutdown, TcpListener, TcpStream};
    use std::os::windows::io::AsRawSocket;
    use std::sync::mpsc;
    use std::time::Duration;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use windows::Win32::Networking::WinSock::SOCKET;

    use super::*;
    use crate::hvsocket::end;

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
            let number = usize::try_from(self.as_raw_socket()).expect("sockets have the size of pointers");
            end(SOCKET(number))
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

    /// A socket that tells when both threads have let go of it.
    struct Watched(TcpStream, mpsc::Sender<()>);

    impl Blocking for Watched {
        fn receive(&self, into: &mut [u8]) -> io::Result<usize> {
            self.0.receive(into)
        }

        fn send(&self, from: &[u8]) -> io::Result<usize> {
            self.0.send(from)
        }

        fn end_sending(&self) -> io::Result<()> {
            self.0.end_sending()
        }

        fn end(&self) -> io::Result<()> {
            self.0.end()
        }
    }

    impl Drop for Watched {
        fn drop(&mut self) {
            // The test may have failed already.
            let _ = self.1.send(());
        }
    }

    #[tokio::test]
    async fn a_stream_that_is_dropped_after_its_end_was_sent_leaves_no_thread_behind() -> io::Result<()> {
        let (ours, mut peer) = pair()?;
        let (let_go, gone) = mpsc::channel();
        let mut stream = stream(Watched(ours, let_go))?;
        stream.shutdown().await?;
        let heard = tokio::task::spawn_blocking(move || (peer.read(&mut [0]), peer)).await;
        let (end, _silent) = heard.expect("the peer does not panic");
        assert_eq!(end?, 0);
        drop(stream);
        let gone = tokio::task::spawn_blocking(move || gone.recv_timeout(Duration::from_secs(10))).await;
        assert_eq!(gone.expect("waiting does not panic"), Ok(()));
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
