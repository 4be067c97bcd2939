//! The one address type of every key: sixteen bytes, IPv4 as `::ffff:a.b.c.d` (RFC 4291 2.5.5.2).

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// An IP address of either family, held as two words so that keys hash and compare by word.
///
/// The words are the big-endian value of the bytes: ordering is numeric within a family, and all of
/// IPv4 sorts together.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(from = "IpAddr", into = "IpAddr")]
pub struct Addr {
    hi: u64,
    lo: u64,
}

/// An address family.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Family {
    /// IP version 4.
    V4,
    /// IP version 6.
    V6,
}

const V4_PREFIX: u64 = 0xffff_0000_0000;

impl Addr {
    /// `::`, also "none".
    pub const UNSPECIFIED: Self = Self { hi: 0, lo: 0 };

    /// `127.0.0.1`.
    pub const LOOPBACK_V4: Self = Self::from_v4_bits(0x7f00_0001);
    /// `::1`.
    pub const LOOPBACK_V6: Self = Self { hi: 0, lo: 1 };

    /// An IPv4 address from its number in host order.
    #[inline]
    pub const fn from_v4_bits(bits: u32) -> Self {
        Self { hi: 0, lo: V4_PREFIX | bits as u64 }
    }

    /// From the four bytes on the wire.
    #[inline]
    pub const fn from_v4_bytes(bytes: [u8; 4]) -> Self {
        Self::from_v4_bits(u32::from_be_bytes(bytes))
    }

    /// From the sixteen bytes on the wire.
    #[inline]
    pub const fn from_v6_bytes(bytes: [u8; 16]) -> Self {
        let bits = u128::from_be_bytes(bytes);
        Self { hi: (bits >> 64) as u64, lo: bits as u64 }
    }

    /// An IPv6 address of a /64 prefix and an interface identifier.
    pub const fn from_prefix_and_id(prefix: u64, id: u64) -> Self {
        Self { hi: prefix, lo: id }
    }

    /// The two words, high first.
    #[inline]
    pub const fn words(self) -> [u64; 2] {
        [self.hi, self.lo]
    }

    /// The sixteen bytes, IPv4 mapped.
    pub const fn bytes(self) -> [u8; 16] {
        (((self.hi as u128) << 64) | self.lo as u128).to_be_bytes()
    }

    /// Whether this is an IPv4 address.
    #[inline]
    pub const fn is_v4(self) -> bool {
        self.hi == 0 && self.lo >> 32 == 0xffff
    }

    /// Which family it belongs to.
    pub const fn family(self) -> Family {
        if self.is_v4() { Family::V4 } else { Family::V6 }
    }

    /// The IPv4 address, if it is one.
    pub const fn v4(self) -> Option<Ipv4Addr> {
        if self.is_v4() { Some(Ipv4Addr::from_bits(self.lo as u32)) } else { None }
    }

    /// The IPv6 address, if it is one.
    pub fn v6(self) -> Option<Ipv6Addr> {
        if self.is_v4() { None } else { Some(Ipv6Addr::from(self.bytes())) }
    }

    /// As the standard library has it.
    pub fn ip(self) -> IpAddr {
        self.v4().map_or_else(|| IpAddr::V6(Ipv6Addr::from(self.bytes())), IpAddr::V4)
    }

    /// `0.0.0.0` or `::`.
    pub fn is_unspecified(self) -> bool {
        self.ip().is_unspecified()
    }

    /// A group address, or IPv4's limited broadcast.
    pub fn is_multicast_or_broadcast(self) -> bool {
        self.ip().is_multicast() || self == Self::from_v4_bits(u32::MAX)
    }

    /// `127.0.0.0/8` or `::1`.
    pub fn is_loopback(self) -> bool {
        self.ip().is_loopback()
    }

    /// `169.254.0.0/16` or `fe80::/10`.
    pub fn is_link_local(self) -> bool {
        match self.ip() {
            IpAddr::V4(ip) => ip.is_link_local(),
            IpAddr::V6(ip) => ip.is_unicast_link_local(),
        }
    }
}

impl From<IpAddr> for Addr {
    fn from(ip: IpAddr) -> Self {
        match ip {
            IpAddr::V4(ip) => ip.into(),
            IpAddr::V6(ip) => ip.into(),
        }
    }
}

impl From<Ipv4Addr> for Addr {
    fn from(ip: Ipv4Addr) -> Self {
        Self::from_v4_bytes(ip.octets())
    }
}

impl From<Ipv6Addr> for Addr {
    fn from(ip: Ipv6Addr) -> Self {
        Self::from_v6_bytes(ip.octets())
    }
}

impl From<Addr> for IpAddr {
    fn from(addr: Addr) -> Self {
        addr.ip()
    }
}

impl FromStr for Addr {
    type Err = std::net::AddrParseError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse::<IpAddr>().map(Self::from)
    }
}

impl fmt::Display for Addr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.ip(), f)
    }
}

impl fmt::Debug for Addr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_families_round_trip() {
        for text in ["0.0.0.0", "172.17.0.2", "255.255.255.255", "::", "fe80::1", "2001:db8::7"] {
            assert_eq!(text.parse::<Addr>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn an_unspecified_ipv6_address_is_not_ipv4() {
        assert_eq!(Addr::UNSPECIFIED.family(), Family::V6);
        assert_eq!(Addr::from_v4_bits(0).family(), Family::V4);
    }
}
