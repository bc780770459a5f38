//! The system's resolver call: getaddrinfo(3) and getnameinfo(3).

use super::message::{Answer, Code, Record};
use dns_lookup::{AddrInfoHints, LookupError, LookupErrorKind, SockType, getaddrinfo};
use std::net::{IpAddr, SocketAddr};
use tokio::task::spawn_blocking;

/// `AF_INET`, the same everywhere.
const INET: i32 = 2;
/// `AF_INET6`, which every system numbers as it likes.
const INET6: i32 = match () {
    () if cfg!(windows) => 23,
    () if cfg!(target_os = "macos") => 30,
    () => 10,
};

/// The addresses of a name.
///
/// A name without such addresses is told from no name: resolvers that ask for both kinds at once take "no such name" for
/// the whole answer. Some systems' calls do not tell, so what they know of the other kind does.
pub(super) async fn addresses(name: String, ipv6: bool) -> Answer {
    if name.is_empty() {
        return Answer::of(Code::Fine);
    }
    let answer = lookup(name.clone(), ipv6).await;
    if answer.code == Code::NoSuchName && lookup(name, !ipv6).await.code == Code::Fine {
        return Answer::of(Code::Fine);
    }
    answer
}

async fn lookup(name: String, ipv6: bool) -> Answer {
    let hints = AddrInfoHints {
        socktype: SockType::Stream.into(),
        address: if ipv6 { INET6 } else { INET },
        ..AddrInfoHints::default()
    };
    let lookup = move || {
        let found = getaddrinfo(Some(&name), None, Some(hints))?;
        Ok(found.filter_map(|info| info.ok().map(|info| info.sockaddr.ip())).collect::<Vec<_>>())
    };
    let found = match spawn_blocking(lookup).await {
        Ok(Ok(found)) => found,
        Ok(Err(error)) => return failed(&error),
        Err(_) => return Answer::of(Code::Failed),
    };
    let mut records = Vec::with_capacity(found.len());
    for address in found {
        let record = Record::Address(address);
        // A file of hosts may name an address more than once.
        if address.is_ipv6() == ipv6 && !records.contains(&record) {
            records.push(record);
        }
    }
    Answer::records(records)
}

/// The name of an address.
pub(super) async fn name(address: IpAddr) -> Answer {
    let lookup = move || dns_lookup::getnameinfo(&SocketAddr::new(address, 0), NAME_REQUIRED);
    match spawn_blocking(lookup).await {
        Ok(Ok((name, _))) => Answer::records(vec![Record::Name(name)]),
        Ok(Err(error)) => failed(&error),
        Err(_) => Answer::of(Code::Failed),
    }
}

/// `NI_NAMEREQD`: no name is an error, not the address as text.
const NAME_REQUIRED: i32 = if cfg!(target_os = "linux") { 8 } else { 4 };

fn failed(error: &LookupError) -> Answer {
    Answer::of(match error.kind() {
        LookupErrorKind::NoName => Code::NoSuchName,
        LookupErrorKind::NoData => Code::Fine,
        _ if is_no_data(error) => Code::Fine,
        _ => Code::Failed,
    })
}

/// glibc tells a name without such addresses from no name by numbers of its own (`EAI_NODATA`, `EAI_ADDRFAMILY`).
fn is_no_data(error: &LookupError) -> bool {
    cfg!(target_os = "linux") && matches!(error.error_num(), -5 | -9)
}
