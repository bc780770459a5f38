//! What host and guest say to each other over vsock: the one contract between the two sides.
//!
//! Every conversation is a vsock stream of its own. Who listens and who connects:
//!
//! | stream  | port                | connects | speaks |
//! |---------|---------------------|----------|--------|
//! | CONTROL | [`HOST_CONTROL`]    | guest    | frames: [`FromGuest`] and [`ToGuest`], the whole life of the machine |
//! | PORTS   | [`HOST_PORTS`]      | guest    | frames: [`PortsRequest`] and [`PortsReply`], one stream an engine connection |
//! | EGRESS  | [`HOST_EGRESS`]     | guest    | one [`EgressRequest`], one [`EgressReply`], then raw bytes or messages |
//! | API     | [`GUEST_API`]       | host     | raw bytes to and from the engine's socket |
//! | RELAY   | [`GUEST_RELAY`]     | host     | one [`RelayRequest`], one [`RelayReply`], then raw bytes or messages |
//!
//! API, RELAY, PORTS and EGRESS streams are wrapped in [`Duplex`] on both sides, from their first byte: vsock does not keep
//! half-close on every hypervisor, and attach, exec and build need it. CONTROL is not: it ends as a whole.
//!
//! [`frame`] is how a message becomes bytes, [`copy`] how the bytes of a stream are carried on, [`datagrams`] how those who send
//! to a published UDP port get their answers, on the host and natively. The crate opens no sockets,
//! and reads no clock but the one it is asked to; it builds for every host system as well as for the guest.
//!
//! The first message on CONTROL is the guest's [`FromGuest::Hello`]. It names the protocol version; [`check_protocol`]
//! is what either side asks before it believes anything else. `Hello` and [`ToGuest::Refused`] may gain fields but
//! never lose one, so that two sides of different versions can still tell each other so.

mod connection;
mod control;
pub mod copy;
pub mod datagrams;
mod duplex;
mod egress;
pub mod frame;
mod host;
mod ports;
mod relay;

pub use connection::{Connection, Tcp};
pub use control::{BootStage, FromGuest, ToGuest, UnixNanos, VersionMismatch, check_protocol};
pub use duplex::Duplex;
pub use egress::{
    EgressRefusal, EgressReply, EgressRequest, HOST_ADDRESS, MAX_FLOWS, MAX_MESSAGE, read_message,
    write_message,
};
pub use frame::{FrameError, FrameReader, MAX_FRAME, read_frame, write_frame};
pub use host::{
    GUEST_CONTAINER_ENVIRONMENT, GUEST_HOST_AUTHORITIES, GUEST_HOST_PROXIES, GUEST_HOST_ROUTES,
    GUEST_REGISTRY_CERTIFICATES, GUEST_REGISTRY_SETTINGS, HostFact, HostProxies, HostRegistries, HostRoute,
    MAX_AUTHORITIES, MAX_REGISTRY_CERTIFICATES, MAX_ROUTES, RegistryFile,
};
pub use ports::{
    PortForward, PortOutcome, PortProtocol, PortsAnswer, PortsCall, PortsReply, PortsRequest, PublishRefused,
    RefusalCode,
};
pub use relay::{RelayProtocol, RelayRefusal, RelayReply, RelayRequest};

/// The version of this contract. It rises with every change that an older side would misread.
#[cfg(not(feature = "other-version"))]
pub const PROTOCOL: u32 = 5;
/// The version of a guest that is built to be refused.
#[cfg(feature = "other-version")]
pub const PROTOCOL: u32 = u32::MAX;

/// A vsock port on which the host listens and to which the guest connects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HostVsockPort(pub u32);

/// A vsock port on which the guest listens and to which the host connects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GuestVsockPort(pub u32);

/// Hello, boot stages, clock, power-off.
pub const HOST_CONTROL: HostVsockPort = HostVsockPort(1024);
/// The engine's published ports.
pub const HOST_PORTS: HostVsockPort = HostVsockPort(1025);
/// What leaves the machine.
pub const HOST_EGRESS: HostVsockPort = HostVsockPort(1026);
/// The Docker Engine API.
pub const GUEST_API: GuestVsockPort = GuestVsockPort(1024);
/// A connection to an address inside the guest, such as a container's.
pub const GUEST_RELAY: GuestVsockPort = GuestVsockPort(1025);

/// Where the engine finds the agent's door to PORTS, inside the guest.
pub const GUEST_PORTS_SOCKET: &str = "/run/caisson/ports.sock";
/// Where the engine answers the Docker API, inside the guest.
pub const GUEST_ENGINE_SOCKET: &str = "/run/caisson/docker.sock";
