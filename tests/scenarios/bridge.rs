//! Inside one network.

use wharf::base::time::Span;
use wharf::packet::{Csum, DropReason, Gso, Offload};
use wharf::wire::mac::Mac;

use crate::world::*;

#[test]
fn two_containers_of_a_network_reach_each_other_and_the_second_frame_is_a_hit() {
    for family in FAMILIES {
        let mut world = World::new();
        let net = world.network(NetworkOptions::default());
        let (a, b) = (world.endpoint(net), world.endpoint(net));
        let frame = udp(&a, b.mac, 5000, (b.addr(family), 53), b"question");
        for _ in 0..2 {
            let sent = world.pass(a.port, &frame);
            assert_eq!((sent.port, &sent.bytes), (b.port, &frame), "bridged frames are untouched");
        }
        let reply = udp(&b, a.mac, 53, (a.addr(family), 5000), b"answer");
        assert_eq!(world.pass(b.port, &reply).port, a.port);
        let stats = world.dp.worker_stats();
        assert_eq!((stats.hits, stats.misses, stats.flows), (2, 1, 1));
    }
}

#[test]
fn the_gateway_and_known_endpoints_are_answered_for_and_nothing_is_flooded() {
    let mut world = World::new();
    let net = world.network(NetworkOptions::default());
    let (a, b, _c) = (world.endpoint(net), world.endpoint(net), world.endpoint(net));
    for (target, mac) in [(std::net::Ipv4Addr::new(10, 20, 0, 1), gateway_mac(net)), (b.v4, b.mac)]
    {
        let answer = world.pass(a.port, &arp_request(&a, target));
        assert_eq!((answer.port, answer.dst_mac(), answer.src_mac()), (a.port, a.mac, mac));
        assert_eq!(answer.bytes[20..22], [0, 2], "an ARP reply");
        assert_eq!(answer.bytes[28..32], target.octets());
    }
    let std::net::IpAddr::V6(gateway6) = gateway(net, wharf::wire::addr::Family::V6) else {
        panic!()
    };
    for (target, mac) in [(gateway6, gateway_mac(net)), (b.v6, b.mac)] {
        let answer = world.pass(a.port, &ndp_request(&a, target));
        assert_eq!((answer.port, answer.dst_mac()), (a.port, a.mac));
        assert_eq!(answer.icmp(), (136, 0));
        answer.assert_checksums();
        assert!(answer.bytes.windows(6).any(|w| w == mac.0), "carries the target's MAC");
    }
}

#[test]
fn an_unknown_address_is_asked_for_at_every_other_port() {
    let mut world = World::new();
    let net = world.network(NetworkOptions::default());
    let (a, b, c) = (world.endpoint(net), world.endpoint(net), world.endpoint(net));
    let sent = world.send(a.port, &arp_request(&a, std::net::Ipv4Addr::new(10, 20, 0, 200)));
    let mut ports: Vec<_> = sent.iter().map(|s| s.port).collect();
    ports.sort();
    assert_eq!(ports, [b.port, c.port]);
}

#[test]
fn spoofed_frames_are_dropped_by_name_in_both_families() {
    for family in FAMILIES {
        let mut world = World::new();
        let net = world.network(NetworkOptions::default());
        let (a, b, c) = (world.endpoint(net), world.endpoint(net), world.endpoint(net));
        let to = (c.addr(family), 7);
        let as_b = Host { mac: b.mac, ..a };
        world.dropped(a.port, &udp(&as_b, c.mac, 1, to, b""), DropReason::GuardMac);
        let from_b = Host { v4: b.v4, v6: b.v6, ..a };
        world.dropped(a.port, &udp(&from_b, c.mac, 1, to, b""), DropReason::GuardAddress);
        world.pass(b.port, &udp(&b, c.mac, 1, to, b""));
        world.dropped(a.port, &udp(&from_b, c.mac, 1, to, b""), DropReason::GuardAddress);
        world.dropped(a.port, &udp(&b, c.mac, 1, to, b""), DropReason::GuardMac);
    }
}

#[test]
fn without_the_guard_stations_are_learned_and_may_move() {
    let mut world = World::new();
    let net = world.network(NetworkOptions { guard_off: true, ..NetworkOptions::default() });
    let (a, b, c) = (world.endpoint(net), world.endpoint(net), world.endpoint(net));
    let guest = Host { mac: Mac([2, 9, 9, 9, 9, 9]), v4: [10, 20, 0, 99].into(), ..a };
    let to_guest = udp(&b, guest.mac, 1, (guest.v4.into(), 2), b"");
    assert_eq!(world.send(b.port, &to_guest).len(), 2, "unknown: flooded");
    world.pass(a.port, &udp(&guest, b.mac, 2, (b.v4.into(), 1), b""));
    assert_eq!(world.pass(b.port, &to_guest).port, a.port);
    world.advance(Span::from_secs(2));
    world.pass(c.port, &udp(&guest, b.mac, 2, (b.v4.into(), 1), b""));
    assert_eq!(world.pass(b.port, &to_guest).port, c.port, "follows the move");
}

#[test]
fn a_super_frame_passes_unsplit_with_its_checksum_unfinished() {
    for family in FAMILIES {
        let mut world = World::new();
        let net = world.network(NetworkOptions::default());
        let (a, b) = (world.endpoint(net), world.endpoint(net));
        let frame = tcp(&a, b.mac, 5000, (b.addr(family), 80), "A", (1, 1), &[7; 60_000]);
        let (gso, start) = match family {
            wharf::wire::addr::Family::V4 => (Gso::TcpV4, 34),
            wharf::wire::addr::Family::V6 => (Gso::TcpV6, 54),
        };
        let csum = Csum::Partial { start, offset: 16 };
        let offload = Offload { gso, ecn: false, gso_size: 1448, csum };
        for _ in 0..2 {
            let sent = world.send_offloaded(a.port, &frame, offload);
            assert_eq!(sent.len(), 1);
            assert_eq!((sent[0].offload, &sent[0].bytes), (offload, &frame));
        }
    }
}

#[test]
fn vlan_tags_group_sources_and_reserved_groups_are_dropped_by_name() {
    let mut world = World::new();
    let net = world.network(NetworkOptions::default());
    let (a, _b) = (world.endpoint(net), world.endpoint(net));
    let mut frame = vec![0; 60];
    frame[..6].fill(0xff);
    frame[6..12].copy_from_slice(&a.mac.0);
    frame[12..14].copy_from_slice(&[0x81, 0x00]);
    world.dropped(a.port, &frame, DropReason::VlanTagged);
    frame[12..14].copy_from_slice(&[0x88, 0xcc]);
    frame[..6].copy_from_slice(&[0x01, 0x80, 0xc2, 0, 0, 0x0e]);
    world.dropped(a.port, &frame, DropReason::ReservedMulticast);
    frame[6] |= 1;
    world.dropped(a.port, &frame, DropReason::SourceMac);
}

#[test]
fn a_broadcast_storm_is_cut_to_the_port_s_budget() {
    let mut world = World::new();
    let net = world.network(NetworkOptions::default());
    let (a, b) = (world.endpoint(net), world.endpoint(net));
    let frame = arp_request(&a, [10, 20, 0, 250].into());
    let passed: usize = (0..30_000).map(|_| world.send(a.port, &frame).len()).sum();
    assert_eq!(passed, wharf::base::limits::FLOODS_PER_SECOND as usize);
    assert_eq!(world.dp.drops(a.port, DropReason::FloodLimit), 30_000 - passed as u64);
    let reply = udp(&b, a.mac, 1, (a.v4.into(), 2), b"");
    assert_eq!(world.pass(b.port, &reply).port, a.port, "the neighbour goes on");
}

/// A datagram and what makes it a super-frame of segments of so many bytes.
fn uso(from: &Host, to: &Host, family: wharf::wire::addr::Family, size: u16) -> (Vec<u8>, Offload) {
    let payload: Vec<u8> = (0..5_000_u32).map(|n| n as u8).collect();
    let mut frame = udp(from, to.mac, 5_000, (to.addr(family), 9), &payload);
    let start = if family == wharf::wire::addr::Family::V4 { 34 } else { 54 };
    let len = (frame.len() - start) as u32;
    let (src, dst) = (from.addr(family).into(), to.addr(family).into());
    let sum = wharf::wire::checksum::pseudo_header(src, dst, 17, len);
    frame[start + 6..start + 8].copy_from_slice(&sum.to_be_bytes());
    let csum = Csum::Partial { start: start as u16, offset: 6 };
    (frame, Offload { gso: Gso::UdpL4, ecn: false, gso_size: size, csum })
}

#[test]
fn a_super_datagram_is_cut_only_for_a_port_that_cannot_take_it() {
    for family in FAMILIES {
        let mut world = World::new();
        let net = world.network(NetworkOptions::default());
        let (a, b, c) = (world.endpoint(net), world.endpoint(net), world.endpoint(net));
        world.change_port(c.port, |port| port.uso = false);
        for _ in 0..2 {
            let (frame, offload) = uso(&a, &b, family, 1_000);
            let sent = world.send_offloaded(a.port, &frame, offload);
            assert_eq!((sent.len(), sent[0].offload, &sent[0].bytes), (1, offload, &frame));
            let (frame, offload) = uso(&a, &c, family, 1_000);
            let sent = world.send_offloaded(a.port, &frame, offload);
            assert_eq!(sent.len(), 5);
            for segment in sent {
                assert_eq!((segment.port, segment.dst()), (c.port, (c.addr(family), 9)));
                assert_eq!(segment.offload.gso, Gso::None);
                segment.assert_checksums();
            }
        }
    }
}

#[test]
fn a_flooded_super_datagram_is_whole_for_those_who_can_take_it_also_after_it_was_cut_for_another() {
    for family in FAMILIES {
        let mut world = World::new();
        let net = world.network(NetworkOptions { guard_off: true, ..Default::default() });
        let hosts: Vec<_> = (0..4).map(|_| world.endpoint(net)).collect();
        for cannot in [1, 2] {
            world.change_port(hosts[cannot].port, |port| port.uso = false);
        }
        let nobody = Host { mac: Mac([2, 7, 7, 7, 7, 7]), ..hosts[3] };
        let (frame, offload) = uso(&hosts[0], &nobody, family, 1_000);
        let sent = world.send_offloaded(hosts[0].port, &frame, offload);
        let to = |port| sent.iter().filter(move |s| s.port == port);
        let whole: Vec<_> = to(hosts[3].port).collect();
        assert_eq!((whole.len(), whole[0].offload), (1, offload));
        assert!(whole[0].bytes == frame, "its bytes are those that were sent");
        for cannot in [1, 2] {
            assert_eq!(to(hosts[cannot].port).count(), 5);
            to(hosts[cannot].port).for_each(Sent::assert_checksums);
        }
    }
}

#[test]
fn nobody_borrows_an_address_by_being_written_to_under_it() {
    for family in FAMILIES {
        let mut world = World::new();
        let net = world.network(NetworkOptions::default());
        let (a, b, c) = (world.endpoint(net), world.endpoint(net), world.endpoint(net));
        // Written to under c's address, b answers as c.
        let lure = udp(&a, b.mac, 5_000, (c.addr(family), 53), b"question");
        world.pass(a.port, &lure);
        let as_c = Host { v4: c.v4, v6: c.v6, ..b };
        let answer = udp(&as_c, a.mac, 53, (a.addr(family), 5_000), b"answer");
        world.dropped(b.port, &answer, DropReason::GuardAddress);
    }
}

#[test]
fn a_super_datagram_that_waited_for_a_neighbour_is_cut_for_a_device_that_cannot() {
    for family in FAMILIES {
        let mut world = World::new();
        let net = world.network(NetworkOptions::default());
        let (a, remote) = (world.endpoint(net), world.uplink());
        world.change_port(UPLINK_PORT, |port| port.uso = false);
        let via_router = Host { mac: a.router, ..remote };
        let (frame, offload) = uso(&a, &via_router, family, 1_000);
        let asked = world.send_offloaded(a.port, &frame, offload);
        assert_eq!(asked.len(), 1, "a question");
        let released = world.send(UPLINK_PORT, &answer_to(&asked[0], &remote));
        assert_eq!(released.len(), 5);
        for segment in released {
            assert_eq!((segment.dst_mac(), segment.offload.gso), (remote.mac, Gso::None));
            segment.assert_checksums();
        }
    }
}
