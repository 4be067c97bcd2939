//! A network that stands in for another program's: `slirp4netns`' addresses, `pasta`'s transparency.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use wharf::base::ids::NetworkId;
use wharf::base::time::Span;
use wharf::config::{Delta, Guise, Network, Stands, link_local};
use wharf::packet::{DropReason, Parsed};
use wharf::stage::respond::ndp;
use wharf::wire::addr::Family;
use wharf::wire::ipv6;

use crate::world::*;

/// A network of this look, unguarded as such a one is, with one endpoint.
fn guised(guise: Guise) -> (World, NetworkId, Host) {
    let mut world = World::new();
    let net = world.network(NetworkOptions { guard_off: true, ..NetworkOptions::default() });
    let network = Network::clone(world.dp.tables().network(net).unwrap());
    world.apply(Delta::Network(Arc::new(Network { guise, ..network })));
    let host = world.endpoint(net);
    (world, net, host)
}

fn transparent() -> Guise {
    Guise { transparent: true, ..Guise::default() }
}

/// Somebody on the container's own subnet who is no endpoint.
fn neighbour(of: &Host, family: Family) -> IpAddr {
    match of.addr(family) {
        IpAddr::V4(own) => {
            let [a, b, ..] = own.octets();
            Ipv4Addr::new(a, b, 0, 200).into()
        }
        IpAddr::V6(own) => {
            let mut segments = own.segments();
            segments[7] = 0x200;
            Ipv6Addr::from(segments).into()
        }
    }
}

fn ask(from: &Host, target: IpAddr) -> Vec<u8> {
    match target {
        IpAddr::V4(target) => arp_request(from, target),
        IpAddr::V6(target) => ndp_request(from, target),
    }
}

#[test]
fn every_address_of_the_pretended_lan_is_the_switch_s_but_the_container_s_own() {
    for family in FAMILIES {
        let (mut world, net, a) = guised(transparent());
        for target in [neighbour(&a, family), gateway(net, family)] {
            let answer = world.pass(a.port, &ask(&a, target));
            assert_eq!((answer.port, answer.src_mac()), (a.port, gateway_mac(net)), "{target}");
        }
        assert!(world.send(a.port, &ask(&a, a.addr(family))).is_empty(), "its own is taken");
    }
}

#[test]
fn a_probe_for_an_address_is_not_answered() {
    let (mut world, _, a) = guised(transparent());
    let mut probe = arp_request(&a, Ipv4Addr::new(10, 20, 0, 200));
    probe[28..32].fill(0);
    assert!(world.send(a.port, &probe).is_empty());
    // Nor is duplicate address detection: the container would give its address up.
    let target = neighbour(&a, Family::V6).into();
    let nobody = wharf::wire::addr::Addr::UNSPECIFIED;
    let probe = ndp::solicitation((a.mac, nobody), target, None);
    assert!(world.send(a.port, probe.bytes()).is_empty());
}

#[test]
fn what_is_sent_to_the_pretended_lan_leaves_by_the_uplink_its_router_included() {
    for family in FAMILIES {
        let (mut world, net, a) = guised(transparent());
        let remote = world.uplink();
        for target in [neighbour(&a, family), gateway(net, family)] {
            let frame = udp(&a, gateway_mac(net), 9, (target, 53), b"x");
            let sent = world.pass_resolving(a.port, &frame, &remote);
            assert_eq!((sent.port, sent.dst()), (UPLINK_PORT, (target, 53)));
        }
    }
}

#[test]
fn an_ordinary_network_does_neither() {
    for family in FAMILIES {
        let (mut world, net, a) = guised(Guise::default());
        world.uplink();
        let target = neighbour(&a, family);
        assert!(world.send(a.port, &ask(&a, target)).is_empty());
        let frame = udp(&a, gateway_mac(net), 9, (target, 53), b"x");
        world.refused(a.port, &frame, DropReason::NeighbourFailed);
    }
}

#[test]
fn a_router_solicitation_is_answered_where_addresses_are_made_of_advertisements() {
    let solicitation =
        |a: &Host| ndp::router_solicitation((a.mac, link_local(a.mac))).bytes().to_vec();
    let (mut world, net, a) = guised(Guise { advertises: true, ..Guise::default() });
    let answer = world.pass(a.port, &solicitation(&a));
    assert_eq!((answer.port, answer.dst_mac()), (a.port, a.mac));
    answer.assert_checksums();
    let parsed = Parsed::new(&answer.bytes).unwrap();
    let told = ndp::parse_router_advertisement(&answer.bytes, &parsed).unwrap();
    assert_eq!((told.router, told.mtu), (link_local(gateway_mac(net)), Some(1500)));
    assert_eq!(told.mac, Some(gateway_mac(net)));
    let prefix = told.prefixes[0];
    assert!(prefix.on_link && prefix.autonomous && prefix.len == 64);
    assert!(told.lifetime.0 > 0, "it is a default router");
    let again = world.advance(Span(told.lifetime.0 / 2));
    let again: Vec<_> = again.iter().filter(|sent| sent.icmp() == (134, 0)).collect();
    assert!(!again.is_empty(), "a kernel asks once and forgets a router that falls silent");
}

#[test]
fn a_name_server_s_address_is_pinged_and_offers_nothing_else() {
    for family in FAMILIES {
        let (_, _, host) = guised(Guise::default());
        let at = neighbour(&host, family);
        let also = vec![(at.into(), Stands::NameServer)];
        let (mut world, net, a) = guised(Guise { also, ..Guise::default() });
        let router = gateway_mac(net);
        assert_eq!(world.pass(a.port, &ask(&a, at)).src_mac(), router);
        let pong = world.pass(a.port, &ping(&a, router, at, 7, b"x"));
        assert_eq!(pong.port, a.port);
        let frame = udp(&a, router, 9, (at, 80), b"x");
        world.refused(a.port, &frame, DropReason::NoService);
    }
}

#[test]
fn a_protocol_that_is_switched_off_leaves_in_neither_family() {
    for family in FAMILIES {
        let without = vec![ipv6::TCP];
        let (mut world, net, a) = guised(Guise { without, ..Guise::default() });
        let remote = world.uplink();
        let to = (remote.addr(family), 80);
        let syn = tcp(&a, gateway_mac(net), 9, to, "S", (1, 0), b"");
        world.dropped(a.port, &syn, DropReason::NoService);
        world.pass_resolving(a.port, &udp(&a, gateway_mac(net), 9, to, b"x"), &remote);
    }
}
