//! Binding a port of this computer, or saying why not.

#[cfg(windows)]
mod exclusive;

use caisson_guest_proto::{PortProtocol, PublishRefused, RefusalCode, datagrams::Datagrams};
use caisson_os::{Holder, Pauses, holder_of_tcp_port};
use socket2::{Domain, Protocol, Socket, Type};
use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};
use tokio::{
    net::{TcpListener, TcpStream, UdpSocket},
    time::{sleep, timeout},
};

/// As many clients as may wait to be accepted; what the kernel cuts it down to is its own affair.
const BACKLOG: i32 = 1024;

/// A listener of this computer's takes a connection at once.
const LISTENER_ANSWERS: Duration = Duration::from_millis(200);

/// How long what an earlier listener left may be in the way, and the first of the pauses between attempts.
const LINGERS: Duration = Duration::from_secs(1);
const FIRST_PAUSE: Duration = Duration::from_millis(50);

/// `EAFNOSUPPORT`, which the standard library has no kind for: this computer has IPv6 (or IPv4) switched off.
pub(crate) const FAMILY_NOT_SUPPORTED: i32 = match () {
    () if cfg!(windows) => 10047,
    () if cfg!(target_os = "macos") => 47,
    () => 97,
};

/// A port that was bound.
#[derive(Debug)]
pub(super) enum Bound {
    /// Its clients connect.
    Tcp(TcpListener),
    /// Its clients send datagrams.
    Udp(Datagrams),
}

/// Takes a port; 0 is any free one. Gives the port that was bound.
pub(super) async fn bind(
    protocol: PortProtocol,
    ip: IpAddr,
    port: u16,
) -> Result<(Bound, u16), PublishRefused> {
    let address = SocketAddr::new(ip, port);
    let bound = match protocol {
        PortProtocol::Tcp => listen(address).await.and_then(|listener| {
            let port = listener.local_addr()?.port();
            Ok((Bound::Tcp(listener), port))
        }),
        PortProtocol::Udp => receive(address).and_then(|socket| {
            let port = socket.local_addr()?.port();
            Ok((Bound::Udp(Datagrams::new(socket)?), port))
        }),
    };
    match bound {
        Ok(bound) => Ok(bound),
        Err(error) => Err(refusal(protocol, address, &error).await),
    }
}

/// Takes a UDP port. No address is shared, so nobody else's datagrams come here and ours go nowhere else.
fn receive(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    #[cfg(windows)]
    exclusive::claim(&socket)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    UdpSocket::from_std(socket.into())
}

/// Linux keeps two listeners apart by itself, whatever the options.
async fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    if cfg!(target_os = "linux") { claim(address, Claim::AfterClose) } else { listen_alone(address).await }
}

/// For systems where addresses of one port can be shared: with the option that skips the wait after a close, macOS lets us have all
/// addresses of a port that another program has one of, and the other way round; on Windows any two programs can.
///
/// So the port is first claimed for us alone. That fails, too, while connections of an earlier listener linger, as after a
/// container's restart; then nobody listens, and the port can be had without.
async fn listen_alone(address: SocketAddr) -> io::Result<TcpListener> {
    let mut pauses = Pauses::new(FIRST_PAUSE, LINGERS);
    loop {
        let refused = match claim(address, Claim::Alone) {
            Err(error) if taken(&error) => error,
            bound => return bound,
        };
        if answers(address).await {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        match (claim(address, Claim::AfterClose), pauses.next()) {
            (Err(error), Some(pause)) if taken(&error) => sleep(pause).await,
            (Err(error), None) if taken(&error) => return Err(refused),
            (bound, _) => return bound,
        }
    }
}

/// How a port is wanted.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Claim {
    /// For one socket, on all addresses that overlap ours.
    Alone,
    /// Also where connections of an earlier listener linger.
    AfterClose,
}

fn claim(address: SocketAddr, claim: Claim) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        // `-p 80:80` asks for 0.0.0.0 and [::] one by one; a socket for both would be in the other's way.
        socket.set_only_v6(true)?;
    }
    // Windows' option of this name would let us steal the port of another program.
    #[cfg(unix)]
    socket.set_reuse_address(claim == Claim::AfterClose)?;
    #[cfg(windows)]
    if claim == Claim::Alone {
        exclusive::claim(&socket)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// Windows says of a port that somebody has for themselves alone that it is forbidden.
fn taken(error: &io::Error) -> bool {
    let kind = error.kind();
    kind == io::ErrorKind::AddrInUse || (cfg!(windows) && kind == io::ErrorKind::PermissionDenied)
}

/// Whether somebody listens there.
async fn answers(address: SocketAddr) -> bool {
    let at = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    let connected = timeout(LISTENER_ANSWERS, TcpStream::connect((at, address.port())));
    connected.await.is_ok_and(|connected| connected.is_ok())
}

async fn refusal(protocol: PortProtocol, address: SocketAddr, error: &io::Error) -> PublishRefused {
    let (code, message) = match error.kind() {
        _ if error.raw_os_error() == Some(FAMILY_NOT_SUPPORTED) => {
            let family = if address.is_ipv6() { "IPv6" } else { "IPv4" };
            (RefusalCode::NotAvailable, format!("this computer has no {family}"))
        }
        io::ErrorKind::AddrInUse => (RefusalCode::InUse, "address already in use".to_owned()),
        io::ErrorKind::PermissionDenied => (RefusalCode::NotPermitted, not_permitted(address.port())),
        io::ErrorKind::AddrNotAvailable => {
            (RefusalCode::NotAvailable, format!("this computer has no address {}", address.ip()))
        }
        _ => (RefusalCode::Other, error.to_string()),
    };
    let named = code == RefusalCode::InUse && protocol == PortProtocol::Tcp;
    let holder = if named { holder(address).await } else { None };
    PublishRefused { code, message, holder }
}

async fn holder(address: SocketAddr) -> Option<String> {
    match tokio::task::spawn_blocking(move || holder_of_tcp_port(address)).await {
        Ok(holder @ Holder::Process { .. }) => Some(holder.to_string()),
        Ok(Holder::Unknown(_)) | Err(_) => None,
    }
}

fn not_permitted(port: u16) -> String {
    match port {
        1..1024 => format!(
            "permission denied: port {port} is below 1024, which only an administrator may use; {REMEDY}"
        ),
        _ => "permission denied: the system keeps this port for itself".to_owned(),
    }
}

const REMEDY: &str = if cfg!(target_os = "linux") {
    "publish another port, or allow it with `sysctl net.ipv4.ip_unprivileged_port_start=0`"
} else {
    "publish another port"
};

#[cfg(test)]
mod tests {
    use super::*;

    const TCP: PortProtocol = PortProtocol::Tcp;

    #[tokio::test]
    async fn both_families_can_have_the_same_port() {
        let (_v4, port) = bind(TCP, "0.0.0.0".parse().unwrap(), 0).await.unwrap();
        bind(TCP, "::".parse().unwrap(), port).await.unwrap();
    }

    #[tokio::test]
    async fn a_port_in_use_is_refused_with_its_holder() {
        let other = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = other.local_addr().unwrap().port();
        let refused = bind(TCP, "127.0.0.1".parse().unwrap(), port).await.unwrap_err();
        assert_eq!((refused.code, refused.message.as_str()), (RefusalCode::InUse, "address already in use"));
        if cfg!(target_os = "linux") {
            let pid = format!("(pid {})", std::process::id());
            assert!(
                refused.holder.as_ref().is_some_and(|holder| holder.ends_with(&pid)),
                "{:?}",
                refused.holder
            );
        }
    }

    #[tokio::test]
    async fn a_listener_on_one_address_answers_for_all_and_for_that_one() {
        let other = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = other.local_addr().unwrap().port();
        for ip in ["0.0.0.0", "127.0.0.1"] {
            let address = SocketAddr::new(ip.parse().unwrap(), port);
            assert!(answers(address).await, "{ip}");
            assert_eq!(listen_alone(address).await.unwrap_err().kind(), io::ErrorKind::AddrInUse, "{ip}");
        }
        drop(other);
        assert!(!answers(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port)).await);
    }

    #[tokio::test]
    async fn a_connection_of_an_earlier_listener_is_not_in_the_way() {
        let earlier = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = earlier.local_addr().unwrap();
        let client = std::net::TcpStream::connect(address).unwrap();
        // The side that closes first keeps the port for a while.
        drop((earlier.accept().unwrap(), earlier));
        if cfg!(target_os = "linux") {
            let refused = claim(address, Claim::Alone).unwrap_err();
            assert_eq!(refused.kind(), io::ErrorKind::AddrInUse);
        }
        listen_alone(address).await.unwrap();
        drop(client);
    }

    /// On macOS and Windows two programs may otherwise share a port, and each gets some of the connections.
    #[tokio::test]
    async fn a_port_that_is_held_on_one_address_is_in_use_on_all() {
        let other = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = other.local_addr().unwrap().port();
        let refused = bind(TCP, "0.0.0.0".parse().unwrap(), port).await.unwrap_err();
        assert_eq!(refused.code, RefusalCode::InUse);
    }

    #[tokio::test]
    async fn an_address_of_another_computer_is_refused() {
        let refused = bind(TCP, "192.0.2.1".parse().unwrap(), 0).await.unwrap_err();
        assert_eq!(refused.code, RefusalCode::NotAvailable);
    }

    /// The engine goes on without `[::]` only if it is told so: `-p 8080:80` must work where there is no IPv6.
    #[tokio::test]
    async fn an_address_family_that_is_switched_off_is_not_available() {
        let no_family = Domain::from(200);
        let made = Socket::new(no_family, Type::STREAM, None);
        let error = made.expect_err("there is no such address family");
        assert_eq!(error.raw_os_error(), Some(FAMILY_NOT_SUPPORTED));
        let refused = refusal(TCP, "[::]:8080".parse().unwrap(), &error).await;
        assert_eq!(refused.code, RefusalCode::NotAvailable);
        assert_eq!(refused.message, "this computer has no IPv6");
    }
}
