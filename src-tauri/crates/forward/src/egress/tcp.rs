//! A connection of the guest's.

use super::{policy::forbidden, refuse};
use caisson_guest_proto::{EgressReply, Tcp, copy, write_frame};
use caisson_hypervisor::VsockStream;
use socket2::{SockRef, TcpKeepalive};
use std::{io, net::SocketAddr, time::Duration};
use tokio::{net::TcpStream, time::timeout};

/// How long a connection may take. The guest's program gives up earlier or asks again: it sends its SYN again and again.
const CONNECT_LIMIT: Duration = Duration::from_secs(130);

/// How long nothing may be heard of a server before it is asked whether it is there, how long before it is asked again, and how often in a
/// row it may not answer: one that vanished is noticed within two minutes. A container's own questions do not come so far, the machine
/// answers them.
const IDLE: Duration = Duration::from_secs(60);
const INTERVAL: Duration = Duration::from_secs(10);
const QUESTIONS: u32 = 6;

pub(super) async fn serve(mut stream: VsockStream, places: &[SocketAddr]) -> io::Result<()> {
    let socket = match connect(&mut stream, places).await {
        Ok(Some(socket)) => socket,
        // The guest no longer wants it.
        Ok(None) => return Ok(()),
        Err(error) => return refuse(stream, &error).await,
    };
    write_frame(&mut stream, &EgressReply::Open).await.map_err(io::Error::other)?;
    let copied = copy::both_ways_or_neither(&mut stream, &mut Tcp::new(&socket)).await;
    if copied.is_err() {
        // A connection that broke on the guest's side breaks on this one: a reset, no orderly end.
        let _ = SockRef::from(&socket).set_linger(Some(Duration::ZERO));
    }
    copied
}

/// Connects to the first place that answers; `None` if the guest gave up meanwhile. The error is that of the first place.
async fn connect(stream: &mut VsockStream, places: &[SocketAddr]) -> io::Result<Option<TcpStream>> {
    let mut failed = None;
    for place in places {
        let connected = async {
            timeout(CONNECT_LIMIT, TcpStream::connect(place))
                .await
                .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
        };
        let connected = tokio::select! {
            connected = connected => connected,
            () = gone(stream) => return Ok(None),
        };
        match connected {
            Ok(socket) => {
                adjust(&socket);
                return Ok(Some(socket));
            }
            Err(error) => drop(failed.get_or_insert(error)),
        }
    }
    Err(failed.unwrap_or_else(forbidden))
}

/// A socket that cannot be adjusted is as good otherwise.
fn adjust(socket: &TcpStream) {
    // What the guest sends comes in the pieces in which it was sent.
    let _ = socket.set_nodelay(true);
    let keepalive = TcpKeepalive::new().with_time(IDLE).with_interval(INTERVAL).with_retries(QUESTIONS);
    let _ = SockRef::from(socket).set_tcp_keepalive(&keepalive);
}

/// Returns when the guest has closed the stream, on which it sends nothing before it has its answer.
async fn gone(stream: &mut VsockStream) {
    let mut byte = [0];
    // An error is a stream that was torn down, which is how the guest gives up.
    let _ = tokio::io::AsyncReadExt::read(stream, &mut byte).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_server_is_asked_whether_it_is_there() -> io::Result<()> {
        let server = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let (near, _far) = tokio::io::duplex(1);
        let mut stream: VsockStream = Box::new(near);
        let connected = connect(&mut stream, &[server.local_addr()?]).await?.expect("the guest is there");
        let socket = SockRef::from(&connected);
        assert!(socket.keepalive()?);
        // Windows does not say when.
        #[cfg(unix)]
        assert_eq!(
            (socket.tcp_keepalive_time()?, socket.tcp_keepalive_interval()?, socket.tcp_keepalive_retries()?),
            (IDLE, INTERVAL, QUESTIONS)
        );
        Ok(())
    }
}
