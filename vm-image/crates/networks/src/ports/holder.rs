//! Which process listens on a port of this system: what the kernel's tables say, then who has that socket open.
//!
//! See `proc_net_tcp` in the kernel's documentation for the tables.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;

use caisson_guest_proto::PortProtocol;

/// `TCP_LISTEN` of `net/tcp_states.h`, as the tables write it.
const LISTEN: &str = "0A";

/// `TCP_CLOSE`, which is what they write for a UDP socket without a peer.
const UNCONNECTED: &str = "07";

/// The process that listens where `wanted` would: `nginx (pid 123)`. `None` when the system does not tell.
///
/// Reads all of `/proc`: not for an async worker.
pub(super) fn find(wanted: SocketAddr, protocol: PortProtocol) -> Option<String> {
    // The calling thread's namespace, which need not be that of the process's first thread.
    let (tables, state) = match protocol {
        PortProtocol::Tcp => (["/proc/thread-self/net/tcp", "/proc/thread-self/net/tcp6"], LISTEN),
        PortProtocol::Udp => (["/proc/thread-self/net/udp", "/proc/thread-self/net/udp6"], UNCONNECTED),
    };
    let tables = tables.iter().filter_map(|table| fs::read_to_string(table).ok());
    let inode = tables.filter_map(|table| listener(&table, wanted, state)).next()?;
    owner(Path::new("/proc"), &format!("socket:[{inode}]"))
}

/// The inode of the socket that listens on an address which collides with `wanted`.
fn listener(table: &str, wanted: SocketAddr, wanted_state: &str) -> Option<u64> {
    table.lines().skip(1).find_map(|line| {
        let mut fields = line.split_ascii_whitespace();
        let local = parse_address(fields.nth(1)?)?;
        let state = fields.nth(1)?;
        let inode = fields.nth(5)?;
        (state == wanted_state && collides(local, wanted)).then(|| inode.parse().ok())?
    })
}

fn collides(local: SocketAddr, wanted: SocketAddr) -> bool {
    let both_families = local.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED);
    let family = both_families || local.is_ipv4() == wanted.is_ipv4();
    let (a, b) = (local.ip(), wanted.ip());
    local.port() == wanted.port() && family && (a == b || a.is_unspecified() || b.is_unspecified())
}

/// `0100007F:1F90`: the address as native-endian words, the port as a number.
fn parse_address(text: &str) -> Option<SocketAddr> {
    let (address, port) = text.split_once(':')?;
    let word = |text: &str| u32::from_str_radix(text, 16).map(u32::to_ne_bytes).ok();
    let ip = match address.len() {
        8 => IpAddr::V4(Ipv4Addr::from(word(address)?)),
        32 => {
            let words = [
                word(&address[..8])?,
                word(&address[8..16])?,
                word(&address[16..24])?,
                word(&address[24..])?,
            ];
            let octets: [u8; 16] = words.concat().try_into().ok()?;
            let v6 = Ipv6Addr::from(octets);
            v6.to_ipv4_mapped().map_or(IpAddr::V6(v6), IpAddr::V4)
        }
        _ => return None,
    };
    Some(SocketAddr::new(ip, u16::from_str_radix(port, 16).ok()?))
}

/// The first process that has this socket open.
fn owner(proc: &Path, socket: &str) -> Option<String> {
    fs::read_dir(proc).ok()?.flatten().find_map(|entry| {
        let pid = entry.file_name().to_str()?.parse::<u32>().ok()?;
        let has_it = |fd: fs::DirEntry| fs::read_link(fd.path()).is_ok_and(|link| link == Path::new(socket));
        fs::read_dir(entry.path().join("fd")).ok()?.flatten().any(has_it).then_some(())?;
        let name = fs::read_to_string(entry.path().join("comm")).ok()?;
        Some(format!("{} (pid {pid})", name.trim_end()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1 0 100 0 0 10 0
   1: 00000000:0050 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4712 1 0 100 0 0 10 0
   2: 0100007F:0016 0100007F:C000 01 00000000:00000000 00:00000000 00000000     0        0 4713 1 0 20 4 0 10 -1
";
    const TABLE6: &str = "\
  sl  local_address                         remote_address                        st
   0: 00000000000000000000000000000000:0050 00000000000000000000000000000000:0000 0A 0:0 00:0 0 0 0 4714 1 0
   1: 0000000000000000FFFF00000100007F:1F91 00000000000000000000000000000000:0000 0A 0:0 00:0 0 0 0 4715 1 0
";

    #[test]
    #[cfg(target_endian = "little")]
    fn the_listener_that_is_in_the_way_is_found() {
        let found = |table: &str, wanted: &str| listener(table, wanted.parse().unwrap(), LISTEN);
        assert_eq!(found(TABLE, "127.0.0.1:8080"), Some(4711));
        assert_eq!(found(TABLE, "0.0.0.0:8080"), Some(4711));
        assert_eq!(found(TABLE, "127.0.0.2:8080"), None);
        assert_eq!(found(TABLE, "10.0.0.1:80"), Some(4712));
        assert_eq!(found(TABLE, "[::1]:80"), None);
        assert_eq!(found(TABLE, "0.0.0.0:22"), None, "a connection is no listener");
        assert_eq!(found(TABLE6, "0.0.0.0:80"), Some(4714), "an IPv6 listener may take IPv4, too");
        assert_eq!(found(TABLE6, "127.0.0.1:8081"), Some(4715));
    }

    #[test]
    fn a_listener_of_this_process_is_named() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let holder = find(listener.local_addr().unwrap(), PortProtocol::Tcp).unwrap();
        assert!(holder.ends_with(&format!(" (pid {})", std::process::id())), "{holder}");
    }
}
