//! Bad input to NAT: each kind is dropped by name and counted at its port, and a well-behaved flow
//! beside it goes on as if nothing were.

use std::net::IpAddr;

use wharf::base::limits::FRAGMENT_TRAINS_PER_SOURCE_MAX;
use wharf::base::time::Span;
use wharf::packet::DropReason;
use wharf::wire::addr::Family;

use crate::packets::fragments;
use crate::world::*;

/// A container with an established connection, its neighbour, and whoever means harm outside.
struct Scene {
    world: World,
    a: Host,
    b: Host,
    remote: Host,
    attacker: Host,
    family: Family,
    seen: (IpAddr, u16),
}

const N: u16 = 2_000;

fn in_both(test: impl Fn(&mut Scene)) {
    for family in FAMILIES {
        let mut world = World::new();
        let net = world.network(NetworkOptions::default());
        let (a, b, remote) = (world.endpoint(net), world.endpoint(net), world.uplink());
        let attacker = Host {
            v4: [203, 0, 113, 66].into(),
            v6: "2001:db8:bad::66".parse().unwrap(),
            ..remote
        };
        let to = (remote.addr(family), 80);
        let syn = tcp(&a, a.router, 5_000, to, "S", (100, 0), b"");
        let seen = world.pass_resolving(a.port, &syn, &remote).src();
        let mut scene = Scene { world, a, b, remote, attacker, family, seen };
        let reply = tcp(&remote, UPLINK_MAC, 80, seen, "SA", (700, 101), b"");
        scene.world.pass(UPLINK_PORT, &reply);
        scene.goes_on();
        test(&mut scene);
        scene.goes_on();
    }
}

impl Scene {
    /// The good connection still carries data in both directions.
    fn goes_on(&mut self) {
        let to = (self.remote.addr(self.family), 80);
        let out = tcp(&self.a, self.a.router, 5_000, to, "A", (101, 701), b"data");
        assert_eq!(self.world.pass(self.a.port, &out).src(), self.seen);
        let back = tcp(&self.remote, UPLINK_MAC, 80, self.seen, "A", (701, 105), b"data");
        assert_eq!(self.world.pass(UPLINK_PORT, &back).port, self.a.port);
    }

    fn drops(&self, reason: DropReason) -> u64 {
        self.world.dp.drops(UPLINK_PORT, reason)
    }

    fn ours(&self, port: u16) -> (IpAddr, u16) {
        (own(self.family), port)
    }
}

#[test]
fn forged_resets_are_dropped_and_counted() {
    in_both(|scene| {
        for n in 0..N {
            let seq = 1_000_000 + u32::from(n) * 1_000_003;
            let forged = tcp(&scene.remote, UPLINK_MAC, 80, scene.seen, "R", (seq, 0), b"");
            scene.world.send(UPLINK_PORT, &forged);
        }
        assert!(scene.drops(DropReason::TcpWindow) > u64::from(N) * 9 / 10);
    });
}

#[test]
fn an_ack_storm_is_dropped_and_counted() {
    in_both(|scene| {
        for n in 0..N {
            let ack = 50_000_000 + u32::from(n);
            let storm = tcp(&scene.remote, UPLINK_MAC, 80, scene.seen, "A", (701, ack), b"");
            scene.world.dropped(UPLINK_PORT, &storm, DropReason::TcpWindow);
        }
    });
}

#[test]
fn a_syn_flood_from_outside_makes_no_flow_and_is_bounded() {
    in_both(|scene| {
        for n in 0..N {
            let to = scene.ours(1 + n);
            let syn = tcp(&scene.attacker, UPLINK_MAC, n, to, "S", (1, 0), b"");
            scene.world.send(UPLINK_PORT, &syn);
        }
        assert_eq!(scene.world.dp.footprint().flows, 1);
        // Those at the connection's own port are a stranger's.
        assert_eq!(
            scene.drops(DropReason::NotPublished) + scene.drops(DropReason::Filtered),
            2_000
        );
        assert!(scene.world.advance(Span::from_secs(7)).len() <= 200, "few are answered");
    });
}

#[test]
fn a_syn_flood_at_a_published_port_cannot_push_out_a_connection() {
    for family in FAMILIES {
        let mut world = World::with_flow_limit(500);
        let net = world.network(NetworkOptions::default());
        let (a, remote) = (world.endpoint(net), world.uplink());
        world.publish(1, wharf::wire::ipv6::TCP, 80, &a, 8_080);
        let to = (own(family), 80);
        let pass = |world: &mut World, flags, numbers| {
            let frame = tcp(&remote, UPLINK_MAC, 4_000, to, flags, numbers, b"");
            world.pass(UPLINK_PORT, &frame)
        };
        pass(&mut world, "S", (1, 0));
        let back = (remote.addr(family), 4_000);
        let reply = tcp(&a, a.router, 8_080, back, "SA", (9, 2), b"");
        world.pass_resolving(a.port, &reply, &remote);
        pass(&mut world, "A", (2, 10));
        for n in 0..5_000 {
            let syn = tcp(&remote, UPLINK_MAC, 10_000 + n, to, "S", (1, 0), b"");
            world.pass(UPLINK_PORT, &syn);
        }
        let stats = world.dp.worker_stats();
        assert_eq!((stats.flows, stats.evicted_unanswered), (500, 4_501));
        let hits = stats.hits;
        assert_eq!(pass(&mut world, "A", (2, 10)).port, a.port);
        assert_eq!(world.dp.worker_stats().hits, hits + 1, "still the same flow");
    }
}

#[test]
fn a_flood_of_fragments_is_bounded_and_counted() {
    in_both(|scene| {
        let whole = udp(&scene.attacker, UPLINK_MAC, 1, scene.ours(5_000), &[1; 3_000]);
        for id in 0..N {
            scene.world.send(UPLINK_PORT, &fragments(&whole, id, 1_000)[1]);
        }
        let held = scene.world.dp.footprint().held;
        assert_eq!(held, FRAGMENT_TRAINS_PER_SOURCE_MAX);
        assert_eq!(scene.drops(DropReason::FragmentLimit), u64::from(N) - held as u64);
    });
}

#[test]
fn errors_about_flows_that_never_were_are_dropped_and_counted() {
    in_both(|scene| {
        let (family, router) = (scene.family, scene.attacker);
        for n in 0..N {
            let never =
                Host { v4: [192, 0, 2, 1].into(), v6: "2001:db8:1::1".parse().unwrap(), ..scene.a };
            let to = (scene.remote.addr(family), 80);
            // Half of them about the connection's ports, with sequence numbers that it never sent.
            let (port, seq) = if n % 2 == 0 { (5_000, 1_000_000_000) } else { (20_000 + n, 1) };
            let quote = tcp(&never, router.mac, port, to, "A", (seq, 1), b"");
            let error = icmp_unreachable(&router, UPLINK_MAC, own(family), &quote[14..]);
            scene.world.dropped(UPLINK_PORT, &error, DropReason::IcmpUnrelated);
        }
    });
}

#[test]
fn a_port_scan_from_outside_finds_nothing_and_is_counted() {
    in_both(|scene| {
        for n in 0..N {
            let to = scene.ours(10_000 + n);
            let probe = udp(&scene.attacker, UPLINK_MAC, 7, to, b"?");
            scene.world.send(UPLINK_PORT, &probe);
        }
        assert_eq!(scene.drops(DropReason::NotPublished), u64::from(N));
        assert_eq!((scene.world.dp.footprint().flows, scene.world.dp.footprint().mappings), (1, 1));
    });
}

#[test]
fn a_port_scan_from_inside_costs_its_own_share_only() {
    in_both(|scene| {
        scene.world.dp.set_flow_share(scene.b.port, 500);
        let (b, to) = (scene.b, scene.remote.addr(scene.family));
        for n in 0..N {
            let probe = tcp(&b, b.router, 6_000, (to, 1 + n), "S", (1, 0), b"");
            scene.world.send(b.port, &probe);
        }
        let refused = scene.world.dp.drops(b.port, DropReason::FlowShare);
        assert_eq!(refused, u64::from(N) - 500);
        assert_eq!(scene.world.dp.footprint().flows, 501);
        assert_eq!(scene.world.dp.footprint().mappings, 2, "one socket, one port");
    });
}

#[test]
fn inside_addresses_that_come_from_outside_are_dropped_and_counted() {
    in_both(|scene| {
        let liar = Host { v4: scene.b.v4, v6: scene.b.v6, ..scene.remote };
        for n in 0..N {
            let frame = udp(&liar, UPLINK_MAC, n, scene.seen, b"from next door");
            scene.world.dropped(UPLINK_PORT, &frame, DropReason::SpoofedInside);
        }
    });
}
