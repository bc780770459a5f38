//! Streams between host and guest through the vsock helper's unix sockets.
//!
//! Towards the guest: connect to the helper's socket, write `CONNECT <port>\n` in one piece (the helper reads once), read
//! `OK <port>\n`. From the guest: the helper connects to a socket of ours, named after the port.

use std::{io, os::unix::fs::PermissionsExt, path::Path, time::Duration};

use caisson_hypervisor::{ConnectError, GuestVsockPort, HostVsockPort, Incoming, LaunchError, VsockStream};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{UnixListener, UnixStream},
    sync::mpsc,
    task::JoinSet,
};

use super::arguments::Sockets;

/// How long the guest may take to accept a stream. It answers in 3 to 11 ms; this is for a guest that is busy booting.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);
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
                if streams.send((port, Box::new(stream))).await.is_err() {
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
    let mut stream = UnixStream::connect(socket).await?;
    stream.write_all(format!("CONNECT {}\n", port.0).as_bytes()).await?;
    let handshake = tokio::spawn(async move {
        let answer = read_answer(&mut stream).await;
        (stream, answer)
    });
    let (stream, answer) = tokio::time::timeout(CONNECT_LIMIT, handshake)
        .await
        .map_err(|_| ConnectError::TimedOut { port, limit: CONNECT_LIMIT })?
        .map_err(|_| ConnectError::Refused(port))?;
    if answer?.starts_with("OK ") { Ok(Box::new(stream)) } else { Err(ConnectError::Refused(port)) }
}

/// Reads one line and not a byte more; what a closed stream has brought so far, if it ends.
async fn read_answer(stream: &mut UnixStream) -> io::Result<String> {
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
