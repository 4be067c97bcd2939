//! Longest-prefix match over both families.
//!
//! One trie a family, so that an IPv4 look-up walks 32 bits and not 128, and `0.0.0.0/0` never
//! answers for IPv6. Only the slow path looks routes up: their answer is compiled into the flow.

use prefix_trie::{Prefix, PrefixMap};

use crate::wire::addr::Addr;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Net4(u32, u8);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Net6(u128, u8);

impl Prefix for Net4 {
    type R = u32;
    fn repr(&self) -> u32 {
        self.0
    }
    fn prefix_len(&self) -> u8 {
        self.1
    }
    fn from_repr_len(repr: u32, len: u8) -> Self {
        Self(repr, len)
    }
}

impl Prefix for Net6 {
    type R = u128;
    fn repr(&self) -> u128 {
        self.0
    }
    fn prefix_len(&self) -> u8 {
        self.1
    }
    fn from_repr_len(repr: u128, len: u8) -> Self {
        Self(repr, len)
    }
}

/// Routes with a value each.
///
/// Prefix lengths are the family's own: 0 to 32 for IPv4, 0 to 128 for IPv6. A longer one means the
/// longest; bits beyond the length are ignored.
#[derive(Debug)]
pub struct RouteTable<T> {
    v4: PrefixMap<Net4, T>,
    v6: PrefixMap<Net6, T>,
}

impl<T> Default for RouteTable<T> {
    fn default() -> Self {
        Self { v4: PrefixMap::new(), v6: PrefixMap::new() }
    }
}

impl<T> RouteTable<T> {
    /// No routes.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the value of a prefix and returns the one it had.
    pub fn insert(&mut self, prefix: Addr, len: u8, value: T) -> Option<T> {
        if prefix.is_v4() {
            self.v4.insert(net4(prefix, len), value)
        } else {
            self.v6.insert(net6(prefix, len), value)
        }
    }

    /// Takes a prefix out.
    pub fn remove(&mut self, prefix: Addr, len: u8) -> Option<T> {
        if prefix.is_v4() {
            self.v4.remove(&net4(prefix, len))
        } else {
            self.v6.remove(&net6(prefix, len))
        }
    }

    /// The value of exactly this prefix.
    pub fn get(&self, prefix: Addr, len: u8) -> Option<&T> {
        if prefix.is_v4() {
            self.v4.get(&net4(prefix, len))
        } else {
            self.v6.get(&net6(prefix, len))
        }
    }

    /// The value of the longest prefix that has `addr` in it.
    #[inline]
    pub fn lookup(&self, addr: Addr) -> Option<&T> {
        if addr.is_v4() {
            self.v4.get_lpm(&net4(addr, 32)).map(|(_, value)| value)
        } else {
            self.v6.get_lpm(&net6(addr, 128)).map(|(_, value)| value)
        }
    }

    /// All routes: prefix, length, value. IPv4 first, each in order of the prefix.
    pub fn iter(&self) -> impl Iterator<Item = (Addr, u8, &T)> {
        let v4 = self.v4.iter().map(|(net, value)| (Addr::from_v4_bits(net.0), net.1, value));
        let v6 = self.v6.iter();
        v4.chain(v6.map(|(net, value)| (Addr::from_v6_bytes(net.0.to_be_bytes()), net.1, value)))
    }

    /// Number of routes.
    pub fn len(&self) -> usize {
        self.v4.len() + self.v6.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[inline]
fn net4(addr: Addr, len: u8) -> Net4 {
    Net4(addr.words()[1] as u32, len.min(32))
}

#[inline]
fn net6(addr: Addr, len: u8) -> Net6 {
    Net6(u128::from_be_bytes(addr.bytes()), len.min(128))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn addr(text: &str) -> Addr {
        text.parse().unwrap()
    }

    #[test]
    fn the_longest_prefix_wins_in_both_families() {
        let mut table = RouteTable::new();
        for (prefix, len, name) in [
            ("0.0.0.0", 0, "v4 default"),
            ("10.0.0.0", 8, "ten"),
            ("10.1.0.0", 16, "ten-one"),
            ("10.1.2.3", 32, "host"),
            ("::", 0, "v6 default"),
            ("fd00::", 8, "ula"),
            ("fd00::1", 128, "host6"),
        ] {
            assert_eq!(table.insert(addr(prefix), len, name), None);
        }
        for (to, name) in [
            ("192.0.2.1", "v4 default"),
            ("10.2.0.1", "ten"),
            ("10.1.9.9", "ten-one"),
            ("10.1.2.3", "host"),
            ("2001:db8::1", "v6 default"),
            ("fd00::2", "ula"),
            ("fd00::1", "host6"),
        ] {
            assert_eq!(table.lookup(addr(to)), Some(&name), "{to}");
        }
    }

    #[test]
    fn one_family_s_default_route_does_not_answer_for_the_other() {
        let mut table = RouteTable::new();
        table.insert(addr("0.0.0.0"), 0, 4);
        assert_eq!(table.lookup(addr("2001:db8::1")), None);
        table.remove(addr("0.0.0.0"), 0);
        table.insert(addr("::"), 0, 6);
        assert_eq!(table.lookup(addr("192.0.2.1")), None);
        assert_eq!(table.lookup(addr("255.255.255.255")), None);
    }

    #[test]
    fn bits_beyond_the_length_do_not_matter() {
        let mut table = RouteTable::new();
        table.insert(addr("10.1.2.3"), 8, 1);
        assert_eq!(table.insert(addr("10.0.0.0"), 8, 2), Some(1));
        assert_eq!(table.iter().collect::<Vec<_>>(), [(addr("10.0.0.0"), 8, &2)]);
        assert_eq!(table.get(addr("10.9.9.9"), 8), Some(&2));
    }

    fn contains(prefix: Addr, len: u8, addr: Addr) -> bool {
        let bits = |a: Addr| u128::from_be_bytes(a.bytes());
        let len = u32::from(len) + if prefix.is_v4() { 96 } else { 0 };
        let differ = bits(prefix) ^ bits(addr);
        prefix.is_v4() == addr.is_v4() && differ.leading_zeros() >= len
    }

    prop_compose! {
        /// Few bits vary, so that prefixes nest and collide.
        fn some_addr()(v4: bool, high in 0_u8..4, low in 0_u8..4) -> Addr {
            if v4 {
                Addr::from_v4_bytes([10, high << 6, 0, low])
            } else {
                Addr::from_prefix_and_id(0xfd00 << 48 | u64::from(high) << 30, low.into())
            }
        }
    }

    proptest! {
        #[test]
        fn behaves_as_a_plain_list(
            ops in prop::collection::vec((0_u8..4, some_addr(), 0_u8..=128, any::<u16>()), 0..60),
            asked in prop::collection::vec(some_addr(), 1..20),
        ) {
            let mut table = RouteTable::new();
            let mut model: Vec<(Addr, u8, u16)> = Vec::new();
            for (op, prefix, len, value) in ops {
                let len = if prefix.is_v4() { len % 33 } else { len };
                let at = model.iter().position(|r| r.1 == len && contains(r.0, len, prefix));
                let had = at.map(|at| model.remove(at).2);
                if op == 0 {
                    prop_assert_eq!(table.remove(prefix, len), had);
                } else {
                    prop_assert_eq!(table.insert(prefix, len, value), had);
                    model.push((prefix, len, value));
                }
            }
            prop_assert_eq!(table.len(), model.len());
            prop_assert_eq!(table.iter().count(), model.len());
            for addr in asked {
                let matching = model.iter().filter(|r| contains(r.0, r.1, addr));
                let best = matching.max_by_key(|r| r.1).map(|r| r.2);
                prop_assert_eq!(table.lookup(addr).copied(), best, "{}", addr);
            }
        }
    }
}
