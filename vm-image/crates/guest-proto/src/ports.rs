//! PORTS: the engine asks the host to publish container ports and waits for the answer.
//!
//! The engine is the client, the host the server; requests are answered in any order, by id. The first call on every
//! stream is [`PortsCall::Reconcile`] with the full truth, so a host or an engine that was restarted needs no memory.
//! When the stream drops the host keeps its ports as they are until the next `Reconcile` or until the machine stops.

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

/// The transport protocol of a published port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PortProtocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl std::fmt::Display for PortProtocol {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        })
    }
}

/// One port of the host that leads to one address in the guest.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PortForward {
    /// Names this forward among all of them: `<container id>/<n>`.
    pub key: String,
    /// The host address to listen on; the unspecified address of a family means all of that family.
    pub host_ip: IpAddr,
    /// The host port to listen on; 0 lets the host choose. In a `Reconcile` it is the port that was bound.
    pub host_port: u16,
    /// TCP or UDP.
    pub protocol: PortProtocol,
    /// Where it leads: a container's address and port.
    pub target: SocketAddr,
}

/// A call with the number that its reply will carry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortsRequest {
    /// Unique on its stream.
    pub id: u64,
    /// What is asked.
    pub call: PortsCall,
}

/// What the engine can ask of the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum PortsCall {
    /// The full truth: the host closes what is not in it and opens what is missing. Answered by
    /// [`PortsAnswer::Reconciled`].
    Reconcile {
        /// All forwards there are.
        ports: Vec<PortForward>,
    },
    /// Opens one more. Answered by [`PortsAnswer::Published`] once the port is bound, or by a refusal.
    Publish {
        /// The new one. A key that is open already with the same values is answered like a new one.
        forward: PortForward,
    },
    /// Closes one. Answered by [`PortsAnswer::Unpublished`] once the port is free; an unknown key is free.
    Unpublish {
        /// Its key.
        key: String,
        /// Whether the connections through it live on, until either end closes them; else they are cut. A host that does
        /// not know of this cuts them.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        keep_connections: bool,
    },
}

/// The host's answer to the call with the same id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortsReply {
    /// The request's id.
    pub id: u64,
    /// What came of it.
    pub result: Result<PortsAnswer, PublishRefused>,
}

/// What came of a call that was not refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum PortsAnswer {
    /// What became of each forward of a `Reconcile`, in its order.
    Reconciled {
        /// One for each forward.
        outcomes: Vec<PortOutcome>,
    },
    /// The port is bound.
    Published {
        /// The bound port, also where the request said 0.
        host_port: u16,
    },
    /// The port is free.
    Unpublished,
}

/// What became of one forward of a `Reconcile`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortOutcome {
    /// The forward's key.
    pub key: String,
    /// The bound port, or why there is none.
    pub result: Result<u16, PublishRefused>,
}

/// Why a port could not be published.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct PublishRefused {
    /// What the engine decides by.
    pub code: RefusalCode,
    /// The system's reason, such as `address already in use`.
    pub message: String,
    /// The process that holds the port, where the system tells: `nginx (pid 812)`.
    pub holder: Option<String>,
}

/// The kinds of [`PublishRefused`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RefusalCode {
    /// Something else listens there.
    InUse,
    /// This user may not bind it.
    NotPermitted,
    /// The host has no such address.
    NotAvailable,
    /// Anything else; the message says what.
    Other,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wire_is_what_other_versions_expect() {
        let forward = PortForward {
            key: "c0ffee/0".into(),
            host_ip: "::".parse().unwrap(),
            host_port: 0,
            protocol: PortProtocol::Udp,
            target: "172.17.0.2:53".parse().unwrap(),
        };
        let request = PortsRequest { id: 7, call: PortsCall::Publish { forward } };
        assert_eq!(
            serde_json::to_string(&request).unwrap(),
            r#"{"id":7,"call":{"type":"publish","forward":{"key":"c0ffee/0","host_ip":"::","host_port":0,"protocol":"udp","target":"172.17.0.2:53"}}}"#
        );
        let refused = PublishRefused {
            code: RefusalCode::InUse,
            message: "address already in use".into(),
            holder: Some("nginx (pid 812)".into()),
        };
        let reply = PortsReply { id: 7, result: Err(refused) };
        assert_eq!(
            serde_json::to_string(&reply).unwrap(),
            r#"{"id":7,"result":{"Err":{"code":"in_use","message":"address already in use","holder":"nginx (pid 812)"}}}"#
        );
    }

    #[test]
    fn a_port_is_closed_with_its_connections_unless_it_is_said() {
        for (keep_connections, expected) in [
            (false, r#"{"type":"unpublish","key":"a/0"}"#),
            (true, r#"{"type":"unpublish","key":"a/0","keep_connections":true}"#),
        ] {
            let call = PortsCall::Unpublish { key: "a/0".into(), keep_connections };
            assert_eq!(serde_json::to_string(&call).unwrap(), expected);
            assert_eq!(serde_json::from_str::<PortsCall>(expected).unwrap(), call);
        }
    }

    #[test]
    fn a_reconcile_round_trips_with_mixed_outcomes() {
        let refused = PublishRefused {
            code: RefusalCode::NotAvailable,
            message: "no such address".into(),
            holder: None,
        };
        let outcomes = vec![
            PortOutcome { key: "a/0".into(), result: Ok(8080) },
            PortOutcome { key: "a/1".into(), result: Err(refused) },
        ];
        let reply = PortsReply { id: 0, result: Ok(PortsAnswer::Reconciled { outcomes }) };
        let wire = serde_json::to_vec(&reply).unwrap();
        assert_eq!(serde_json::from_slice::<PortsReply>(&wire).unwrap(), reply);
    }
}
