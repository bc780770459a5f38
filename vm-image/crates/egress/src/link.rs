//! The device that the default routes lead to, and the policy route that turns packets for the proxy inwards.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netdevice, recv, send, socket_with,
};

use crate::EgressError;
use crate::rules::{DEVICE, PROXIED};

/// The machine's own address: what its own programs send from, and where it answers DNS queries of containers. Of a block
/// that no network has (RFC 6890).
pub const ADDRESS_V4: Ipv4Addr = Ipv4Addr::new(192, 0, 0, 253);
/// The same for IPv6, a unique local one.
pub(crate) const ADDRESS_V6: Ipv6Addr = Ipv6Addr::new(0xfdca, 0x1550, 0xe9, 0, 0, 0, 0, 1);

/// The routing table of packets for the proxy, and when it is asked: before all but the local one.
const TABLE: u8 = 100;
const RULE_PRIORITY: u32 = 100;

/// Nothing is ever sent by the device, so nothing has to be cut to a size.
const MTU: u32 = 65_535;
const LOOPBACK: u32 = 1;

/// A device that throws away what it is to send. Kernels on which tests run may lack it; nothing is sent by it anyway.
const KIND: &[u8] = if cfg!(test) { b"bridge\0" } else { b"dummy\0" };

/// rtnetlink(7).
mod message {
    pub(super) const NEW_LINK: u16 = 16;
    pub(super) const NEW_ADDRESS: u16 = 20;
    pub(super) const NEW_ROUTE: u16 = 24;
    pub(super) const NEW_RULE: u16 = 32;
}
const REQUEST_ACK: u16 = 1 | 4;
const REPLACE: u16 = 0x100;
const EXCLUSIVE: u16 = 0x200;
const CREATE: u16 = 0x400;
const UP: u32 = 1;
const INET: u8 = 2;
const INET6: u8 = 10;

/// Makes all of it, as far as it is not there. A kernel without IPv6 goes without.
pub(crate) fn make() -> Result<(), EgressError> {
    let failed = |doing| move |source| EgressError::Link(doing, source);
    let kernel = Kernel::open().map_err(failed("speak with the kernel's routing"))?;
    kernel.link().map_err(failed("make the device egress0"))?;
    let device = netdevice::name_to_index(&kernel.0, DEVICE)
        .map_err(|error| EgressError::Link("find the device egress0", error.into()))?;
    kernel.family(ADDRESS_V4.into(), device).map_err(failed("route what leaves the machine"))?;
    if let Err(error) = kernel.family(ADDRESS_V6.into(), device) {
        tracing::warn!(%error, "no IPv6 leaves the machine");
    }
    Ok(())
}

struct Kernel(OwnedFd);

impl Kernel {
    fn open() -> io::Result<Self> {
        Ok(Self(socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None)?))
    }

    fn link(&self) -> io::Result<()> {
        let mut body = Body::default();
        body.bytes(&[0; 8]).bytes(&UP.to_ne_bytes()).bytes(&UP.to_ne_bytes());
        body.attribute(3, &[DEVICE.as_bytes(), &[0]].concat());
        let mut up = Body(body.0.clone());
        let mut kind = Body::default();
        kind.attribute(1, KIND);
        body.attribute(4, &MTU.to_ne_bytes()).attribute(18, &kind.0);
        self.ask(message::NEW_LINK, CREATE | EXCLUSIVE, &body)?;
        // Of one that was there already.
        self.ask(message::NEW_LINK, 0, up.attribute(4, &MTU.to_ne_bytes()))
    }

    /// Everything of one address family.
    fn family(&self, address: IpAddr, device: u32) -> io::Result<()> {
        let (family, bytes) = match address {
            IpAddr::V4(address) => (INET, address.octets().to_vec()),
            IpAddr::V6(address) => (INET6, address.octets().to_vec()),
        };
        let length = u8::try_from(bytes.len() * 8).expect("an address has at most 128 bits");
        /// No other system could have it: not asked for (`IFA_F_NODAD`).
        const UNASKED: u8 = 2;
        let mut body = Body::default();
        body.bytes(&[family, length, UNASKED, 0]).bytes(&device.to_ne_bytes());
        body.attribute(2, &bytes).attribute(1, &bytes);
        self.ask(message::NEW_ADDRESS, CREATE | REPLACE, &body)?;
        self.ask(message::NEW_ROUTE, CREATE | REPLACE, &route(family, Route::Out(device)))?;
        self.ask(message::NEW_ROUTE, CREATE | REPLACE, &route(family, Route::Inwards))?;
        let mut body = Body::default();
        body.bytes(&[family, 0, 0, 0, TABLE, 0, 0, TO_TABLE]).bytes(&[0; 4]);
        body.attribute(6, &RULE_PRIORITY.to_ne_bytes());
        body.attribute(10, &PROXIED.to_ne_bytes()).attribute(16, &PROXIED.to_ne_bytes());
        self.ask(message::NEW_RULE, CREATE | EXCLUSIVE, &body)
    }

    /// Makes one change; what is there already is fine.
    fn ask(&self, kind: u16, flags: u16, body: &Body) -> io::Result<()> {
        let length = u32::try_from(16 + body.0.len()).expect("a short message");
        let mut bytes = length.to_ne_bytes().to_vec();
        bytes.extend_from_slice(&kind.to_ne_bytes());
        bytes.extend_from_slice(&(REQUEST_ACK | flags).to_ne_bytes());
        bytes.extend_from_slice(&[0; 8]);
        bytes.extend_from_slice(&body.0);
        send(&self.0, &bytes, SendFlags::empty())?;
        let mut answer = [0; 4096];
        let (_, length) = recv(&self.0, &mut answer[..], RecvFlags::empty())?;
        let code = answer[..length].get(16..).and_then(|code| code.first_chunk()).copied();
        match code.map(i32::from_ne_bytes) {
            Some(0) => Ok(()),
            Some(code) if code == -Errno::EXIST.raw_os_error() => Ok(()),
            Some(code) => Err(io::Error::from_raw_os_error(-code)),
            None => Err(io::ErrorKind::InvalidData.into()),
        }
    }
}

/// `FR_ACT_TO_TBL`.
const TO_TABLE: u8 = 1;

enum Route {
    Out(u32),
    Inwards,
}

/// A default route, as `struct rtmsg`.
fn route(family: u8, route: Route) -> Body {
    const MAIN: u8 = 254;
    const STATIC: u8 = 4;
    const SCOPE_LINK: u8 = 253;
    const SCOPE_HOST: u8 = 254;
    const UNICAST: u8 = 1;
    const LOCAL: u8 = 2;
    let (table, scope, kind, device) = match route {
        Route::Out(device) => (MAIN, if family == INET { SCOPE_LINK } else { 0 }, UNICAST, device),
        Route::Inwards => (TABLE, if family == INET { SCOPE_HOST } else { 0 }, LOCAL, LOOPBACK),
    };
    let mut body = Body::default();
    body.bytes(&[family, 0, 0, 0, table, STATIC, scope, kind]).bytes(&[0; 4]);
    body.attribute(4, &device.to_ne_bytes());
    body
}

/// A message behind its header.
#[derive(Default)]
struct Body(Vec<u8>);

impl Body {
    fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.extend_from_slice(bytes);
        self
    }

    fn attribute(&mut self, kind: u16, value: &[u8]) -> &mut Self {
        let length = u16::try_from(4 + value.len()).expect("a short attribute");
        self.bytes(&length.to_ne_bytes()).bytes(&kind.to_ne_bytes()).bytes(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self
    }
}
