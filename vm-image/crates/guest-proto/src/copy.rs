//! Copying between two streams, as both sides do for each connection that goes through them.
//!
//! What is read is written on at once from where it was read to, a buffer that all copies of a thread share. Only what the
//! other side does not take then is kept, until it does, and nothing is read meanwhile: whoever reads slowly is waited for.
//! So an idle copy holds no buffer, and there may be thousands of them.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::connection::Connection;
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
    let (mut there, mut back) = (Way::default(), Way::default());
    poll_fn(|cx| {
        let ended = [there.poll_or_stop(a, b, cx)?, back.poll_or_stop(b, a, cx)?];
        if ended.iter().all(Poll::is_ready) { Poll::Ready(Ok(())) } else { Poll::Pending }
    })
    .await
}

/// Copies both ways until both directions have ended, as [`both_ways`], but a side that takes no more ends both: of a
/// connection that was reset nothing is left.
///
/// A side that is not read from cannot say that it was reset, so it is asked: each one after its direction has ended, and the client
/// also while what it sent waits for a server that takes nothing. That server may never take anything, and nobody but the client would
/// end the connection. What a server said before it reset the connection is carried for as long as the client is there.
///
/// # Errors
/// What either side says.
pub async fn both_ways_or_neither(
    client: &mut (impl Connection + ?Sized),
    server: &mut (impl Connection + ?Sized),
) -> io::Result<()> {
    let (mut there, mut back) = (Way::default(), Way::default());
    poll_fn(|cx| {
        let ended = [
            there.poll(client, server, cx).map_err(Broken::of_either)?,
            back.poll(server, client, cx).map_err(Broken::of_either)?,
        ];
        if ended.iter().all(Poll::is_ready) {
            return Poll::Ready(Ok(()));
        }
        if !there.reads() {
            there.ask(client, ended[1].is_ready(), cx)?;
        }
        if back.is_read {
            back.ask(server, ended[0].is_ready(), cx)?;
        }
        Poll::Pending
    })
    .await
}

/// One direction, between the calls that carry it.
#[derive(Default)]
struct Way {
    stage: Stage,
    /// What is left of what was read; `written` bytes of it have gone, too.
    rest: Vec<u8>,
    written: usize,
    /// Whether nothing more is to be read.
    is_read: bool,
}

#[derive(Default, PartialEq)]
enum Stage {
    #[default]
    Reads,
    Writes,
    Ends,
    Over,
}

/// Which side broke.
enum Broken {
    From(io::Error),
    To(io::Error),
}

impl Broken {
    fn of_either(self) -> io::Error {
        let (Self::From(error) | Self::To(error)) = self;
        error
    }
}

impl Way {
    fn reads(&self) -> bool {
        self.stage == Stage::Reads
    }

    /// Copies to the direction's end, and passes that on.
    fn poll(
        &mut self,
        from: &mut (impl AsyncRead + Unpin + ?Sized),
        to: &mut (impl AsyncWrite + Unpin + ?Sized),
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Broken>> {
        loop {
            self.stage = match self.stage {
                Stage::Reads => ready!(self.poll_some(from, to, cx))?,
                Stage::Writes => {
                    ready!(self.poll_rest(to, cx)).map_err(Broken::To)?;
                    if self.is_read { Stage::Ends } else { Stage::Reads }
                }
                Stage::Ends => {
                    ready!(Pin::new(&mut *to).poll_shutdown(cx)).map_err(Broken::To)?;
                    Stage::Over
                }
                Stage::Over => return Poll::Ready(Ok(())),
            };
        }
    }

    /// The same, or until nobody takes it; whether the other side still listens makes no difference then.
    fn poll_or_stop(
        &mut self,
        from: &mut (impl AsyncRead + Unpin + ?Sized),
        to: &mut (impl AsyncWrite + Unpin + ?Sized),
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        match ready!(self.poll(from, to, cx)) {
            Ok(()) => Poll::Ready(Ok(())),
            Err(Broken::To(_)) => {
                *self = Self { stage: Stage::Over, ..Self::default() };
                Poll::Ready(Ok(()))
            }
            Err(Broken::From(error)) => Poll::Ready(Err(error)),
        }
    }

    /// Reads what is there, once something is, writes what can be written of it, and keeps what is left.
    fn poll_some(
        &mut self,
        from: &mut (impl AsyncRead + Unpin + ?Sized),
        to: &mut (impl AsyncWrite + Unpin + ?Sized),
        cx: &mut Context<'_>,
    ) -> Poll<Result<Stage, Broken>> {
        BUFFER.with_borrow_mut(|buffer| {
            let bytes = ready!(poll_read(from, buffer, cx)).map_err(Broken::From)?;
            if bytes.is_empty() {
                self.is_read = true;
                return Poll::Ready(Ok(Stage::Ends));
            }
            let written = match Pin::new(to).poll_write(cx, bytes) {
                Poll::Ready(written) => written.map_err(Broken::To)?,
                Poll::Pending => 0,
            };
            self.rest.extend_from_slice(&bytes[written..]);
            Poll::Ready(Ok(Stage::Writes))
        })
    }

    /// Writes what is left.
    fn poll_rest(
        &mut self,
        to: &mut (impl AsyncWrite + Unpin + ?Sized),
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        while self.written < self.rest.len() {
            let written = ready!(Pin::new(&mut *to).poll_write(cx, &self.rest[self.written..]))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.written += written;
        }
        (self.rest, self.written) = (Vec::new(), 0);
        Pin::new(to).poll_flush(cx)
    }

    /// Asks the side that this direction comes from whether it is there; `told` says whether it has the other direction's end.
    fn ask(
        &mut self,
        from: &mut (impl Connection + ?Sized),
        told: bool,
        cx: &mut Context<'_>,
    ) -> io::Result<()> {
        match (from.poll_gone(cx), told) {
            (Poll::Pending, _) => Ok(()),
            (Poll::Ready(()), false) => Err(io::ErrorKind::ConnectionReset.into()),
            // It had nothing to wait for, and what stands behind all that it sent says whether it ended or was reset. That is no more than
            // lies between here and there: nobody sends anything on.
            (Poll::Ready(()), true) => self.read_to_end(from, cx),
        }
    }

    fn read_to_end(
        &mut self,
        from: &mut (impl AsyncRead + Unpin + ?Sized),
        cx: &mut Context<'_>,
    ) -> io::Result<()> {
        BUFFER.with_borrow_mut(|buffer| {
            while let (false, Poll::Ready(bytes)) = (self.is_read, poll_read(from, buffer, cx)?) {
                self.is_read = bytes.is_empty();
                self.rest.extend_from_slice(bytes);
            }
            Ok(())
        })
    }
}

/// Gives what could be read; nothing at the end.
fn poll_read<'a>(
    from: &mut (impl AsyncRead + Unpin + ?Sized),
    buffer: &'a mut [u8],
    cx: &mut Context<'_>,
) -> Poll<io::Result<&'a [u8]>> {
    let mut read = ReadBuf::new(buffer);
    ready!(Pin::new(from).poll_read(cx, &mut read))?;
    let count = read.filled().len();
    Poll::Ready(Ok(&buffer[..count]))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use socket2::SockRef;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
    use tokio::net::{TcpListener, TcpStream};
    use tokio::sync::oneshot;
    use tokio::time::timeout;

    use super::*;
    use crate::{Duplex, Tcp};

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

    /// Nothing here waits so long unless it is broken.
    const LIMIT: Duration = Duration::from_secs(30);

    /// A connection of which its other side, once it is dropped, tells that it is gone, as a machine's do.
    struct Telling {
        stream: DuplexStream,
        gone: oneshot::Receiver<()>,
    }

    impl AsyncRead for Telling {
        fn poll_read(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            buf: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            Pin::new(&mut self.stream).poll_read(cx, buf)
        }
    }

    impl AsyncWrite for Telling {
        fn poll_write(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            data: &[u8],
        ) -> Poll<io::Result<usize>> {
            Pin::new(&mut self.stream).poll_write(cx, data)
        }

        fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.stream).poll_flush(cx)
        }

        fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.stream).poll_shutdown(cx)
        }
    }

    impl Connection for Telling {
        fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
            if self.gone.is_terminated() {
                return Poll::Ready(());
            }
            Pin::new(&mut self.gone).poll(cx).map(drop)
        }
    }

    /// The far end is gone when both of what it is are dropped.
    fn telling() -> (Duplex<Telling>, (Duplex<DuplexStream>, oneshot::Sender<()>)) {
        let (near, far) = tokio::io::duplex(1 << 20);
        let (tell, gone) = oneshot::channel();
        (Duplex::new(Telling { stream: near, gone }), (Duplex::new(far), tell))
    }

    async fn copied(client: &mut impl Connection, server: &mut impl Connection) -> io::Result<()> {
        timeout(LIMIT, both_ways_or_neither(client, server)).await.expect("it ends")
    }

    fn assert_reset(copied: io::Result<()>) {
        assert_eq!(copied.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    }

    #[tokio::test]
    async fn a_client_that_is_gone_ends_both_though_the_server_takes_nothing() {
        for server_has_ended in [false, true] {
            let (mut client_end, mut client) = telling();
            let (server_end, server) = tokio::io::duplex(100);
            let mut server = Duplex::new(server);
            let say_and_go = async {
                client.0.write_all(&[7; 100_000]).await.unwrap();
                if server_has_ended {
                    server.shutdown().await.unwrap();
                    assert_eq!(client.0.read(&mut [0]).await.unwrap(), 0, "its end");
                }
                drop(client);
            };
            let mut server_end = Duplex::new(server_end);
            let copied = copied(&mut client_end, &mut server_end);
            assert_reset(tokio::join!(copied, say_and_go).0);
        }
    }

    #[tokio::test]
    async fn a_client_that_has_said_all_and_heard_all_may_go_before_the_server_has_taken_it() {
        let (mut client_end, mut client) = telling();
        let (server_end, server) = tokio::io::duplex(100);
        let mut server = Duplex::new(server);
        server.shutdown().await.unwrap();
        let converse = async {
            client.0.write_all(&[7; 100_000]).await.unwrap();
            client.0.shutdown().await.unwrap();
            assert_eq!(client.0.read(&mut [0]).await.unwrap(), 0, "the server's end");
            drop(client);
            let mut received = Vec::new();
            server.read_to_end(&mut received).await.unwrap();
            assert_eq!(received.len(), 100_000);
        };
        // The server hears of it if this breaks.
        let copy = async { copied(&mut client_end, &mut Duplex::new(server_end)).await };
        let (copied, ()) = tokio::join!(copy, converse);
        copied.unwrap();
    }

    #[tokio::test]
    async fn a_side_that_has_ended_and_is_gone_ends_both() {
        let [(near, far), (other, _silent)] = [(); 2].map(|()| tokio::io::duplex(100));
        let (mut ended, mut other) = (Duplex::new(near), Duplex::new(other));
        let mut far = Duplex::new(far);
        far.shutdown().await.unwrap();
        drop(far);
        assert_reset(copied(&mut ended, &mut other).await);

        let [(near, far), (other, _silent)] = [(); 2].map(|()| tokio::io::duplex(100));
        let (mut ended, mut other) = (Duplex::new(near), Duplex::new(other));
        let mut far = Duplex::new(far);
        far.shutdown().await.unwrap();
        drop(far);
        assert_reset(copied(&mut other, &mut ended).await);
    }

    async fn tcp() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (near, far) = tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
        (near.unwrap(), far.unwrap().0)
    }

    /// Resets it, which other than an end is told at once.
    fn reset(connection: TcpStream) {
        SockRef::from(&connection).set_linger(Some(Duration::ZERO)).unwrap();
    }

    #[cfg_attr(windows, ignore = "Windows does not tell")]
    #[tokio::test]
    async fn a_reset_is_noticed_while_what_came_before_it_waits() {
        let (near, mut far) = tcp().await;
        let (server_end, _server) = tokio::io::duplex(4);
        far.write_all(b"more than fits").await.unwrap();
        reset(far);
        assert_reset(copied(&mut Tcp::new(&near), &mut Duplex::new(server_end)).await);
    }

    #[cfg_attr(windows, ignore = "Windows does not tell")]
    #[tokio::test]
    async fn a_reset_after_an_end_is_noticed_on_either_side() {
        for is_client in [true, false] {
            let (near, mut far) = tcp().await;
            let (mut tcp, (other, other_far)) = (Tcp::new(&near), tokio::io::duplex(100));
            let (mut other, mut other_far) = (Duplex::new(other), Duplex::new(other_far));
            let end_and_reset = async {
                far.shutdown().await.unwrap();
                assert_eq!(other_far.read(&mut [0]).await.unwrap(), 0, "its end");
                reset(far);
            };
            let copied = async {
                match is_client {
                    true => copied(&mut tcp, &mut other).await,
                    false => copied(&mut other, &mut tcp).await,
                }
            };
            assert_reset(tokio::join!(copied, end_and_reset).0);
        }
    }

    #[cfg_attr(windows, ignore = "a reset does not arrive as one under wine 8; to be run on Windows")]
    #[tokio::test]
    async fn what_a_server_said_before_it_reset_the_connection_is_carried() {
        for client_ends in [false, true] {
            let (client_end, client) = tokio::io::duplex(100);
            let (near, mut far) = tcp().await;
            far.write_all(&[7; 10_000]).await.unwrap();
            reset(far);
            let hear = async {
                let (mut client, mut heard) = (Duplex::new(client), Vec::new());
                if client_ends {
                    client.shutdown().await.unwrap();
                }
                client.read_to_end(&mut heard).await.unwrap_err();
                assert_eq!(heard.len(), 10_000);
            };
            let copy = async { copied(&mut Duplex::new(client_end), &mut Tcp::new(&near)).await };
            assert_reset(tokio::join!(copy, hear).0);
        }
    }

    #[tokio::test]
    async fn tcp_carries_all_there_is_both_ways_and_each_end() {
        let sent: Vec<u8> = (0..3_000_000u32).map(|n| (n % 251) as u8).collect();
        let [(client_end, client), (server_end, server)] = [tcp().await, tcp().await];
        let talk = |side: TcpStream| async {
            let (mut reads, mut writes) = tokio::io::split(side);
            let write = async {
                writes.write_all(&sent).await.unwrap();
                writes.shutdown().await.unwrap();
            };
            let mut received = Vec::new();
            tokio::join!(write, reads.read_to_end(&mut received)).1.unwrap();
            assert!(received == sent);
        };
        let (mut client_end, mut server_end) = (Tcp::new(&client_end), Tcp::new(&server_end));
        let (copied, (), ()) =
            tokio::join!(copied(&mut client_end, &mut server_end), talk(client), talk(server));
        copied.unwrap();
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
