//! Datagrams between one socket of the guest's and one address.

use super::{policy::forbidden, refuse};
use caisson_guest_proto::{EgressReply, MAX_MESSAGE, read_message, write_frame, write_message};
use caisson_hypervisor::VsockStream;
use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::{Mutex, PoisonError},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, Interest, split},
    net::UdpSocket,
    time::{Instant, sleep_until},
};

/// A flow on which nothing went either way for so long ends, whatever the guest thinks of it.
const IDLE_LIMIT: Duration = Duration::from_secs(300);

pub(super) async fn serve(mut stream: VsockStream, places: &[SocketAddr]) -> io::Result<()> {
    let Some(to) = places.first() else { return refuse(stream, &forbidden()).await };
    let socket = match connect(*to).await {
        Ok(socket) => socket,
        Err(error) => return refuse(stream, &error).await,
    };
    write_frame(&mut stream, &EgressReply::Open).await.map_err(io::Error::other)?;
    carry(stream, &socket).await
}

async fn connect(to: SocketAddr) -> io::Result<UdpSocket> {
    let any = if to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind(SocketAddr::new(any, 0)).await?;
    socket.connect(to).await?;
    Ok(socket)
}

/// Carries datagrams until the guest ends the flow, or the socket tells that nobody is there: a stream that is torn down.
async fn carry(stream: VsockStream, socket: &UdpSocket) -> io::Result<()> {
    let (from_guest, to_guest) = split(stream);
    let last = Last::default();
    tokio::select! {
        ended = send(from_guest, socket, &last) => ended,
        ended = receive(socket, to_guest, &last) => ended,
        () = last.is_long_ago() => Ok(()),
    }
}

/// When something went either way.
struct Last(Mutex<Instant>);

impl Default for Last {
    fn default() -> Self {
        Self(Mutex::new(Instant::now()))
    }
}

impl Last {
    fn is_now(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    async fn is_long_ago(&self) {
        loop {
            let until = *self.0.lock().unwrap_or_else(PoisonError::into_inner) + IDLE_LIMIT;
            if until <= Instant::now() {
                return;
            }
            sleep_until(until).await;
        }
    }
}

async fn send(mut guest: impl AsyncRead + Unpin, socket: &UdpSocket, last: &Last) -> io::Result<()> {
    let mut datagram = Vec::new();
    while read_message(&mut guest, &mut datagram).await? {
        last.is_now();
        match socket.send(&datagram).await {
            Err(error) if is_refusal(&error) => return Err(error),
            // Datagrams get lost: one that is too long for the network, or one while there is no route.
            Ok(_) | Err(_) => {}
        }
    }
    Ok(())
}

async fn receive(socket: &UdpSocket, mut guest: impl AsyncWrite + Unpin, last: &Last) -> io::Result<()> {
    loop {
        // That nobody is there is an error of the socket's, not something to be read.
        let ready = socket.ready(Interest::READABLE | Interest::ERROR).await?;
        if ready.is_error()
            && let Err(error) = take_error(socket)
            && is_refusal(&error)
        {
            return Err(error);
        }
        // Only now: thousands of flows wait, and none of them is to hold a buffer for that.
        let mut datagram = Vec::with_capacity(MAX_MESSAGE);
        match socket.try_recv_buf(&mut datagram) {
            Ok(_) => {
                last.is_now();
                write_message(&mut guest, &datagram).await?;
            }
            Err(error) if is_refusal(&error) => return Err(error),
            Err(_) => {}
        }
    }
}

/// What the socket has to tell, as an error; `WouldBlock` if a send has heard it already. Through `try_io`, which tells the runtime of
/// that: else the socket would be ready for ever.
fn take_error(socket: &UdpSocket) -> io::Result<()> {
    let nothing = || io::ErrorKind::WouldBlock.into();
    socket.try_io(Interest::ERROR, || Err(socket.take_error()?.unwrap_or_else(nothing)))
}

/// Whether the other side has told that nobody is there.
fn is_refusal(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionReset)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::{advance, timeout};

    /// Windows tells a refusal to who receives, and to nobody else.
    #[cfg(unix)]
    #[test]
    fn an_error_that_a_send_has_heard_is_not_waited_on_in_a_circle() {
        let (ended, wait) = std::sync::mpsc::channel();
        // On a thread that can be left behind: one that goes in a circle never comes back to its runtime.
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let gone = UdpSocket::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
                let socket = connect(gone).await.unwrap();
                socket.send(b"?").await.unwrap();
                socket.ready(Interest::ERROR).await.unwrap();
                assert!(socket.take_error().unwrap().is_some_and(|error| is_refusal(&error)));
                let last = Last::default();
                let received = receive(&socket, tokio::io::sink(), &last);
                ended.send(timeout(Duration::from_millis(10), received).await.is_err()).unwrap();
            });
        });
        assert!(wait.recv_timeout(Duration::from_secs(60)).expect("it waits"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_flow_of_one_way_does_not_end_while_something_goes() {
        let last = Last::default();
        for _ in 0..3 {
            advance(IDLE_LIMIT - Duration::from_secs(1)).await;
            assert!(timeout(Duration::ZERO, last.is_long_ago()).await.is_err());
            last.is_now();
        }
        timeout(IDLE_LIMIT + Duration::from_secs(1), last.is_long_ago()).await.unwrap();
    }
}
