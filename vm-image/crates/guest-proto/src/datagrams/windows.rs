//! `WSARecvMsg` and `WSASendMsg`.
#![expect(unsafe_code, reason = "fragments are known to no safe wrapper")]

use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr};
use std::os::windows::io::AsRawSocket;

use quinn_udp::{RecvMeta, Transmit, UdpSocketState};
use tokio::net::UdpSocket;
use windows::Win32::Networking::WinSock::{
    IP_DONTFRAGMENT, IPPROTO_IP, IPPROTO_IPV6, IPV6_DONTFRAG, SOCKET, WSAEOPNOTSUPP, setsockopt,
};

/// Winsock's functions for one socket, where there are any: wine has none.
#[derive(Debug)]
pub(super) struct Told(Option<UdpSocketState>);

impl Told {
    pub(super) fn ask(socket: &UdpSocket) -> io::Result<Self> {
        match UdpSocketState::new(socket.into()) {
            Ok(told) => {
                allow_fragments(socket)?;
                Ok(Self(Some(told)))
            }
            Err(error) if error.raw_os_error() == Some(WSAEOPNOTSUPP.0) => Ok(Self(None)),
            Err(error) => Err(error),
        }
    }

    /// What came, from whom, and at which address.
    pub(super) fn receive(
        &self,
        socket: &UdpSocket,
        buffer: &mut [u8],
    ) -> io::Result<(usize, SocketAddr, Option<IpAddr>)> {
        let Self(Some(state)) = self else {
            let (length, client) = socket.try_recv_from(buffer)?;
            return Ok((length, client, None));
        };
        let mut told = [RecvMeta::default()];
        // One datagram: that several are given at once has to be asked for, on Windows.
        state.recv(socket.into(), &mut [IoSliceMut::new(buffer)], &mut told)?;
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
        let Self(Some(state)) = self else { return socket.try_send_to(datagram, to).map(drop) };
        let transmit =
            Transmit { destination: to, ecn: None, contents: datagram, segment_size: None, src_ip: from };
        state.try_send(socket.into(), &transmit)
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
