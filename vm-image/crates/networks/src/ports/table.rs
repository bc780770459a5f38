//! Which container holds which port. Pure: no sockets here.

use super::PublishError;
use crate::book::PortRecord;
use crate::{HostPort, PublishedPort};

/// The ports that are open or about to be.
#[derive(Debug, Default)]
pub(super) struct Table(Vec<Entry>);

#[derive(Debug)]
struct Entry {
    owner: String,
    port: PortRecord,
}

impl Table {
    /// Reserves a port; refuses what another one holds. The number 0 is held by nobody.
    pub(super) fn reserve(&mut self, owner: &str, port: &PortRecord) -> Result<(), PublishError> {
        if let Some(other) = self.0.iter().find(|entry| collide(&entry.port, port)) {
            let PublishedPort { host_ip, host_port: HostPort(host_port), .. } = other.port.published;
            return Err(PublishError::Allocated { host_ip, host_port, holder: other.owner.clone() });
        }
        self.0.push(Entry { owner: owner.to_owned(), port: port.clone() });
        Ok(())
    }

    /// Notes the number that the system chose.
    pub(super) fn set_port(&mut self, bound: &PortRecord) {
        for entry in self.0.iter_mut().filter(|entry| entry.port.key == bound.key) {
            entry.port.published.host_port = bound.published.host_port;
        }
    }

    /// Whether a port of this key is held.
    pub(super) fn holds(&self, key: &str) -> bool {
        self.0.iter().any(|entry| entry.port.key == key)
    }

    /// Gives a port back; one that nobody holds is free already.
    pub(super) fn release(&mut self, key: &str) {
        self.0.retain(|entry| entry.port.key != key);
    }
}

/// Whether two ports cannot be open at once. The families are apart: `::` does not take IPv4 connections.
fn collide(a: &PortRecord, b: &PortRecord) -> bool {
    let (a, b) = (&a.published, &b.published);
    let one_address = a.host_ip == b.host_ip
        || (a.host_ip.is_ipv4() == b.host_ip.is_ipv4()
            && (a.host_ip.is_unspecified() || b.host_ip.is_unspecified()));
    a.host_port != HostPort(0) && a.host_port == b.host_port && a.protocol == b.protocol && one_address
}

#[cfg(test)]
mod tests {
    use caisson_guest_proto::{PortForward, PortProtocol};
    use proptest::prelude::*;

    use super::*;

    fn port(key: &str, ip: &str, number: u16) -> PortRecord {
        PortRecord::of(&PortForward {
            key: key.into(),
            host_ip: ip.parse().unwrap(),
            host_port: number,
            protocol: PortProtocol::Tcp,
            target: "172.17.0.2:80".parse().unwrap(),
        })
    }

    #[test]
    fn a_port_is_held_by_one_container_and_the_refusal_is_dockerds() {
        let mut table = Table::default();
        table.reserve("web", &port("a/0", "0.0.0.0", 8080)).unwrap();
        table.reserve("web", &port("a/1", "::", 8080)).unwrap();
        // dockerd 28.5 names the address that is taken, and puts no brackets around an IPv6 one.
        for (ip, taken) in [("0.0.0.0", "0.0.0.0"), ("127.0.0.1", "0.0.0.0"), ("::1", "::")] {
            let refused = table.reserve("db", &port("b/0", ip, 8080)).unwrap_err().to_string();
            let expected =
                format!("Bind for {taken}:8080 failed: port is already allocated (held by container web)");
            assert_eq!(refused, expected);
        }
        table.reserve("db", &port("b/0", "0.0.0.0", 0)).unwrap();
        table.reserve("db", &port("b/1", "0.0.0.0", 0)).unwrap();
        table.release("a/0");
        table.reserve("db", &port("b/2", "127.0.0.1", 8080)).unwrap();
        table.reserve("db", &port("b/3", "127.0.0.2", 8080)).unwrap();
        assert!(table.reserve("db", &port("b/4", "0.0.0.0", 8080)).unwrap_err().is_taken());
    }

    proptest! {
        #[test]
        fn no_two_open_ports_collide_and_all_are_given_back(
            steps in prop::collection::vec((0usize..12, any::<bool>(), 0usize..4, 0u16..4), 1..100),
        ) {
            let mut table = Table::default();
            let mut held = std::collections::BTreeMap::new();
            for (slot, reserve, ip, number) in steps {
                let key = format!("c/{slot}");
                if reserve && !held.contains_key(&key) {
                    let wanted = port(&key, ["0.0.0.0", "127.0.0.1", "::", "::1"][ip], number);
                    let free = !held.values().any(|other| collide(other, &wanted));
                    prop_assert_eq!(table.reserve("c", &wanted).is_ok(), free);
                    if free {
                        held.insert(key, wanted);
                    }
                } else {
                    table.release(&key);
                    held.remove(&key);
                }
                prop_assert_eq!(table.0.len(), held.len());
            }
        }
    }
}
