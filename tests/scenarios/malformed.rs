//! Frames that contradict themselves. Each is dropped by name, and the next good one passes.

use wharf::base::limits::FRAME_MAX;
use wharf::base::time::Span;
use wharf::datapath::Output;
use wharf::packet::{Csum, DropReason, FrameBatch, Gso, Offload};
use wharf::wire::addr::Family;

use crate::packets::fragment;
use crate::world::*;

/// Two neighbours, a good datagram from one to the other, and where its IP header ends.
fn neighbours(family: Family) -> (World, Host, Vec<u8>, usize) {
    let mut world = World::new();
    let net = world.network(NetworkOptions::default());
    let (a, b) = (world.endpoint(net), world.endpoint(net));
    let good = udp(&a, b.mac, 5_000, (b.addr(family), 9), b"payload");
    (world, a, good, if family == Family::V4 { 34 } else { 54 })
}

type Spoil = fn(&mut Vec<u8>, usize);

#[test]
fn every_contradiction_has_a_name_and_harms_nobody() {
    let both: &[(&str, Spoil, DropReason)] = &[
        ("cut in the Ethernet header", |f, _| f.truncate(13), DropReason::Truncated),
        ("cut in the IP header", |f, l4| f.truncate(l4 - 1), DropReason::Truncated),
        ("cut in the payload", |f, _| f.truncate(f.len() - 1), DropReason::Truncated),
        ("version of the other family", |f, _| f[14] ^= 0x20, DropReason::Malformed),
        ("UDP shorter than its header", |f, l4| f[l4 + 5] = 7, DropReason::Malformed),
        ("UDP longer than its packet", |f, l4| f[l4 + 5] = 200, DropReason::Malformed),
        ("a group as its source", |f, _| f[6] |= 1, DropReason::SourceMac),
        ("a tag", |f, _| f[12..14].copy_from_slice(&[0x81, 0]), DropReason::VlanTagged),
        ("two tags", |f, _| f[12..14].copy_from_slice(&[0x88, 0xa8]), DropReason::VlanTagged),
    ];
    let v4: &[(&str, Spoil, DropReason)] = &[
        ("a header of four words", |f, _| f[14] = 0x44, DropReason::Malformed),
        ("a length below its header's", |f, _| f[16..18].fill(0), DropReason::Malformed),
        ("a length beyond its frame", |f, _| f[16] = 0xff, DropReason::Truncated),
        (
            "a fragment beyond 64 KiB",
            |f, _| f[20..22].copy_from_slice(&[0x1f, 0xff]),
            DropReason::Malformed,
        ),
    ];
    let v6: &[(&str, Spoil, DropReason)] = &[
        ("a length beyond its frame", |f, _| f[18] = 0xff, DropReason::Truncated),
        ("an endless extension", |f, _| f[20] = 0, DropReason::Truncated),
        ("a mapped source", mapped_source, DropReason::MartianSource),
    ];
    for family in FAMILIES {
        let own = if family == Family::V4 { v4 } else { v6 };
        for (what, spoil, reason) in both.iter().chain(own) {
            let (mut world, a, good, l4) = neighbours(family);
            let mut bad = good.clone();
            spoil(&mut bad, l4);
            println!("{family:?}: {what}");
            world.dropped(a.port, &bad, *reason);
            assert_eq!(world.pass(a.port, &good).bytes, good);
        }
    }
}

#[allow(clippy::ptr_arg, reason = "other ways to spoil a frame cut it")]
fn mapped_source(frame: &mut Vec<u8>, _: usize) {
    frame[22..32].fill(0);
    frame[32..34].fill(0xff);
}

#[test]
fn hostile_offload_metadata_is_dropped_by_name() {
    for family in FAMILIES {
        let (mut world, a, good, l4) = neighbours(family);
        let own = Csum::Partial { start: l4 as u16, offset: 6 };
        let tcp_gso = if family == Family::V4 { Gso::TcpV4 } else { Gso::TcpV6 };
        for offload in [
            Offload { csum: Csum::Partial { start: 34, offset: 0 }, ..Offload::NONE },
            Offload { csum: Csum::Partial { start: l4 as u16, offset: 2 }, ..Offload::NONE },
            Offload { csum: Csum::Partial { start: l4 as u16 - 2, offset: 6 }, ..Offload::NONE },
            Offload { gso: tcp_gso, gso_size: 1_000, csum: own, ecn: false },
            Offload { gso: Gso::UdpL4, gso_size: 1_000, csum: Csum::Unverified, ecn: false },
        ] {
            let before = world.dp.drops(a.port, DropReason::OffloadHeader);
            let sent = world.send_offloaded(a.port, &good, offload);
            assert!(sent.is_empty(), "{offload:?}");
            assert_eq!(world.dp.drops(a.port, DropReason::OffloadHeader), before + 1);
        }
        let sent = world.send_offloaded(a.port, &good, Offload { csum: own, ..Offload::NONE });
        assert_eq!(sent.len(), 1);
    }
}

#[test]
fn the_largest_frame_is_no_exception() {
    for family in FAMILIES {
        let (mut world, a, good, l4) = neighbours(family);
        let b = Host { mac: wharf::wire::mac::Mac(good[..6].try_into().unwrap()), ..a };
        // No packet of IPv4 is longer; one of IPv6 could be, by its header.
        let payload = vec![9; FRAME_MAX - l4 - 8];
        let to = world.dp.tables().port(wharf::base::ids::PortId(2)).unwrap().addrs.clone();
        let to = to.into_iter().find(|addr| addr.family() == family).unwrap().ip();
        let largest = udp(&a, b.mac, 5_000, (to, 9), &payload);
        assert_eq!(largest.len(), FRAME_MAX);
        assert_eq!(world.pass(a.port, &largest).bytes.len(), FRAME_MAX, "neighbours may");
        // Through the router it fits nowhere, and its sender is told.
        let remote = world.uplink();
        let routed = udp(&a, a.router, 5_000, (remote.addr(family), 9), &payload);
        let told = world.pass(a.port, &routed);
        assert_eq!(told.icmp(), if family == Family::V4 { (3, 4) } else { (2, 0) });
        told.assert_checksums();
    }
}

#[test]
fn errors_about_nothing_go_nowhere() {
    for family in FAMILIES {
        let mut world = World::new();
        let net = world.network(NetworkOptions::default());
        let (a, remote) = (world.endpoint(net), world.uplink());
        let frame = udp(&a, a.router, 5_000, (remote.addr(family), 9), b"x");
        let there = world.pass_resolving(a.port, &frame, &remote);
        let error = |quoted: &[u8]| {
            let builder = ip(&remote, UPLINK_MAC, remote.addr(family), own(family), 60);
            let mut error = Vec::new();
            match family {
                Family::V4 => builder.icmpv4_raw(3, 3, [0; 4]).write(&mut error, quoted).unwrap(),
                Family::V6 => builder.icmpv6_raw(1, 4, [0; 4]).write(&mut error, quoted).unwrap(),
            }
            error
        };
        let quoted = &there.bytes[14..];
        let ports = if family == Family::V4 { 20 } else { 40 };
        let mut foreign = quoted.to_vec();
        foreign[ports] ^= 0x40;
        world.dropped(UPLINK_PORT, &error(&foreign), DropReason::IcmpUnrelated);
        world.dropped(UPLINK_PORT, &error(&quoted[..ports + 2]), DropReason::IcmpUnrelated);
        world.dropped(UPLINK_PORT, &error(&quoted[..8]), DropReason::IcmpBad);
        world.dropped(UPLINK_PORT, &error(b""), DropReason::IcmpBad);
        let mut wrong = error(quoted);
        *wrong.last_mut().unwrap() ^= 1;
        world.dropped(UPLINK_PORT, &wrong, DropReason::IcmpBad);
        assert_eq!(world.pass(UPLINK_PORT, &error(quoted)).port, a.port, "and a true one passes");
    }
}

#[test]
fn a_fragment_with_an_unfinished_checksum_or_in_a_super_frame_is_nobodys() {
    for family in FAMILIES {
        let (mut world, a, good, l4) = neighbours(family);
        let first = fragment(&good, 1, 0, true, &good[l4..l4 + 8]);
        let shift = if family == Family::V4 { 0 } else { 8 };
        let csum = Csum::Partial { start: (l4 + shift) as u16, offset: 6 };
        let sent = world.send_offloaded(a.port, &first, Offload { csum, ..Offload::NONE });
        assert!(sent.is_empty());
        assert_eq!(world.dp.drops(a.port, DropReason::OffloadHeader), 1);
    }
}

#[test]
fn frames_of_a_port_that_is_gone_are_named_and_a_batch_of_good_and_bad_loses_only_the_bad() {
    let (mut world, a, good, _) = neighbours(Family::V4);
    let mut batch = FrameBatch::new();
    for n in 0..10 {
        let len = if n % 2 == 0 { good.len() } else { 20 };
        assert!(batch.push(&good[..len], Offload::NONE));
    }
    let mut out = Output::default();
    world.dp.frames(world.now, a.port, &mut batch, &mut out);
    assert_eq!(out.frames.len(), 5);
    assert_eq!(world.dp.drops(a.port, DropReason::Truncated), 5);
    world.apply(wharf::config::Delta::RemovePort(a.port));
    world.dropped(a.port, &good, DropReason::PortGone);
    world.advance(Span::from_secs(1));
}
