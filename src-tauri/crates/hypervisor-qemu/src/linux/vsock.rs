//! Streams between host and guest through the vsock helper's unix sockets.
//!
//! Towards the guest: connect to the helper's socket, write `CONNECT <port>\n` in one piece (the helper reads once), read
//! `OK <port>\n`. From the guest: the helper connects to a socket of ours, named after the port.
//!
//! vhost-device-vsock 0.3 must be treated with care (its `vsock_conn.rs`, read in August 2026): it aborts if a stream is
//! closed between request and answer, and if one is closed with bytes in it that nobody has read, it never tells the guest.
//! So nobody but this module closes a stream: see [`connect`] and [`Courteous`].

use std::{
    io,
    os::unix::fs::PermissionsExt,
    path::Path,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use caisson_hypervisor::{ConnectError, GuestVsockPort, HostVsockPort, Incoming, LaunchError, VsockStream};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf},
    net::{UnixListener, UnixStream},
    runtime::Handle,
    sync::mpsc,
    task::JoinSet,
};

use super::arguments::Sockets;

/// How long the guest may take to accept a stream. It answers in 3 to 11 ms; this is for a guest that is busy booting.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// How long the guest may take to see that a stream of its is closed, while we still hold our end.
const FAREWELL: Duration = Duration::from_secs(30);
/// The longest answer of the helper: "OK 4294967295\n".
const LONGEST_ANSWER: usize = 16;
/// Streams of the guest's that wait to be taken, before it has to wait.
const WAITING_STREAMS: usize = 16;

/// Makes a socket of ours at `path`, in place of a stale one.
pub(super) fn listen(path: &Path) -> Result<UnixListener, LaunchError> {
    let file = |action| move |source| LaunchError::File { action, path: path.into(), source };
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(file("replace the old socket")(error));
        }
        Ok(()) | Err(_) => {}
    }
    let listener = UnixListener::bind(path).map_err(file("listen on"))?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).map_err(file("protect"))?;
    Ok(listener)
}

/// Waits for the guest on these ports. The tasks end with the set.
pub(super) fn accept_guest(
    ports: &[HostVsockPort],
    sockets: &Sockets,
) -> Result<(JoinSet<()>, Incoming), LaunchError> {
    let (streams, incoming) = mpsc::channel(WAITING_STREAMS);
    let mut tasks = JoinSet::new();
    for &port in ports {
        let listener = listen(&sockets.of_port(port.0))?;
        tasks.spawn(accept(port, listener, streams.clone()));
    }
    Ok((tasks, incoming))
}

async fn accept(
    port: HostVsockPort,
    listener: UnixListener,
    streams: mpsc::Sender<(HostVsockPort, VsockStream)>,
) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                if streams.send((port, Box::new(Courteous::over(stream)))).await.is_err() {
                    return;
                }
            }
            Err(error) => {
                // Out of descriptors, mostly: others must close some first.
                tracing::warn!(port = port.0, %error, "cannot accept a stream of the guest's");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// Opens a stream to a port in the guest.
///
/// The helper aborts, and with it the machine, when a stream is closed between the request and the answer. So a
/// caller that stops waiting must not close it: the handshake runs in a task of its own to its end.
pub(super) async fn connect(socket: &Path, port: GuestVsockPort) -> Result<VsockStream, ConnectError> {
    let mut stream = Courteous::over(UnixStream::connect(socket).await?);
    let handshake = tokio::spawn(async move {
        let answer = ask_for(port, &mut stream).await;
        (stream, answer)
    });
    let (stream, answer) = tokio::time::timeout(CONNECT_LIMIT, handshake)
        .await
        .map_err(|_| ConnectError::TimedOut { port, limit: CONNECT_LIMIT })?
        .map_err(|_| ConnectError::Refused(port))?;
    if answer?.starts_with("OK ") { Ok(Box::new(stream)) } else { Err(ConnectError::Refused(port)) }
}

/// Asks for the port and reads one line and not a byte more; what a closed stream has brought so far, if it ends.
async fn ask_for(port: GuestVsockPort, stream: &mut Courteous) -> io::Result<String> {
    stream.write_all(format!("CONNECT {}\n", port.0).as_bytes()).await?;
    let mut answer = Vec::with_capacity(LONGEST_ANSWER);
    while answer.len() < LONGEST_ANSWER && answer.last() != Some(&b'\n') {
        match stream.read_u8().await {
            Ok(byte) => answer.push(byte),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => break,
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => break,
            Err(error) => return Err(error),
        }
    }
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// A stream that is closed in two steps, whoever drops it when: the helper reads its end and tells the guest, and until
/// the guest has closed its own end, what it still sends is read and thrown away.
#[derive(Debug)]
struct Courteous {
    stream: Option<UnixStream>,
    /// It may be dropped where no runtime is at hand.
    runtime: Handle,
}

impl Courteous {
    fn over(stream: UnixStream) -> Self {
        Self { stream: Some(stream), runtime: Handle::current() }
    }

    fn stream(self: Pin<&mut Self>) -> Pin<&mut UnixStream> {
        Pin::new(self.get_mut().stream.as_mut().expect("it is only taken when dropped"))
    }
}

impl Drop for Courteous {
    fn drop(&mut self) {
        if let Some(stream) = self.stream.take() {
            self.runtime.spawn(async move {
                // The guest that stays away for longer is not waited for.
                let _ = tokio::time::timeout(FAREWELL, part(stream)).await;
            });
        }
    }
}

async fn part(mut stream: UnixStream) -> io::Result<u64> {
    stream.shutdown().await?;
    tokio::io::copy(&mut stream, &mut tokio::io::sink()).await
}

impl AsyncRead for Courteous {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.stream().poll_read(cx, buf)
    }
}

impl AsyncWrite for Courteous {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        self.stream().poll_write(cx, data)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream().poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream().poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A helper that hears `CONNECT`, and the stream on its side.
    async fn helper(dir: &Path) -> (UnixListener, std::path::PathBuf) {
        let path = dir.join("vsock");
        (listen(&path).unwrap(), path)
    }

    async fn request(listener: &UnixListener) -> (UnixStream, String) {
        let (mut theirs, _) = listener.accept().await.unwrap();
        let mut line = vec![0; 64];
        let read = theirs.read(&mut line).await.unwrap();
        (theirs, String::from_utf8_lossy(&line[..read]).into_owned())
    }

    #[tokio::test]
    async fn the_request_is_one_piece_and_the_bytes_after_the_answer_are_the_guests() {
        let dir = tempfile::tempdir().unwrap();
        let (listener, path) = helper(dir.path()).await;
        let guest = async {
            let (mut theirs, line) = request(&listener).await;
            assert_eq!(line, "CONNECT 1024\n");
            theirs.write_all(b"OK 1073741824\nbytes").await.unwrap();
        };
        let (stream, ()) = tokio::join!(connect(&path, GuestVsockPort(1024)), guest);
        let mut bytes = String::new();
        stream.unwrap().read_to_string(&mut bytes).await.unwrap();
        assert_eq!(bytes, "bytes");
    }

    #[tokio::test]
    async fn a_stream_that_the_helper_closes_was_refused() {
        let dir = tempfile::tempdir().unwrap();
        let (listener, path) = helper(dir.path()).await;
        let (stream, ()) =
            tokio::join!(connect(&path, GuestVsockPort(9)), async { drop(request(&listener).await) });
        assert!(matches!(stream.err(), Some(ConnectError::Refused(GuestVsockPort(9)))));
    }

    #[tokio::test]
    async fn a_request_that_is_given_up_stays_open_until_it_is_answered() {
        let dir = tempfile::tempdir().unwrap();
        let (listener, path) = helper(dir.path()).await;
        let mut theirs = tokio::select! {
            _ = connect(&path, GuestVsockPort(1024)) => panic!("nobody answers"),
            (theirs, _) = request(&listener) => theirs,
        };
        theirs.write_all(b"OK 1\n").await.expect("it is open");
        assert_eq!(theirs.read(&mut [0]).await.unwrap(), 0, "and then closed in order");
    }

    #[tokio::test]
    async fn a_stream_dropped_with_bytes_unread_ends_in_order_on_the_other_side() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        theirs.write_all(b"nobody reads this").await.unwrap();
        drop(Courteous::over(ours));
        assert_eq!(theirs.read(&mut [0]).await.unwrap(), 0, "an end, not a reset");
        theirs.write_all(&[0; 1 << 20]).await.expect("what it still sends is taken");
    }
}
