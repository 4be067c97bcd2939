//! What the flow table tells about itself: beginnings and ends, counts, filters.

use wharf::base::limits::FLOW_EVENTS_MAX;
use wharf::base::time::Span;
use wharf::datapath::inspect::{FlowEnd, FlowFilter, FlowHappening};
use wharf::wire::addr::Family;

use crate::world::*;

fn all() -> FlowFilter {
    FlowFilter::default()
}

#[test]
fn a_follower_hears_of_each_flow_s_beginning_and_end_with_what_it_carried() {
    for family in FAMILIES {
        let mut world = World::new();
        let net = world.network(NetworkOptions::default());
        let (a, b) = (world.endpoint(net), world.endpoint(net));
        let frame = |port| udp(&a, b.mac, port, (b.addr(family), 9), b"hello");
        world.pass(a.port, &frame(1_000));
        let first = world.dp.flow_events(world.now, &all(), None);
        assert!(first.events.is_empty(), "what was before is for `list`");
        world.pass(a.port, &frame(1_001));
        world.pass(a.port, &frame(1_001));
        let begun = world.dp.flow_events(world.now, &all(), Some(first.next));
        assert_eq!((begun.events.len(), begun.lost), (1, 0));
        assert_eq!(begun.events[0].what, FlowHappening::Begin);
        assert_eq!(begun.events[0].flow.initiator.1, 1_001);
        let mut next = begun.next;
        let mut ends = Vec::new();
        for _ in 0..130 {
            world.advance(Span::from_secs(1));
            let some = world.dp.flow_events(world.now, &all(), Some(next));
            (next, ends) = (some.next, [ends, some.events].concat());
        }
        assert_eq!(ends.len(), 2, "also of the one that began before");
        let end = ends.iter().find(|end| end.flow.initiator.1 == 1_001).unwrap();
        assert_eq!(end.what, FlowHappening::End(FlowEnd::Idle));
        assert_eq!((end.flow.packets, end.ago_ms), ([2, 0], 0));
        assert!(end.flow.bytes[0] >= 66 && (120_000..122_000).contains(&end.duration_ms));
    }
}

#[test]
fn why_a_flow_ended_is_said() {
    let mut world = World::with_flow_limit(2);
    let net = world.network(NetworkOptions::default());
    let (a, b) = (world.endpoint(net), world.endpoint(net));
    let next = world.dp.flow_events(world.now, &all(), None).next;
    for port in 1..=3 {
        world.pass(a.port, &udp(&a, b.mac, port, (b.v4.into(), 9), b"x"));
    }
    world.dp.flush_flows(world.now, &FlowFilter { l4_port: Some(2), ..all() });
    world.apply(wharf::config::Delta::RemovePort(b.port));
    let events = world.dp.flow_events(world.now, &all(), Some(next)).events;
    let ends: Vec<_> = events
        .iter()
        .filter_map(|event| match event.what {
            FlowHappening::Begin => None,
            FlowHappening::End(why) => Some((event.flow.initiator.1, why)),
        })
        .collect();
    assert_eq!(
        ends,
        [(1, FlowEnd::EvictedUnanswered), (2, FlowEnd::Flushed), (3, FlowEnd::Changed)]
    );
}

#[test]
fn a_follower_that_is_too_slow_or_away_is_told_how_many_it_missed() {
    let mut world = World::new();
    let net = world.network(NetworkOptions::default());
    let (a, b) = (world.endpoint(net), world.endpoint(net));
    let mut flow = {
        let mut n = 0_u32;
        move |world: &mut World| {
            n += 1;
            let (from, to) = (1 + (n % 60_000) as u16, 1 + (n / 60_000) as u16);
            world.pass(a.port, &udp(&a, b.mac, from, (b.v4.into(), to), b"x"));
        }
    };
    let next = world.dp.flow_events(world.now, &all(), None).next;
    for _ in 0..FLOW_EVENTS_MAX + 100 {
        flow(&mut world);
    }
    let some = world.dp.flow_events(world.now, &all(), Some(next));
    assert_eq!((some.events.len(), some.lost), (FLOW_EVENTS_MAX, 100));
    world.advance(Span::from_secs(60));
    flow(&mut world);
    let some = world.dp.flow_events(world.now, &all(), Some(some.next));
    assert_eq!((some.events.len(), some.lost), (0, 1), "nobody asked for a minute");
}

#[test]
fn filters_find_a_flow_by_either_end_and_counts_need_no_search() {
    for family in FAMILIES {
        let mut world = World::new();
        let net = world.network(NetworkOptions::default());
        let (a, remote) = (world.endpoint(net), world.uplink());
        let to = (remote.addr(family), 443);
        let frame = udp(&a, a.router, 5_000, to, b"x");
        world.pass_resolving(a.port, &frame, &remote);
        world.pass(a.port, &tcp(&a, a.router, 5_001, to, "S", (1, 0), b""));
        let list = |filter: FlowFilter| world.dp.list_flows(world.now, &filter).len();
        for (filter, found) in [
            (FlowFilter { addr: Some(a.addr(family)), ..all() }, 2),
            (FlowFilter { addr: Some(own(family)), ..all() }, 2),
            (FlowFilter { addr: Some(gateway(net, family)), ..all() }, 0),
            (FlowFilter { l4_port: Some(443), ..all() }, 2),
            (FlowFilter { l4_port: Some(5_001), ..all() }, 1),
            (FlowFilter { state: Some("tcp-embryonic".into()), ..all() }, 1),
            (FlowFilter { state: Some("syn-sent".into()), ..all() }, 1),
            (FlowFilter { proto: Some("udp".into()), l4_port: Some(5_001), ..all() }, 0),
        ] {
            let what = format!("{filter:?}");
            assert_eq!(list(filter), found, "{what}");
        }
        let counts = world.dp.count_flows();
        let of = |state: &str| counts.iter().find(|count| count.state == state).unwrap().flows;
        assert_eq!((of("udp-single"), of("tcp-embryonic"), of("icmp")), (1, 1, 0));
    }
}

#[test]
fn nat66_translates_global_addresses_where_that_was_chosen_and_routes_them_otherwise() {
    for chosen in [false, true] {
        let mut world = World::new();
        let net = world.network(NetworkOptions::default());
        let (mut a, remote) = (world.endpoint(net), world.uplink());
        a.v6 = "2001:db8:77::5".parse().unwrap();
        world.change_port(a.port, |port| port.addrs = vec![a.v4.into(), a.v6.into()]);
        world.change_network(net, |network| {
            network.subnets[1].prefix = "2001:db8:77::".parse().unwrap();
            network.subnets[1].gateway = "2001:db8:77::1".parse().unwrap();
        });
        world.change_uplink(|uplink| uplink.nat.nat66 = chosen);
        let frame = udp(&a, a.router, 5_000, (remote.v6.into(), 53), b"x");
        let sent = world.pass_resolving(a.port, &frame, &remote);
        let expected = if chosen { own(Family::V6) } else { a.v6.into() };
        assert_eq!(sent.src(), (expected, 5_000));
        let back = world.pass(UPLINK_PORT, &udp_reply(&remote, &sent, b"y"));
        assert_eq!((back.port, back.dst()), (a.port, (a.v6.into(), 5_000)));
        back.assert_checksums();
        // A flow that was made the other way ends, and the next packet makes it anew.
        world.change_uplink(|uplink| uplink.nat.nat66 = !chosen);
        let sent = world.pass(a.port, &frame);
        assert_eq!(sent.src().0 == own(Family::V6), !chosen);
    }
}
