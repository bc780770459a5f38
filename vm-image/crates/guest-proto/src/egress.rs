//! EGRESS: everything that leaves the machine goes out of ordinary sockets of the host.
//!
//! A stream is one flow: a TCP connection, what one socket sends to one UDP address, the pings of one program. The guest
//! says where it is to go, the host tries *first* and tells what came of it, and only then does the guest's own side
//! learn whether there is a connection. So refused, unreachable and timed out look to a container as they do on the host.
//!
//! After [`EgressReply::Open`] a TCP stream is the connection's bytes; an end of one direction is passed on, and a stream
//! that is torn down without an end is a connection that was reset. The other kinds carry [messages](write_message).

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// The address by which the guest reaches services on the host's own loopback: `host.docker.internal`.
///
/// It is one of the addresses that are set aside for protocols (192.0.0.0/24, RFC 6890), so no network has it.
pub const HOST_ADDRESS: Ipv4Addr = Ipv4Addr::new(192, 0, 0, 254);

/// The most flows that the guest has at once: ten thousand, and some room for what lingers and for whoever comes beside them. The
/// stream of its queries to the resolver is none of them.
pub const MAX_FLOWS: usize = 10_240;

/// The first and only frame that the guest sends on an EGRESS stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum EgressRequest {
    /// A connection.
    Tcp {
        /// Where it is to go.
        to: SocketAddr,
    },
    /// Datagrams, a message each.
    Udp {
        /// Where they are to go, and the only place from which answers are taken.
        to: SocketAddr,
    },
    /// ICMP echo requests: each message is what stands behind an echo's identifier, so a sequence number of two bytes
    /// and the data. An answer comes back in the same form.
    Echo {
        /// Whom they ask.
        to: IpAddr,
    },
    /// Queries to the host's resolver, each a DNS message (RFC 1035, section 4). Answers come in any order, by id.
    Dns,
}

/// The first and only frame that the host sends on an EGRESS stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum EgressReply {
    /// What follows is the flow's.
    Open,
    /// There is no way; the stream ends.
    Refused {
        /// What the guest's kernel is to be told.
        kind: EgressRefusal,
        /// The system's reason.
        message: String,
    },
}

/// Why there is no way to an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EgressRefusal {
    /// Nothing listens there.
    Refused,
    /// The other computer does not answer, as routers say.
    HostUnreachable,
    /// The host has no route there.
    NetworkUnreachable,
    /// No answer in time.
    TimedOut,
    /// A firewall or the host's own policy forbids it.
    Prohibited,
    /// Anything else, such as a host that has no socket left.
    Other,
}

/// The longest message.
pub const MAX_MESSAGE: usize = u16::MAX as usize;

/// Writes a message: its length as a little-endian `u16`, then its bytes.
///
/// # Errors
/// `InvalidInput` for one that is too long; nothing is written then.
pub async fn write_message(to: &mut (impl AsyncWrite + Unpin), message: &[u8]) -> io::Result<()> {
    let length = u16::try_from(message.len())
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "a message that is too long"))?;
    let mut bytes = Vec::with_capacity(2 + message.len());
    bytes.extend_from_slice(&length.to_le_bytes());
    bytes.extend_from_slice(message);
    to.write_all(&bytes).await?;
    to.flush().await
}

/// Reads a message into `buffer`, replacing what is there; `false` at the end of the stream. Not to be dropped while
/// waiting: what was read of a message would be lost.
///
/// # Errors
/// `UnexpectedEof` for a stream that ends within one.
pub async fn read_message(from: &mut (impl AsyncRead + Unpin), buffer: &mut Vec<u8>) -> io::Result<bool> {
    let mut length = [0; 2];
    if from.read(&mut length[..1]).await? == 0 {
        return Ok(false);
    }
    from.read_exact(&mut length[1..]).await?;
    buffer.clear();
    buffer.resize(u16::from_le_bytes(length).into(), 0);
    from.read_exact(buffer).await?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wire_is_what_other_versions_expect() {
        for (request, wire) in [
            (
                EgressRequest::Tcp { to: "[fd00::2]:80".parse().unwrap() },
                r#"{"type":"tcp","to":"[fd00::2]:80"}"#,
            ),
            (EgressRequest::Udp { to: "1.2.3.4:53".parse().unwrap() }, r#"{"type":"udp","to":"1.2.3.4:53"}"#),
            (EgressRequest::Echo { to: "1.2.3.4".parse().unwrap() }, r#"{"type":"echo","to":"1.2.3.4"}"#),
            (EgressRequest::Dns, r#"{"type":"dns"}"#),
        ] {
            assert_eq!(serde_json::to_string(&request).unwrap(), wire);
            assert_eq!(serde_json::from_str::<EgressRequest>(wire).unwrap(), request);
        }
        let refused =
            EgressReply::Refused { kind: EgressRefusal::NetworkUnreachable, message: "no route".into() };
        assert_eq!(
            serde_json::to_string(&refused).unwrap(),
            r#"{"type":"refused","kind":"network_unreachable","message":"no route"}"#
        );
    }

    #[tokio::test]
    async fn messages_of_every_length_come_back_and_an_end_is_an_end() {
        let (mut near, mut far) = tokio::io::duplex(1000);
        let lengths = [0, 1, 255, 256, 5000, MAX_MESSAGE];
        let write = async {
            for length in lengths {
                write_message(&mut near, &vec![7; length]).await.unwrap();
            }
            assert!(write_message(&mut near, &vec![7; MAX_MESSAGE + 1]).await.is_err());
            drop(near);
        };
        let read = async {
            let mut buffer = Vec::new();
            for length in lengths {
                assert!(read_message(&mut far, &mut buffer).await.unwrap());
                assert_eq!(buffer.len(), length);
            }
            assert!(!read_message(&mut far, &mut buffer).await.unwrap());
        };
        tokio::join!(write, read);
    }

    #[tokio::test]
    async fn a_stream_that_ends_within_a_message_is_an_error() {
        for cut in [&[5][..], &[5, 0], &[5, 0, 1]] {
            let mut from = cut;
            let error = read_message(&mut from, &mut Vec::new()).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        }
    }
}
