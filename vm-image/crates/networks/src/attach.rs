//! Making a sandbox.
//!
//! In this order: addresses are granted and the sandbox goes on record; namespace; devices, addresses, routes; ports.
//! What fails is undone in reverse by the same code that detaches.

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use caisson_sys::netns::{self, Netns};

use crate::book::SandboxRecord;
use crate::drivers::DriverError;
use crate::netlink::{self, Netlink};
use crate::networks::{Shared, blocking};
use crate::{AttachError, AttachRequest, Endpoint, Networks, Sandbox, ids};

/// Devices that appear later in a namespace have IPv6 off until they get an IPv6 address: they must not make one up.
const IPV6_DEFAULT: &str = "/proc/sys/net/ipv6/conf/default/disable_ipv6";

/// The index of the loopback device, the first in every namespace.
const LOOPBACK: u32 = 1;

impl Networks {
    /// Makes a container's sandbox: namespace, devices, addresses, routes; its ports are bound when this returns.
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
        let record = blocking(move || this.shared.connect(request)).await?;
        let container = record.container.clone();
        match self.open_up(record).await {
            Ok(record) => {
                self.shared.listeners_changed.notify_one();
                Ok(record.sandbox())
            }
            Err(error) => {
                self.undo(&container).await;
                Err(error)
            }
        }
    }

    /// What follows once the sandbox is connected: names, and ports.
    async fn open_up(&self, record: SandboxRecord) -> Result<SandboxRecord, AttachError> {
        self.answer_names(&record).await?;
        self.publish(record).await
    }

    /// Sees to it that a container which is to be answered is.
    pub(crate) async fn answer_names(&self, record: &SandboxRecord) -> Result<(), AttachError> {
        let resolvers = &self.shared.resolvers;
        let Some(netns) = record.netns.clone() else { return Ok(()) };
        if !record.has_resolver() || resolvers.serves(&record.container) {
            return Ok(());
        }
        let started = resolvers.start(&record.container, netns, Arc::new(Arc::downgrade(&self.shared))).await;
        started.map_err(|source| AttachError::Resolver { container: record.container.clone(), source })
    }
}

impl Shared {
    /// Everything but the ports.
    fn connect(&self, request: AttachRequest) -> Result<SandboxRecord, AttachError> {
        let given = request.namespace.clone();
        let record = self.grant(request)?;
        let connected =
            self.make_namespace(&record, given.as_deref()).and_then(|namespace| match namespace {
                Some((netns, inside)) => self.join_all(&record, &netns, inside),
                None => Ok(()),
            });
        match connected {
            Ok(()) => Ok(record),
            Err(error) => {
                self.remove_now(&record);
                Err(error)
            }
        }
    }

    /// Makes what the networks' endpoints share, grants addresses and puts the sandbox on record.
    fn grant(&self, request: AttachRequest) -> Result<SandboxRecord, AttachError> {
        check_id(&request.container)?;
        let settled = self.settle(&request.name, &request.networks)?;
        let mut prepared = Vec::new();
        for join in &request.networks {
            prepared.push((self.prepare(&request.name, join, &settled)?, join));
        }
        let own_namespace = prepared.iter().all(|(network, _)| self.drivers.of(network).features().namespace);
        let netns = own_namespace.then(|| self.netns_dir.join(ids::short_id()));
        let mut record = SandboxRecord {
            container: request.container,
            name: request.name,
            netns,
            endpoints: Vec::new(),
            ports: Vec::new(),
            cgroup: request.cgroup,
            listeners: Vec::new(),
            wishes: request.ports,
            name_servers: request.name_servers,
        };
        let devices = prepared.iter().map(|(network, _)| self.new_device(network, &record.name));
        let devices = devices.collect::<Result<Vec<_>, _>>()?;

        let pen = self.pen();
        if pen.book().sandbox(&record.container).is_some() {
            return Err(AttachError::Attached(record.container));
        }
        for ((network, join), device) in prepared.iter().zip(devices) {
            let driver = self.drivers.of(network);
            let endpoint = pen.book().new_endpoint(driver, network, join, &record.endpoints, device)?;
            record.endpoints.push(endpoint);
        }
        let recorded = pen.put(record.clone());
        recorded.map_err(|source| AttachError::Record { container: record.container.clone(), source })?;
        drop(settled);
        Ok(record)
    }

    /// `None` for a container in the engine's own.
    fn make_namespace(
        &self,
        record: &SandboxRecord,
        given: Option<&OwnedFd>,
    ) -> Result<Option<(Netns, Netlink)>, AttachError> {
        let Some(path) = &record.netns else { return Ok(None) };
        let begin = || {
            let mut netlink = Netlink::open()?;
            netlink.batch(vec![netlink::set_up(LOOPBACK)]).map_err(io::Error::other)?;
            turn_off(Path::new(IPV6_DEFAULT))?;
            Ok(netlink)
        };
        let made = match given {
            Some(namespace) => netns::adopt(namespace.as_fd(), path, begin),
            None => netns::create(path, begin),
        };
        made.map(Some)
            .map_err(|source| AttachError::Namespace { container: record.container.clone(), source })
    }

    fn join_all(
        &self,
        record: &SandboxRecord,
        netns: &Netns,
        mut inside: Netlink,
    ) -> Result<(), AttachError> {
        for endpoint in &record.endpoints {
            self.join_one(&record.name, endpoint, netns, &mut inside)?;
        }
        let endpoints: Vec<&Endpoint> = record.endpoints.iter().map(|record| &record.endpoint).collect();
        for ipv4 in [true, false] {
            if let Some(way_out) = crate::sandbox::way_out(endpoints.iter().copied(), ipv4) {
                lead_out(&mut inside, way_out, ipv4).map_err(|source| AttachError::Endpoint {
                    name: record.name.clone(),
                    network: way_out.network.clone(),
                    source,
                })?;
            }
        }
        Ok(())
    }
}

/// Makes an endpoint the way out of its namespace.
pub(crate) fn lead_out(inside: &mut Netlink, endpoint: &Endpoint, ipv4: bool) -> Result<(), DriverError> {
    let gateway = crate::sandbox::gateway(endpoint, ipv4).filter(|_| !endpoint.straight);
    if gateway.is_none() && !crate::sandbox::goes_straight(endpoint, ipv4) {
        return Ok(());
    }
    let Some(device) = netlink::find_link(inside, &endpoint.interface)? else { return Ok(()) };
    Ok(inside.batch(vec![netlink::set_default_route(device.index, gateway, ipv4)])?)
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
