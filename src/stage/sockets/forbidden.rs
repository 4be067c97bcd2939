//! Destinations that must never reach a socket call.
//!
//! A host socket is the host's own process as far as the kernel can see. So what a container may not
//! reach must be refused here, before there is a socket: the host's loopback (also as `0.0.0.0`, which
//! Linux connects to loopback, and as an IPv4-mapped IPv6 address, which opens an IPv4 connection), groups,
//! the host's links, and the switch's own networks, which are reached through the switch or not at all.

use crate::packet::{L3, Parsed};
use crate::wire::addr::Addr;

/// The switch's own prefixes, as sorted ranges of numbers.
#[derive(Clone, Debug, Default)]
pub struct Forbidden {
    ranges: Vec<(u128, u128)>,
}

fn number(addr: Addr) -> u128 {
    u128::from_be_bytes(addr.bytes())
}

impl Forbidden {
    /// From prefixes: address and length, IPv4 lengths up to 32.
    pub fn new(prefixes: &[(Addr, u8)]) -> Self {
        let mut ranges: Vec<_> = prefixes
            .iter()
            .map(|&(addr, len)| {
                let bits = if addr.is_v4() { 96 + u32::from(len.min(32)) } else { len.into() };
                let mask = u128::MAX.checked_shl(128 - bits.min(128)).unwrap_or(0);
                (number(addr) & mask, number(addr) | !mask)
            })
            .collect();
        ranges.sort_unstable();
        ranges.dedup_by(|next, kept| {
            let overlaps = next.0 <= kept.1;
            if overlaps {
                kept.1 = kept.1.max(next.1);
            }
            overlaps
        });
        Self { ranges }
    }

    /// Whether a socket flow to this packet's destination must not be opened.
    pub fn refuses(&self, parsed: &Parsed) -> bool {
        // An IPv4-mapped address inside an IPv6 packet reads as IPv4 from here on.
        let mapped = (parsed.l3 == L3::V6) == parsed.dst.is_v4();
        mapped || Self::never(parsed.dst) || self.own(parsed.dst)
    }

    /// Addresses that are nobody's or only the host's, in any network.
    fn never(addr: Addr) -> bool {
        let first_byte = addr.v4().map(|ip| ip.octets()[0]);
        // `0.0.0.0/8` is "this host" (RFC 1122 3.2.1.3), `::/96` the deprecated IPv4-compatible form.
        let this_host = first_byte == Some(0) || (!addr.is_v4() && number(addr) >> 32 == 0);
        this_host || addr.is_loopback() || addr.is_multicast_or_broadcast() || addr.is_link_local()
    }

    fn own(&self, addr: Addr) -> bool {
        let n = number(addr);
        let after = self.ranges.partition_point(|range| range.0 <= n);
        after.checked_sub(1).and_then(|at| self.ranges.get(at)).is_some_and(|range| n <= range.1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::DropReason;
    use crate::stage::sockets::testing;

    fn refused(forbidden: &Forbidden, dst: &str) -> bool {
        let dst: Addr = dst.parse().unwrap();
        let src = if dst.is_v4() { "172.17.0.2" } else { "fd00::2" }.parse().unwrap();
        let frame = testing::udp(src, 1000, dst, 53, b"x");
        Parsed::new(frame.bytes()).map_or(true, |parsed| forbidden.refuses(&parsed))
    }

    #[test]
    fn the_host_s_loopback_is_refused_under_all_its_names() {
        let none = Forbidden::default();
        for dst in ["127.0.0.1", "127.255.1.2", "0.0.0.0", "0.0.0.1", "::1", "::", "::7f00:1"] {
            assert!(refused(&none, dst), "{dst}");
        }
        let mut frame = testing::udp(
            "fd00::2".parse().unwrap(),
            1000,
            "2001:db8::1".parse().unwrap(),
            53,
            b"x",
        );
        let mapped: Addr = "::ffff:127.0.0.1".parse().unwrap();
        frame.frame().bytes_mut()[38..54].copy_from_slice(&mapped.bytes());
        assert_eq!(Parsed::new(frame.bytes()), Err(DropReason::MartianDestination), "mapped");
    }

    #[test]
    fn groups_and_links_are_refused_and_the_rest_is_not() {
        let none = Forbidden::default();
        for dst in ["224.0.0.251", "255.255.255.255", "ff02::fb", "169.254.169.254", "fe80::1"] {
            assert!(refused(&none, dst), "{dst}");
        }
        for dst in ["1.1.1.1", "192.168.1.1", "128.0.0.1", "2606:4700::1111", "fd12::1"] {
            assert!(!refused(&none, dst), "{dst}");
        }
    }

    #[test]
    fn the_switch_s_own_networks_are_refused_to_their_edges() {
        let own = Forbidden::new(&[
            ("172.17.0.0".parse().unwrap(), 16),
            ("172.17.3.0".parse().unwrap(), 24),
            ("fd00:1::".parse().unwrap(), 64),
        ]);
        for dst in ["172.17.0.0", "172.17.3.4", "172.17.255.255", "fd00:1::", "fd00:1::ffff:1"] {
            assert!(refused(&own, dst), "{dst}");
        }
        for dst in ["172.16.255.255", "172.18.0.0", "fd00:1:0:1::", "fd00::ffff"] {
            assert!(!refused(&own, dst), "{dst}");
        }
    }
}
