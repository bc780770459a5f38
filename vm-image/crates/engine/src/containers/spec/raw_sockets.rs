//! Raw sockets: off, unless they are asked for, but for those of ICMP.
//!
//! dockerd lets every root of a container make them, and so read what its neighbours send and speak in their names; of old, they were a
//! way into the kernel as well (CVE-2020-14386). To take the right away would be simple, but then no program with this right on its
//! file starts (`execve(2)`, `EPERM`), such as Debian's `ping`, and busybox' `ping` finds no socket. So the right stays, and the default
//! filter of system calls lets through what pings need only: raw sockets of ICMP, whose headers the kernel writes. A container can
//! still tell lies in ICMP, under its own address and on its own networks.
//!
//! As the rest of moby's filter, it does not look into `socketcall(2)`, by which 32-bit programs of x86 make all their sockets: what
//! that is to do lies in memory. Without it they had no network (moby has tried, 29.4.2, and taken it back, moby#52547). So a program
//! that means harm, and makes its calls as those do, gets past; the host's streams, which matter most, the machine keeps by the kernel
//! itself (`caisson_sys::socket_guard`).

use caisson_docker_api::container::HostConfig;

use super::rights;
use crate::error::ApiError;

/// Whether a new container is to have them: `NET_RAW`, the administration of the network, or everything is added.
///
/// # Errors
/// dockerd's, for a capability that there is not.
pub(crate) fn are_asked_for(host: &HostConfig) -> Result<bool, ApiError> {
    let added = rights::added(host)?;
    let asks = added.iter().any(|name| matches!(name.as_str(), "ALL" | "NET_RAW" | "NET_ADMIN"));
    Ok(host.privileged || asks)
}

#[cfg(test)]
mod tests {
    use caisson_docker_api::container::Strings;

    use super::*;

    #[test]
    fn they_are_open_to_those_who_ask() {
        let asked = |add: &[&str], privileged| {
            let cap_add = Some(Strings(add.iter().map(|&name| name.to_owned()).collect()));
            are_asked_for(&HostConfig { cap_add, privileged, ..HostConfig::default() }).unwrap()
        };
        assert!(!asked(&[], false) && !asked(&["SYS_PTRACE"], false) && asked(&[], true));
        for name in ["NET_RAW", "cap_net_raw", "net_admin", "all"] {
            assert!(asked(&[name], false), "{name}");
        }
    }
}
