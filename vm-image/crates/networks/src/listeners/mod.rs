//! Listeners of containers on the network `host`, where that is not the computer's own: in a machine.
//!
//! What such a container listens on is to be reached as if it ran on the computer that people sit at. So each of its
//! listeners on all addresses, or on a loopback one, is published on that computer's loopback addresses, under the same
//! number, by the way of all published ports; it is not told as published, since nobody asked for it to be.
//!
//! ```text
//! container: listen(0.0.0.0:8080) --> seen by `sockets`, its cgroup is a container's --> PORTS: 127.0.0.1:8080
//! ```
//!
//! Whose a listener is, is known by the cgroup in which it was made: listeners of the machine itself are none of the
//! computer's business. The kernel has no event for a new listener, so it is asked, [every so often](EVERY), while a
//! container is on that network, and never else. A listener that the computer has no room for is tried again from time
//! to time. When a listener is closed, who has come through it stays, as on a real host: a connection is its program's,
//! and ends with it.

mod refused;

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::Duration;

use caisson_guest_proto::{PortForward, PortProtocol};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep};
use tracing::{debug, warn};

use crate::Networks;
use crate::book::SandboxRecord;
use crate::networks::{Shared, blocking};
use crate::sockets::{self, Socket};
use refused::Refused;

/// How often the kernel is asked while a container is on the network `host`.
const EVERY: Duration = Duration::from_millis(250);

/// What containers listen on, by container.
type Found = BTreeMap<String, Vec<PortForward>>;

/// Keeps the computer's ports in step with the listeners, for as long as there are networks.
pub(crate) async fn follow(shared: Weak<Shared>, changed: Arc<Notify>) {
    let mut refused = Refused::default();
    loop {
        let Some(shared) = shared.upgrade() else { return };
        let networks = Networks { shared };
        if !networks.follow_listeners(&mut refused).await {
            drop(networks);
            changed.notified().await;
            continue;
        }
        drop(networks);
        tokio::select! {
            () = changed.notified() => {}
            () = sleep(EVERY) => {}
        }
    }
}

impl SandboxRecord {
    /// The cgroup of a container whose listeners are followed.
    fn followed(&self) -> Option<&Path> {
        self.netns.is_none().then_some(self.cgroup.as_deref()).flatten()
    }
}

impl Networks {
    /// Once. Whether there is anybody to follow.
    async fn follow_listeners(&self, refused: &mut Refused) -> bool {
        let followed: Vec<(String, PathBuf)> = {
            let book = self.shared.book();
            let followed =
                book.sandboxes().filter_map(|s| Some((s.container.clone(), s.followed()?.to_owned())));
            followed.collect()
        };
        if followed.is_empty() {
            *refused = Refused::default();
            return false;
        }
        let containers: Vec<String> = followed.iter().map(|(container, _)| container.clone()).collect();
        match blocking(move || listeners(&followed)).await {
            Ok(mut found) => {
                let present = found.values().flatten().map(|forward| forward.key.as_str()).collect();
                refused.keep(&present);
                for container in containers {
                    let wanted = found.remove(&container).unwrap_or_default();
                    self.follow_container(&container, wanted, refused).await;
                }
            }
            Err(error) => debug!(%error, "the kernel does not tell what listens"),
        }
        true
    }

    async fn follow_container(&self, container: &str, wanted: Vec<PortForward>, refused: &mut Refused) {
        let now = Instant::now();
        let is_new = |record: &SandboxRecord, forward: &PortForward| {
            !record.listeners.iter().any(|known| known.key == forward.key)
                && !refused.rests(&forward.key, now)
        };
        let is_due = |record: &SandboxRecord| {
            let gone = record.listeners.iter().any(|known| !wanted.iter().any(|w| w.key == known.key));
            gone || wanted.iter().any(|forward| is_new(record, forward))
        };
        if !self.shared.book().sandbox(container).is_some_and(is_due) {
            return;
        }
        let _turn = self.shared.turns.take(container).await;
        // It may have been detached meanwhile.
        let Some(mut record) = self.shared.book().sandbox(container).cloned() else { return };
        let (open, gone): (Vec<_>, Vec<_>) =
            record.listeners.iter().cloned().partition(|known| wanted.iter().any(|w| w.key == known.key));
        let new: Vec<PortForward> = wanted.into_iter().filter(|forward| is_new(&record, forward)).collect();
        self.shared.ports.retire(&gone).await;
        record.listeners = open;
        for forward in new {
            let (key, at) = (forward.key.clone(), SocketAddr::new(forward.host_ip, forward.host_port));
            match self.shared.ports.open_one(&record.name, forward).await {
                Ok(opened) => {
                    refused.forget(&key);
                    record.listeners.push(opened);
                }
                Err(error) => {
                    let is_news = refused.note(&key, &error.to_string(), Instant::now());
                    // A computer without IPv6 misses nothing.
                    if is_news && !error.is_unavailable() {
                        warn!(container, %at, %error, "what a container listens on is not reachable from this computer");
                    }
                }
            }
        }
        let shared = self.shared.clone();
        let recorded = blocking(move || shared.pen().put(record)).await;
        if let Err(error) = recorded {
            warn!(container, %error, "a killed engine will not know what this container listens on");
        }
    }
}

/// What the containers in these cgroups listen on. Blocks for the kernel.
fn listeners(followed: &[(String, PathBuf)]) -> std::io::Result<Found> {
    let mut cgroups = HashMap::new();
    for (container, cgroup) in followed {
        add_cgroups(cgroup, container, &mut cgroups);
    }
    let mut found = Found::new();
    for socket in sockets::waiting()? {
        let Some(container) = cgroups.get(&socket.cgroup) else { continue };
        let forwards = found.entry((*container).to_owned()).or_default();
        for forward in forwards_of(container, &socket) {
            // Several sockets may share a number.
            if !forwards.iter().any(|known: &PortForward| known.key == forward.key) {
                forwards.push(forward);
            }
        }
    }
    Ok(found)
}

/// A cgroup's id is its directory's number; a container may have made more below its own.
fn add_cgroups<'a>(directory: &Path, container: &'a str, into: &mut HashMap<u64, &'a str>) {
    // One that is gone has no sockets.
    let Ok(metadata) = std::fs::metadata(directory) else { return };
    into.insert(metadata.ino(), container);
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            add_cgroups(&entry.path(), container, into);
        }
    }
}

/// How a socket is reached from the computer's loopback addresses; not at all if it listens on another one only.
fn forwards_of(container: &str, socket: &Socket) -> Vec<PortForward> {
    let (v4, v6) = (IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST));
    let targets: &[IpAddr] = match socket.address {
        IpAddr::V4(any) if any.is_unspecified() => &[v4],
        IpAddr::V6(any) if any.is_unspecified() && socket.v6_only => &[v6],
        IpAddr::V6(any) if any.is_unspecified() => &[v4, v6],
        IpAddr::V4(one) if one.is_loopback() => &[socket.address],
        IpAddr::V6(one) if one.is_loopback() => &[socket.address],
        _ => &[],
    };
    let forward = |target: &IpAddr| PortForward {
        key: key(container, socket.protocol, target.is_ipv4(), socket.port),
        host_ip: if target.is_ipv4() { v4 } else { v6 },
        host_port: socket.port,
        protocol: socket.protocol,
        target: SocketAddr::new(*target, socket.port),
    };
    targets.iter().map(forward).collect()
}

fn key(container: &str, protocol: PortProtocol, ipv4: bool, port: u16) -> String {
    format!("{container}/{protocol}{}/{port}", if ipv4 { 4 } else { 6 })
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, UdpSocket};

    use super::*;

    fn socket(address: &str, v6_only: bool) -> Socket {
        let (protocol, address) = (PortProtocol::Tcp, address.parse().unwrap());
        Socket { protocol, address, port: 80, v6_only, cgroup: 1 }
    }

    #[test]
    fn only_what_listens_to_loopback_is_led_there() {
        for (address, v6_only, expected) in [
            ("0.0.0.0", false, vec!["127.0.0.1:80 -> 127.0.0.1:80"]),
            ("::", false, vec!["127.0.0.1:80 -> 127.0.0.1:80", "[::1]:80 -> [::1]:80"]),
            ("::", true, vec!["[::1]:80 -> [::1]:80"]),
            ("127.0.0.53", false, vec!["127.0.0.1:80 -> 127.0.0.53:80"]),
            ("::1", false, vec!["[::1]:80 -> [::1]:80"]),
            ("172.17.0.1", false, vec![]),
            ("fd00::1", false, vec![]),
        ] {
            let told = |forward: &PortForward| {
                format!("{} -> {}", SocketAddr::new(forward.host_ip, forward.host_port), forward.target)
            };
            let forwards = forwards_of("c", &socket(address, v6_only));
            assert_eq!(forwards.iter().map(told).collect::<Vec<_>>(), expected, "{address}");
        }
    }

    /// The cgroup of this process. Cgroups of version 2 are mounted for it, since some systems show those of version 1 only;
    /// not before that does the kernel tell of them.
    fn own_cgroup(at: &Path) -> PathBuf {
        rustix::mount::mount("none", at, "cgroup2", rustix::mount::MountFlags::empty(), None).unwrap();
        let text = std::fs::read_to_string("/proc/self/cgroup").unwrap();
        let path = text.lines().find_map(|line| line.strip_prefix("0::/")).unwrap();
        at.join(path)
    }

    #[test]
    fn a_listener_is_known_by_its_cgroup() {
        caisson_sys::netns::isolated(|| {
            let dir = tempfile::tempdir().unwrap();
            let cgroup = own_cgroup(dir.path());
            let mut netlink = crate::netlink::Netlink::open().unwrap();
            netlink.batch(vec![crate::netlink::set_up(1)]).unwrap();
            let tcp = TcpListener::bind("0.0.0.0:0").unwrap();
            let port = tcp.local_addr().unwrap().port();
            let _server = UdpSocket::bind("127.0.0.1:53").unwrap();
            let _client = UdpSocket::bind("0.0.0.0:0").unwrap();
            let found = listeners(&[("mine".into(), cgroup.clone())]).unwrap();
            let mut keys: Vec<&str> = found["mine"].iter().map(|forward| forward.key.as_str()).collect();
            keys.sort_unstable();
            assert_eq!(keys, [format!("mine/tcp4/{port}").as_str(), "mine/udp4/53"]);
            drop(tcp);
            let found = listeners(&[("mine".into(), cgroup)]).unwrap();
            assert_eq!(found["mine"].len(), 1);
            assert!(listeners(&[("other".into(), "/none".into())]).unwrap().is_empty());
            rustix::mount::unmount(dir.path(), rustix::mount::UnmountFlags::DETACH).unwrap();
        });
    }
}
