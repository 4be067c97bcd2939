//! Published ports.

use wharf::base::ids::PublicationId;
use wharf::config::Delta;
use wharf::wire::addr::Family;
use wharf::wire::ipv6::{TCP, UDP};

use crate::world::*;

#[test]
fn a_remote_host_reaches_a_published_port_and_is_seen_with_its_own_address() {
    for family in FAMILIES {
        let mut world = World::new();
        let net = world.network(NetworkOptions::default());
        let (web, remote) = (world.endpoint(net), world.uplink());
        world.publish(1, UDP, 1180, &web, 5000);
        world.publish(2, TCP, 1180, &web, 5000);
        let to = (own(family), 1180);
        let asked = [
            udp(&remote, UPLINK_MAC, 40_000, to, b"hello"),
            tcp(&remote, UPLINK_MAC, 40_000, to, "S", (100, 0), b""),
        ];
        for (frame, proto) in asked.into_iter().zip([UDP, TCP]) {
            let there = world.pass(UPLINK_PORT, &frame);
            assert_eq!((there.port, there.dst()), (web.port, (web.addr(family), 5000)));
            assert_eq!(there.src(), (remote.addr(family), 40_000), "the client's true address");
            there.assert_checksums();
            let reply = if proto == UDP {
                udp_reply(&web, &there, b"there")
            } else {
                tcp(&web, web.router, 5000, there.src(), "SA", (7, 101), b"")
            };
            let back = world.pass_resolving(web.port, &reply, &remote);
            assert_eq!((back.port, back.src()), (UPLINK_PORT, to));
            assert_eq!(back.dst(), (remote.addr(family), 40_000));
            back.assert_checksums();
        }
    }
}

#[test]
fn hairpin_reaches_the_published_port_from_another_network_and_from_the_same() {
    for family in FAMILIES {
        let mut world = World::new();
        let (one, two) = (world.network(Default::default()), world.network(Default::default()));
        let (web, neighbour, stranger) =
            (world.endpoint(one), world.endpoint(one), world.endpoint(two));
        world.uplink();
        world.publish(1, UDP, 1180, &web, 5000);
        for (client, seen) in [
            (neighbour, gateway(one, family)),
            (stranger, stranger.addr(family)),
            (web, gateway(one, family)),
        ] {
            let frame = udp(&client, client.router, 40_000, (own(family), 1180), b"hello");
            let there = world.pass(client.port, &frame);
            assert_eq!((there.port, there.dst()), (web.port, (web.addr(family), 5000)));
            assert_eq!(there.src().0, seen);
            there.assert_checksums();
            let back = world.pass(web.port, &udp_reply(&web, &there, b"there"));
            assert_eq!((back.port, back.src()), (client.port, (own(family), 1180)));
            assert_eq!(back.dst(), (client.addr(family), 40_000));
            back.assert_checksums();
        }
    }
}

#[test]
fn a_udp_sender_that_never_pauses_is_cut_off_when_the_publication_goes_and_found_when_it_comes() {
    for family in FAMILIES {
        let mut world = World::new();
        let net = world.network(NetworkOptions::default());
        let (old, new, remote) = (world.endpoint(net), world.endpoint(net), world.uplink());
        let frame = udp(&remote, UPLINK_MAC, 40_000, (own(family), 1180), b"again");
        assert_eq!(
            world.pass(UPLINK_PORT, &frame).icmp().1,
            if family == Family::V4 { 3 } else { 4 }
        );
        world.publish(1, UDP, 1180, &old, 5000);
        assert_eq!(world.pass(UPLINK_PORT, &frame).port, old.port);
        world.apply(Delta::Unpublish(PublicationId(1)));
        assert_eq!(world.pass(UPLINK_PORT, &frame).port, UPLINK_PORT, "refused");
        world.publish(2, UDP, 1180, &new, 6000);
        assert_eq!(world.pass(UPLINK_PORT, &frame).port, new.port);
    }
}

#[test]
fn an_idle_flow_ends_with_its_publication_too() {
    for family in FAMILIES {
        let mut world = World::new();
        let net = world.network(NetworkOptions::default());
        let (web, remote) = (world.endpoint(net), world.uplink());
        world.publish(1, UDP, 1180, &web, 5000);
        world.pass(UPLINK_PORT, &udp(&remote, UPLINK_MAC, 40_000, (own(family), 1180), b"x"));
        world.apply(Delta::Unpublish(PublicationId(1)));
        world.advance(wharf::base::time::Span::from_millis(1));
        assert_eq!(world.dp.worker_stats().flows, 0);
    }
}

#[test]
fn other_changes_do_not_disturb_an_established_connection() {
    for family in FAMILIES {
        let mut world = World::new();
        let net = world.network(NetworkOptions::default());
        let (web, remote) = (world.endpoint(net), world.uplink());
        world.publish(1, TCP, 1180, &web, 5000);
        let to = (own(family), 1180);
        let there =
            world.pass(UPLINK_PORT, &tcp(&remote, UPLINK_MAC, 40_000, to, "S", (100, 0), b""));
        let reply = tcp(&web, web.router, 5000, there.src(), "SA", (7, 101), b"");
        world.pass_resolving(web.port, &reply, &remote);
        world.pass(UPLINK_PORT, &tcp(&remote, UPLINK_MAC, 40_000, to, "A", (101, 8), b""));
        let other = world.endpoint(net);
        world.publish(2, TCP, 1181, &other, 5000);
        let data = tcp(&remote, UPLINK_MAC, 40_000, to, "A", (101, 8), b"data");
        assert_eq!(world.pass(UPLINK_PORT, &data).dst(), (web.addr(family), 5000));
        let flows = world.dp.list_flows(world.now, &Default::default());
        assert_eq!(flows.len(), 1);
        assert_eq!((flows[0].state.as_str(), flows[0].packets), ("established", [3, 1]));
    }
}

#[test]
fn masquerade_never_takes_a_published_port() {
    for family in FAMILIES {
        let mut world = World::new();
        let net = world.network(NetworkOptions::default());
        let (web, a, remote) = (world.endpoint(net), world.endpoint(net), world.uplink());
        world.publish(1, UDP, 1180, &web, 5000);
        let frame = udp(&a, a.router, 1180, (remote.addr(family), 53), b"x");
        let there = world.pass_resolving(a.port, &frame, &remote);
        assert_ne!(there.src().1, 1180);
    }
}

/// A daemon that was replaced knows the publications and no flows; whoever speaks first, the client
/// must go on seeing the address it talks to.
#[test]
fn an_answer_whose_flow_is_forgotten_leaves_from_the_published_port_and_its_flow_goes_on() {
    for family in FAMILIES {
        let mut world = World::new();
        let net = world.network(NetworkOptions::default());
        let (web, remote) = (world.endpoint(net), world.uplink());
        world.publish(1, UDP, 1180, &web, 5000);
        world.publish(2, TCP, 1180, &web, 5000);
        let (from, to) = ((own(family), 1180), (remote.addr(family), 40_000));
        for frame in [
            udp(&web, web.router, 5000, to, b"news"),
            tcp(&web, web.router, 5000, to, "A", (500, 900), b"more"),
        ] {
            let out = world.pass_resolving(web.port, &frame, &remote);
            assert_eq!((out.port, out.src(), out.dst()), (UPLINK_PORT, from, to));
            out.assert_checksums();
        }
        for frame in [
            udp(&remote, UPLINK_MAC, 40_000, from, b"thanks"),
            tcp(&remote, UPLINK_MAC, 40_000, from, "A", (900, 504), b""),
        ] {
            let back = world.pass(UPLINK_PORT, &frame);
            assert_eq!(
                (back.port, back.src(), back.dst()),
                (web.port, to, (web.addr(family), 5000))
            );
            back.assert_checksums();
        }
        // Other ports of the container are masqueraded as ever.
        let other = world.pass(web.port, &udp(&web, web.router, 5001, to, b"else"));
        assert_eq!(other.src(), (own(family), 5001));
    }
}

#[test]
fn a_flow_that_left_by_its_publication_ends_with_it() {
    for family in FAMILIES {
        let mut world = World::new();
        let net = world.network(NetworkOptions::default());
        let (old, new, remote) = (world.endpoint(net), world.endpoint(net), world.uplink());
        world.publish(1, UDP, 1180, &old, 5000);
        let news = udp(&old, old.router, 5000, (remote.addr(family), 40_000), b"news");
        assert_eq!(world.pass_resolving(old.port, &news, &remote).src(), (own(family), 1180));
        world.apply(Delta::Unpublish(PublicationId(1)));
        world.publish(2, UDP, 1180, &new, 6000);
        let to = (own(family), 1180);
        let frame = udp(&remote, UPLINK_MAC, 40_000, to, b"whose?");
        assert_eq!(world.pass(UPLINK_PORT, &frame).port, new.port);
        assert_eq!(world.pass(old.port, &news).src(), (own(family), 5000));
    }
}
