use proptest::prelude::*;
use zerocopy::IntoBytes;

use super::*;
use crate::base::time::Span;
use crate::packet::Offload;
use crate::wire::ethernet::{self, Ethernet};
use crate::wire::mac::Mac;

const NET: DomainId = DomainId(3);
const FROM: PortId = PortId(5);
const PORTS: Ports = Ports { proto: ipv6::UDP, src_port: 4000, dst_port: 53, id: 0 };
const UNIT: usize = 8;

fn at(secs: u64) -> Time {
    Time::ZERO + Span::from_secs(secs)
}

/// Bytes `start..end` (in units of eight) of the datagram `id` from source number `from`.
fn fragment(v6: bool, from: u8, id: u32, start: usize, end: usize, more: bool) -> PacketBuf {
    let mut payload = vec![id as u8; (end - start) * UNIT];
    if start == 0 {
        let ports = [0x0f, 0xa0, 0, 53, 1, 0, 0, 0];
        payload[..8].copy_from_slice(&ports);
    }
    let ethertype = if v6 { ethernet::IPV6 } else { ethernet::IPV4 };
    let eth = Ethernet { dst: Mac([2; 6]), src: Mac([4; 6]), ethertype: ethertype.into() };
    let (more, units) = (u16::from(more), start as u16);
    let bytes = if v6 {
        let addr = |n: u8| Addr::from_prefix_and_id(0xfd00 << 48, n.into());
        let len = (8 + payload.len()) as u16;
        let ip = Ipv6::new(addr(from), addr(200), ipv6::FRAGMENT, len);
        let header = ipv6::Fragment {
            next_header: ipv6::UDP,
            reserved: 0,
            offset_more: (units << 3 | more).into(),
            id: id.into(),
        };
        [eth.as_bytes(), ip.as_bytes(), header.as_bytes(), &payload].concat()
    } else {
        let addr = |n: u8| Addr::from_v4_bytes([10, 0, 0, n]);
        let mut ip = Ipv4::new(addr(from), addr(200), ipv6::UDP, payload.len() as u16);
        ip.id = (id as u16).into();
        ip.flags_offset = (units | more << 13).into();
        ip.fill_checksum();
        [eth.as_bytes(), ip.as_bytes(), &payload].concat()
    };
    PacketBuf::new(&bytes, Offload::NONE)
}

fn admit(tracker: &mut FragmentTracker, now: Time, buf: &mut PacketBuf) -> Admitted {
    let parsed = match Parsed::new(buf.bytes()) {
        Ok(parsed) => parsed,
        Err(reason) => return Admitted::Drop(reason),
    };
    tracker.admit(now, (FROM, NET), &parsed, &buf.frame(), || 0)
}

fn released(tracker: &mut FragmentTracker, buf: &mut PacketBuf) -> Vec<PacketBuf> {
    let parsed = Parsed::new(buf.bytes()).unwrap();
    tracker.first(NET, &parsed, &buf.frame())
}

#[test]
fn fragments_in_order_follow_the_first_one_and_a_complete_train_is_forgotten() {
    for v6 in [false, true] {
        let mut tracker = FragmentTracker::new();
        for (start, end, more) in [(0, 10, true), (10, 20, true), (20, 21, false)] {
            let mut buf = fragment(v6, 1, 7, start, end, more);
            assert_eq!(admit(&mut tracker, at(0), &mut buf), Admitted::Key(PORTS));
            assert!(released(&mut tracker, &mut buf).is_empty());
        }
        assert!(tracker.is_empty());
        assert_eq!(tracker.next_deadline(), None);
    }
}

#[test]
fn fragments_that_overtake_the_first_one_wait_for_it() {
    for v6 in [false, true] {
        let mut tracker = FragmentTracker::new();
        for (start, end, more) in [(20, 21, false), (10, 20, true)] {
            let mut buf = fragment(v6, 1, 7, start, end, more);
            assert_eq!(admit(&mut tracker, at(0), &mut buf), Admitted::Held);
        }
        let mut first = fragment(v6, 1, 7, 0, 10, true);
        assert_eq!(admit(&mut tracker, at(1), &mut first), Admitted::Key(PORTS));
        let mut waiting = released(&mut tracker, &mut first);
        assert_eq!(waiting.len(), 2);
        assert_eq!(
            waiting[0].len(),
            fragment(v6, 1, 7, 20, 21, false).len(),
            "in order of arrival"
        );
        for buf in &mut waiting {
            assert_eq!(admit(&mut tracker, at(1), buf), Admitted::Key(PORTS));
        }
        assert!(tracker.is_empty());
        assert_eq!(tracker.held_bytes, 0);
    }
}

#[test]
fn an_overlap_ends_the_whole_datagram() {
    for v6 in [false, true] {
        // RFC 1858: a second fragment that rewrites the flags of a TCP header at offset 8.
        for (start, end) in [(1, 3), (9, 11), (0, 11), (4, 30)] {
            let mut tracker = FragmentTracker::new();
            admit(&mut tracker, at(0), &mut fragment(v6, 1, 7, 0, 10, true));
            admit(&mut tracker, at(0), &mut fragment(v6, 1, 7, 15, 20, true));
            let overlap = Admitted::Drop(DropReason::FragmentOverlap);
            let evil = &mut fragment(v6, 1, 7, start, end, true);
            let inside = start == 1;
            assert_eq!(admit(&mut tracker, at(0), evil), overlap, "{start}..{end}");
            let rest = &mut fragment(v6, 1, 7, 10, 15, true);
            let passes = admit(&mut tracker, at(0), rest) == Admitted::Key(PORTS);
            assert_eq!(passes, inside, "what lies inside changes nothing and is dropped alone");
            let other = &mut fragment(v6, 1, 8, 0, 10, true);
            assert_eq!(admit(&mut tracker, at(0), other), Admitted::Key(PORTS));
        }
    }
}

#[test]
fn an_overlap_that_came_before_the_first_fragment_is_seen_too() {
    for v6 in [false, true] {
        let mut tracker = FragmentTracker::new();
        admit(&mut tracker, at(0), &mut fragment(v6, 1, 7, 2, 20, true));
        let mut first = fragment(v6, 1, 7, 0, 10, true);
        assert_eq!(admit(&mut tracker, at(0), &mut first), Admitted::Key(PORTS));
        for buf in &mut released(&mut tracker, &mut first) {
            assert_eq!(
                admit(&mut tracker, at(0), buf),
                Admitted::Drop(DropReason::FragmentOverlap)
            );
        }
    }
}

#[test]
fn a_second_end_is_an_attack() {
    let mut tracker = FragmentTracker::new();
    admit(&mut tracker, at(0), &mut fragment(false, 1, 7, 0, 10, true));
    admit(&mut tracker, at(0), &mut fragment(false, 1, 7, 15, 20, false));
    let beyond = &mut fragment(false, 1, 7, 20, 21, false);
    assert_eq!(admit(&mut tracker, at(0), beyond), Admitted::Drop(DropReason::FragmentOverlap));
}

#[test]
fn a_first_fragment_that_never_comes_is_waited_for_half_a_minute() {
    for v6 in [false, true] {
        let mut tracker = FragmentTracker::new();
        admit(&mut tracker, at(5), &mut fragment(v6, 1, 7, 10, 20, true));
        assert_eq!(tracker.next_deadline(), Some(at(35)));
        tracker.tick(at(34));
        assert_eq!((tracker.held(), tracker.take_lost()), (1, vec![]));
        tracker.tick(at(35));
        assert_eq!((tracker.held(), tracker.take_lost()), (0, vec![FROM]));
        assert_eq!((tracker.len(), tracker.held_bytes), (0, 0));
        assert_eq!(tracker.next_deadline(), None);
    }
}

#[test]
fn trains_are_bounded_for_one_source_and_in_all() {
    let mut tracker = FragmentTracker::new();
    let full = Admitted::Drop(DropReason::FragmentLimit);
    let outcomes: Vec<_> = (0..100)
        .map(|id| admit(&mut tracker, at(0), &mut fragment(true, 1, id, 1, 2, true)))
        .collect();
    assert_eq!(
        outcomes.iter().filter(|o| **o == full).count(),
        100 - FRAGMENT_TRAINS_PER_SOURCE_MAX
    );
    for from in 2..100 {
        for id in 0..FRAGMENT_TRAINS_PER_SOURCE_MAX as u32 {
            let outcome = admit(&mut tracker, at(1), &mut fragment(true, from, id, 1, 2, true));
            assert_eq!(outcome, Admitted::Held, "the oldest one gives way");
        }
    }
    assert_eq!(tracker.len(), FRAGMENT_TRAINS_MAX);
}

#[test]
fn held_bytes_are_bounded() {
    let mut tracker = FragmentTracker::new();
    for from in 0..200 {
        for start in 1..FRAGMENTS_PER_TRAIN_MAX + 10 {
            let buf = &mut fragment(true, from, 1, start * 50, start * 50 + 50, true);
            admit(&mut tracker, at(0), buf);
        }
    }
    assert!(tracker.held_bytes <= FRAGMENT_BYTES_MAX);
    assert!(tracker.held_bytes > FRAGMENT_BYTES_MAX / 2);
}

#[test]
fn a_fragment_of_nothing_is_malformed() {
    for v6 in [false, true] {
        let mut tracker = FragmentTracker::new();
        let empty = &mut fragment(v6, 1, 7, 5, 5, true);
        assert_eq!(admit(&mut tracker, at(0), empty), Admitted::Drop(DropReason::Malformed));
        assert!(tracker.is_empty());
    }
}

proptest! {
    /// Against a model that paints bytes: each byte of a datagram passes at most once, and what does
    /// not overlap passes as soon as the first fragment has.
    #[test]
    fn each_byte_of_a_datagram_passes_at_most_once(
        v6: bool,
        pieces in prop::collection::vec((0_usize..24, 1_usize..6), 1..40),
    ) {
        let mut tracker = FragmentTracker::new();
        let mut painted = [false; 32];
        let (mut begun, mut poisoned) = (false, false);
        let mut queue: Vec<PacketBuf> = pieces.iter().map(|(s, n)| fragment(v6, 1, 7, *s, s + n, true)).collect();
        queue.reverse();
        while let Some(mut buf) = queue.pop() {
            let parsed = Parsed::new(buf.bytes()).unwrap();
            let (_, piece) = read(NET, &parsed, buf.bytes()).unwrap();
            let range = piece.start as usize / UNIT..piece.end as usize / UNIT;
            begun |= range.start == 0;
            let outcome = admit(&mut tracker, at(0), &mut buf);
            if !begun {
                prop_assert_eq!(outcome, Admitted::Held);
                continue;
            }
            let here = &mut painted[range];
            if poisoned || here.contains(&true) {
                prop_assert_eq!(outcome, Admitted::Drop(DropReason::FragmentOverlap));
                poisoned |= here.contains(&false);
                continue;
            }
            prop_assert_eq!(outcome, Admitted::Key(PORTS));
            here.fill(true);
            let waiting = released(&mut tracker, &mut buf);
            queue.extend(waiting.into_iter().rev());
        }
    }

    #[test]
    fn any_order_of_a_train_passes_whole(v6: bool, order in Just((0..20_usize).collect::<Vec<_>>()).prop_shuffle()) {
        let mut tracker = FragmentTracker::new();
        let mut passed = 0;
        for n in order {
            let mut queue = vec![fragment(v6, 1, 7, n * 3, n * 3 + 3, n < 19)];
            while let Some(mut buf) = queue.pop() {
                if admit(&mut tracker, at(0), &mut buf) == Admitted::Key(PORTS) {
                    passed += 1;
                    queue.extend(released(&mut tracker, &mut buf));
                }
            }
        }
        prop_assert_eq!(passed, 20);
        prop_assert!(tracker.is_empty());
    }

    #[test]
    fn no_frame_makes_it_panic(v6: bool, mut bytes in prop::collection::vec(any::<u8>(), 54..120)) {
        bytes[12..15].copy_from_slice(if v6 { &[0x86, 0xdd, 0x60] } else { &[8, 0, 0x45] });
        if v6 {
            let len = (bytes.len() - 54) as u16;
            bytes[18..20].copy_from_slice(&len.to_be_bytes());
            bytes[20] = ipv6::FRAGMENT;
        } else {
            let len = (bytes.len() - 14) as u16;
            bytes[16..18].copy_from_slice(&len.to_be_bytes());
        }
        if Parsed::new(&bytes).is_ok() {
            let mut tracker = FragmentTracker::new();
            let mut buf = PacketBuf::new(&bytes, Offload::NONE);
            admit(&mut tracker, at(0), &mut buf);
            released(&mut tracker, &mut buf);
        }
    }
}
