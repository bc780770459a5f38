//! Queries that the system's call cannot answer, asked of the name servers that the system names.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UdpSocket},
    time::timeout,
};

/// How long one server may take to answer.
const LIMIT: Duration = Duration::from_secs(4);

/// The reply of the first server that has one; `None` if there is no server or none answers.
pub(super) async fn ask(query: &[u8]) -> Option<Vec<u8>> {
    for server in caisson_os::name_servers() {
        match timeout(LIMIT, ask_one(server, query)).await {
            Ok(Ok(reply)) => return Some(reply),
            Ok(Err(error)) => tracing::debug!(%server, %error, "a name server cannot be asked"),
            Err(_) => tracing::debug!(%server, "a name server does not answer"),
        }
    }
    None
}

async fn ask_one(server: SocketAddr, query: &[u8]) -> io::Result<Vec<u8>> {
    let any = if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind(SocketAddr::new(any, 0)).await?;
    socket.connect(server).await?;
    socket.send(query).await?;
    let mut reply = vec![0; u16::MAX.into()];
    loop {
        let length = socket.recv(&mut reply).await?;
        if length >= 4 && reply[..2] == query[..2] {
            let cut = reply[2] & 0x02 != 0;
            reply.truncate(length);
            return if cut { by_tcp(server, query).await } else { Ok(reply) };
        }
    }
}

async fn by_tcp(server: SocketAddr, query: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(server).await?;
    let length = u16::try_from(query.len()).map_err(io::Error::other)?;
    stream.write_all(&[&length.to_be_bytes(), query].concat()).await?;
    let mut reply = vec![0; stream.read_u16().await?.into()];
    stream.read_exact(&mut reply).await?;
    Ok(reply)
}
