//! Raw sockets: off, unless they are asked for.
//!
//! dockerd lets every root of a container make them, and so read and forge what its neighbours send; of old, they were a way into the
//! kernel as well (CVE-2020-14386). To take the right away would be simple, but then no program with this right on its file starts
//! (`execve(2)`, `EPERM`), such as Debian's `ping`, and busybox' `ping` finds no socket. So the right stays, and the filter of system calls
//! lets through what pings need only: raw sockets of ICMP. What one of these sends in another's name ends at the bridge, as all does.

use caisson_docker_api::container::HostConfig;
use serde::{Deserialize, Serialize};

use super::rights;
use crate::error::ApiError;

/// What becomes of a container's raw sockets.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum RawSockets {
    /// It can make them, if it has `CAP_NET_RAW`.
    #[default]
    Open,
    /// The default filter of system calls lets none through.
    Filtered,
    /// It has no `CAP_NET_RAW`: 32-bit programs of x86 make every socket by `socketcall(2)`, which a filter cannot look into.
    WithoutRight,
}

impl RawSockets {
    /// Those of a new container of an image for this architecture (in Go's words). Asking for them is to add `NET_RAW`, or the
    /// administration of the network, or everything.
    ///
    /// # Errors
    /// dockerd's, for a capability that there is not.
    pub(crate) fn of_new(host: &HostConfig, architecture: &str) -> Result<Self, ApiError> {
        let added = rights::added(host)?;
        let is_asked = added.iter().any(|name| matches!(name.as_str(), "ALL" | "NET_RAW" | "NET_ADMIN"));
        Ok(match architecture {
            _ if host.privileged || is_asked => Self::Open,
            "386" => Self::WithoutRight,
            _ => Self::Filtered,
        })
    }
}

#[cfg(test)]
mod tests {
    use caisson_docker_api::container::Strings;

    use super::*;

    #[test]
    fn they_are_open_to_those_who_ask() {
        let of = |add: &[&str], privileged, architecture| {
            let cap_add = Some(Strings(add.iter().map(|&name| name.to_owned()).collect()));
            RawSockets::of_new(&HostConfig { cap_add, privileged, ..HostConfig::default() }, architecture)
                .unwrap()
        };
        assert_eq!(of(&[], false, "amd64"), RawSockets::Filtered);
        assert_eq!(of(&["SYS_PTRACE"], false, "arm64"), RawSockets::Filtered);
        assert_eq!(of(&[], false, "386"), RawSockets::WithoutRight);
        assert_eq!(of(&[], true, "386"), RawSockets::Open);
        for name in ["NET_RAW", "cap_net_raw", "net_admin", "all"] {
            assert_eq!(of(&[name], false, "amd64"), RawSockets::Open, "{name}");
        }
    }
}
