//! Ranges of addresses, of both families.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

/// A range such as `172.17.0.0/16` or `fd00::/64`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Subnet {
    base: IpAddr,
    prefix: u8,
}

/// Why a text is no [`Subnet`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a range in CIDR form")]
pub struct InvalidSubnet(String);

impl Subnet {
    /// The range of this prefix length that holds `address`; a prefix that is too long for its family is cut.
    #[must_use]
    pub fn containing(address: impl Into<IpAddr>, prefix: u8) -> Self {
        let address = address.into();
        let prefix = prefix.min(width(address));
        Self { base: from_bits(address, bits(address) & mask(address, prefix)), prefix }
    }

    /// The range that a text in CIDR form names, and the address in it, which need not be the first.
    pub fn parse_with_address(text: &str) -> Result<(Self, IpAddr), InvalidSubnet> {
        let invalid = || InvalidSubnet(text.to_owned());
        let (address, prefix) = text.split_once('/').ok_or_else(invalid)?;
        let address: IpAddr = address.parse().map_err(|_| invalid())?;
        let digits = !prefix.is_empty() && prefix.bytes().all(|b| b.is_ascii_digit());
        let prefix = prefix.parse().ok().filter(|p| digits && *p <= width(address)).ok_or_else(invalid)?;
        Ok((Self::containing(address, prefix), address))
    }

    /// The first address, which names the range.
    #[must_use]
    pub fn base(self) -> IpAddr {
        self.base
    }

    /// The prefix length: 0 to 32, or to 128.
    #[must_use]
    pub fn prefix(self) -> u8 {
        self.prefix
    }

    /// Whether it is a range of IPv4.
    #[must_use]
    pub fn is_ipv4(self) -> bool {
        self.base.is_ipv4()
    }

    /// The last address; for IPv4 it is the broadcast address.
    #[must_use]
    pub fn last(self) -> IpAddr {
        let host = full(self.base) & !mask(self.base, self.prefix);
        from_bits(self.base, bits(self.base) | host)
    }

    /// The address at this distance from the first; `None` if it is outside.
    #[must_use]
    pub fn at(self, offset: u128) -> Option<IpAddr> {
        let address = bits(self.base).checked_add(offset)?;
        (address <= bits(self.last())).then(|| from_bits(self.base, address))
    }

    /// Whether the range holds this address.
    #[must_use]
    pub fn contains(self, address: IpAddr) -> bool {
        address.is_ipv4() == self.is_ipv4() && Self::containing(address, self.prefix) == self
    }

    /// Whether some address is in both.
    #[must_use]
    pub fn overlaps(self, other: Self) -> bool {
        self.contains(other.base) || other.contains(self.base)
    }
}

fn width(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

fn full(address: IpAddr) -> u128 {
    if address.is_ipv4() { u128::from(u32::MAX) } else { u128::MAX }
}

fn mask(address: IpAddr, prefix: u8) -> u128 {
    let host = u32::from(width(address) - prefix);
    full(address) & u128::MAX.checked_shl(host).unwrap_or(0)
}

/// An address as a number of its family's width.
pub(crate) fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(address.to_bits()),
        IpAddr::V6(address) => address.to_bits(),
    }
}

fn from_bits(family: IpAddr, bits: u128) -> IpAddr {
    match family {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::from_bits(u32::try_from(bits).unwrap_or(u32::MAX))),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::from_bits(bits)),
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.base, self.prefix)
    }
}

impl std::str::FromStr for Subnet {
    type Err = InvalidSubnet;

    fn from_str(text: &str) -> Result<Self, InvalidSubnet> {
        Self::parse_with_address(text).map(|(range, _)| range)
    }
}

impl TryFrom<String> for Subnet {
    type Error = InvalidSubnet;

    fn try_from(text: String) -> Result<Self, InvalidSubnet> {
        text.parse()
    }
}

impl From<Subnet> for String {
    fn from(subnet: Subnet) -> Self {
        subnet.to_string()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn subnet(text: &str) -> Subnet {
        text.parse().unwrap()
    }

    #[test]
    fn ranges_of_both_families_have_ends() {
        assert_eq!(subnet("10.1.2.3/24").to_string(), "10.1.2.0/24");
        assert_eq!(subnet("10.1.2.0/24").last().to_string(), "10.1.2.255");
        assert_eq!(subnet("fd00::5/64").to_string(), "fd00::/64");
        assert_eq!(subnet("fd00::/64").last().to_string(), "fd00::ffff:ffff:ffff:ffff");
        assert_eq!(subnet("0.0.0.0/0").last().to_string(), "255.255.255.255");
        assert_eq!(subnet("10.0.0.0/30").at(3).unwrap().to_string(), "10.0.0.3");
        assert_eq!(subnet("10.0.0.0/30").at(4), None);
        for bad in ["10.0.0.0", "10.0.0.0/33", "10.0.0/8", "fd00::/129", "10.0.0.0/+8", "/8", ""] {
            assert!(bad.parse::<Subnet>().is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn ranges_overlap_exactly_when_they_share_an_address(a: u32, b: u32, p in 0u8..=32, q in 0u8..=32) {
            let (a, b) = (Ipv4Addr::from(a), Ipv4Addr::from(b));
            let (a, b) = (Subnet::containing(a, p), Subnet::containing(b, q));
            let share = a.base().max(b.base()) <= a.last().min(b.last());
            prop_assert_eq!(a.overlaps(b), share);
            prop_assert_eq!(a.to_string().parse::<Subnet>().unwrap(), a);
        }

        #[test]
        fn what_is_of_another_family_is_outside(a: u128, p in 0u8..=128, b: u32) {
            let range = Subnet::containing(Ipv6Addr::from(a), p);
            prop_assert!(!range.contains(Ipv4Addr::from(b).into()));
            prop_assert!(range.contains(range.last()) && range.contains(range.base()));
        }
    }
}
