//! A vsock packet's header as it lies in the guest's memory (virtio 1.2, section 5.10.6).

/// The header's length.
pub(super) const HEADER: usize = 44;
/// The host's address.
pub(super) const HOST_CID: u64 = 2;
/// The guest's address.
pub(super) const GUEST_CID: u64 = 3;
/// "I will receive no more."
pub(super) const NO_MORE_RECEIVE: u32 = 1;
/// "I will send no more."
pub(super) const NO_MORE_SEND: u32 = 2;

const STREAM: u16 = 1;

/// What a packet is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Op {
    Request,
    Response,
    Reset,
    Shutdown,
    Data,
    CreditUpdate,
    CreditRequest,
}

impl Op {
    const ALL: [Self; 7] = [
        Self::Request,
        Self::Response,
        Self::Reset,
        Self::Shutdown,
        Self::Data,
        Self::CreditUpdate,
        Self::CreditRequest,
    ];

    fn from_wire(number: u16) -> Option<Self> {
        Self::ALL.get(usize::from(number).checked_sub(1)?).copied()
    }

    fn on_wire(self) -> u16 {
        self as u16 + 1
    }
}

/// The two ports of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Ports {
    pub(super) host: u32,
    pub(super) guest: u32,
}

/// A packet without its data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Packet {
    pub(super) ports: Ports,
    pub(super) op: Op,
    pub(super) flags: u32,
    /// How many bytes of data follow.
    pub(super) len: u32,
    /// How much the sender can hold for this stream.
    pub(super) buf_alloc: u32,
    /// How much of this stream the sender has taken out of its buffer so far, wrapping.
    pub(super) fwd_cnt: u32,
}

impl Packet {
    /// Reads what the guest has written; nothing if it is not a stream's packet from this guest to the host.
    pub(super) fn from_guest(bytes: &[u8; HEADER]) -> Option<Self> {
        let u16_at = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        let u32_at = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let u64_at = |at: usize| u64::from(u32_at(at)) | u64::from(u32_at(at + 4)) << 32;
        if u64_at(0) != GUEST_CID || u64_at(8) != HOST_CID || u16_at(28) != STREAM {
            return None;
        }
        Some(Self {
            ports: Ports { guest: u32_at(16), host: u32_at(20) },
            op: Op::from_wire(u16_at(30))?,
            len: u32_at(24),
            flags: u32_at(32),
            buf_alloc: u32_at(36),
            fwd_cnt: u32_at(40),
        })
    }

    /// What the guest will read.
    pub(super) fn to_guest(self) -> [u8; HEADER] {
        let mut bytes = [0; HEADER];
        bytes[0..8].copy_from_slice(&HOST_CID.to_le_bytes());
        bytes[8..16].copy_from_slice(&GUEST_CID.to_le_bytes());
        bytes[16..20].copy_from_slice(&self.ports.host.to_le_bytes());
        bytes[20..24].copy_from_slice(&self.ports.guest.to_le_bytes());
        bytes[24..28].copy_from_slice(&self.len.to_le_bytes());
        bytes[28..30].copy_from_slice(&STREAM.to_le_bytes());
        bytes[30..32].copy_from_slice(&self.op.on_wire().to_le_bytes());
        bytes[32..36].copy_from_slice(&self.flags.to_le_bytes());
        bytes[36..40].copy_from_slice(&self.buf_alloc.to_le_bytes());
        bytes[40..44].copy_from_slice(&self.fwd_cnt.to_le_bytes());
        bytes
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A header, mostly one of a stream's packets from the guest.
    fn header() -> impl Strategy<Value = [u8; HEADER]> {
        let kind = prop_oneof![9 => Just(STREAM), 1 => any::<u16>()];
        let from = prop_oneof![9 => Just(GUEST_CID), 1 => any::<u64>()];
        let to = prop_oneof![9 => Just(HOST_CID), 1 => any::<u64>()];
        let rest = prop::collection::vec(any::<u8>(), HEADER);
        (from, to, kind, 0u16..12, rest).prop_map(|(from, to, kind, op, rest)| {
            let mut bytes = [0; HEADER];
            bytes.copy_from_slice(&rest);
            bytes[0..8].copy_from_slice(&from.to_le_bytes());
            bytes[8..16].copy_from_slice(&to.to_le_bytes());
            bytes[28..30].copy_from_slice(&kind.to_le_bytes());
            bytes[30..32].copy_from_slice(&op.to_le_bytes());
            bytes
        })
    }

    proptest! {
        #[test]
        fn any_header_is_taken_whole_or_not_at_all(bytes in header()) {
            let is_ours = bytes[0..8] == GUEST_CID.to_le_bytes()
                && bytes[8..16] == HOST_CID.to_le_bytes()
                && bytes[28..30] == [1, 0]
                && (1..=7).contains(&bytes[30])
                && bytes[31] == 0;
            let packet = Packet::from_guest(&bytes);
            prop_assert_eq!(packet.is_some(), is_ours);
            if let Some(packet) = packet {
                // As the other side would have written it.
                let mut mirrored = packet.to_guest();
                let (to, from) = mirrored.split_at_mut(8);
                to.swap_with_slice(&mut from[..8]);
                let (host, guest) = mirrored[16..24].split_at_mut(4);
                host.swap_with_slice(guest);
                prop_assert_eq!(mirrored, bytes);
            }
        }
    }

    #[test]
    fn the_fields_are_where_the_specification_puts_them() {
        let ports = Ports { host: 0x0102_0304, guest: 0x0506_0708 };
        let packet = Packet { ports, op: Op::Data, flags: 9, len: 10, buf_alloc: 11, fwd_cnt: 12 };
        let mut bytes = packet.to_guest();
        assert_eq!(bytes[16..20], [4, 3, 2, 1], "source port");
        assert_eq!(bytes[28..32], [1, 0, 5, 0], "a stream's data");
        assert_eq!(Packet::from_guest(&bytes), None, "not from the guest");
        bytes.copy_within(0..8, 8);
        bytes[0..8].copy_from_slice(&GUEST_CID.to_le_bytes());
        let mirrored = Ports { host: ports.guest, guest: ports.host };
        assert_eq!(Packet::from_guest(&bytes), Some(Packet { ports: mirrored, ..packet }));
        for unknown in [0, 8, 255] {
            bytes[30] = unknown;
            assert_eq!(Packet::from_guest(&bytes), None);
        }
    }
}
