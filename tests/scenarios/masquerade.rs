//! From containers to the world.

use wharf::base::time::Span;
use wharf::packet::{Csum, DropReason, Gso, Offload};
use wharf::wire::addr::Family;

use crate::world::*;

#[test]
fn a_container_reaches_a_remote_host_under_our_address_and_the_answer_comes_back() {
    for family in FAMILIES {
        let mut world = World::new();
        let net = world.network(NetworkOptions::default());
        let (a, remote) = (world.endpoint(net), world.uplink());
        let frame = udp(&a, a.router, 5000, (remote.addr(family), 53), b"question");
        let there = world.pass_resolving(a.port, &frame, &remote);
        assert_eq!(there.port, UPLINK_PORT);
        assert_eq!((there.src_mac(), there.dst_mac()), (UPLINK_MAC, REMOTE_MAC));
        assert_eq!(there.src(), (own(family), 5000), "the port is kept where it can be");
        there.assert_checksums();
        let back = world.pass(UPLINK_PORT, &udp_reply(&remote, &there, b"answer"));
        assert_eq!((back.port, back.dst()), (a.port, (a.addr(family), 5000)));
        assert_eq!(back.src(), (remote.addr(family), 53));
        back.assert_checksums();
        let hits = world.dp.worker_stats().hits;
        world.pass(a.port, &frame);
        assert_eq!(world.dp.worker_stats().hits, hits + 1);
    }
}

#[test]
fn two_containers_with_the_same_port_get_different_outside_ports() {
    for family in FAMILIES {
        let mut world = World::new();
        let net = world.network(NetworkOptions::default());
        let (a, b, remote) = (world.endpoint(net), world.endpoint(net), world.uplink());
        let to = (remote.addr(family), 53);
        let first = world.pass_resolving(a.port, &udp(&a, a.router, 5000, to, b"x"), &remote);
        let second = world.pass_resolving(b.port, &udp(&b, b.router, 5000, to, b"x"), &remote);
        assert_ne!(first.src().1, second.src().1);
        assert_eq!(first.src().1 % 2, second.src().1 % 2, "parity is kept (RFC 4787 REQ-4)");
        for (host, there) in [(a, first), (b, second)] {
            let back = world.pass(UPLINK_PORT, &udp_reply(&remote, &there, b"y"));
            assert_eq!(back.port, host.port);
        }
    }
}

#[test]
fn a_mapping_is_the_same_for_every_destination() {
    for family in FAMILIES {
        let mut world = World::new();
        let net = world.network(NetworkOptions::default());
        let (a, b, remote) = (world.endpoint(net), world.endpoint(net), world.uplink());
        let frame =
            |host: &Host, port| udp(host, host.router, 5000, (remote.addr(family), port), b"x");
        world.pass_resolving(a.port, &frame(&a, 1), &remote);
        let first = world.pass_resolving(b.port, &frame(&b, 1), &remote);
        let second = world.pass_resolving(b.port, &frame(&b, 2), &remote);
        assert_eq!(first.src(), second.src(), "RFC 4787 REQ-1");
    }
}

#[test]
fn a_stranger_is_filtered_but_a_known_host_may_use_another_port() {
    for family in FAMILIES {
        let mut world = World::new();
        let net = world.network(NetworkOptions::default());
        let (a, remote) = (world.endpoint(net), world.uplink());
        let frame = udp(&a, a.router, 5000, (remote.addr(family), 53), b"x");
        let there = world.pass_resolving(a.port, &frame, &remote);
        let other_port = udp(&remote, UPLINK_MAC, 54, there.src(), b"y");
        assert_eq!(world.pass(UPLINK_PORT, &other_port).port, a.port);
        let stranger =
            Host { v4: [192, 0, 2, 77].into(), v6: "2001:db8:1::77".parse().unwrap(), ..remote };
        let frame = udp(&stranger, UPLINK_MAC, 53, there.src(), b"y");
        world.dropped(UPLINK_PORT, &frame, DropReason::Filtered);
    }
}

#[test]
fn pings_are_translated_by_identifier() {
    for family in FAMILIES {
        let mut world = World::new();
        let net = world.network(NetworkOptions::default());
        let (a, b, remote) = (world.endpoint(net), world.endpoint(net), world.uplink());
        let mut seen = Vec::new();
        for host in [a, b] {
            let frame = ping(&host, host.router, remote.addr(family), 99, b"hello");
            let there = world.pass_resolving(host.port, &frame, &remote);
            assert_eq!(there.src().0, own(family));
            there.assert_checksums();
            let id_at = if family == Family::V4 { 14 + 20 + 4 } else { 14 + 40 + 4 };
            let id = u16::from_be_bytes([there.bytes[id_at], there.bytes[id_at + 1]]);
            seen.push(id);
            let mut back = Vec::new();
            let builder = ip(&remote, UPLINK_MAC, remote.addr(family), own(family), 64);
            if family == Family::V4 {
                builder.icmpv4_echo_reply(id, 1).write(&mut back, b"hello").unwrap();
            } else {
                builder.icmpv6_echo_reply(id, 1).write(&mut back, b"hello").unwrap();
            }
            let back = world.pass(UPLINK_PORT, &back);
            assert_eq!((back.port, back.dst().0), (host.port, host.addr(family)));
            assert_eq!(back.bytes[id_at..id_at + 2], 99_u16.to_be_bytes());
            back.assert_checksums();
        }
        assert_ne!(seen[0], seen[1]);
    }
}

#[test]
fn an_unfinished_checksum_leaves_with_the_new_pseudo_header_and_the_super_frame_whole() {
    for family in FAMILIES {
        let mut world = World::new();
        let net = world.network(NetworkOptions::default());
        let (a, remote) = (world.endpoint(net), world.uplink());
        let to = (remote.addr(family), 80);
        let syn = tcp(&a, a.router, 5000, to, "S", (0, 0), b"");
        let syn = world.pass_resolving(a.port, &syn, &remote);
        let reply = tcp(&remote, UPLINK_MAC, 80, syn.src(), "SA", (0, 1), b"");
        world.pass(UPLINK_PORT, &reply);
        let (gso, start, gso_size) = match family {
            Family::V4 => (Gso::TcpV4, 34_usize, 1448),
            Family::V6 => (Gso::TcpV6, 54, 1428),
        };
        let mut frame = tcp(&a, a.router, 5000, to, "A", (1, 1), &[3; 20_000]);
        let len = (frame.len() - start) as u32;
        let pseudo = |src: std::net::IpAddr, dst: std::net::IpAddr| {
            wharf::wire::checksum::pseudo_header(src.into(), dst.into(), 6, len)
        };
        frame[start + 16..start + 18].copy_from_slice(&pseudo(a.addr(family), to.0).to_be_bytes());
        let csum = Csum::Partial { start: start as u16, offset: 16 };
        let offload = Offload { gso, ecn: false, gso_size, csum };
        let sent = world.send_offloaded(a.port, &frame, offload);
        assert_eq!((sent.len(), sent[0].offload), (1, offload));
        let field = &sent[0].bytes[start + 16..start + 18];
        assert_eq!(field, pseudo(own(family), to.0).to_be_bytes());
    }
}

#[test]
fn an_error_from_the_way_reaches_the_sender_with_its_own_packet_quoted() {
    for family in FAMILIES {
        let mut world = World::new();
        let net = world.network(NetworkOptions::default());
        let (a, remote) = (world.endpoint(net), world.uplink());
        let frame = udp(&a, a.router, 5000, (remote.addr(family), 33_434), b"probe");
        let there = world.pass_resolving(a.port, &frame, &remote);
        let quoted = &there.bytes[14..];
        let mut error = Vec::new();
        let router =
            Host { v4: [198, 51, 100, 7].into(), v6: "2001:db8:7::7".parse().unwrap(), ..remote };
        let builder = ip(&router, UPLINK_MAC, router.addr(family), own(family), 60);
        match family {
            Family::V4 => builder.icmpv4_raw(11, 0, [0; 4]).write(&mut error, quoted).unwrap(),
            Family::V6 => builder.icmpv6_raw(3, 0, [0; 4]).write(&mut error, quoted).unwrap(),
        }
        let back = world.pass(UPLINK_PORT, &error);
        assert_eq!((back.port, back.dst().0), (a.port, a.addr(family)));
        assert_eq!(back.src().0, router.addr(family), "traceroute shows the router");
        back.assert_checksums();
        let header = if family == Family::V4 { 20 } else { 40 };
        let inner = &back.bytes[14 + header + 8..];
        let (src_at, port_at) = if family == Family::V4 { (12, 20) } else { (8, 40) };
        let sent = &frame[14..];
        let addr_len = if family == Family::V4 { 4 } else { 16 };
        assert_eq!(inner[src_at..src_at + addr_len], sent[src_at..src_at + addr_len]);
        assert_eq!(inner[port_at..port_at + 4], sent[port_at..port_at + 4]);
        let after = world.pass(UPLINK_PORT, &udp_reply(&remote, &there, b"still there"));
        assert_eq!(after.port, a.port, "an error ends no flow (RFC 4787 REQ-12)");
    }
}

#[test]
fn a_udp_mapping_outlives_five_minutes_of_silence_and_not_much_more() {
    for family in FAMILIES {
        let mut world = World::new();
        let net = world.network(NetworkOptions::default());
        let (a, remote) = (world.endpoint(net), world.uplink());
        let to = (remote.addr(family), 5_353);
        let there = world.pass_resolving(a.port, &udp(&a, a.router, 5000, to, b"x"), &remote);
        world.pass(UPLINK_PORT, &udp_reply(&remote, &there, b"y"));
        world.advance(Span::from_secs(299));
        assert_eq!(world.pass(UPLINK_PORT, &udp_reply(&remote, &there, b"y")).port, a.port);
        for _ in 0..40 {
            world.advance(Span::from_secs(30));
        }
        assert_eq!(world.dp.worker_stats().flows, 0);
        let late = world.send(UPLINK_PORT, &udp_reply(&remote, &there, b"y"));
        assert!(late.iter().all(|sent| sent.port == UPLINK_PORT), "nothing gets inside: {late:?}");
    }
}

#[test]
fn an_unreachable_neighbour_is_reported_to_the_sender() {
    for family in FAMILIES {
        let mut world = World::new();
        let net = world.network(NetworkOptions::default());
        let (a, remote) = (world.endpoint(net), world.uplink());
        let asked = world.send(a.port, &udp(&a, a.router, 9, (remote.addr(family), 9), b"x"));
        assert_eq!(asked.len(), 1);
        let mut told = Vec::new();
        for _ in 0..10 {
            told.extend(world.advance(Span::from_secs(1)).into_iter().filter(|s| s.port == a.port));
        }
        assert_eq!(told.len(), 1, "{told:?}");
        assert_eq!(told[0].icmp(), if family == Family::V4 { (3, 1) } else { (1, 3) });
        assert_eq!(told[0].dst().0, a.addr(family));
        told[0].assert_checksums();
    }
}

#[test]
fn spoofed_inside_addresses_from_outside_are_dropped_by_name() {
    for family in FAMILIES {
        let mut world = World::new();
        let net = world.network(NetworkOptions::default());
        let (a, remote) = (world.endpoint(net), world.uplink());
        let liar = Host { v4: a.v4, v6: a.v6, ..remote };
        let frame = udp(&liar, UPLINK_MAC, 1, (own(family), 5000), b"x");
        world.dropped(UPLINK_PORT, &frame, DropReason::SpoofedInside);
    }
}
