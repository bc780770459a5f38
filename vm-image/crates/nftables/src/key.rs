//! What of a packet can be looked at.

use crate::attr::Attrs;

/// Values of [`Key::NfProto`].
pub mod nfproto {
    /// IPv4.
    pub const IPV4: u8 = 2;
    /// IPv6.
    pub const IPV6: u8 = 10;
}

/// Values of [`Key::L4Proto`].
pub mod ip_proto {
    /// ICMP.
    pub const ICMP: u8 = 1;
    /// TCP.
    pub const TCP: u8 = 6;
    /// UDP.
    pub const UDP: u8 = 17;
    /// ICMPv6.
    pub const ICMPV6: u8 = 58;
}

/// Bits of [`Key::CtState`].
pub mod ct_state {
    /// Of no connection.
    pub const INVALID: u32 = 1;
    /// Of a connection that has seen packets both ways.
    pub const ESTABLISHED: u32 = 2;
    /// The first of a connection that another one announced.
    pub const RELATED: u32 = 4;
    /// The first of a connection.
    pub const NEW: u32 = 8;
    /// Not followed.
    pub const UNTRACKED: u32 = 64;
}

/// Bits of [`Key::CtStatus`] (`IPS_*` of `nf_conntrack_common.h`).
pub mod ct_status {
    /// Its source is translated.
    pub const SNAT: u32 = 1 << 4;
    /// Its destination is translated.
    pub const DNAT: u32 = 1 << 5;
}

/// Values of [`Key::FibDaddrType`] (`RTN_*` of `rtnetlink.h`).
pub mod fib_type {
    /// An address of this system.
    pub const LOCAL: u32 = 2;
    /// A broadcast address.
    pub const BROADCAST: u32 = 3;
}

/// Bits of [`Key::TcpFlags`].
pub mod tcp_flag {
    /// Finished sending.
    pub const FIN: u8 = 1;
    /// Opens a connection.
    pub const SYN: u8 = 2;
    /// Tears it down.
    pub const RST: u8 = 4;
    /// Acknowledges.
    pub const ACK: u8 = 16;
}

/// Values of [`Key::CtDirection`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Direction {
    /// From the side that opened the connection.
    Original,
    /// To it.
    Reply,
}

impl From<Direction> for crate::Value {
    fn from(direction: Direction) -> Self {
        Self::U8(direction as u8)
    }
}

/// A property of a packet, of its connection or of its route.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Key {
    /// [`nfproto`].
    NfProto,
    /// [`ip_proto`].
    L4Proto,
    /// The packet's mark.
    Mark,
    /// The name of the interface it came in by.
    IifName,
    /// The name of the interface it leaves by.
    OifName,
    /// The IPv4 source.
    Ip4Saddr,
    /// The IPv4 destination.
    Ip4Daddr,
    /// The IPv6 source.
    Ip6Saddr,
    /// The IPv6 destination.
    Ip6Daddr,
    /// The TCP source port.
    TcpSport,
    /// The TCP destination port.
    TcpDport,
    /// [`tcp_flag`].
    TcpFlags,
    /// The UDP source port.
    UdpSport,
    /// The UDP destination port.
    UdpDport,
    /// The number of the VXLAN to which what is in a UDP packet belongs, if it is of one (RFC 7348).
    VxlanVni,
    /// The source port of any protocol that has ports; say before which one is meant.
    Sport,
    /// The destination port of any protocol that has ports; say before which one is meant.
    Dport,
    /// The type of an ICMP message.
    IcmpType,
    /// The type of an ICMPv6 message.
    Icmp6Type,
    /// [`ct_state`].
    CtState,
    /// [`ct_status`].
    CtStatus,
    /// The connection's mark.
    CtMark,
    /// [`Direction`].
    CtDirection,
    /// The destination port that the opening side asked for, before any translation.
    CtOriginalDport,
    /// The IPv4 destination that the opening side asked for, before any translation.
    CtOriginalIp4Daddr,
    /// The IPv6 destination that the opening side asked for, before any translation.
    CtOriginalIp6Daddr,
    /// The name of the interface that the destination is routed to.
    FibDaddrOifName,
    /// [`fib_type`] of the destination.
    FibDaddrType,
    /// [`fib_type`] of the source.
    FibSaddrType,
    /// The name of the interface that the source is reached by from where the packet came in; empty if by another one.
    FibSaddrIifOifName,
    /// Whether the socket that takes the packet is transparent (`IP_TRANSPARENT`).
    SocketTransparent,
    /// Whether the socket that takes the packet listens on all addresses.
    SocketWildcard,
}

/// What must hold before a key can be looked at.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Needs {
    pub(crate) nfproto: Option<u8>,
    pub(crate) l4proto: Option<u8>,
}

/// What `nft` knows of a key: how it is written, its data type (`enum datatypes` of nftables' `datatype.h`) and its bytes.
pub(crate) struct Kind {
    pub(crate) text: &'static str,
    pub(crate) datatype: u32,
    pub(crate) length: u32,
}

/// Where a key's value comes from.
enum Source {
    Meta(u32),
    Network(u32),
    Transport(u32),
    Ct(u32, Option<Direction>),
    Fib { result: u32, flags: u32 },
    Socket(u32),
}

const TRANSPORT_HEADER: u32 = 2;
const NETWORK_HEADER: u32 = 1;
const FIB_SADDR: u32 = 1;
const FIB_DADDR: u32 = 2;
const FIB_IIF: u32 = 8;
const FIB_OIFNAME: u32 = 2;
const FIB_ADDRTYPE: u32 = 3;

impl Key {
    pub(crate) fn kind(self) -> Kind {
        let (text, datatype, length) = match self {
            Self::NfProto => ("meta nfproto", 2, 1),
            Self::L4Proto => ("meta l4proto", 12, 1),
            Self::Mark => ("meta mark", 19, 4),
            Self::IifName => ("iifname", 41, 16),
            Self::OifName => ("oifname", 41, 16),
            Self::Ip4Saddr => ("ip saddr", 7, 4),
            Self::Ip4Daddr => ("ip daddr", 7, 4),
            Self::Ip6Saddr => ("ip6 saddr", 8, 16),
            Self::Ip6Daddr => ("ip6 daddr", 8, 16),
            Self::TcpSport => ("tcp sport", 13, 2),
            Self::TcpDport => ("tcp dport", 13, 2),
            Self::TcpFlags => ("tcp flags", 15, 1),
            Self::UdpSport => ("udp sport", 13, 2),
            Self::UdpDport => ("udp dport", 13, 2),
            Self::VxlanVni => ("@th,96,24", 4, 3),
            Self::Sport => ("th sport", 13, 2),
            Self::Dport => ("th dport", 13, 2),
            Self::IcmpType => ("icmp type", 14, 1),
            Self::Icmp6Type => ("icmpv6 type", 29, 1),
            Self::CtState => ("ct state", 26, 4),
            Self::CtStatus => ("ct status", 28, 4),
            Self::CtMark => ("ct mark", 19, 4),
            Self::CtDirection => ("ct direction", 27, 1),
            Self::CtOriginalDport => ("ct original proto-dst", 13, 2),
            Self::CtOriginalIp4Daddr => ("ct original ip daddr", 7, 4),
            Self::CtOriginalIp6Daddr => ("ct original ip6 daddr", 8, 16),
            Self::FibDaddrOifName => ("fib daddr oifname", 41, 16),
            Self::FibDaddrType => ("fib daddr type", 38, 4),
            Self::FibSaddrType => ("fib saddr type", 38, 4),
            Self::FibSaddrIifOifName => ("fib saddr . iif oifname", 41, 16),
            Self::SocketTransparent => ("socket transparent", 4, 1),
            Self::SocketWildcard => ("socket wildcard", 4, 1),
        };
        Kind { text, datatype, length }
    }

    pub(crate) fn needs(self) -> Needs {
        let nfproto = match self {
            Self::Ip4Saddr | Self::Ip4Daddr | Self::CtOriginalIp4Daddr => Some(nfproto::IPV4),
            Self::Ip6Saddr | Self::Ip6Daddr | Self::CtOriginalIp6Daddr => Some(nfproto::IPV6),
            _ => None,
        };
        let l4proto = match self {
            Self::TcpSport | Self::TcpDport | Self::TcpFlags => Some(ip_proto::TCP),
            Self::UdpSport | Self::UdpDport | Self::VxlanVni => Some(ip_proto::UDP),
            Self::IcmpType => Some(ip_proto::ICMP),
            Self::Icmp6Type => Some(ip_proto::ICMPV6),
            _ => None,
        };
        Needs { nfproto, l4proto }
    }

    fn source(self) -> Source {
        match self {
            Self::Mark => Source::Meta(3),
            Self::IifName => Source::Meta(6),
            Self::OifName => Source::Meta(7),
            Self::NfProto => Source::Meta(15),
            Self::L4Proto => Source::Meta(16),
            Self::Ip4Saddr => Source::Network(12),
            Self::Ip4Daddr => Source::Network(16),
            Self::Ip6Saddr => Source::Network(8),
            Self::Ip6Daddr => Source::Network(24),
            Self::TcpSport | Self::UdpSport | Self::Sport | Self::IcmpType | Self::Icmp6Type => {
                Source::Transport(0)
            }
            Self::TcpDport | Self::UdpDport | Self::Dport => Source::Transport(2),
            Self::TcpFlags => Source::Transport(13),
            // Behind the header of UDP and a word of flags.
            Self::VxlanVni => Source::Transport(12),
            Self::CtState => Source::Ct(0, None),
            Self::CtDirection => Source::Ct(1, None),
            Self::CtStatus => Source::Ct(2, None),
            Self::CtMark => Source::Ct(3, None),
            Self::CtOriginalDport => Source::Ct(12, Some(Direction::Original)),
            Self::CtOriginalIp4Daddr => Source::Ct(20, Some(Direction::Original)),
            Self::CtOriginalIp6Daddr => Source::Ct(22, Some(Direction::Original)),
            Self::FibDaddrOifName => Source::Fib { result: FIB_OIFNAME, flags: FIB_DADDR },
            Self::FibDaddrType => Source::Fib { result: FIB_ADDRTYPE, flags: FIB_DADDR },
            Self::FibSaddrType => Source::Fib { result: FIB_ADDRTYPE, flags: FIB_SADDR },
            Self::FibSaddrIifOifName => Source::Fib { result: FIB_OIFNAME, flags: FIB_SADDR | FIB_IIF },
            Self::SocketTransparent => Source::Socket(0),
            Self::SocketWildcard => Source::Socket(2),
        }
    }

    /// The expression that loads it into a register: its name and attributes.
    pub(crate) fn load(self, register: u32) -> (&'static str, Attrs) {
        let mut attrs = Attrs::default();
        let name = match self.source() {
            Source::Meta(key) => {
                attrs.be32(1, register).be32(2, key);
                "meta"
            }
            Source::Network(offset) => {
                attrs.be32(1, register).be32(2, NETWORK_HEADER).be32(3, offset).be32(4, self.kind().length);
                "payload"
            }
            Source::Transport(offset) => {
                attrs.be32(1, register).be32(2, TRANSPORT_HEADER).be32(3, offset).be32(4, self.kind().length);
                "payload"
            }
            Source::Ct(key, direction) => {
                attrs.be32(1, register).be32(2, key);
                if let Some(direction) = direction {
                    attrs.u8(3, direction as u8);
                }
                "ct"
            }
            Source::Fib { result, flags } => {
                attrs.be32(1, register).be32(2, result).be32(3, flags);
                "fib"
            }
            Source::Socket(key) => {
                attrs.be32(1, key).be32(2, register);
                "socket"
            }
        };
        (name, attrs)
    }
}
