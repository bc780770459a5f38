//! The socket of a published UDP port, whose clients are answered from the address that they asked.
//!
//! A port that is published on all addresses has many, and the system's choice among them need not be the one that a client
//! sent to. A client with a connected socket hears from that one alone.

#[cfg_attr(unix, path = "datagrams/unix.rs")]
#[cfg_attr(windows, path = "datagrams/windows.rs")]
mod imp;

use std::io;
use std::net::{IpAddr, SocketAddr};

use tokio::io::Interest;
use tokio::net::UdpSocket;

/// A UDP socket that is told at which address each datagram came in.
#[derive(Debug)]
pub struct Datagrams {
    socket: UdpSocket,
    told: imp::Told,
}

/// Who speaks to whom: one client that asks two addresses is two of these.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Ends {
    /// Who asks.
    pub client: SocketAddr,
    /// Our own address that was asked, if the system told and it is one that can answer: a group's is none.
    pub asked: Option<IpAddr>,
}

impl Datagrams {
    /// Of this socket, which is bound.
    ///
    /// # Errors
    /// What the system says if it does not tell addresses.
    pub fn new(socket: UdpSocket) -> io::Result<Self> {
        let told = imp::Told::ask(&socket)?;
        Ok(Self { socket, told })
    }

    /// Takes the next datagram: its length, and its ends. May be dropped while waiting.
    ///
    /// # Errors
    /// The socket's, which need say nothing of the next datagram.
    pub async fn receive(&self, buffer: &mut [u8]) -> io::Result<(usize, Ends)> {
        let received = || self.told.receive(&self.socket, buffer);
        let (length, client, asked) = self.socket.async_io(Interest::READABLE, received).await?;
        let asked = asked.filter(|asked| !asked.is_multicast() && !asked.is_unspecified());
        Ok((length, Ends { client, asked }))
    }

    /// Sends a datagram to a client, from the address that it asked. Where that can send nothing, since it was a broadcast's or is gone by
    /// now, the system chooses another.
    ///
    /// # Errors
    /// What the system says of the last attempt.
    pub async fn answer(&self, datagram: &[u8], ends: Ends) -> io::Result<()> {
        if ends.asked.is_some() && self.send(datagram, ends).await.is_ok() {
            return Ok(());
        }
        self.send(datagram, Ends { asked: None, ..ends }).await
    }

    async fn send(&self, datagram: &[u8], Ends { client, asked }: Ends) -> io::Result<()> {
        self.socket
            .async_io(Interest::WRITABLE, || self.told.send(&self.socket, datagram, client, asked))
            .await
    }
}

#[cfg(test)]
mod tests;
