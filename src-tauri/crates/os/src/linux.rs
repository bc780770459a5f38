//! Linux.

use crate::{Endpoint, Holder};
use directories::ProjectDirs;
use std::{
    env, fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

pub(crate) use crate::unix::{
    detach_from_terminal, docker_host, is_private, make_private, name_servers, program, raise_file_limit,
    silence_output, spawn_detached,
};

/// The state of a listening socket in `/proc/net/tcp` (`TCP_LISTEN` in the kernel's `net/tcp_states.h`).
const LISTEN: &str = "0A";

pub(crate) fn logs_dir(project: &ProjectDirs) -> PathBuf {
    project.state_dir().unwrap_or(project.data_local_dir()).join("logs")
}

/// `$XDG_RUNTIME_DIR`, or where it would be, if it is there; root in a container or a rescue shell has neither.
pub(crate) fn runtime_dir(project: &ProjectDirs) -> PathBuf {
    let named = env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|dir| dir.is_absolute());
    let base = named.or_else(|| {
        let uid = rustix::process::geteuid().as_raw();
        let usual = PathBuf::from(format!("/run/user/{uid}"));
        fs::metadata(&usual).is_ok_and(|meta| meta.is_dir() && meta.uid() == uid).then_some(usual)
    });
    base.map_or_else(|| project.data_local_dir().join("run"), |base| base.join("caisson"))
}

pub(crate) fn docker_endpoint(runtime: &Path) -> Endpoint {
    Endpoint::new(runtime.join("docker.sock"))
}

pub(crate) fn daemon_endpoint(runtime: &Path) -> Endpoint {
    Endpoint::new(runtime.join("caisson-host.sock"))
}

/// Looks the listener up in `/proc/net`, then who has its socket open; other users' processes do not show that.
pub(crate) fn holder_of_tcp_port(address: SocketAddr) -> Holder {
    let inodes = listeners(address);
    if inodes.is_empty() {
        return Holder::Unknown("nothing listens there any more");
    }
    process_with_socket(&inodes).unwrap_or(Holder::Unknown("it belongs to another user"))
}

/// The inodes of the sockets that would be in the way of listening on `address`.
fn listeners(address: SocketAddr) -> Vec<u64> {
    ["/proc/net/tcp", "/proc/net/tcp6"]
        .iter()
        .filter_map(|table| fs::read_to_string(table).ok())
        .flat_map(|table| table.lines().filter_map(|line| blocking_inode(line, address)).collect::<Vec<_>>())
        .collect()
}

/// The inode of the socket in this line of `/proc/net/tcp`, if it listens where `address` would (see proc(5)).
fn blocking_inode(line: &str, address: SocketAddr) -> Option<u64> {
    let mut fields = line.split_ascii_whitespace().skip(1);
    let (ip, port) = parse_address(fields.next()?)?;
    let state = fields.nth(1)?;
    let inode = fields.nth(5)?.parse().ok()?;
    (state == LISTEN && port == address.port() && in_the_way(ip, address.ip())).then_some(inode)
}

/// Whether a listener on `theirs` keeps `ours` from being bound: same address, or either of them is all addresses. An
/// IPv6 listener on all addresses mostly takes IPv4's as well.
fn in_the_way(theirs: IpAddr, ours: IpAddr) -> bool {
    let same_family = theirs.is_ipv4() == ours.is_ipv4();
    let theirs_is_dual = theirs == IpAddr::V6(Ipv6Addr::UNSPECIFIED);
    theirs.to_canonical() == ours.to_canonical()
        || theirs_is_dual
        || (same_family && (theirs.is_unspecified() || ours.is_unspecified()))
}

/// `0100007F:1F90`: each 32-bit word of the address as the computer keeps it, then the port.
fn parse_address(text: &str) -> Option<(IpAddr, u16)> {
    let (ip, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let words: Vec<[u8; 4]> = ip
        .as_bytes()
        .chunks(8)
        .map(|word| u32::from_str_radix(std::str::from_utf8(word).ok()?, 16).ok().map(u32::to_ne_bytes))
        .collect::<Option<_>>()?;
    let ip = match words.as_slice() {
        [v4] => IpAddr::V4(Ipv4Addr::from(*v4)),
        [_, _, _, _] => IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(words.concat()).ok()?)),
        _ => return None,
    };
    Some((ip, port))
}

fn process_with_socket(inodes: &[u64]) -> Option<Holder> {
    let wanted: Vec<PathBuf> = inodes.iter().map(|inode| format!("socket:[{inode}]").into()).collect();
    fs::read_dir("/proc").ok()?.flatten().find_map(|entry| {
        let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
        let mut files = fs::read_dir(entry.path().join("fd")).ok()?.flatten();
        files.find(|file| fs::read_link(file.path()).is_ok_and(|link| wanted.contains(&link)))?;
        let name = fs::read_to_string(entry.path().join("comm")).ok()?.trim_end().to_owned();
        Some(Holder::Process { name, pid })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn lines_of_proc_net_tcp_are_read_as_the_kernel_writes_them() {
        let line = "   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 51234 1 0";
        let at = |text: &str| blocking_inode(line, text.parse().unwrap());
        assert_eq!(at("127.0.0.1:8080"), Some(51234));
        assert_eq!(at("0.0.0.0:8080"), Some(51234));
        assert_eq!(at("127.0.0.1:8081"), None);
        assert_eq!(at("127.0.0.2:8080"), None);
        assert_eq!(blocking_inode(&line.replace(" 0A ", " 01 "), "127.0.0.1:8080".parse().unwrap()), None);
        let v6 = parse_address("00000000000000000000000001000000:0050").unwrap();
        assert_eq!(v6, (IpAddr::V6(Ipv6Addr::LOCALHOST), 80));
    }

    #[test]
    fn the_holder_of_a_port_is_named() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let Holder::Process { name, pid } = holder_of_tcp_port(listener.local_addr().unwrap()) else {
            panic!("this very process holds it");
        };
        assert_eq!(pid, std::process::id());
        assert!(!name.is_empty());
    }
}
