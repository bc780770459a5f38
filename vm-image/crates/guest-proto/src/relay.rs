//! RELAY: the host reaches an address inside the guest.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

/// The first and only frame that the host sends on a RELAY stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RelayRequest {
    /// Where to connect inside the guest.
    pub address: SocketAddr,
    /// How.
    pub protocol: RelayProtocol,
    /// Whom the other end is to see as its client, if the guest can have it so; not for a client on the host's own
    /// loopback, whose address means another computer to every container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<SocketAddr>,
}

/// The protocols that can be relayed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RelayProtocol {
    /// A byte stream; half-close is passed on both ways.
    Tcp,
    /// Datagrams between one client of the host's and one address, a [message](crate::write_message) each. The flow ends with
    /// the stream.
    Udp,
}

/// The first and only frame that the guest sends on a RELAY stream; raw bytes follow a `Connected`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum RelayReply {
    /// What follows this frame is the connection's.
    Connected,
    /// There is no connection; the stream ends.
    Refused {
        /// What the host decides by.
        kind: RelayRefusal,
        /// The system's reason.
        message: String,
    },
}

/// Why a connection inside the guest could not be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RelayRefusal {
    /// Nothing listens there.
    Refused,
    /// There is no way there.
    Unreachable,
    /// No answer in time.
    TimedOut,
    /// Anything else; the message says what.
    Other,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wire_is_what_other_versions_expect() {
        let (address, protocol) = ("[fd00::2]:80".parse().unwrap(), RelayProtocol::Tcp);
        let request = RelayRequest { address, protocol, client: None };
        assert_eq!(
            serde_json::to_string(&request).unwrap(),
            r#"{"address":"[fd00::2]:80","protocol":"tcp"}"#
        );
        let seen = RelayRequest { client: Some("[2001:db8::1]:5".parse().unwrap()), ..request };
        assert_eq!(
            serde_json::to_string(&seen).unwrap(),
            r#"{"address":"[fd00::2]:80","protocol":"tcp","client":"[2001:db8::1]:5"}"#
        );
        let refused =
            RelayReply::Refused { kind: RelayRefusal::TimedOut, message: "connection timed out".into() };
        assert_eq!(
            serde_json::to_string(&refused).unwrap(),
            r#"{"type":"refused","kind":"timed_out","message":"connection timed out"}"#
        );
        assert_eq!(serde_json::to_string(&RelayReply::Connected).unwrap(), r#"{"type":"connected"}"#);
    }
}
