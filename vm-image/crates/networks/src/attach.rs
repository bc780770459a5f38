//! Making a sandbox.
//!
//! In this order: an address is granted and the sandbox goes on record; namespace; device, address, routes; ports. What
//! fails is undone in reverse by the same code that detaches.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

use caisson_sys::netns::{self, Netns};

use crate::book::{EndpointRecord, NetworkRecord, SandboxRecord};
use crate::drivers::DriverError;
use crate::netlink::{self, Netlink};
use crate::networks::{Shared, blocking};
use crate::ports::Owner;
use crate::{AttachError, AttachRequest, Endpoint, EndpointLink, Mac, Networks, Sandbox, ids, ipam};

/// Devices that appear later in a namespace have IPv6 off: they get no IPv6 address, so they must not make one up.
const IPV6_DEFAULT: &str = "/proc/sys/net/ipv6/conf/default/disable_ipv6";

/// The index of the loopback device, the first in every namespace.
const LOOPBACK: u32 = 1;

impl Networks {
    /// Makes a container's sandbox: namespace, device, address, routes; its ports are bound when this returns.
    ///
    /// On failure everything is undone before this returns. It runs to its end even if the future is dropped: then a
    /// [`detach`](Self::detach) is what undoes it.
    pub async fn attach(&self, request: AttachRequest) -> Result<Sandbox, AttachError> {
        let this = self.clone();
        match tokio::spawn(async move { this.attach_whole(request).await }).await {
            Ok(attached) => attached,
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        }
    }

    async fn attach_whole(&self, request: AttachRequest) -> Result<Sandbox, AttachError> {
        let _turn = self.shared.turns.take(&request.container).await;
        let this = self.clone();
        let (record, request) =
            blocking(move || this.connect(&request).map(|record| (record, request))).await?;
        match self.publish(&record, &request).await {
            Ok(sandbox) => Ok(sandbox),
            Err(error) => {
                self.undo(&request.container).await;
                Err(error)
            }
        }
    }

    /// Everything but the ports.
    fn connect(&self, request: &AttachRequest) -> Result<SandboxRecord, AttachError> {
        let record = self.shared.grant(request)?;
        let connected = self.shared.make_namespace(&record).and_then(|namespace| match namespace {
            Some((netns, inside)) => self.shared.join(&record, &netns, inside),
            None => Ok(()),
        });
        match connected {
            Ok(()) => Ok(record),
            Err(error) => {
                self.shared.remove_now(&record);
                Err(error)
            }
        }
    }

    async fn publish(&self, record: &SandboxRecord, request: &AttachRequest) -> Result<Sandbox, AttachError> {
        let mut record = record.clone();
        let Some((endpoint, address)) = record.reachable() else { return Ok(record.sandbox()) };
        if request.ports.is_empty() {
            return Ok(record.sandbox());
        }
        let owner = Owner { container: &record.container, name: &record.name, address };
        let ports =
            self.shared.ports.open(owner, &request.ports).await.map_err(|source| AttachError::Publish {
                name: record.name.clone(),
                endpoint_id: endpoint.endpoint_id.clone(),
                source,
            })?;
        record.ports = ports;
        let this = self.clone();
        let (record, recorded) = blocking(move || (record.clone(), this.shared.book().put(record))).await;
        match recorded {
            Ok(()) => Ok(record.sandbox()),
            Err(source) => {
                self.shared.ports.close(&record.ports).await;
                Err(AttachError::Record { container: record.container, source })
            }
        }
    }
}

impl SandboxRecord {
    /// The endpoint to which published ports lead, and its address.
    pub(crate) fn reachable(&self) -> Option<(&Endpoint, IpAddr)> {
        self.endpoints.iter().find_map(|record| {
            let link = record.endpoint.link.as_ref()?;
            Some((&record.endpoint, IpAddr::V4(link.address)))
        })
    }
}

impl Shared {
    /// Makes what the network's endpoints share, grants an address and puts the sandbox on record.
    fn grant(&self, request: &AttachRequest) -> Result<SandboxRecord, AttachError> {
        check_id(&request.container)?;
        let (mut network, in_use) = self.look_up(request)?;
        let driver = self.drivers.of(&network);
        let failed = |source: DriverError| AttachError::Endpoint {
            name: request.name.clone(),
            network: request.mode.network().to_owned(),
            source,
        };
        // These wait for the kernel; the book is for others meanwhile.
        network.ipam = driver.prepare(&network, in_use).map_err(failed)?;
        let device = driver.new_device().map_err(failed)?;
        let features = driver.features();
        let netns = features.namespace.then(|| self.netns_dir.join(ids::short_id()));

        let mut book = self.book();
        let link =
            if features.address { Some(next_link(&network, &book.granted(&network.id))?) } else { None };
        let endpoint = Endpoint {
            network: network.name.clone(),
            network_id: network.id,
            endpoint_id: ids::new_id(),
            link,
        };
        let record = SandboxRecord {
            container: request.container.clone(),
            name: request.name.clone(),
            netns,
            endpoints: vec![EndpointRecord { endpoint, device }],
            ports: Vec::new(),
        };
        let recorded = book.set_ipam(&network.name, network.ipam).and_then(|()| book.put(record.clone()));
        recorded.map_err(|source| AttachError::Record { container: request.container.clone(), source })?;
        Ok(record)
    }

    /// The network that is to be joined, and whether addresses of it are granted.
    fn look_up(&self, request: &AttachRequest) -> Result<(NetworkRecord, bool), AttachError> {
        let book = self.book();
        if book.sandbox(&request.container).is_some() {
            return Err(AttachError::Attached(request.container.clone()));
        }
        let network = book.network(request.mode.network()).cloned();
        let network = network.expect("the built-in networks are always on record");
        let in_use = !book.granted(&network.id).is_empty();
        Ok((network, in_use))
    }

    /// `None` for a container in the engine's own.
    fn make_namespace(&self, record: &SandboxRecord) -> Result<Option<(Netns, Netlink)>, AttachError> {
        let Some(path) = &record.netns else { return Ok(None) };
        let made = netns::create(path, || {
            let mut netlink = Netlink::open()?;
            netlink.batch(vec![netlink::set_up(LOOPBACK)]).map_err(io::Error::other)?;
            turn_off(Path::new(IPV6_DEFAULT))?;
            Ok(netlink)
        });
        made.map(Some)
            .map_err(|source| AttachError::Namespace { container: record.container.clone(), source })
    }

    fn join(&self, record: &SandboxRecord, netns: &Netns, mut inside: Netlink) -> Result<(), AttachError> {
        for endpoint in &record.endpoints {
            let network = self.network_of(endpoint);
            let joined = self.drivers.of(&network).join(&network, endpoint, netns, &mut inside);
            joined.map_err(|source| AttachError::Endpoint {
                name: record.name.clone(),
                network: network.name,
                source,
            })?;
        }
        Ok(())
    }
}

/// The next free address of a network, as an endpoint has it.
fn next_link(network: &NetworkRecord, granted: &BTreeSet<Ipv4Addr>) -> Result<EndpointLink, AttachError> {
    let free = network.ipam.and_then(|ipam| Some((ipam, ipam::next_free(&ipam, granted)?)));
    let (ipam, address) = free.ok_or_else(|| AttachError::NoAddress {
        network: network.name.clone(),
        network_id: network.id.clone(),
    })?;
    Ok(EndpointLink { mac: Mac::of(address), address, prefix: ipam.subnet.prefix(), gateway: ipam.gateway })
}

/// A container's id becomes the name of a file.
fn check_id(container: &str) -> Result<(), AttachError> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
    if !container.is_empty() && !container.starts_with('.') && container.bytes().all(plain) {
        Ok(())
    } else {
        Err(AttachError::InvalidContainer(container.to_owned()))
    }
}

/// Sets a switch that a kernel without IPv6 does not have.
fn turn_off(switch: &Path) -> io::Result<()> {
    match fs::write(switch, "1") {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
