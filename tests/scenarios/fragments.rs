//! Fragments through routing and translation.

use wharf::base::limits::{FRAGMENT_TIMEOUT, FRAGMENT_TRAINS_PER_SOURCE_MAX};
use wharf::packet::DropReason;
use wharf::wire::addr::Family;

use crate::packets::*;
use crate::world::*;

const PAYLOAD: [u8; 3_500] = [0x5a; 3_500];
const PIECE: usize = 1_400;

/// A container whose remote host is resolved, and a large datagram for it.
fn large(world: &mut World, family: Family) -> (Host, Host, Vec<u8>) {
    let net = world.network(NetworkOptions::default());
    let (a, remote) = (world.endpoint(net), world.uplink());
    let small = udp(&a, a.router, 5_000, (remote.addr(family), 53), b"resolve");
    world.pass_resolving(a.port, &small, &remote);
    (a, remote, udp(&a, a.router, 5_000, (remote.addr(family), 53), &PAYLOAD))
}

#[test]
fn fragments_are_translated_in_order_and_back() {
    for family in FAMILIES {
        let mut world = World::new();
        let (a, remote, whole) = large(&mut world, family);
        let sent: Vec<_> =
            fragments(&whole, 7, PIECE).iter().map(|f| world.pass(a.port, f)).collect();
        assert_eq!(sent.len(), 3);
        let there = reassembled(&sent);
        assert_eq!((there.src(), there.dst().1), ((own(family), 5_000), 53));
        there.assert_checksums();
        let answer = udp_reply(&remote, &there, &PAYLOAD);
        let back = fragments(&answer, 8, PIECE);
        let back: Vec<_> = back.iter().map(|f| world.pass(UPLINK_PORT, f)).collect();
        let back = reassembled(&back);
        assert_eq!((back.port, back.dst()), (a.port, (a.addr(family), 5_000)));
        back.assert_checksums();
    }
}

#[test]
fn fragments_that_overtake_the_first_one_wait_for_it() {
    for family in FAMILIES {
        let mut world = World::new();
        let (a, _, whole) = large(&mut world, family);
        let mut pieces = fragments(&whole, 7, PIECE);
        pieces.rotate_left(1);
        let first = pieces.pop().unwrap();
        for early in &pieces {
            assert!(world.send(a.port, early).is_empty(), "held");
        }
        let sent = world.send(a.port, &first);
        assert_eq!(sent.len(), 3, "all together");
        let there = reassembled(&sent);
        assert_eq!(there.src(), (own(family), 5_000));
        there.assert_checksums();
        assert_eq!(world.dp.list_ports()[0].rx_frames, 4, "each frame is counted once");
    }
}

#[test]
fn fragments_are_routed_between_networks_and_bridged_untouched() {
    for family in FAMILIES {
        let mut world = World::new();
        let open = NetworkOptions { open: true, ..Default::default() };
        let (one, two) = (world.network(open), world.network(open));
        let (a, b, c) = (world.endpoint(one), world.endpoint(two), world.endpoint(one));
        let whole = udp(&a, a.router, 5_000, (b.addr(family), 53), &PAYLOAD);
        let pieces = fragments(&whole, 7, PIECE);
        let sent: Vec<_> = pieces.iter().map(|f| world.pass(a.port, f)).collect();
        assert!(sent.iter().all(|s| (s.port, s.ttl(), s.dst_mac()) == (b.port, 63, b.mac)));
        reassembled(&sent).assert_checksums();
        let whole = udp(&a, c.mac, 5_000, (c.addr(family), 53), &PAYLOAD);
        for piece in fragments(&whole, 8, PIECE).iter().rev() {
            assert_eq!(&world.pass(a.port, piece).bytes, piece);
        }
    }
}

#[test]
fn overlapping_fragments_are_dropped_and_so_is_the_rest_of_their_datagram() {
    for family in FAMILIES {
        let mut world = World::new();
        let (a, _, whole) = large(&mut world, family);
        let pieces = fragments(&whole, 7, PIECE);
        world.pass(a.port, &pieces[0]);
        let overlap = fragment(&whole, 7, PIECE - 8, true, &[1; 80]);
        world.dropped(a.port, &overlap, DropReason::FragmentOverlap);
        world.dropped(a.port, &pieces[1], DropReason::FragmentOverlap);
        let next: Vec<_> =
            fragments(&whole, 8, PIECE).iter().map(|f| world.pass(a.port, f)).collect();
        reassembled(&next).assert_checksums();
    }
}

#[test]
fn a_second_first_fragment_does_not_replace_ports() {
    for family in FAMILIES {
        let mut world = World::new();
        let (a, _, whole) = large(&mut world, family);
        let pieces = fragments(&whole, 7, PIECE);
        world.pass(a.port, &pieces[0]);
        let mut other = pieces[0].clone();
        let port_at = if family == Family::V4 { 34 } else { 62 };
        other[port_at] ^= 0x55;
        world.dropped(a.port, &other, DropReason::FragmentOverlap);
    }
}

#[test]
fn a_fragment_whose_first_one_never_comes_is_dropped_by_name_after_its_time() {
    for family in FAMILIES {
        let mut world = World::new();
        let (a, _, whole) = large(&mut world, family);
        let pieces = fragments(&whole, 7, PIECE);
        assert!(world.send(a.port, &pieces[1]).is_empty());
        assert!(world.send(a.port, &pieces[2]).is_empty());
        assert_eq!(world.dp.drops(a.port, DropReason::FragmentTimeout), 0);
        world.advance(FRAGMENT_TIMEOUT);
        assert_eq!(world.dp.drops(a.port, DropReason::FragmentTimeout), 2);
        assert!(world.send(a.port, &pieces[0]).len() == 1, "too late for the others");
    }
}

#[test]
fn one_sender_of_endless_fragments_is_bounded_and_its_neighbour_is_not_touched() {
    for family in FAMILIES {
        let mut world = World::new();
        let (a, remote, whole) = large(&mut world, family);
        let b = world.endpoint(wharf::base::ids::NetworkId(0));
        let late = &fragments(&whole, 0, PIECE)[1][if family == Family::V4 { 34 } else { 62 }..];
        for id in 0..FRAGMENT_TRAINS_PER_SOURCE_MAX as u16 {
            assert!(world.send(a.port, &fragment(&whole, id, PIECE, true, late)).is_empty());
        }
        let more = fragment(&whole, 5_000, PIECE, true, late);
        world.dropped(a.port, &more, DropReason::FragmentLimit);
        let whole = udp(&b, b.router, 5_000, (remote.addr(family), 53), &PAYLOAD);
        let sent: Vec<_> =
            fragments(&whole, 1, PIECE).iter().map(|f| world.pass(b.port, f)).collect();
        reassembled(&sent).assert_checksums();
    }
}

#[test]
fn a_datagram_that_may_be_cut_leaves_in_fragments_and_one_that_may_not_is_answered() {
    let mut world = World::new();
    let net = world.network(NetworkOptions::default());
    let (a, remote) = (world.endpoint(net), world.uplink_with_mtu(600));
    let small = udp(&a, a.router, 5_000, (remote.v4.into(), 53), b"resolve");
    world.pass_resolving(a.port, &small, &remote);
    let mut frame = udp(&a, a.router, 5_000, (remote.v4.into(), 53), &[7; 1_400]);
    assert_eq!(world.pass(a.port, &frame).icmp(), (3, 4));
    // Without DF, and the header's sum without it.
    frame[20] = 0;
    frame[24..26].fill(0);
    let sum = etherparse::Ipv4Header::from_slice(&frame[14..]).unwrap().0.calc_header_checksum();
    frame[24..26].copy_from_slice(&sum.to_be_bytes());
    let sent = world.send(a.port, &frame);
    assert!(sent.len() == 3 && sent.iter().all(|s| s.bytes.len() <= 614), "{sent:?}");
    let there = reassembled(&sent);
    assert_eq!((there.src(), there.bytes.len()), ((own(Family::V4), 5_000), frame.len()));
    there.assert_checksums();
}
