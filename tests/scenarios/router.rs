//! The gateway as a router.

use std::net::IpAddr;

use wharf::base::time::Span;
use wharf::packet::DropReason;
use wharf::wire::addr::Family;

use crate::world::*;

fn pick(family: Family, v4: (u8, u8), v6: (u8, u8)) -> (u8, u8) {
    match family {
        Family::V4 => v4,
        Family::V6 => v6,
    }
}

#[test]
fn the_gateway_answers_pings() {
    for family in FAMILIES {
        let mut world = World::new();
        let net = world.network(NetworkOptions::default());
        let a = world.endpoint(net);
        let pong = world.pass(a.port, &ping(&a, a.router, gateway(net, family), 77, b"payload"));
        assert_eq!((pong.port, pong.dst_mac(), pong.src_mac()), (a.port, a.mac, a.router));
        assert_eq!(pong.icmp(), pick(family, (0, 0), (129, 0)));
        pong.assert_checksums();
    }
}

#[test]
fn a_closed_port_of_the_gateway_is_refused_and_not_ignored() {
    for family in FAMILIES {
        let mut world = World::new();
        let net = world.network(NetworkOptions::default());
        let a = world.endpoint(net);
        let to = (gateway(net, family), 4444);
        for frame in [udp(&a, a.router, 9, to, b"x"), tcp(&a, a.router, 9, to, "S", (1, 0), b"")] {
            let error = world.pass(a.port, &frame);
            assert_eq!(error.icmp(), pick(family, (3, 3), (1, 4)));
            error.assert_checksums();
        }
    }
}

#[test]
fn a_packet_at_its_last_hop_is_answered_with_time_exceeded() {
    for family in FAMILIES {
        let mut world = World::new();
        let net = world.network(NetworkOptions::default());
        let (a, remote) = (world.endpoint(net), world.uplink());
        let to = (remote.addr(family), 33_434);
        let error = world.pass(a.port, &udp_ttl(&a, a.router, 9, to, b"probe", 1));
        assert_eq!(error.icmp(), pick(family, (11, 0), (3, 0)));
        assert_eq!(error.src().0, gateway(net, family));
        error.assert_checksums();
    }
}

#[test]
fn a_packet_too_large_for_the_way_out_is_answered_with_its_mtu() {
    for family in FAMILIES {
        let mut world = World::new();
        let net = world.network(NetworkOptions::default());
        let (a, remote) = (world.endpoint(net), world.uplink_with_mtu(1400));
        let frame = udp(&a, a.router, 9, (remote.addr(family), 9), &[0; 1440]);
        let error = world.pass(a.port, &frame);
        assert_eq!(error.icmp(), pick(family, (3, 4), (2, 0)));
        let at = match family {
            Family::V4 => 14 + 20 + 6,
            Family::V6 => 14 + 40 + 6,
        };
        assert_eq!(error.bytes[at..at + 2], 1400_u16.to_be_bytes());
        error.assert_checksums();
    }
}

#[test]
fn a_network_without_an_uplink_says_so_at_once() {
    for family in FAMILIES {
        let mut world = World::new();
        let net = world.network(NetworkOptions { internal: true, ..Default::default() });
        let a = world.endpoint(net);
        let to: IpAddr = match family {
            Family::V4 => [198, 51, 100, 1].into(),
            Family::V6 => "2001:db8:9::1".parse().unwrap(),
        };
        let error = world.pass(a.port, &udp(&a, a.router, 9, (to, 9), b"x"));
        assert_eq!(error.icmp(), pick(family, (3, 0), (1, 0)));
        assert_eq!(world.dp.drops(a.port, DropReason::NoUplink), 1);
    }
}

#[test]
fn an_address_nobody_has_is_unreachable() {
    for family in FAMILIES {
        let mut world = World::new();
        let open = NetworkOptions { open: true, ..Default::default() };
        let (one, two) = (world.network(open), world.network(open));
        let a = world.endpoint(one);
        let b = world.endpoint(two);
        let absent: IpAddr = match b.addr(family) {
            IpAddr::V4(ip) => {
                let [x, y, z, _] = ip.octets();
                [x, y, z, 240].into()
            }
            IpAddr::V6(ip) => {
                let mut o = ip.octets();
                o[15] = 240;
                o.into()
            }
        };
        let error = world.pass(a.port, &udp(&a, a.router, 9, (absent, 9), b"x"));
        assert_eq!(error.icmp(), pick(family, (3, 1), (1, 3)));
    }
}

#[test]
fn martians_are_dropped_by_name() {
    let mut world = World::new();
    let net = world.network(NetworkOptions::default());
    let a = world.endpoint(net);
    for to in ["127.0.0.1", "0.0.0.0", "224.0.0.5", "255.255.255.255", "::1", "ff02::5"] {
        let to: IpAddr = to.parse().unwrap();
        let frame = udp(&a, a.router, 9, (to, 9), b"x");
        world.dropped(a.port, &frame, DropReason::MartianDestination);
    }
}

#[test]
fn errors_are_limited_in_rate() {
    let mut world = World::new();
    let net = world.network(NetworkOptions::default());
    let a = world.endpoint(net);
    let frame = udp(&a, a.router, 9, (gateway(net, Family::V4), 4444), b"x");
    let answered: usize = (0..1_000).map(|_| world.send(a.port, &frame).len()).sum();
    assert_eq!(answered, wharf::base::limits::ICMP_ERRORS_PER_SECOND as usize);
    world.advance(Span::from_secs(1));
    assert_eq!(world.send(a.port, &frame).len(), 1);
}

#[test]
fn a_wrong_header_checksum_does_not_cross_the_router() {
    let mut world = World::new();
    let net = world.network(NetworkOptions::default());
    let (a, remote) = (world.endpoint(net), world.uplink());
    let mut frame = udp(&a, a.router, 9, (remote.v4.into(), 9), b"x");
    frame[24] ^= 0xff;
    world.dropped(a.port, &frame, DropReason::Ipv4Checksum);
}
