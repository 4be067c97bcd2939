//! Who may reach whom.

use wharf::packet::DropReason;
use wharf::wire::addr::Family;

use crate::world::*;

/// Type and code of "administratively prohibited".
fn prohibited(family: Family) -> (u8, u8) {
    match family {
        Family::V4 => (3, 13),
        Family::V6 => (1, 1),
    }
}

#[test]
fn networks_are_isolated_and_the_sender_is_told() {
    for family in FAMILIES {
        let mut world = World::new();
        let (one, two) =
            (NetworkOptions::default(), NetworkOptions { open: true, ..Default::default() });
        let (one, two) = (world.network(one), world.network(two));
        let (a, b) = (world.endpoint(one), world.endpoint(two));
        let frame = udp(&a, a.router, 5000, (b.addr(family), 53), b"question");
        let answer = world.pass(a.port, &frame);
        assert_eq!((answer.port, answer.icmp()), (a.port, prohibited(family)));
        assert_eq!(answer.src().0, gateway(one, family));
        answer.assert_checksums();
        assert_eq!(world.dp.drops(a.port, DropReason::NetworkIsolated), 1);
    }
}

#[test]
fn networks_that_both_allow_it_are_routed_with_one_hop_less() {
    for family in FAMILIES {
        let mut world = World::new();
        let open = NetworkOptions { open: true, ..Default::default() };
        let (one, two) = (world.network(open), world.network(open));
        let (a, b) = (world.endpoint(one), world.endpoint(two));
        let frame = udp(&a, a.router, 5000, (b.addr(family), 53), b"question");
        for _ in 0..2 {
            let sent = world.pass(a.port, &frame);
            assert_eq!((sent.port, sent.ttl()), (b.port, 63));
            assert_eq!((sent.src_mac(), sent.dst_mac()), (gateway_mac(two), b.mac));
            assert_eq!(sent.src(), (a.addr(family), 5000), "no translation inside");
            sent.assert_checksums();
        }
        let there = world.pass(a.port, &frame);
        let back = world.pass(b.port, &udp_reply(&b, &there, b"answer"));
        assert_eq!((back.port, back.dst()), (a.port, (a.addr(family), 5000)));
        back.assert_checksums();
    }
}

#[test]
fn closing_a_network_ends_flows_that_ran_through_it() {
    for family in FAMILIES {
        let mut world = World::new();
        let open = NetworkOptions { open: true, ..Default::default() };
        let (one, two) = (world.network(open), world.network(open));
        let (a, b) = (world.endpoint(one), world.endpoint(two));
        let frame = udp(&a, a.router, 5000, (b.addr(family), 53), b"question");
        let there = world.pass(a.port, &frame);
        let mut closed = wharf::config::Network::clone(world.dp.tables().network(two).unwrap());
        closed.isolated = true;
        world.apply(wharf::config::Delta::Network(closed.into()));
        assert_eq!(world.pass(a.port, &frame).icmp(), prohibited(family));
        let back = world.pass(b.port, &udp_reply(&b, &there, b"late answer"));
        assert_eq!((back.port, back.icmp()), (b.port, prohibited(family)), "and the way back, too");
    }
}

#[test]
fn isolated_ports_of_one_network_reach_the_gateway_but_not_each_other() {
    for family in FAMILIES {
        let mut world = World::new();
        let net = world.network(NetworkOptions { icc_off: true, ..Default::default() });
        let (a, b) = (world.endpoint(net), world.endpoint(net));
        world.dropped(
            a.port,
            &udp(&a, b.mac, 1, (b.addr(family), 2), b""),
            DropReason::PortIsolated,
        );
        let by_gateway = world.pass(a.port, &udp(&a, a.router, 1, (b.addr(family), 2), b""));
        assert_eq!(by_gateway.icmp(), prohibited(family), "nor by way of the gateway");
        let pong = world.pass(a.port, &ping(&a, a.router, gateway(net, family), 7, b"hello"));
        assert_eq!(pong.port, a.port);
    }
}
