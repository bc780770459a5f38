//! `WSARecvMsg` and `WSASendMsg`.
#![expect(unsafe_code, reason = "fragments are known to no safe wrapper")]

use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr};
use std::os::windows::io::AsRawSocket;

use quinn_udp::{RecvMeta, Transmit, UdpSocketState};
use tokio::net::UdpSocket;
use windows::Win32::Networking::WinSock::{
    IP_DONTFRAGMENT, IPPROTO_IP, IPPROTO_IPV6, IPV6_DONTFRAG, SOCKET, setsockopt,
};

/// Winsock's functions for one socket.
#[derive(Debug)]
pub(super) struct Told(UdpSocketState);

impl Told {
    pub(super) fn ask(socket: &UdpSocket) -> io::Result<Self> {
        let told = UdpSocketState::new(socket.into())?;
        allow_fragments(socket)?;
        Ok(Self(told))
    }

    /// What came, from whom, and at which address.
    pub(super) fn receive(
        &self,
        socket: &UdpSocket,
        buffer: &mut [u8],
    ) -> io::Result<(usize, SocketAddr, Option<IpAddr>)> {
        let mut told = [RecvMeta::default()];
        // One datagram: that several are given at once has to be asked for, on Windows.
        self.0.recv(socket.into(), &mut [IoSliceMut::new(buffer)], &mut told)?;
        let [RecvMeta { len, addr, dst_ip, .. }] = told;
        Ok((len, addr, dst_ip))
    }

    pub(super) fn send(
        &self,
        socket: &UdpSocket,
        datagram: &[u8],
        to: SocketAddr,
        from: Option<IpAddr>,
    ) -> io::Result<()> {
        let transmit =
            Transmit { destination: to, ecn: None, contents: datagram, segment_size: None, src_ip: from };
        self.0.try_send(socket.into(), &transmit)
    }
}

/// QUIC wants none, and the library is made for that; a large answer of a container's needs them.
fn allow_fragments(socket: &UdpSocket) -> io::Result<()> {
    let (level, option) = match socket.local_addr()? {
        SocketAddr::V4(_) => (IPPROTO_IP.0, IP_DONTFRAGMENT),
        SocketAddr::V6(_) => (IPPROTO_IPV6.0, IPV6_DONTFRAG),
    };
    let no = 0i32.to_ne_bytes();
    let raw = SOCKET(socket.as_raw_socket() as usize);
    // SAFETY: the socket is open for as long as the call takes, and the value outlives it.
    match unsafe { setsockopt(raw, level, option, Some(&no)) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
