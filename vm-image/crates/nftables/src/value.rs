//! What packets are compared with.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// `IFNAMSIZ`: a whole name of an interface, padded with zeros.
const NAME_BYTES: usize = 16;

/// A value of a [`crate::Key`].
///
/// A key takes values of its own kind only; the kernel refuses the others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// A protocol, an ICMP type, TCP flags, a direction, a truth.
    U8(u8),
    /// A port.
    Port(u16),
    /// A mark, a state, a status, an address type, an index.
    U32(u32),
    /// An IPv4 address.
    V4(Ipv4Addr),
    /// An IPv6 address.
    V6(Ipv6Addr),
    /// All addresses that begin like this one, so many bits.
    Net(IpAddr, u8),
    /// The number of a VXLAN; its lowest 24 bits.
    Vni(u32),
    /// The name of an interface; with a `*` at its end all names that begin so.
    Name(String),
    /// One value for each of several keys.
    Concat(Vec<Value>),
}

impl Value {
    /// As the kernel keeps it in its registers. A [`Value::Net`] is its first address.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        match self {
            Self::U8(value) => vec![*value],
            Self::Port(port) => port.to_be_bytes().to_vec(),
            Self::U32(value) => value.to_ne_bytes().to_vec(),
            Self::V4(address) => address.octets().to_vec(),
            Self::V6(address) => address.octets().to_vec(),
            Self::Vni(number) => number.to_be_bytes()[1..].to_vec(),
            Self::Net(..) => self.bounds().0,
            Self::Name(name) => match name.strip_suffix('*') {
                Some(beginning) => beginning.as_bytes().to_vec(),
                None => padded(name.as_bytes(), NAME_BYTES),
            },
            Self::Concat(values) => values.iter().flat_map(Self::register).collect(),
        }
    }

    /// [`Value::bytes`] as a part of a concatenation: in whole registers of four bytes.
    fn register(&self) -> Vec<u8> {
        let bytes = self.bytes();
        let length = bytes.len().next_multiple_of(4);
        padded(&bytes, length)
    }

    /// The mask of a [`Value::Net`].
    pub(crate) fn mask(&self) -> Option<Vec<u8>> {
        let Self::Net(address, length) = self else { return None };
        let bytes = if address.is_ipv4() { 4 } else { 16 };
        let mut mask = vec![0u8; bytes];
        for bit in 0..usize::from(*length).min(bytes * 8) {
            mask[bit / 8] |= 0x80 >> (bit % 8);
        }
        Some(mask)
    }

    /// The first and the last of what it stands for.
    pub(crate) fn bounds(&self) -> (Vec<u8>, Vec<u8>) {
        let Self::Net(address, _) = self else { return (self.bytes(), self.bytes()) };
        let address = match address {
            IpAddr::V4(address) => address.octets().to_vec(),
            IpAddr::V6(address) => address.octets().to_vec(),
        };
        let mask = self.mask().expect("a net has a mask");
        let pairs = || address.iter().zip(&mask);
        (
            pairs().map(|(byte, mask)| byte & mask).collect(),
            pairs().map(|(byte, mask)| byte | !mask).collect(),
        )
    }
}

fn padded(bytes: &[u8], length: usize) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes.resize(length, 0);
    bytes
}

impl From<u8> for Value {
    fn from(value: u8) -> Self {
        Self::U8(value)
    }
}

impl From<bool> for Value {
    fn from(value: bool) -> Self {
        Self::U8(value.into())
    }
}

/// A port.
impl From<u16> for Value {
    fn from(port: u16) -> Self {
        Self::Port(port)
    }
}

impl From<u32> for Value {
    fn from(value: u32) -> Self {
        Self::U32(value)
    }
}

impl From<Ipv4Addr> for Value {
    fn from(address: Ipv4Addr) -> Self {
        Self::V4(address)
    }
}

impl From<Ipv6Addr> for Value {
    fn from(address: Ipv6Addr) -> Self {
        Self::V6(address)
    }
}

impl From<IpAddr> for Value {
    fn from(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(address) => Self::V4(address),
            IpAddr::V6(address) => Self::V6(address),
        }
    }
}

/// The net of this address with so many leading bits.
impl From<(IpAddr, u8)> for Value {
    fn from((address, length): (IpAddr, u8)) -> Self {
        Self::Net(address, length)
    }
}

/// The name of an interface.
impl From<&str> for Value {
    fn from(name: &str) -> Self {
        Self::Name(name.into())
    }
}

impl From<Vec<Value>> for Value {
    fn from(values: Vec<Value>) -> Self {
        Self::Concat(values)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_net_has_a_first_and_a_last_address() {
        let net = Value::Net("172.17.5.9".parse().unwrap(), 20);
        assert_eq!(net.bounds(), (vec![172, 17, 0, 0], vec![172, 17, 15, 255]));
        assert_eq!(net.mask().unwrap(), [255, 255, 240, 0]);
        let all = Value::Net("::".parse().unwrap(), 0);
        assert_eq!(all.bounds(), (vec![0; 16], vec![255; 16]));
    }

    #[test]
    fn parts_of_a_concatenation_fill_registers() {
        let value = Value::from(vec![Ipv4Addr::new(10, 0, 0, 1).into(), 80u16.into()]);
        assert_eq!(value.bytes(), [10, 0, 0, 1, 0, 80, 0, 0]);
        assert_eq!(Value::from("lo").bytes().len(), NAME_BYTES);
        assert_eq!(Value::from("br-*").bytes(), b"br-");
    }
}
