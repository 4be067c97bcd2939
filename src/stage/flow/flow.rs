//! One connection, both directions, in 160 bytes.
//!
//! At a million flows memory is what NAT costs, so every byte is accounted for. Two and a half cache
//! lines; aligned to half a line, a flow never touches a fourth.
//!
//! | offset | bytes | what | remarks |
//! |---:|---:|---|---|
//! | 0 | 80 | keys | both sides' packets as they arrive; compared on every look-up |
//! | 80 | 8 | bytes, low half | with the high half 48 bits a direction: 281 TB |
//! | 88 | 8 | packets | a super-frame is one; stops at 2³² − 1 |
//! | 96 | 8 | hops | the owner's compiled way out, one for each direction |
//! | 104 | 4 | last seen | milliseconds, exact to [`super::table::GRANULARITY`] |
//! | 108 | 4 | generation | configuration under which the hops were compiled |
//! | 112 | 22 | TCP | phase, sequence numbers, windows, scales |
//! | 134 | 4 | bytes, high half | |
//! | 138 | 2 | NAT | change of the sum of addresses; that of ports is three additions and not kept |
//! | 140 | 4 | ports | where both sides are plugged in |
//! | 144 | 4 | mapping | NIL without endpoint-independent mapping |
//! | 148 | 8 | links | list of its class, or of free slots |
//! | 156 | 1 | class and flags | four bits each; class 15 is a free slot |
//! | 157 | 3 | created | eighths of a second on a circle of 24 days |

use crate::base::ids::{Generation, PortId};
use crate::base::lru::{Links, NIL};
use crate::base::time::{Millis, Span, Time};
use crate::packet::FlowKey;
use crate::packet::rewrite::NatDelta;
use crate::wire::checksum;

use super::mapping::MappingId;
use super::table::GRANULARITY_MS;
use super::tcp::{TcpState, Transition};
use super::timeouts::Class;

/// Which way a packet goes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum Direction {
    /// As the flow's first packet.
    Initiator = 0,
    /// The answers.
    Responder = 1,
}

impl Direction {
    /// Position in a pair.
    #[inline]
    pub fn index(self) -> usize {
        self as usize
    }

    /// The other one.
    #[inline]
    #[must_use]
    pub fn flip(self) -> Self {
        match self {
            Self::Initiator => Self::Responder,
            Self::Responder => Self::Initiator,
        }
    }
}

/// A compiled way out in a table of the owner's.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct HopId(pub u32);

impl HopId {
    /// Not compiled.
    pub const NIL: Self = Self(NIL);
}

/// What the owner remembers of a flow, one bit each.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Flag {
    /// What the initiator sends does not keep the flow alive.
    InitiatorMute = 0x10,
    /// What the responder sends does not.
    ResponderMute = 0x20,
}

/// Set when packets leave otherwise than they came; known from the keys.
const TRANSLATED: u8 = 0x80;
const CLASS_MASK: u8 = 0x0f;
const VACANT: u8 = 0x0f;

/// Both directions of one connection.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(32))]
pub struct Flow {
    keys: [FlowKey; 2],
    bytes_low: [u32; 2],
    packets: [u32; 2],
    /// Compiled ways out of packets in each direction.
    pub hops: [HopId; 2],
    pub(super) last_seen: Millis,
    /// The configuration under which this flow was judged.
    pub generation: Generation,
    /// State and windows; unused by other protocols.
    pub tcp: TcpState,
    bytes_high: [u16; 2],
    nat_addrs: u16,
    ports: [PortId; 2],
    mapping: u32,
    pub(super) links: Links,
    class_and_flags: u8,
    created: [u8; 3],
}

const _: () = assert!(size_of::<Flow>() == 160);

impl Flow {
    /// A flow whose packets arrive keyed `keys[0]` from the initiator on port `ports[0]`, and keyed
    /// `keys[1]` from the responder on `ports[1]`. Where the second key is not the first reversed,
    /// packets are translated.
    pub fn new(now: Time, keys: [FlowKey; 2], ports: [PortId; 2]) -> Self {
        let class = Class::first(keys[0].proto, keys[0].dst_port);
        let translated = if same_endpoints(&keys) { 0 } else { TRANSLATED };
        let created = eighths(now).to_le_bytes();
        Self {
            keys,
            bytes_low: [0; 2],
            packets: [0; 2],
            hops: [HopId::NIL; 2],
            last_seen: now.millis(),
            generation: Generation(0),
            tcp: TcpState::default(),
            bytes_high: [0; 2],
            nat_addrs: NatDelta::between(&keys[0], &keys[1]).addrs,
            ports,
            mapping: NIL,
            links: Links::default(),
            class_and_flags: class as u8 | translated,
            created: [created[0], created[1], created[2]],
        }
    }

    /// How packets in `dir` arrive.
    #[inline]
    pub fn key(&self, dir: Direction) -> &FlowKey {
        &self.keys[dir.index()]
    }

    /// Both keys, the initiator's first.
    #[inline]
    pub fn keys(&self) -> &[FlowKey; 2] {
        &self.keys
    }

    /// Addresses and ports that packets in `dir` leave with, and what that does to checksums; `None`
    /// where nothing is translated. Goes into [`crate::packet::Rewrite::nat`].
    #[inline(always)]
    #[allow(clippy::inline_always, reason = "its forty bytes need not exist in memory; measured")]
    pub fn rewrite(&self, dir: Direction) -> Option<(FlowKey, NatDelta)> {
        if self.class_and_flags & TRANSLATED == 0 {
            return None;
        }
        let back = &self.keys[dir.flip().index()];
        let ports = |key: &FlowKey| checksum::add(key.src_port, key.dst_port);
        let delta = NatDelta {
            addrs: self.nat_addrs,
            ports: checksum::delta(ports(&self.keys[0]), ports(&self.keys[1])),
        };
        let delta = if dir == Direction::Initiator { delta } else { delta.inverse() };
        Some((back.reversed(back.domain, back.scope), delta))
    }

    /// Whether packets in `dir` leave with another source address than they came with.
    #[inline]
    pub fn is_source_rewritten(&self, dir: Direction) -> bool {
        self.class_and_flags & TRANSLATED != 0
            && self.keys[dir.index()].src != self.keys[dir.flip().index()].dst
    }

    /// Where the side that sends in `dir` is plugged in.
    #[inline]
    pub fn port(&self, dir: Direction) -> PortId {
        self.ports[dir.index()]
    }

    /// The responder was found behind another port. The initiator's never changes: it pays for the flow.
    pub fn set_responder_port(&mut self, port: PortId) {
        self.ports[1] = port;
    }

    /// The mapping that this flow holds a reference to.
    pub fn mapping(&self) -> Option<MappingId> {
        (self.mapping != NIL).then_some(MappingId(self.mapping))
    }

    /// Remembers a reference to a mapping, to be released when the flow ends.
    pub fn set_mapping(&mut self, mapping: Option<MappingId>) {
        self.mapping = mapping.map_or(NIL, |id| id.0);
    }

    /// Counts a packet.
    #[inline]
    pub fn count(&mut self, dir: Direction, bytes: u32) {
        let at = dir.index();
        let (low, carry) = self.bytes_low[at].overflowing_add(bytes);
        self.bytes_low[at] = low;
        self.bytes_high[at] = self.bytes_high[at].wrapping_add(u16::from(carry));
        self.packets[at] = self.packets[at].saturating_add(1);
    }

    /// Bytes sent in `dir`.
    pub fn bytes(&self, dir: Direction) -> u64 {
        u64::from(self.bytes_high[dir.index()]) << 32 | u64::from(self.bytes_low[dir.index()])
    }

    /// Packets sent in `dir`.
    pub fn packets(&self, dir: Direction) -> u32 {
        self.packets[dir.index()]
    }

    /// When a packet last kept the flow alive, exact to [`super::table::GRANULARITY`].
    pub fn last_seen(&self) -> Millis {
        self.last_seen
    }

    /// How long ago the flow began, exact to an eighth of a second; starts anew after 24 days.
    pub fn age(&self, now: Time) -> Span {
        let [a, b, c] = self.created;
        let age = eighths(now).wrapping_sub(u32::from_le_bytes([a, b, c, 0])) & 0x00ff_ffff;
        Span::from_millis(u64::from(age) << EIGHTH_SHIFT)
    }

    /// The class under which the flow ages.
    #[inline]
    pub fn class(&self) -> Class {
        // A free slot is never handed out, so that its class is never asked for.
        Class::ALL
            .get(usize::from(self.class_and_flags & CLASS_MASK))
            .copied()
            .unwrap_or(Class::Other)
    }

    /// The class that the flow has after a packet in `dir`. TCP's follows from its phase, so track the
    /// segment first; give the answer to [`super::FlowTable::touch`].
    #[inline]
    pub fn class_after(&self, dir: Direction) -> Class {
        self.tcp.class().unwrap_or_else(|| self.class().after(dir))
    }

    /// Whether a packet in `dir` must be told to [`FlowTable::touch`](super::FlowTable::touch); most
    /// need not be. TCP's class follows from its phase, which only a transition changes.
    #[inline]
    pub fn is_due(&self, now: Millis, dir: Direction, transition: Transition) -> bool {
        match transition {
            Transition::Ignored => false,
            Transition::Unchanged => {
                let single = self.class_and_flags & CLASS_MASK == Class::UdpSingle as u8;
                let due = single && dir == Direction::Responder
                    || now.since(self.last_seen) >= GRANULARITY_MS;
                due && !self.is_mute(dir)
            }
            _ => true,
        }
    }

    /// Whether what is sent in `dir` does not keep the flow alive.
    #[inline]
    pub fn is_mute(&self, dir: Direction) -> bool {
        self.is(match dir {
            Direction::Initiator => Flag::InitiatorMute,
            Direction::Responder => Flag::ResponderMute,
        })
    }

    /// Whether `flag` is set.
    #[inline]
    pub fn is(&self, flag: Flag) -> bool {
        self.class_and_flags & flag as u8 != 0
    }

    /// Sets or clears `flag`.
    pub fn set(&mut self, flag: Flag, on: bool) {
        if on {
            self.class_and_flags |= flag as u8;
        } else {
            self.class_and_flags &= !(flag as u8);
        }
    }

    #[inline]
    pub(super) fn set_class(&mut self, class: Class) {
        self.class_and_flags = self.class_and_flags & !CLASS_MASK | class as u8;
    }

    pub(super) fn vacate(&mut self) {
        self.class_and_flags |= VACANT;
    }

    #[inline]
    pub(super) fn is_vacant(&self) -> bool {
        self.class_and_flags & CLASS_MASK == VACANT
    }

    /// Something in each cache line of the flow.
    #[inline]
    pub(super) fn prefetch(&self) {
        crate::base::prefetch::prefetch(&self.keys[0]);
        crate::base::prefetch::prefetch(&self.keys[1].src_port);
        crate::base::prefetch::prefetch(&self.ports);
    }
}

/// 128 ms, which is close enough to an eighth of a second and a shift.
const EIGHTH_SHIFT: u32 = 7;

fn eighths(now: Time) -> u32 {
    now.millis().0 >> EIGHTH_SHIFT & 0x00ff_ffff
}

fn same_endpoints(keys: &[FlowKey; 2]) -> bool {
    let [there, back] = keys;
    (there.src, there.src_port, there.dst, there.dst_port)
        == (back.dst, back.dst_port, back.src, back.src_port)
}

#[cfg(test)]
mod tests {
    use super::super::testing::{keys, masqueraded};
    use super::*;
    use crate::wire::ipv6;

    const PORTS: [PortId; 2] = [PortId(1), PortId(2)];

    #[test]
    fn an_untranslated_flow_rewrites_nothing() {
        for v6 in [false, true] {
            let flow = Flow::new(Time::ZERO, keys(v6, ipv6::TCP, 1), PORTS);
            assert_eq!(flow.rewrite(Direction::Initiator), None);
            assert_eq!(flow.rewrite(Direction::Responder), None);
        }
    }

    #[test]
    fn each_direction_leaves_as_the_other_side_knows_it() {
        for v6 in [false, true] {
            let keys = masqueraded(v6, ipv6::UDP, 1);
            let flow = Flow::new(Time::ZERO, keys, PORTS);
            let (out, delta) = flow.rewrite(Direction::Initiator).unwrap();
            assert_eq!((out.src, out.src_port), (keys[1].dst, keys[1].dst_port));
            assert_eq!((out.dst, out.dst_port), (keys[0].dst, keys[0].dst_port));
            assert_eq!(delta, NatDelta::between(&keys[0], &out));
            let (back, delta) = flow.rewrite(Direction::Responder).unwrap();
            assert_eq!((back.dst, back.dst_port), (keys[0].src, keys[0].src_port));
            assert_eq!((back.src, back.src_port), (keys[1].src, keys[1].src_port));
            assert_eq!(delta, NatDelta::between(&keys[0], &out).inverse());
        }
    }

    #[test]
    fn bytes_count_beyond_four_gigabytes() {
        let mut flow = Flow::new(Time::ZERO, keys(false, ipv6::TCP, 1), PORTS);
        for _ in 0..100_000 {
            flow.count(Direction::Responder, 65_535);
        }
        assert_eq!(flow.bytes(Direction::Responder), 6_553_500_000);
        assert_eq!(flow.packets(Direction::Responder), 100_000);
        assert_eq!(flow.bytes(Direction::Initiator), 0);
    }

    #[test]
    fn the_age_is_right_within_an_eighth_of_a_second_also_when_the_clock_wraps() {
        // The circle of milliseconds ends after 49.7 days.
        for start in [Time::ZERO, Time(49 * 86_400 * 1_000_000_000 + 61_000_000_000_000)] {
            let flow = Flow::new(start, keys(true, ipv6::TCP, 1), PORTS);
            for secs in [0, 1, 59, 7_440, 1_000_000] {
                let age = flow.age(start + Span::from_secs(secs)).as_millis();
                assert!(age.abs_diff(secs * 1_000) <= 128, "{age} after {secs} s");
            }
        }
    }

    #[test]
    fn flags_and_class_share_a_byte_and_keep_apart() {
        let mut flow = Flow::new(Time::ZERO, masqueraded(false, ipv6::UDP, 1), PORTS);
        flow.set(Flag::InitiatorMute, true);
        flow.set(Flag::ResponderMute, true);
        flow.set_class(Class::Other);
        flow.set(Flag::InitiatorMute, false);
        assert!(flow.is_mute(Direction::Responder) && !flow.is_mute(Direction::Initiator));
        assert_eq!(flow.class(), Class::Other);
        assert!(flow.rewrite(Direction::Initiator).is_some());
    }
}
