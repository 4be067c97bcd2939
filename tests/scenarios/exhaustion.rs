//! Somebody takes all there is of something: he is refused by name, and the others go on.

use wharf::base::limits::NEIGHBOUR_HOLD_FRAMES_MAX;
use wharf::base::time::Span;
use wharf::packet::DropReason;
use wharf::wire::addr::Family;
use wharf::wire::mac::Mac;

use crate::world::*;
use wharf::datapath::Event;

/// "Communication administratively prohibited".
fn prohibited(family: Family) -> (u8, u8) {
    if family == Family::V4 { (3, 13) } else { (1, 1) }
}

#[test]
fn a_full_flow_table_ends_unanswered_flows_and_keeps_the_others() {
    for family in FAMILIES {
        let mut world = World::with_flow_limit(100);
        let net = world.network(NetworkOptions::default());
        let (a, b, c) = (world.endpoint(net), world.endpoint(net), world.endpoint(net));
        let talk = udp(&a, b.mac, 5_000, (b.addr(family), 9), b"question");
        world.pass(a.port, &talk);
        world.pass(b.port, &udp(&b, a.mac, 9, (a.addr(family), 5_000), b"answer"));
        for port in 1_000..3_000 {
            world.pass(c.port, &udp(&c, b.mac, port, (b.addr(family), 9), b"flood"));
        }
        let stats = world.dp.worker_stats();
        assert_eq!((stats.flows, stats.evicted_unanswered, stats.evicted_idle), (100, 1_901, 0));
        let hits = world.dp.worker_stats().hits;
        world.pass(a.port, &talk);
        assert_eq!(
            world.dp.worker_stats().hits,
            hits + 1,
            "the conversation's flow is still there"
        );
        let other = udp(&a, c.mac, 6_000, (c.addr(family), 9), b"new");
        assert_eq!(world.pass(a.port, &other).port, c.port, "and new ones begin");
    }
}

#[test]
fn a_flow_table_full_of_conversations_refuses_new_ones_by_name_until_one_has_been_idle() {
    for family in FAMILIES {
        let mut world = World::with_flow_limit(50);
        let net = world.network(NetworkOptions::default());
        let (a, b, c) = (world.endpoint(net), world.endpoint(net), world.endpoint(net));
        for port in 1_000..1_050 {
            world.pass(a.port, &udp(&a, b.mac, port, (b.addr(family), 9), b"question"));
            world.pass(b.port, &udp(&b, a.mac, 9, (a.addr(family), port), b"answer"));
        }
        let more = udp(&c, b.mac, 2_000, (b.addr(family), 9), b"one more");
        world.dropped(c.port, &more, DropReason::FlowTableFull);
        world.advance(Span::from_secs(200));
        world.pass(c.port, &more);
        assert_eq!(world.dp.worker_stats().evicted_idle, 1);
    }
}

#[test]
fn a_port_that_has_used_its_share_does_not_end_the_flows_of_others() {
    for family in FAMILIES {
        let mut world = World::with_flow_limit(60);
        let net = world.network(NetworkOptions::default());
        let (a, b, c) = (world.endpoint(net), world.endpoint(net), world.endpoint(net));
        world.dp.set_flow_share(c.port, 20);
        for port in 1_000..1_040 {
            world.pass(a.port, &udp(&a, b.mac, port, (b.addr(family), 9), b"unanswered"));
        }
        for port in 1_000..1_020 {
            world.pass(c.port, &udp(&c, b.mac, port, (b.addr(family), 9), b"flood"));
        }
        for port in 1_020..1_100 {
            let frame = udp(&c, b.mac, port, (b.addr(family), 9), b"flood");
            world.dropped(c.port, &frame, DropReason::FlowShare);
        }
        assert_eq!(world.dp.worker_stats().flows, 60);
    }
}

#[test]
fn outside_ports_that_have_run_out_are_named_and_come_back() {
    for family in FAMILIES {
        let mut world = World::new();
        let net = world.network(NetworkOptions::default());
        let (a, b, remote) = (world.endpoint(net), world.endpoint(net), world.uplink());
        world.change_uplink(|uplink| uplink.nat_ports = 5_000..=5_009);
        let to = (remote.addr(family), 99);
        let mut seen = std::collections::BTreeSet::new();
        for port in 0..10 {
            let frame = udp(&a, a.router, 7_000 + port, to, b"x");
            seen.insert(world.pass_resolving(a.port, &frame, &remote).src().1);
        }
        assert_eq!(seen, (5_000..=5_009).collect(), "every one is used, and no other");
        let more = udp(&b, b.router, 7_000, to, b"x");
        let told = world.refused(b.port, &more, DropReason::PortsExhausted);
        assert_eq!(told.icmp(), prohibited(family), "RFC 5508 REQ-8");
        let event = Event::Shortage(b.port, DropReason::PortsExhausted);
        assert_eq!(std::mem::take(&mut world.events), [event]);
        world.refused(b.port, &more, DropReason::PortsExhausted);
        assert!(world.events.is_empty(), "told once in a while, not for each packet");
        let old = udp(&a, a.router, 7_003, to, b"x");
        world.pass(a.port, &old);
        let inside = udp(&b, a.mac, 1, (a.addr(family), 2), b"x");
        world.pass(b.port, &inside);
        for _ in 0..300 {
            world.advance(Span::from_secs(1));
        }
        world.pass_resolving(b.port, &more, &remote);
    }
}

#[test]
fn who_has_over_a_quarter_of_the_ports_leaves_the_last_quarter_to_the_others() {
    for family in FAMILIES {
        let mut world = World::new();
        let net = world.network(NetworkOptions::default());
        let (a, b, remote) = (world.endpoint(net), world.endpoint(net), world.uplink());
        // As an uplink has them that shares the host's address.
        world.change_uplink(|uplink| uplink.nat_ports = 61_440..=65_535);
        let to = (remote.addr(family), 99);
        let from = |host: &Host, port: u16| udp(host, host.router, port, to, b"x");
        for n in 0..=3_072 {
            world.pass_resolving(a.port, &from(&a, 10_000 + n), &remote);
        }
        let more = from(&a, 20_000);
        let told = world.refused(a.port, &more, DropReason::PortShare);
        assert_eq!(told.icmp(), prohibited(family), "RFC 5508 REQ-8");
        let event = Event::Shortage(a.port, DropReason::PortShare);
        assert_eq!(std::mem::take(&mut world.events), [event]);
        world.pass(a.port, &from(&a, 10_000));
        for n in 0..1_023 {
            world.pass(b.port, &from(&b, 10_000 + n));
        }
        world.refused(b.port, &from(&b, 20_000), DropReason::PortsExhausted);
        world.refused(a.port, &more, DropReason::PortShare);
        assert_eq!(world.dp.drops(a.port, DropReason::PortShare), 2);
        for _ in 0..300 {
            world.advance(Span::from_secs(1));
        }
        world.pass_resolving(a.port, &more, &remote);
    }
}

#[test]
fn who_is_alone_makes_short_connections_without_end_though_it_has_its_share() {
    for family in FAMILIES {
        let mut world = World::new();
        let net = world.network(NetworkOptions::default());
        let (a, remote) = (world.endpoint(net), world.uplink());
        world.change_uplink(|uplink| uplink.nat_ports = 5_000..=5_099);
        let to = (remote.addr(family), 80);
        for port in 7_000..8_000 {
            let syn = tcp(&a, a.router, port, to, "S", (0, 0), b"");
            let there = world.pass_resolving(a.port, &syn, &remote);
            world.pass(UPLINK_PORT, &tcp(&remote, UPLINK_MAC, 80, there.src(), "SA", (0, 1), b""));
            world.pass(a.port, &tcp(&a, a.router, port, to, "RA", (1, 1), b""));
        }
        assert_eq!(world.dp.drops(a.port, DropReason::PortShare), 0);
    }
}

#[test]
fn connections_that_are_over_give_their_ports_to_new_ones_when_there_are_no_others() {
    for family in FAMILIES {
        let mut world = World::new();
        let net = world.network(NetworkOptions::default());
        let (a, remote) = (world.endpoint(net), world.uplink());
        world.change_uplink(|uplink| uplink.nat_ports = 5_000..=5_009);
        let to = (remote.addr(family), 80);
        let open = |world: &mut World, port| {
            let syn = tcp(&a, a.router, port, to, "S", (0, 0), b"");
            let there = world.pass_resolving(a.port, &syn, &remote);
            let reply = tcp(&remote, UPLINK_MAC, 80, there.src(), "SA", (0, 1), b"");
            world.pass(UPLINK_PORT, &reply);
            there.src()
        };
        let stays = open(&mut world, 6_000);
        for port in 7_000..7_100 {
            let outside = open(&mut world, port);
            assert_ne!(outside, stays);
            world.pass(a.port, &tcp(&a, a.router, port, to, "RA", (1, 1), b""));
        }
        // One that is not over keeps its port.
        let data = tcp(&remote, UPLINK_MAC, 80, stays, "A", (1, 1), b"data");
        assert_eq!(world.pass(UPLINK_PORT, &data).dst(), (a.addr(family), 6_000));
    }
}

#[test]
fn a_mac_that_flaps_between_ports_stays_where_it_is_and_both_neighbours_go_on() {
    let mut world = World::new();
    let net = world.network(NetworkOptions { guard_off: true, ..NetworkOptions::default() });
    let (a, b, c) = (world.endpoint(net), world.endpoint(net), world.endpoint(net));
    let guest =
        |host: &Host| Host { mac: Mac([2, 9, 9, 9, 9, 9]), v4: [10, 20, 0, 99].into(), ..*host };
    for n in 0..1_000_u16 {
        let from = if n % 2 == 0 { &a } else { &b };
        world.send(from.port, &udp(&guest(from), c.mac, n, (c.v4.into(), 1), b"here I am"));
    }
    let to_guest = udp(&c, guest(&a).mac, 1, ([10, 20, 0, 99].into(), 2), b"where are you");
    let sent = world.pass(c.port, &to_guest);
    assert!(sent.port == a.port || sent.port == b.port, "at one of both, not everywhere");
    world.pass(a.port, &udp(&a, b.mac, 3, (b.v4.into(), 4), b"neighbours"));
    let flaps = world.dp.drops(a.port, DropReason::MacFlapping)
        + world.dp.drops(b.port, DropReason::MacFlapping);
    assert!((480..=500).contains(&flaps), "{flaps} frames of the impostor are named");
}

#[test]
fn frames_for_a_silent_neighbour_are_held_up_to_a_bound_and_the_rest_is_named() {
    for family in FAMILIES {
        let mut world = World::new();
        let net = world.network(NetworkOptions::default());
        let (a, remote) = (world.endpoint(net), world.uplink());
        let frame = |port| udp(&a, a.router, port, (remote.addr(family), 99), b"x");
        assert_eq!(world.send(a.port, &frame(1)).len(), 1, "one question");
        for port in 2..=NEIGHBOUR_HOLD_FRAMES_MAX as u16 {
            assert!(world.send(a.port, &frame(port)).is_empty());
        }
        world.dropped(a.port, &frame(1_000), DropReason::NeighbourHoldFull);
        let question = arp_or_ndp(&mut world, &remote, family);
        let released = world.send(UPLINK_PORT, &question);
        assert_eq!(released.len(), NEIGHBOUR_HOLD_FRAMES_MAX);
        assert!(released.iter().all(|sent| sent.dst_mac() == remote.mac));
    }
}

/// The remote host's answer to the question that is asked again after a second.
fn arp_or_ndp(world: &mut World, remote: &Host, family: Family) -> Vec<u8> {
    let asked = world.advance(Span::from_secs(1));
    assert_eq!(asked.len(), 1, "{family:?}: asked again");
    answer_to(&asked[0], remote)
}

#[test]
fn fifty_thousand_flows_that_end_together_are_gone_within_a_second_and_in_small_steps() {
    let mut world = World::new();
    let net = world.network(NetworkOptions::default());
    let (a, b) = (world.endpoint(net), world.endpoint(net));
    for n in 0..50_000_u32 {
        let (from, to) = (1_000 + (n % 10_000) as u16, 1 + (n / 10_000) as u16);
        world.pass(a.port, &udp(&a, b.mac, from, (b.v4.into(), 1_000 + to), b"x"));
    }
    world.advance(Span::from_secs(122));
    let begun = world.now;
    let mut ticks = 0;
    while let Some(at) = world.dp.next_deadline(world.now) {
        let before = world.dp.footprint().flows;
        // Flows that changes made stale are swept meanwhile, 512 at a time and at once.
        world.now = at.max(world.now);
        world.advance(Span::ZERO);
        assert!(before - world.dp.footprint().flows <= 4_096, "a step is small");
        ticks += 1;
    }
    let footprint = world.dp.footprint();
    assert_eq!((footprint.flows, footprint.hops), (0, 0));
    let took = (world.now - begun).as_millis();
    assert!(took <= 1_000 && ticks <= 200, "{ticks} ticks in {took} ms");
}
