//! The ports of one protocol on one outside address.
//!
//! One bit says whether a port is used, one whether it is reserved, and a page table of 256 pages says
//! by which mapping. To choose a port is to look for a zero bit from a random place on, 64 at a time:
//! at 95 % occupancy every word still has one of either parity, with a probability of four in five.

use std::ops::RangeInclusive;

use hashbrown::HashMap;

use crate::base::ids::PortId;
use crate::base::limits::SHARED_PORTS_MIN;
use crate::base::lru::{LruList, NIL};
use crate::wire::ipv6;

/// How outside ports are chosen on an uplink.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PortPolicy {
    /// From which range.
    pub range: RangeInclusive<u16>,
    /// Keep the inside port where it is free; otherwise a random one (RFC 6056).
    pub keep: bool,
    /// Keep even even and odd odd where possible (RFC 4787 REQ-4; RFC 7857 8 lets it be turned off).
    pub parity: bool,
}

impl Default for PortPolicy {
    fn default() -> Self {
        Self { range: 1..=u16::MAX, keep: true, parity: true }
    }
}

const WORDS: usize = 65_536 / 64;
const EVEN: u64 = 0x5555_5555_5555_5555;
const ANY: u64 = u64::MAX;
/// RFC 4787 REQ-3 a: ports below are "well known" and stay so.
const FIRST_HIGH: u16 = 1_024;

/// Ports looked at for one destination, each at the price of a look-up among flows: to find none means
/// that thousands of sockets speak to that one.
const SHARED_ATTEMPTS: u32 = 4_096;

type Bits = Box<[u64]>;

fn no_bits() -> Bits {
    vec![0; WORDS].into()
}

/// Which ports are used, and by whom.
#[derive(Debug)]
pub(super) struct Ports {
    used: Bits,
    /// Made with the first reservation.
    reserved: Option<Bits>,
    reserved_count: u32,
    owners: Box<[Option<Box<[u32; 256]>>]>,
    in_use: u32,
    /// How many of them each payer has.
    held: HashMap<PortId, u32>,
    /// Mappings without flows, the one released longest ago first.
    pub(super) idle: LruList,
}

/// Protocols whose mapping has no port: one inside address at a time may speak them to a destination.
pub(super) fn is_portless(proto: u8) -> bool {
    !matches!(proto, ipv6::TCP | ipv6::UDP | ipv6::SCTP | ipv6::ICMP | ipv6::ICMPV6)
}

impl Ports {
    pub(super) fn new() -> Self {
        Self {
            used: no_bits(),
            reserved: None,
            reserved_count: 0,
            owners: vec![None; 256].into(),
            in_use: 0,
            held: HashMap::new(),
            idle: LruList::default(),
        }
    }

    /// Whether nothing is used or reserved.
    pub(super) fn is_unused(&self) -> bool {
        self.in_use == 0 && self.reserved.is_none()
    }

    #[inline]
    fn taken(&self, word: usize) -> u64 {
        self.used[word] | self.reserved.as_ref().map_or(0, |bits| bits[word])
    }

    fn is_free(&self, port: u16) -> bool {
        self.taken(usize::from(port / 64)) >> (port % 64) & 1 == 0
    }

    /// The mapping on a port.
    #[inline]
    pub(super) fn owner(&self, port: u16) -> Option<u32> {
        let page = self.owners[usize::from(port >> 8)].as_ref()?;
        Some(page[usize::from(port & 0xff)]).filter(|owner| *owner != NIL)
    }

    /// Gives a port to a mapping. Pages stay: a space in use will need them again.
    pub(super) fn occupy(&mut self, port: u16, owner: u32, payer: PortId) {
        self.used[usize::from(port / 64)] |= 1 << (port % 64);
        let page = &mut self.owners[usize::from(port >> 8)];
        page.get_or_insert_with(|| Box::new([NIL; 256]))[usize::from(port & 0xff)] = owner;
        self.in_use += 1;
        *self.held.entry(payer).or_default() += 1;
    }

    pub(super) fn vacate(&mut self, port: u16, payer: PortId) {
        self.used[usize::from(port / 64)] &= !(1 << (port % 64));
        if let Some(page) = &mut self.owners[usize::from(port >> 8)] {
            page[usize::from(port & 0xff)] = NIL;
        }
        self.in_use -= 1;
        if let Some(held) = self.held.get_mut(&payer) {
            *held -= 1;
            if *held == 0 {
                self.held.remove(&payer);
            }
        }
    }

    /// Whether a payer takes no more of a range: it holds over a quarter, and less than a quarter is left,
    /// counting what only lingers. So nobody takes an address from the others, and who is alone may have
    /// three quarters of it.
    pub(super) fn is_over_share(
        &self,
        proto: u8,
        payer: PortId,
        range: &RangeInclusive<u16>,
    ) -> bool {
        let len = range.len() as u32;
        if is_portless(proto) || len < SHARED_PORTS_MIN {
            return false;
        }
        let held = self.held.get(&payer).copied().unwrap_or_default();
        // What is reserved or used outside the range counts here, too, which errs to the safe side: to count
        // exactly is for those few whom this does not acquit.
        let at_least = len.saturating_sub(self.reserved_count);
        let busy = self.in_use - self.idle.len() as u32;
        if held * 4 <= at_least || at_least.saturating_sub(busy) * 4 >= len {
            return false;
        }
        let reserved = self.reserved.as_ref().map_or(0, |bits| ones(range, |word| bits[word]));
        let (all, taken) = (len - reserved, ones(range, |word| self.taken(word)));
        let left = len - taken + self.idle.len() as u32;
        held * 4 > all && left * 4 < all
    }

    /// Whether a port is reserved.
    pub(super) fn is_reserved(&self, port: u16) -> bool {
        let word = |bits: &Bits| bits[usize::from(port / 64)] >> (port % 64) & 1 != 0;
        self.reserved.as_ref().is_some_and(word)
    }

    /// Reserves a port that is not, or the reverse.
    pub(super) fn set_reserved(&mut self, port: u16, on: bool) {
        let bits = self.reserved.get_or_insert_with(no_bits);
        bits[usize::from(port / 64)] ^= 1 << (port % 64);
        if on {
            self.reserved_count += 1;
        } else {
            self.reserved_count -= 1;
        }
        if self.reserved_count == 0 {
            self.reserved = None;
        }
    }

    /// A free port for an inside port; `random` says where to look first.
    pub(super) fn choose(
        &self,
        proto: u8,
        inside: u16,
        policy: &PortPolicy,
        random: u64,
    ) -> Option<u16> {
        if is_portless(proto) {
            return self.is_free(0).then_some(0);
        }
        let is_query = matches!(proto, ipv6::ICMP | ipv6::ICMPV6);
        let (first, last) = policy.range.clone().into_inner();
        let high = (first.max(FIRST_HIGH), last);
        let low = (first, last.min(FIRST_HIGH - 1));
        // Identifiers have neither class nor parity. Below a range's class nothing may be left.
        let parts = match inside {
            _ if is_query => [(first, last), (1, 0)],
            _ if high.0 > high.1 => [low, (1, 0)],
            0..FIRST_HIGH => [low, high],
            _ => [high, (1, 0)],
        };
        let parity = if policy.parity && !is_query { EVEN << (inside & 1) } else { ANY };
        for (first, last) in parts {
            if first > last {
                continue;
            }
            if policy.keep && (first..=last).contains(&inside) && self.is_free(inside) {
                return Some(inside);
            }
            let length = u64::from(last - first) + 1;
            let start = first + (random % length) as u16;
            let around =
                |mask| self.scan(start, last, mask).or_else(|| self.scan(first, start, mask));
            let found = around(parity).or_else(|| around(ANY));
            if found.is_some() {
                return found;
            }
        }
        None
    }

    /// A port that no mapping has and that is free towards one destination, as `is_taken` knows it:
    /// the inside port if it can be, else one of the same class and parity.
    pub(super) fn choose_shared(
        &self,
        proto: u8,
        inside: u16,
        policy: &PortPolicy,
        random: u64,
        is_taken: impl Fn(u16) -> bool,
    ) -> Option<u16> {
        let usable = |port: u16| self.is_free(port) && !is_taken(port);
        if is_portless(proto) {
            return usable(0).then_some(0);
        }
        let (first, last) = policy.range.clone().into_inner();
        let high = matches!(proto, ipv6::ICMP | ipv6::ICMPV6) || inside >= FIRST_HIGH;
        let first = if high && last >= FIRST_HIGH { first.max(FIRST_HIGH) } else { first };
        if policy.keep && (first..=last).contains(&inside) && usable(inside) {
            return Some(inside);
        }
        let length = u32::from(last - first) + 1;
        let start = (random % u64::from(length)) as u32;
        let nth = |n: u32| first + ((start + n) % length) as u16;
        let like = |port: &u16| !policy.parity || port % 2 == inside % 2;
        let mut tried = (0..length.min(SHARED_ATTEMPTS)).map(nth).filter(|port| usable(*port));
        tried.clone().find(like).or_else(|| tried.next())
    }

    fn scan(&self, from: u16, to: u16, mask: u64) -> Option<u16> {
        let (first, last) = (usize::from(from / 64), usize::from(to / 64));
        (first..=last).find_map(|word| {
            let mut free = !self.taken(word) & mask;
            if word == first {
                free &= ANY << (from % 64);
            }
            if word == last {
                free &= ANY >> (63 - to % 64);
            }
            (free != 0).then(|| word as u16 * 64 + free.trailing_zeros() as u16)
        })
    }

    pub(super) fn memory_bytes(&self) -> usize {
        let bits = WORDS * 8 * (1 + usize::from(self.reserved.is_some()));
        let pages = self.owners.iter().flatten().count() * size_of::<[u32; 256]>();
        let held = self.held.capacity() * size_of::<(PortId, u32)>();
        bits + size_of_val(&*self.owners) + pages + held
    }
}

/// How many bits are set for the ports of a range.
fn ones(range: &RangeInclusive<u16>, word_at: impl Fn(usize) -> u64) -> u32 {
    let (first, last) = range.clone().into_inner();
    let words = usize::from(first / 64)..=usize::from(last / 64);
    let ones = words.map(|word| {
        let mut bits = word_at(word);
        if word == usize::from(first / 64) {
            bits &= ANY << (first % 64);
        }
        if word == usize::from(last / 64) {
            bits &= ANY >> (63 - last % 64);
        }
        bits.count_ones()
    });
    ones.sum()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wire::ipv6::{ICMP, TCP, UDP};

    const PAYER: PortId = PortId(1);

    fn policy(range: RangeInclusive<u16>) -> PortPolicy {
        PortPolicy { range, ..PortPolicy::default() }
    }

    fn full_but(free: &[u16]) -> Ports {
        let mut ports = Ports::new();
        (0..=u16::MAX)
            .filter(|port| !free.contains(port))
            .for_each(|port| ports.occupy(port, 0, PAYER));
        ports
    }

    #[test]
    fn the_inside_port_is_kept_where_it_is_free() {
        let mut ports = Ports::new();
        assert_eq!(ports.choose(UDP, 40_000, &PortPolicy::default(), 7), Some(40_000));
        ports.occupy(40_000, 1, PAYER);
        assert_ne!(ports.choose(UDP, 40_000, &PortPolicy::default(), 7), Some(40_000));
        let random = PortPolicy { keep: false, ..PortPolicy::default() };
        assert_ne!(ports.choose(UDP, 50_000, &random, 7), Some(50_000));
    }

    #[test]
    fn parity_is_kept_while_ports_of_it_are_left_and_then_given_up() {
        let ports = full_but(&[2_000, 3_001]);
        for random in [0, 1_000, 5_000, 60_000] {
            assert_eq!(ports.choose(TCP, 40_000, &PortPolicy::default(), random), Some(2_000));
            assert_eq!(ports.choose(TCP, 40_001, &PortPolicy::default(), random), Some(3_001));
        }
        let odd = full_but(&[3_001]);
        assert_eq!(odd.choose(TCP, 40_000, &PortPolicy::default(), 9), Some(3_001));
    }

    #[test]
    fn high_ports_stay_high_and_low_ports_stay_low_while_they_can() {
        let low = full_but(&[700]);
        assert_eq!(low.choose(UDP, 40_000, &PortPolicy::default(), 3), None);
        assert_eq!(low.choose(UDP, 500, &PortPolicy::default(), 3), Some(700));
        let high = full_but(&[7_000]);
        assert_eq!(high.choose(UDP, 500, &PortPolicy::default(), 3), Some(7_000));
    }

    #[test]
    fn a_range_is_never_left() {
        let ports = Ports::new();
        for inside in [1, 500, 1_024, 40_000, 61_440, 65_535] {
            for random in [0, 1, 4_095, 4_096, u64::MAX] {
                let port = ports.choose(TCP, inside, &policy(61_440..=65_535), random).unwrap();
                assert!(port >= 61_440);
                let port = ports.choose(TCP, inside, &policy(600..=700), random).unwrap();
                assert!((600..=700).contains(&port));
            }
        }
        assert_eq!(full_but(&[61_439]).choose(TCP, 500, &policy(61_440..=65_535), 0), None);
    }

    #[test]
    fn identifiers_have_neither_class_nor_parity() {
        let ports = full_but(&[7]);
        assert_eq!(ports.choose(ICMP, 40_000, &PortPolicy::default(), 3), Some(7));
        assert_eq!(ports.choose(TCP, 40_000, &PortPolicy::default(), 3), None);
    }

    #[test]
    fn a_protocol_without_ports_has_one_mapping_for_an_address() {
        let mut ports = Ports::new();
        assert_eq!(ports.choose(47, 0, &PortPolicy::default(), 3), Some(0));
        ports.occupy(0, 1, PAYER);
        assert_eq!(ports.choose(47, 0, &PortPolicy::default(), 3), None);
    }

    proptest! {
        #[test]
        fn a_payer_is_over_its_share_with_over_a_quarter_of_a_range_of_which_less_than_a_quarter_is_left(
            first in 1_900_u16..2_100, len in 50_u16..200,
            taken in prop::collection::vec(0_u8..4, 500)
        ) {
            // Ports from 1,800 on: free, reserved, or the one's or the other's.
            let (mut ports, range) = (Ports::new(), first..=first + len - 1);
            let mut counted = [0_u32; 4];
            for (port, kind) in (1_800_u16..).zip(&taken) {
                let other = PortId(9);
                match kind {
                    1 => ports.set_reserved(port, true),
                    2 => ports.occupy(port, 0, PAYER),
                    3 => ports.occupy(port, 0, other),
                    _ => {}
                }
                if range.contains(&port) {
                    counted[usize::from(*kind)] += 1;
                }
            }
            let free = counted[0] + u32::from(range.end().saturating_sub(2_299));
            let all = u32::from(len) - counted[1];
            // What is held outside the range weighs, too: it was, when the range was another one.
            let held = taken.iter().filter(|kind| **kind == 2).count() as u32;
            let over = u32::from(len) >= SHARED_PORTS_MIN && held * 4 > all && free * 4 < all;
            prop_assert_eq!(ports.is_over_share(UDP, PAYER, &range), over);
            prop_assert!(!ports.is_over_share(UDP, PortId(2), &range), "who has none is not");
        }

        #[test]
        fn a_chosen_port_is_free_and_one_is_found_whenever_there_is_one(
            taken in prop::collection::hash_set(2_000_u16..2_200, 0..201),
            inside in any::<u16>(), random in any::<u64>()
        ) {
            let mut ports = Ports::new();
            for (n, port) in taken.iter().enumerate() {
                if n % 3 == 0 { ports.set_reserved(*port, true) } else { ports.occupy(*port, 9, PAYER) }
            }
            let found = ports.choose(UDP, inside, &policy(2_000..=2_199), random);
            prop_assert_eq!(found.is_some(), taken.len() < 200);
            if let Some(port) = found {
                prop_assert!((2_000..2_200).contains(&port) && !taken.contains(&port));
                let same = (2_000..2_200).any(|p| p % 2 == inside % 2 && !taken.contains(&p));
                prop_assert!(!same || port % 2 == inside % 2);
            }
        }
    }
}
