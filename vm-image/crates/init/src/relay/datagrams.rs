//! Datagrams between one client of the host's and one address inside the machine.

use std::io;

use caisson_guest_proto::{MAX_MESSAGE, read_message, write_message};
use tokio::io::{AsyncRead, AsyncWrite, split};
use tokio::net::UdpSocket;

/// Carries datagrams until the host ends the flow.
pub(super) async fn carry(host: impl AsyncRead + AsyncWrite, container: &UdpSocket) -> io::Result<()> {
    let (mut from_host, mut to_host) = split(host);
    let inwards = async {
        let mut datagram = Vec::new();
        while read_message(&mut from_host, &mut datagram).await? {
            // A container that does not listen yet loses what is sent to it.
            let _ = container.send(&datagram).await;
        }
        Ok(())
    };
    let outwards = async {
        loop {
            container.readable().await?;
            let mut datagram = Vec::with_capacity(MAX_MESSAGE);
            // An error is nothing after all, or a container that does not listen.
            if container.try_recv_buf(&mut datagram).is_ok() {
                write_message(&mut to_host, &datagram).await?;
            }
        }
    };
    tokio::select! {
        ended = inwards => ended,
        ended = outwards => ended,
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use caisson_egress::clients;

    use super::*;

    #[tokio::test]
    async fn datagrams_go_both_ways_and_end_with_the_stream() {
        let server = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let container = clients::datagrams(server.local_addr().unwrap(), None).await.unwrap();
        let (mut near, far) = tokio::io::duplex(1 << 17);
        let carried = tokio::spawn(async move { carry(far, &container).await });
        let (mut buffer, mut answer) = (vec![0; 1 << 16], Vec::new());
        for length in [0, 1, 60_000] {
            write_message(&mut near, &vec![7; length]).await.unwrap();
            let (received, from) = server.recv_from(&mut buffer).await.unwrap();
            server.send_to(&buffer[..received], from).await.unwrap();
            assert!(read_message(&mut near, &mut answer).await.unwrap());
            assert_eq!((received, answer.len()), (length, length));
        }
        drop(near);
        carried.await.unwrap().unwrap();
    }
}
