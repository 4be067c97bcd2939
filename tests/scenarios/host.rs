//! The host's own port: it carries the gateway's addresses and MAC.

use std::net::IpAddr;
use std::sync::Arc;

use wharf::config::Delta;
use wharf::packet::DropReason;
use wharf::wire::addr::Family;

use crate::world::*;

#[test]
fn a_container_reaches_services_of_the_host_at_the_gateways_address() {
    for family in FAMILIES {
        let mut world = World::new();
        let net = world.network(NetworkOptions::default());
        let a = world.endpoint(net);
        let host = world.host(net);
        let to = (gateway(net, family), 80);
        let syn = tcp(&a, a.router, 5_000, to, "S", (1, 0), b"");
        let there = world.pass(a.port, &syn);
        assert_eq!((there.port, &there.bytes), (host.port, &syn), "as on a wire");
        // The host answers to the container's own MAC: for it, the container is a neighbour.
        let answer = tcp(&host, a.mac, 80, (a.addr(family), 5_000), "SA", (7, 2), b"");
        let back = world.pass(host.port, &answer);
        assert_eq!((back.port, &back.bytes), (a.port, &answer));
        let data = tcp(&a, a.router, 5_000, to, "A", (2, 8), b"data");
        let hits = world.dp.worker_stats().hits;
        assert_eq!(world.pass(a.port, &data).bytes, data);
        world.pass(host.port, &tcp(&host, a.mac, 80, (a.addr(family), 5_000), "A", (8, 6), b""));
        let stats = world.dp.worker_stats();
        assert_eq!((stats.hits - hits, stats.flows), (2, 1), "one flow answers both ways");
        assert_eq!(world.dp.list_flows(world.now, &Default::default())[0].state, "established");
    }
}

#[test]
fn the_host_reaches_containers_and_they_answer_through_the_gateways_mac() {
    for family in FAMILIES {
        let mut world = World::new();
        let net = world.network(NetworkOptions::default());
        let a = world.endpoint(net);
        let host = world.host(net);
        let syn = tcp(&host, a.mac, 40_000, (a.addr(family), 80), "S", (1, 0), b"");
        assert_eq!(world.pass(host.port, &syn).port, a.port);
        let to = (gateway(net, family), 40_000);
        let answer = tcp(&a, a.router, 80, to, "SA", (7, 2), b"");
        let back = world.pass(a.port, &answer);
        assert_eq!((back.port, &back.bytes), (host.port, &answer));
        let ack = tcp(&host, a.mac, 40_000, (a.addr(family), 80), "A", (2, 8), b"");
        world.pass(host.port, &ack);
        assert_eq!(world.dp.list_flows(world.now, &Default::default())[0].state, "established");
        // Another container appears: the flow is judged again, and stays.
        world.endpoint(net);
        let data = tcp(&a, a.router, 80, to, "A", (8, 2), b"data");
        assert_eq!(world.pass(a.port, &data).port, host.port);
        assert_eq!(world.pass(host.port, &ack).port, a.port);
        assert_eq!(world.dp.worker_stats().flows, 1);
    }
}

#[test]
fn towards_the_host_the_switch_does_not_speak_for_the_gateway() {
    let mut world = World::new();
    let net = world.network(NetworkOptions::default());
    let a = world.endpoint(net);
    let host = world.host(net);
    // Its duplicate address detection must hear nothing.
    let probe = Host { v4: [0, 0, 0, 0].into(), ..host };
    world.dropped(host.port, &arp_request(&probe, host.v4), DropReason::NeighbourIgnored);
    world.dropped(host.port, &ndp_request(&host, host.v6), DropReason::NeighbourIgnored);
    let found = world.pass(host.port, &arp_request(&host, a.v4));
    assert_eq!((found.port, found.src_mac()), (host.port, a.mac));
    let answered = world.pass(a.port, &arp_request(&a, host.v4));
    assert_eq!((answered.port, answered.src_mac()), (a.port, a.router), "containers are answered");
}

#[test]
fn pings_to_the_gateway_are_the_switchs_and_transit_never_goes_to_the_host() {
    for family in FAMILIES {
        let mut world = World::new();
        let net = world.network(NetworkOptions::default());
        let a = world.endpoint(net);
        let host = world.host(net);
        let pong = world.pass(a.port, &ping(&a, a.router, gateway(net, family), 7, b"hello"));
        assert_eq!(pong.port, a.port);
        let remote = world.uplink();
        let away = udp(&a, a.router, 1, (remote.addr(family), 2), b"");
        assert!(world.send(a.port, &away).iter().all(|sent| sent.port != host.port));
    }
}

#[test]
fn the_hosts_other_addresses_are_reached_through_its_port_unless_something_is_published_there() {
    for family in FAMILIES {
        let mut world = World::new();
        let net = world.network(NetworkOptions::default());
        let (a, web) = (world.endpoint(net), world.endpoint(net));
        let host = world.host(net);
        let elsewhere: IpAddr = match family {
            Family::V4 => [198, 51, 100, 5].into(),
            Family::V6 => "2001:db8:5::5".parse().unwrap(),
        };
        world.apply(Delta::HostAddresses(Arc::from([elsewhere.into()])));
        let frame = udp(&a, a.router, 5_000, (elsewhere, 22), b"x");
        let there = world.pass(a.port, &frame);
        assert_eq!((there.port, &there.bytes), (host.port, &frame));
        let as_other = match elsewhere {
            IpAddr::V4(v4) => Host { v4, ..host },
            IpAddr::V6(v6) => Host { v6, ..host },
        };
        let answer = udp(&as_other, a.mac, 22, (a.addr(family), 5_000), b"y");
        let back = world.pass(host.port, &answer);
        assert_eq!((back.port, &back.bytes), (a.port, &answer));
        assert_eq!(world.dp.worker_stats().flows, 1);
        world.publish(1, wharf::wire::ipv6::UDP, 1_180, &web, 5_000);
        let published = udp(&a, a.router, 5_000, (elsewhere, 1_180), b"x");
        assert_eq!(world.pass(a.port, &published).port, web.port);
    }
}
