//! The uplink that shares the host's address: what is ours is taken, all else is the kernel's, and nothing
//! is said about it.

use std::net::IpAddr;

use wharf::base::ids::PublicationId;
use wharf::base::limits::FRAGMENT_TIMEOUT;
use wharf::config::Delta;
use wharf::packet::DropReason;
use wharf::wire::addr::Family;
use wharf::wire::ipv6::{TCP, UDP};

use crate::packets::*;
use crate::world::*;

const RANGE: std::ops::RangeInclusive<u16> = 61_440..=65_535;

/// A container, and a remote host on the LAN of an address that we share.
fn shared(world: &mut World) -> (Host, Host) {
    let net = world.network(NetworkOptions::default());
    let (a, remote) = (world.endpoint(net), world.uplink());
    world.change_uplink(|uplink| {
        uplink.shared = true;
        uplink.nat_ports = RANGE;
    });
    (a, remote)
}

/// Sends a frame that must be left to the kernel: nothing leaves and nothing is counted as dropped.
#[track_caller]
fn left_to_the_kernel(world: &mut World, frame: &[u8]) {
    let drops = |world: &World| {
        DropReason::all().map(|reason| world.dp.drops(UPLINK_PORT, reason)).sum::<u64>()
    };
    let before = drops(world);
    let sent = world.send(UPLINK_PORT, frame);
    assert!(sent.is_empty(), "{sent:?}");
    assert_eq!(drops(world), before, "a drop was counted");
}

fn echo_reply(remote: &Host, to: IpAddr, id: u16) -> Vec<u8> {
    let family = if to.is_ipv4() { Family::V4 } else { Family::V6 };
    let (mut frame, builder) = (Vec::new(), ip(remote, UPLINK_MAC, remote.addr(family), to, 64));
    if to.is_ipv4() {
        builder.icmpv4_echo_reply(id, 1).write(&mut frame, b"hello").unwrap();
    } else {
        builder.icmpv6_echo_reply(id, 1).write(&mut frame, b"hello").unwrap();
    }
    frame
}

/// An ICMP error "port unreachable" from the remote host about a packet of ours or the host's.
fn unreachable(remote: &Host, about: &[u8]) -> Vec<u8> {
    let v4 = about[12..14] == [8, 0];
    let family = if v4 { Family::V4 } else { Family::V6 };
    let builder = ip(remote, UPLINK_MAC, remote.addr(family), own(family), 64);
    let mut frame = Vec::new();
    if v4 {
        builder.icmpv4_raw(3, 3, [0; 4]).write(&mut frame, &about[14..]).unwrap();
    } else {
        builder.icmpv6_raw(1, 4, [0; 4]).write(&mut frame, &about[14..]).unwrap();
    }
    frame
}

#[test]
fn a_container_speaks_through_a_port_of_the_range_and_is_answered() {
    for family in FAMILIES {
        let mut world = World::new();
        let (a, remote) = shared(&mut world);
        for port in [5_000, 61_500] {
            let frame = udp(&a, a.router, port, (remote.addr(family), 53), b"question");
            let there = world.pass_resolving(a.port, &frame, &remote);
            assert_eq!((there.src().0, there.src_mac()), (own(family), UPLINK_MAC));
            assert!(RANGE.contains(&there.src().1), "{}", there.src().1);
            there.assert_checksums();
            let back = world.pass(UPLINK_PORT, &udp_reply(&remote, &there, b"answer"));
            assert_eq!((back.port, back.dst()), (a.port, (a.addr(family), port)));
        }
    }
}

#[test]
fn only_frames_for_our_ports_are_taken() {
    for family in FAMILIES {
        let mut world = World::new();
        let (a, remote) = shared(&mut world);
        world.publish(1, TCP, 1180, &a, 80);
        for port in [22, 1179, 1181, 60_999, 61_439] {
            let to = (own(family), port);
            left_to_the_kernel(&mut world, &udp(&remote, UPLINK_MAC, 53, to, b"x"));
            let syn = tcp(&remote, UPLINK_MAC, 9, to, "S", (0, 0), b"");
            left_to_the_kernel(&mut world, &syn);
        }
        // Published for TCP, so its UDP is the host's.
        left_to_the_kernel(&mut world, &udp(&remote, UPLINK_MAC, 9, (own(family), 1180), b"x"));
        let syn = tcp(&remote, UPLINK_MAC, 9, (own(family), 1180), "S", (0, 0), b"");
        let there = world.pass(UPLINK_PORT, &syn);
        assert_eq!((there.port, there.src()), (a.port, (remote.addr(family), 9)));
        // Ours, and nobody there: an honest answer, since the kernel gives none.
        let refused =
            world.pass(UPLINK_PORT, &udp(&remote, UPLINK_MAC, 9, (own(family), 65_000), b"x"));
        assert_eq!(refused.icmp(), if family == Family::V4 { (3, 3) } else { (1, 4) });
        // Another address of the host's, whatever the port.
        let other: IpAddr = match family {
            Family::V4 => [192, 0, 2, 200].into(),
            Family::V6 => "2001:db8:1::200".parse().unwrap(),
        };
        left_to_the_kernel(&mut world, &udp(&remote, UPLINK_MAC, 9, (other, 65_000), b"x"));
    }
}

#[test]
fn a_port_that_is_published_for_one_family_is_the_host_s_in_the_other() {
    let mut world = World::new();
    let (a, remote) = shared(&mut world);
    world.publish(1, UDP, 1180, &a, 5000);
    let mut publication = world.dp.tables().publications().get(PublicationId(1)).unwrap().clone();
    publication.target_v6 = None;
    world.apply(Delta::Unpublish(PublicationId(1)));
    world.apply(Delta::Publish(publication));
    let frame = |family| udp(&remote, UPLINK_MAC, 9, (own(family), 1180), b"x");
    assert_eq!(world.pass(UPLINK_PORT, &frame(Family::V4)).port, a.port);
    left_to_the_kernel(&mut world, &frame(Family::V6));
}

#[test]
fn questions_about_the_address_are_the_kernel_s_to_answer() {
    for family in FAMILIES {
        let mut world = World::new();
        let (_, remote) = shared(&mut world);
        let question = match own(family) {
            IpAddr::V4(ip) => arp_request(&remote, ip),
            IpAddr::V6(ip) => ndp_request(&remote, ip),
        };
        left_to_the_kernel(&mut world, &question);
        left_to_the_kernel(&mut world, &ping(&remote, UPLINK_MAC, own(family), 61_500, b"x"));
    }
}

#[test]
fn a_ping_is_answered_to_whoever_sent_it() {
    for family in FAMILIES {
        let mut world = World::new();
        let (a, remote) = shared(&mut world);
        let frame = ping(&a, a.router, remote.addr(family), 99, b"hello");
        let there = world.pass_resolving(a.port, &frame, &remote);
        let at = if family == Family::V4 { 14 + 20 + 4 } else { 14 + 40 + 4 };
        let id = u16::from_be_bytes([there.bytes[at], there.bytes[at + 1]]);
        assert!(RANGE.contains(&id));
        let back = world.pass(UPLINK_PORT, &echo_reply(&remote, own(family), id));
        assert_eq!(back.port, a.port);
        // The host's own pings, with an identifier of our range or another.
        for id in [id ^ 1, 99] {
            left_to_the_kernel(&mut world, &echo_reply(&remote, own(family), id));
        }
    }
}

#[test]
fn icmp_errors_reach_the_flow_that_they_are_about_or_are_the_kernel_s() {
    for family in FAMILIES {
        let mut world = World::new();
        let (a, remote) = shared(&mut world);
        let frame = udp(&a, a.router, 5000, (remote.addr(family), 53), b"question");
        let there = world.pass_resolving(a.port, &frame, &remote);
        let back = world.pass(UPLINK_PORT, &unreachable(&remote, &there.bytes));
        assert_eq!(back.port, a.port);
        let host = match own(family) {
            IpAddr::V4(v4) => Host { v4, ..remote },
            IpAddr::V6(v6) => Host { v6, ..remote },
        };
        for port in [40_000, 61_441] {
            let sent_by_host = udp(&host, REMOTE_MAC, port, (remote.addr(family), 53), b"x");
            left_to_the_kernel(&mut world, &unreachable(&remote, &sent_by_host));
        }
    }
}

#[test]
fn what_has_no_ports_cannot_leave_by_a_shared_address() {
    for family in FAMILIES {
        let mut world = World::new();
        let (a, remote) = shared(&mut world);
        let mut gre = udp(&a, a.router, 1, (remote.addr(family), 2), b"0123456789");
        match family {
            Family::V4 => {
                gre[14 + 9] = 47;
                let ip = &mut etherparse::Ipv4Header::from_slice(&gre[14..]).unwrap().0;
                ip.header_checksum = ip.calc_header_checksum();
                gre[24..26].copy_from_slice(&ip.header_checksum.to_be_bytes());
            }
            Family::V6 => gre[14 + 6] = 47,
        }
        let told = world.pass(a.port, &gre);
        assert_eq!(told.port, a.port, "the sender hears of it");
        assert_eq!(world.dp.drops(a.port, DropReason::NoAddress), 1);
    }
}

#[test]
fn the_host_s_fragments_are_followed_and_left_alone_and_ours_pass() {
    for family in FAMILIES {
        let mut world = World::new();
        let (a, remote) = shared(&mut world);
        world.publish(1, UDP, 1180, &a, 5000);
        let large = |port| udp(&remote, UPLINK_MAC, 9, (own(family), port), &[7; 3_500]);
        for mirrored in [false, true] {
            let mut pieces = fragments(&large(2049), 7 + u16::from(mirrored), 1_400);
            if mirrored {
                pieces.reverse();
            }
            for piece in &pieces {
                left_to_the_kernel(&mut world, piece);
            }
        }
        let sent = fragments(&large(1180), 9, 1_400);
        let sent: Vec<_> = sent.iter().map(|f| world.pass(UPLINK_PORT, f)).collect();
        assert_eq!(reassembled(&sent).dst(), (a.addr(family), 5000));
        // The first one never comes: it may have been the host's.
        let late = fragments(&large(2049), 10, 1_400).pop().unwrap();
        left_to_the_kernel(&mut world, &late);
        world.advance(FRAGMENT_TIMEOUT);
        assert_eq!(world.dp.drops(UPLINK_PORT, DropReason::FragmentTimeout), 0);
    }
}

#[test]
fn flows_end_with_the_address_that_they_were_made_behind() {
    for family in FAMILIES {
        let mut world = World::new();
        let (a, remote) = shared(&mut world);
        let frame = udp(&a, a.router, 5000, (remote.addr(family), 53), b"question");
        let there = world.pass_resolving(a.port, &frame, &remote);
        let moved: [(IpAddr, u8); 2] =
            [([192, 0, 2, 44].into(), 24), ("2001:db8:1::44".parse().unwrap(), 64)];
        world.change_uplink(|u| u.addrs = moved.map(|(a, len)| (a.into(), len)).to_vec());
        let mut port = wharf::config::Port::clone(world.dp.tables().port(UPLINK_PORT).unwrap());
        port.addrs = moved.map(|(addr, _)| addr.into()).to_vec();
        world.apply(Delta::Port(port.into()));
        let new = world.pass(a.port, &frame);
        assert!(moved.iter().any(|(addr, _)| *addr == new.src().0), "{:?}", new.src());
        left_to_the_kernel(&mut world, &udp_reply(&remote, &there, b"late"));
    }
}
