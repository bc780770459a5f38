//! The guest's pings, sent by this computer: through sockets made for that where the system lets its users have them.

use super::{policy::forbidden, refuse};
use caisson_guest_proto::{EgressReply, MAX_MESSAGE, read_message, write_frame, write_message};
use caisson_hypervisor::VsockStream;
use socket2::{Domain, Protocol, Socket, Type};
use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::atomic::{AtomicU16, Ordering},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, split},
    net::UdpSocket,
    time::timeout,
};

/// How long the last answer may take.
const IDLE_LIMIT: Duration = Duration::from_secs(60);

/// Type, code, checksum, identifier; then what travels.
const HEADER: usize = 6;

pub(super) async fn serve(mut stream: VsockStream, to: Option<IpAddr>) -> io::Result<()> {
    let Some(to) = to else { return refuse(stream, &forbidden()).await };
    let ping = match Ping::to(to) {
        Ok(ping) => ping,
        Err(error) => return refuse(stream, &error).await,
    };
    write_frame(&mut stream, &EgressReply::Open).await.map_err(io::Error::other)?;
    let (from_guest, to_guest) = split(stream);
    tokio::select! {
        ended = ping.send(from_guest) => ended,
        ended = ping.receive(to_guest) => ended,
    }
}

struct Ping {
    socket: UdpSocket,
    ipv6: bool,
    /// Whether it is a raw socket, which sees all echoes of this computer.
    raw: bool,
    identifier: [u8; 2],
}

impl Ping {
    fn to(to: IpAddr) -> io::Result<Self> {
        let (domain, protocol) = match to {
            IpAddr::V4(_) => (Domain::IPV4, Protocol::ICMPV4),
            IpAddr::V6(_) => (Domain::IPV6, Protocol::ICMPV6),
        };
        let (socket, raw) = match Socket::new(domain, Type::DGRAM, Some(protocol)) {
            Ok(socket) => (socket, false),
            // Linux asks `net.ipv4.ping_group_range`, which leaves out even root.
            Err(error) => (Socket::new(domain, Type::RAW, Some(protocol)).map_err(|_| error)?, true),
        };
        socket.set_nonblocking(true)?;
        socket.connect(&SocketAddr::new(to, 0).into())?;
        let socket = UdpSocket::from_std(socket.into())?;
        Ok(Self { socket, ipv6: to.is_ipv6(), raw, identifier: next_identifier() })
    }

    async fn send(&self, mut guest: impl AsyncRead + Unpin) -> io::Result<()> {
        let mut echo = Vec::new();
        while read_message(&mut guest, &mut echo).await? {
            let mut packet = vec![if self.ipv6 { 128 } else { 8 }, 0, 0, 0];
            packet.extend_from_slice(&self.identifier);
            packet.extend_from_slice(&echo);
            if self.raw && !self.ipv6 {
                let sum = checksum(&packet).to_be_bytes();
                packet[2..4].copy_from_slice(&sum);
            }
            // A ping that cannot be sent is one that is not answered.
            let _ = self.socket.send(&packet).await;
        }
        Ok(())
    }

    async fn receive(&self, mut guest: impl AsyncWrite + Unpin) -> io::Result<()> {
        let mut packet = vec![0; MAX_MESSAGE];
        loop {
            let Ok(received) = timeout(IDLE_LIMIT, self.socket.recv(&mut packet)).await else {
                return Ok(());
            };
            if let Some(echo) = received.ok().and_then(|length| self.answer(&packet[..length])) {
                write_message(&mut guest, echo).await?;
            }
        }
    }

    /// What stands behind the identifier of an answer to us.
    fn answer<'a>(&self, packet: &'a [u8]) -> Option<&'a [u8]> {
        // Raw sockets give the IPv4 header, and macOS gives it with the others, too.
        let has_header = !self.ipv6 && packet.first()? >> 4 == 4;
        let packet = if has_header { packet.get(usize::from(packet[0] & 15) * 4..)? } else { packet };
        let is_answer = *packet.first()? == if self.ipv6 { 129 } else { 0 };
        let is_ours = !self.raw || packet.get(4..HEADER)? == self.identifier;
        (is_answer && is_ours).then(|| packet.get(HEADER..)).flatten()
    }
}

/// Another one for every socket of this process.
fn next_identifier() -> [u8; 2] {
    static LAST: AtomicU16 = AtomicU16::new(0);
    (LAST.fetch_add(1, Ordering::Relaxed) ^ std::process::id() as u16).to_be_bytes()
}

/// The internet checksum (RFC 1071).
fn checksum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0)));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checksum_makes_the_whole_sum_up_to_nothing() {
        let mut packet = vec![8, 0, 0, 0, 1, 2, 0, 1, 7];
        let sum = checksum(&packet).to_be_bytes();
        packet[2..4].copy_from_slice(&sum);
        assert_eq!(checksum(&packet), 0);
    }

    /// What a user's daemon has on Linux, where `net.ipv4.ping_group_range` has the user's group. In a network of this
    /// test's own it does.
    #[cfg(target_os = "linux")]
    #[test]
    fn a_user_pings_through_a_socket_made_for_that() {
        use caisson_guest_proto::{Duplex, read_frame};
        use nix::sched::{CloneFlags, unshare};
        /// Nothing here waits so long unless it is broken.
        const LIMIT: Duration = Duration::from_secs(30);
        let pings = async |to: IpAddr| {
            assert!(!Ping::to(to).unwrap().raw, "{to}");
            let (near, far) = tokio::io::duplex(4096);
            let mut guest = Duplex::new(near);
            let asks = async {
                let reply: Option<EgressReply> = read_frame(&mut guest).await.unwrap();
                assert_eq!(reply, Some(EgressReply::Open));
                for sequence in 1..4 {
                    // What stands behind the identifier: the number, and what travels.
                    let asked = [&[0, sequence][..], b"caisson"].concat();
                    write_message(&mut guest, &asked).await.unwrap();
                    let mut answer = Vec::new();
                    let read = timeout(LIMIT, read_message(&mut guest, &mut answer)).await;
                    assert!(read.expect("an answer").unwrap());
                    assert_eq!(answer, asked, "{to}");
                }
            };
            tokio::select! {
                () = asks => {}
                ended = serve(Box::new(Duplex::new(far)), Some(to)) => panic!("{ended:?}"),
            }
        };
        let alone = std::thread::spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET).expect("a network of its own needs root");
            let up = std::process::Command::new("ip").args(["link", "set", "lo", "up"]).status().unwrap();
            assert!(up.success());
            // Also for IPv6.
            std::fs::write("/proc/sys/net/ipv4/ping_group_range", "0 2147483647").unwrap();
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                pings("127.0.0.1".parse().unwrap()).await;
                pings("::1".parse().unwrap()).await;
            });
        });
        alone.join().unwrap();
    }
}
