//! What a packet socket shows us: programs in the kernel's classic packet filter language.
//!
//! With an address of our own: frames to our Ethernet address and to groups. With the host's address:
//! frames to the host's Ethernet address that may be ours. That is a look at the protocol and the
//! destination port only; the data path decides, and the `netdev` table keeps the kernel away from exactly
//! what is ours. Fragments pass whatever they belong to, since later ones have no port and the first one
//! must be seen to know whose they are. So does what has IPv6 extension headers, in which this language
//! cannot search.

use std::ops::RangeInclusive;

use libc::sock_filter;

use crate::wire::ipv6::{ICMPV6, SCTP, TCP, UDP};
use crate::wire::mac::Mac;

/// Ranges of ports that are compared one after another for each frame of the host's; where there are more,
/// the nearest are joined and frames between them are passed in vain.
const RANGES_MAX: usize = 64;

const LOAD_WORD: u32 = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
const LOAD_HALF: u32 = libc::BPF_LD | libc::BPF_H | libc::BPF_ABS;
const LOAD_BYTE: u32 = libc::BPF_LD | libc::BPF_B | libc::BPF_ABS;
/// Behind the IPv4 header, whose length X has.
const LOAD_HALF_X: u32 = libc::BPF_LD | libc::BPF_H | libc::BPF_IND;
const LOAD_BYTE_X: u32 = libc::BPF_LD | libc::BPF_B | libc::BPF_IND;
/// X = four times the low half of a byte.
const HEADER_LENGTH: u32 = libc::BPF_LDX | libc::BPF_B | libc::BPF_MSH;
const EQUAL: u32 = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
const GREATER: u32 = libc::BPF_JMP | libc::BPF_JGT | libc::BPF_K;
const ANY_BIT: u32 = libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K;
const ALWAYS: u32 = libc::BPF_JMP | libc::BPF_JA;
const RETURN: u32 = libc::BPF_RET | libc::BPF_K;
/// `SKF_AD_OFF + SKF_AD_VLAN_TAG_PRESENT` of linux/filter.h: not a byte of the frame.
const VLAN_TAG_PRESENT: u32 = (-0x1000_i32 + 48).cast_unsigned();

/// A program that is written forwards: a test that fails or succeeds ends it, or goes on.
#[derive(Default)]
struct Program(Vec<sock_filter>);

impl Program {
    fn op(&mut self, code: u32, k: u32, if_true: u8, if_false: u8) -> &mut Self {
        self.0.push(sock_filter { code: code as u16, jt: if_true, jf: if_false, k });
        self
    }

    fn load(&mut self, code: u32, at: u32) -> &mut Self {
        self.op(code, at, 0, 0)
    }

    fn pass(&mut self) -> &mut Self {
        self.op(RETURN, u32::MAX, 0, 0)
    }

    fn drop(&mut self) -> &mut Self {
        self.op(RETURN, 0, 0, 0)
    }

    /// Passes what is equal; goes on otherwise.
    fn pass_if(&mut self, test: u32, k: u32) -> &mut Self {
        self.op(test, k, 0, 1).pass()
    }

    /// Drops what is not equal; goes on otherwise.
    fn drop_unless(&mut self, k: u32) -> &mut Self {
        self.op(EQUAL, k, 1, 0).drop()
    }

    /// Does `other` if the value is equal, and goes on behind it otherwise.
    fn when(&mut self, k: u32, other: Self) -> &mut Self {
        self.op(EQUAL, k, 1, 0).op(ALWAYS, other.0.len() as u32, 0, 0);
        self.0.extend(other.0);
        self
    }

    fn untagged(&mut self) -> &mut Self {
        self.load(LOAD_BYTE, VLAN_TAG_PRESENT).drop_unless(0)
    }

    fn to(&mut self, mac: Mac) -> &mut Self {
        let number = mac.to_u64();
        self.load(LOAD_WORD, 0).drop_unless((number >> 16) as u32);
        self.load(LOAD_HALF, 4).drop_unless((number & 0xffff) as u32)
    }
}

/// Everything that a station with this Ethernet address hears.
pub(super) fn own_address(mac: Mac) -> Vec<sock_filter> {
    let mut program = Program::default();
    program.untagged().load(LOAD_BYTE, 0).pass_if(ANY_BIT, 1).to(mac).pass();
    program.0
}

/// What may be ours of the host's address.
pub(super) fn shared_address(mac: Mac, ports: &[RangeInclusive<u16>]) -> Vec<sock_filter> {
    let ranges = at_most(ports, RANGES_MAX);
    let mut program = Program::default();
    program.untagged().to(mac).load(LOAD_HALF, 12);
    // Answers to us; questions are the kernel's to answer.
    program.pass_if(EQUAL, 0x0806);
    program.when(0x0800, ipv4(&ranges)).drop_unless(0x86dd);
    program.0.extend(ipv6(&ranges).0);
    program.0
}

fn ipv4(ranges: &[RangeInclusive<u16>]) -> Program {
    const PROTOCOL: u32 = 14 + 9;
    const ICMP: u32 = 1;
    let mut program = Program::default();
    // More fragments, or an offset.
    program.load(LOAD_HALF, 14 + 6).pass_if(ANY_BIT, 0x3fff);
    program.load(HEADER_LENGTH, 14).load(LOAD_BYTE, PROTOCOL);
    // Echo replies, unreachable, time exceeded, parameter problem.
    program.when(ICMP, types(&[0, 3, 11, 12], LOAD_BYTE_X, 14));
    program.0.extend(transport(ranges, LOAD_HALF_X, 14 + 2).0);
    program
}

fn ipv6(ranges: &[RangeInclusive<u16>]) -> Program {
    const NEXT_HEADER: u32 = 14 + 6;
    let mut program = Program::default();
    program.load(LOAD_BYTE, NEXT_HEADER);
    // Hop-by-hop options, routing, fragment, destination options.
    for extension in [0, 43, 44, 60] {
        program.pass_if(EQUAL, extension);
    }
    // Errors, echo replies, neighbour advertisements.
    let heard = types(&[1, 2, 3, 4, 129, 136], LOAD_BYTE, 14 + 40);
    program.when(u32::from(ICMPV6), heard);
    program.0.extend(transport(ranges, LOAD_HALF, 14 + 40 + 2).0);
    program
}

fn types(heard: &[u32], load: u32, at: u32) -> Program {
    let mut program = Program::default();
    program.load(load, at);
    for kind in heard {
        program.pass_if(EQUAL, *kind);
    }
    program.drop();
    program
}

/// With the protocol loaded: those with ports, to one of these. The ranges are in order.
fn transport(ranges: &[RangeInclusive<u16>], load: u32, at: u32) -> Program {
    let mut program = Program::default();
    program.op(EQUAL, u32::from(TCP), 3, 0).op(EQUAL, u32::from(UDP), 2, 0);
    program.drop_unless(u32::from(SCTP)).load(load, at);
    for range in ranges {
        let (first, last) = (u32::from(*range.start()), u32::from(*range.end()));
        if let Some(below) = first.checked_sub(1) {
            program.op(GREATER, below, 1, 0).drop();
        }
        program.op(GREATER, last, 1, 0).pass();
    }
    program.drop();
    program
}

/// The same ports in order, in so many ranges at most: those nearest to each other become one.
fn at_most(ports: &[RangeInclusive<u16>], max: usize) -> Vec<RangeInclusive<u16>> {
    let mut sorted = ports.to_vec();
    sorted.sort_by_key(|range| *range.start());
    let mut joined: Vec<RangeInclusive<u16>> = Vec::with_capacity(sorted.len());
    for range in sorted {
        match joined.last_mut() {
            Some(last) if *range.start() <= last.end().saturating_add(1) => {
                *last = *last.start()..=*last.end().max(range.end());
            }
            _ => joined.push(range),
        }
    }
    if joined.len() <= max {
        return joined;
    }
    let gap = |pair: &[RangeInclusive<u16>]| pair[1].start() - pair[0].end();
    let mut gaps: Vec<u16> = joined.windows(2).map(gap).collect();
    gaps.sort_unstable_by_key(|gap| std::cmp::Reverse(*gap));
    // Only the widest stay; of equal ones those that come first.
    let (narrowest, mut left) = (gaps[max - 2], max - 1);
    let mut few = vec![joined[0].clone()];
    for pair in joined.windows(2) {
        let (last, range) = (few.len() - 1, &pair[1]);
        if gap(pair) >= narrowest && left > 0 {
            left -= 1;
            few.push(range.clone());
        } else {
            few[last] = *few[last].start()..=*range.end();
        }
    }
    few
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MAC: Mac = Mac([2, 0, 0, 0, 0, 9]);

    /// What the kernel does with a program.
    fn runs(program: &[sock_filter], frame: &[u8]) -> bool {
        let (mut a, mut x, mut pc) = (0_u32, 0_u32, 0_usize);
        loop {
            let op = &program[pc];
            pc += 1;
            let bytes = |at: u32, n: usize| frame.get(at as usize..at as usize + n);
            let number = |b: &[u8]| b.iter().fold(0, |n, byte| n << 8 | u32::from(*byte));
            let jump = |yes: bool| usize::from(if yes { op.jt } else { op.jf });
            let loaded = match u32::from(op.code) {
                LOAD_BYTE if op.k == VLAN_TAG_PRESENT => Some(0),
                LOAD_BYTE => bytes(op.k, 1).map(number),
                LOAD_HALF => bytes(op.k, 2).map(number),
                LOAD_WORD => bytes(op.k, 4).map(number),
                LOAD_BYTE_X => bytes(op.k + x, 1).map(number),
                LOAD_HALF_X => bytes(op.k + x, 2).map(number),
                HEADER_LENGTH => {
                    x = bytes(op.k, 1).map_or(0, |b| u32::from(b[0] & 15) * 4);
                    Some(a)
                }
                EQUAL => {
                    pc += jump(a == op.k);
                    Some(a)
                }
                GREATER => {
                    pc += jump(a > op.k);
                    Some(a)
                }
                ANY_BIT => {
                    pc += jump(a & op.k != 0);
                    Some(a)
                }
                ALWAYS => {
                    pc += op.k as usize;
                    Some(a)
                }
                RETURN => return op.k != 0,
                other => panic!("{other:#x}"),
            };
            // A load from behind the end drops the frame.
            let Some(value) = loaded else { return false };
            a = value;
        }
    }

    fn frame(ether_type: u16, rest: &[u8]) -> Vec<u8> {
        let mut frame = MAC.0.to_vec();
        frame.extend([2, 0, 0, 0, 0, 1]);
        frame.extend(ether_type.to_be_bytes());
        frame.extend(rest);
        frame
    }

    fn v4(proto: u8, fragment: u16, words_of_options: u8, l4: &[u8]) -> Vec<u8> {
        let mut ip = vec![0; 20 + usize::from(words_of_options) * 4];
        ip[0] = 0x45 + words_of_options;
        ip[6..8].copy_from_slice(&fragment.to_be_bytes());
        ip[9] = proto;
        ip.extend(l4);
        frame(0x0800, &ip)
    }

    fn v6(proto: u8, l4: &[u8]) -> Vec<u8> {
        let mut ip = vec![0; 40];
        ip[6] = proto;
        ip.extend(l4);
        frame(0x86dd, &ip)
    }

    fn to_port(port: u16) -> [u8; 8] {
        let [high, low] = port.to_be_bytes();
        [0, 80, high, low, 0, 0, 0, 0]
    }

    #[test]
    fn ports_of_ours_pass_and_others_do_not_in_both_families() {
        let program = shared_address(MAC, &[61_440..=65_535, 80..=80]);
        for proto in [TCP, UDP, SCTP] {
            for (port, ours) in [
                (80, true),
                (79, false),
                (81, false),
                (61_439, false),
                (61_440, true),
                (65_535, true),
            ] {
                for frame in [
                    v4(proto, 0x4000, 0, &to_port(port)),
                    v4(proto, 0, 3, &to_port(port)),
                    v6(proto, &to_port(port)),
                ] {
                    assert_eq!(runs(&program, &frame), ours, "{proto} {port}");
                }
            }
        }
        assert!(!runs(&program, &v4(47, 0, 0, &to_port(80))), "GRE has no ports");
    }

    #[test]
    fn answers_pass_and_questions_are_left_to_the_kernel() {
        let program = shared_address(MAC, &[80..=80]);
        for (kind, ours) in [(0, true), (3, true), (8, false), (13, false)] {
            assert_eq!(runs(&program, &v4(1, 0, 0, &[kind, 0])), ours, "ICMP {kind}");
        }
        for (kind, ours) in [(1, true), (129, true), (128, false), (135, false), (136, true)] {
            assert_eq!(runs(&program, &v6(ICMPV6, &[kind, 0])), ours, "ICMPv6 {kind}");
        }
        assert!(runs(&program, &frame(0x0806, &[0; 28])), "ARP");
        assert!(!runs(&program, &frame(0x88cc, &[0; 28])), "LLDP");
    }

    #[test]
    fn fragments_pass_and_frames_for_others_do_not() {
        let program = shared_address(MAC, &[80..=80]);
        assert!(runs(&program, &v4(UDP, 0x2000, 0, &to_port(9))));
        assert!(runs(&program, &v4(UDP, 100, 0, &to_port(9))));
        assert!(runs(&program, &v6(44, &to_port(9))));
        let mut other = v4(UDP, 0, 0, &to_port(80));
        other[5] = 1;
        assert!(!runs(&program, &other));
        let own = own_address(MAC);
        assert!(!runs(&own, &other));
        other[0] = 0xff;
        assert!(runs(&own, &other), "a group");
        assert!(!runs(&program, &other), "a group is the kernel's");
    }

    proptest! {
        #[test]
        fn joined_ranges_cover_all_that_was_asked_for_and_are_few(
            ranges in proptest::collection::vec((any::<u16>(), 0_u16..50), 1..200),
            max in 2_usize..20,
        ) {
            let ports: Vec<_> =
                ranges.iter().map(|(first, n)| *first..=first.saturating_add(*n)).collect();
            let joined = at_most(&ports, max);
            prop_assert!(joined.len() <= max);
            for range in &ports {
                let whole = joined.iter().any(|j| j.contains(range.start()) && j.contains(range.end()));
                prop_assert!(whole, "{range:?} in {joined:?}");
            }
            for pair in joined.windows(2) {
                prop_assert!(pair[0].end() + 1 < *pair[1].start());
            }
        }
    }
}
