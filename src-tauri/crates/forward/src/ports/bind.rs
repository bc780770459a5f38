//! Binding a port of this computer, or saying why not.

use caisson_guest_proto::{PublishRefused, RefusalCode};
use caisson_os::{Holder, holder_of_tcp_port};
use socket2::{Domain, Protocol, Socket, Type};
use std::{
    io,
    net::{IpAddr, SocketAddr},
};
use tokio::net::TcpListener;

/// As many clients as may wait to be accepted; what the kernel cuts it down to is its own affair.
const BACKLOG: i32 = 1024;

/// `EAFNOSUPPORT`, which the standard library has no kind for: this computer has IPv6 (or IPv4) switched off.
const FAMILY_NOT_SUPPORTED: i32 = match () {
    () if cfg!(windows) => 10047,
    () if cfg!(target_os = "macos") => 47,
    () => 97,
};

/// Listens on a TCP port; 0 is any free one. Gives the port that was bound.
pub(super) async fn bind(ip: IpAddr, port: u16) -> Result<(TcpListener, u16), PublishRefused> {
    let address = SocketAddr::new(ip, port);
    let bound = listen(address).and_then(|listener| {
        let port = listener.local_addr()?.port();
        Ok((listener, port))
    });
    match bound {
        Ok(bound) => Ok(bound),
        Err(error) => Err(refusal(address, &error).await),
    }
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        // `-p 80:80` asks for 0.0.0.0 and [::] one by one; a socket for both would be in the other's way.
        socket.set_only_v6(true)?;
    }
    // On unix this only skips the wait after a close; on Windows it would let us steal the port of another program.
    socket.set_reuse_address(cfg!(unix))?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

async fn refusal(address: SocketAddr, error: &io::Error) -> PublishRefused {
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
    let holder = if code == RefusalCode::InUse { holder(address).await } else { None };
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

    #[tokio::test]
    async fn both_families_can_have_the_same_port() {
        let (_v4, port) = bind("0.0.0.0".parse().unwrap(), 0).await.unwrap();
        bind("::".parse().unwrap(), port).await.unwrap();
    }

    #[tokio::test]
    async fn a_port_in_use_is_refused_with_its_holder() {
        let other = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = other.local_addr().unwrap().port();
        let refused = bind("127.0.0.1".parse().unwrap(), port).await.unwrap_err();
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
    async fn an_address_of_another_computer_is_refused() {
        let refused = bind("192.0.2.1".parse().unwrap(), 0).await.unwrap_err();
        assert_eq!(refused.code, RefusalCode::NotAvailable);
    }

    /// The engine goes on without `[::]` only if it is told so: `-p 8080:80` must work where there is no IPv6.
    #[tokio::test]
    async fn an_address_family_that_is_switched_off_is_not_available() {
        let no_family = Domain::from(200);
        let made = Socket::new(no_family, Type::STREAM, None);
        let error = made.expect_err("there is no such address family");
        assert_eq!(error.raw_os_error(), Some(FAMILY_NOT_SUPPORTED));
        let refused = refusal("[::]:8080".parse().unwrap(), &error).await;
        assert_eq!(refused.code, RefusalCode::NotAvailable);
        assert_eq!(refused.message, "this computer has no IPv6");
    }
}
