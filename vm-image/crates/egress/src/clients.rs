//! Connections that come from outside: containers see who it is that connects, as they would on the host itself.
//!
//! The socket is bound to an address that is not the machine's (`IP_TRANSPARENT`); a rule turns the container's answers to
//! it inwards. Where that cannot be, the machine's own address is as good: for a client whose address some network in the
//! machine has too, which would take the answers for its own.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use socket2::{Domain, SockRef, Socket, Type};
use tokio::net::{TcpSocket, TcpStream, UdpSocket};

use crate::keepalive;
use crate::link::{ADDRESS_V4, ADDRESS_V6};

/// Connects to a container. It sees `client`, if there is one and that can be. The connection ends when the container is gone.
///
/// # Errors
/// What connect(2) says.
pub async fn connect(to: SocketAddr, client: Option<SocketAddr>) -> io::Result<TcpStream> {
    let stream = connect_as(client, to).await?;
    keepalive::set(&SockRef::from(&stream))?;
    Ok(stream)
}

async fn connect_as(client: Option<SocketAddr>, to: SocketAddr) -> io::Result<TcpStream> {
    if let Some(socket) = client.and_then(|client| bound_to(client, to, Type::STREAM).ok()) {
        match TcpSocket::from_std_stream(socket.into()).connect(to).await {
            // The client uses its port again before the kernel has forgotten the connection before.
            Err(error) if is_taken(&error) => {}
            done => return done,
        }
    }
    TcpStream::connect(to).await
}

/// A socket for datagrams to and from a container. It sees `client`, if there is one and that can be.
///
/// # Errors
/// What bind(2) and connect(2) say.
pub async fn datagrams(to: SocketAddr, client: Option<SocketAddr>) -> io::Result<UdpSocket> {
    let socket = match client.and_then(|client| bound_to(client, to, Type::DGRAM).ok()) {
        Some(socket) => UdpSocket::from_std(socket.into())?,
        None => UdpSocket::bind(any(to)).await?,
    };
    socket.connect(to).await?;
    Ok(socket)
}

fn any(like: SocketAddr) -> SocketAddr {
    let any = if like.is_ipv4() { IpAddr::V4(Ipv4Addr::UNSPECIFIED) } else { Ipv6Addr::UNSPECIFIED.into() };
    SocketAddr::new(any, 0)
}

fn is_taken(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::AddrInUse | io::ErrorKind::AddrNotAvailable)
}

/// A socket with the client's address.
fn bound_to(client: SocketAddr, to: SocketAddr, kind: Type) -> io::Result<Socket> {
    if client.is_ipv4() != to.is_ipv4() || !is_outside(client)? || is_own(to)? {
        return Err(io::ErrorKind::AddrNotAvailable.into());
    }
    let socket = Socket::new(Domain::for_address(client), kind, None)?;
    match client {
        SocketAddr::V4(_) => socket.set_ip_transparent_v4(true)?,
        SocketAddr::V6(_) => socket.set_ip_transparent_v6(true)?,
    }
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&client.into())?;
    Ok(socket)
}

/// The address that the kernel would send from.
fn source_for(to: IpAddr) -> io::Result<IpAddr> {
    let to = SocketAddr::new(to, 9);
    let socket = std::net::UdpSocket::bind(any(to))?;
    socket.connect(to)?;
    Ok(socket.local_addr()?.ip())
}

/// Whether what is sent there leaves the machine, so that answers come to the rules.
fn is_outside(client: SocketAddr) -> io::Result<bool> {
    let source = source_for(client.ip())?;
    Ok(source == IpAddr::V4(ADDRESS_V4) || source == IpAddr::V6(ADDRESS_V6))
}

/// Whether it is an address of the machine itself, from which an answer would never come by way of the rules.
fn is_own(to: SocketAddr) -> io::Result<bool> {
    Ok(to.ip().is_loopback() || source_for(to.ip())? == to.ip())
}
