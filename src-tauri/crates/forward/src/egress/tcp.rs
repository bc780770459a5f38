//! A connection of the guest's.

use super::{policy::forbidden, refuse};
use caisson_guest_proto::{EgressReply, copy, write_frame};
use caisson_hypervisor::VsockStream;
use socket2::SockRef;
use std::{io, net::SocketAddr, time::Duration};
use tokio::{net::TcpStream, time::timeout};

/// How long a connection may take. The guest's program gives up earlier or asks again: it sends its SYN again and again.
const CONNECT_LIMIT: Duration = Duration::from_secs(130);

pub(super) async fn serve(mut stream: VsockStream, places: &[SocketAddr]) -> io::Result<()> {
    let mut socket = match connect(&mut stream, places).await {
        Ok(Some(socket)) => socket,
        // The guest no longer wants it.
        Ok(None) => return Ok(()),
        Err(error) => return refuse(stream, &error).await,
    };
    write_frame(&mut stream, &EgressReply::Open).await.map_err(io::Error::other)?;
    let copied = copy::both_ways_or_neither(&mut socket, &mut stream).await;
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
                // What the guest sends comes in the pieces in which it was sent.
                let _ = socket.set_nodelay(true);
                return Ok(Some(socket));
            }
            Err(error) => drop(failed.get_or_insert(error)),
        }
    }
    Err(failed.unwrap_or_else(forbidden))
}

/// Returns when the guest has closed the stream, on which it sends nothing before it has its answer.
async fn gone(stream: &mut VsockStream) {
    let mut byte = [0];
    // An error is a stream that was torn down, which is how the guest gives up.
    let _ = tokio::io::AsyncReadExt::read(stream, &mut byte).await;
}
