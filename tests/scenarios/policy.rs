//! Policy in the pipeline: first packets are judged at both ends, what answers is not.

use std::collections::BTreeMap;
use std::sync::Arc;

use wharf::base::time::Span;
use wharf::config::{Delta, PolicyTables};
use wharf::datapath::Event;
use wharf::packet::DropReason;
use wharf::stage::policy::{
    Action, Block, Compiled, Direction, Facts, Namespaces, Peer, PortMatch, Requirement, Rule,
    Selector,
};
use wharf::wire::addr::Family;

use crate::world::*;

const TCP: u8 = 6;
const UDP: u8 = 17;

/// Endpoints by the label `app`.
fn app(name: &str) -> Selector {
    Selector { namespaces: Namespaces::All, labels: vec![Requirement::equals("app", name)] }
}

fn rule(action: Action, direction: Direction, subject: &str, peers: Vec<Peer>) -> Rule {
    let name = format!("test {} of {subject}", direction.name()).into();
    Rule { name, action, direction, subject: app(subject), peers, ports: Vec::new() }
}

pub(crate) fn allow(direction: Direction, subject: &str, peers: Vec<Peer>) -> Rule {
    rule(Action::Allow, direction, subject, peers)
}

/// Whoever is selected is denied the rest; stands last.
pub(crate) fn isolate(direction: Direction, subject: &str) -> Rule {
    rule(Action::Deny, direction, subject, Vec::new())
}

fn at(rule: Rule, proto: u8, port: u16) -> Rule {
    Rule { ports: vec![PortMatch::Range(proto, port, port)], ..rule }
}

pub(crate) fn apply(world: &mut World, endpoints: &[(&Host, &str)], rules: &[Rule]) {
    let compiled = Compiled::new(rules);
    let facts = |app: &str| Facts {
        labels: BTreeMap::from([("app".to_owned(), app.to_owned())]),
        ..Facts::default()
    };
    let subject =
        |(host, app): &(&Host, &str)| (host.port, Arc::new(compiled.subject(&facts(app))));
    let subjects = endpoints.iter().map(subject).collect();
    let policy = Arc::clone(compiled.policy());
    world.apply(Delta::Policy(Arc::new(PolicyTables { policy, subjects })));
}

pub(crate) fn addresses(host: &Host) -> Vec<Peer> {
    FAMILIES
        .map(|family| {
            let len = if family == Family::V4 { 32 } else { 128 };
            Peer::Block(Block { prefix: host.addr(family).into(), len, except: Vec::new() })
        })
        .to_vec()
}

#[test]
fn who_is_not_allowed_in_reaches_nothing_and_who_is_gets_answers() {
    for family in FAMILIES {
        let mut world = World::new();
        let net = world.network(NetworkOptions::default());
        let (web, front, other) = (world.endpoint(net), world.endpoint(net), world.endpoint(net));
        let ends = [(&web, "web"), (&front, "front"), (&other, "other")];
        let rules = [
            at(allow(Direction::Ingress, "web", vec![Peer::Endpoints(app("front"))]), UDP, 53),
            isolate(Direction::Ingress, "web"),
        ];
        apply(&mut world, &ends, &rules);
        let to_web = |from: &Host, port| udp(from, web.mac, 5000, (web.addr(family), port), b"q");
        let there = world.pass(front.port, &to_web(&front, 53));
        assert_eq!(there.port, web.port);
        let back = world.pass(web.port, &udp_reply(&web, &there, b"a"));
        assert_eq!(back.port, front.port);
        world.dropped(front.port, &to_web(&front, 54), DropReason::PolicyIngress);
        world.dropped(other.port, &to_web(&other, 53), DropReason::PolicyIngress);
        assert_eq!(world.dp.footprint().flows, 1, "what is dropped leaves no flow");
        // Its own flows are not concerned, nor what answers them.
        let out = udp(&web, other.mac, 7, (other.addr(family), 9), b"q");
        let there = world.pass(web.port, &out);
        let back = world.pass(other.port, &udp_reply(&other, &there, b"a"));
        assert_eq!(back.port, web.port);
        let knocks = tcp(&other, web.mac, 7, (web.addr(family), 80), "S", (1, 0), b"");
        world.dropped(other.port, &knocks, DropReason::PolicyIngress);
        let echo = ping(&other, web.mac, web.addr(family), 3, b"x");
        world.dropped(other.port, &echo, DropReason::PolicyIngress);
    }
}

#[test]
fn a_flow_needs_both_ends_permission() {
    for family in FAMILIES {
        let mut world = World::new();
        let open = NetworkOptions { open: true, ..Default::default() };
        let (one, two) = (world.network(open), world.network(open));
        let (a, b) = (world.endpoint(one), world.endpoint(two));
        let ends = [(&a, "a"), (&b, "b")];
        let frame = udp(&a, a.router, 5000, (b.addr(family), 53), b"q");
        let out = allow(Direction::Egress, "a", vec![Peer::Endpoints(app("b"))]);
        let inn = allow(Direction::Ingress, "b", vec![Peer::Endpoints(app("a"))]);
        let isolated = [isolate(Direction::Egress, "a"), isolate(Direction::Ingress, "b")];
        let with =
            |some: &[&Rule]| some.iter().copied().chain(&isolated).cloned().collect::<Vec<Rule>>();
        for (rules, expected) in [
            (with(&[]), Some(DropReason::PolicyEgress)),
            (with(&[&out]), Some(DropReason::PolicyIngress)),
            (with(&[&inn]), Some(DropReason::PolicyEgress)),
            (with(&[&out, &inn]), None),
        ] {
            apply(&mut world, &ends, &rules);
            match expected {
                Some(reason) => world.dropped(a.port, &frame, reason),
                None => assert_eq!(world.pass(a.port, &frame).port, b.port),
            }
        }
    }
}

#[test]
fn a_change_cuts_flows_that_it_forbids_and_no_others() {
    for family in FAMILIES {
        let mut world = World::new();
        let open = NetworkOptions { open: true, ..Default::default() };
        let (one, two) = (world.network(open), world.network(open));
        let (a, b, c) = (world.endpoint(one), world.endpoint(one), world.endpoint(two));
        let ends = [(&a, "a"), (&b, "b"), (&c, "c")];
        let bridged = udp(&a, b.mac, 5000, (b.addr(family), 53), b"q");
        let routed = udp(&a, a.router, 5000, (c.addr(family), 53), b"q");
        let (at_b, at_c) = (world.pass(a.port, &bridged), world.pass(a.port, &routed));
        let answers = [udp_reply(&b, &at_b, b"a"), udp_reply(&c, &at_c, b"a")];
        apply(&mut world, &ends, &[isolate(Direction::Ingress, "a")]);
        for (frame, back, port) in [(&bridged, &answers[0], b.port), (&routed, &answers[1], c.port)]
        {
            assert_eq!(world.pass(a.port, frame).port, port, "a itself may begin");
            assert_eq!(world.pass(port, back).port, a.port, "and is answered");
        }
        apply(&mut world, &ends, &[isolate(Direction::Egress, "a")]);
        world.dropped(a.port, &bridged, DropReason::PolicyEgress);
        world.dropped(a.port, &routed, DropReason::PolicyEgress);
    }
}

#[test]
fn idle_flows_that_a_change_forbids_are_swept() {
    for family in FAMILIES {
        let mut world = World::new();
        let open = NetworkOptions { open: true, ..Default::default() };
        let (one, two) = (world.network(open), world.network(open));
        let (a, b, c) = (world.endpoint(one), world.endpoint(one), world.endpoint(two));
        world.pass(a.port, &udp(&a, b.mac, 5000, (b.addr(family), 53), b"q"));
        world.pass(a.port, &udp(&a, a.router, 5000, (c.addr(family), 53), b"q"));
        assert_eq!(world.dp.footprint().flows, 2);
        apply(&mut world, &[(&a, "a"), (&b, "b"), (&c, "c")], &[isolate(Direction::Egress, "a")]);
        world.advance(Span::from_millis(1));
        assert_eq!(world.dp.footprint().flows, 0);
    }
}

#[test]
fn a_denied_flow_is_told_with_its_rule_and_not_too_often() {
    for family in FAMILIES {
        let mut world = World::new();
        let net = world.network(NetworkOptions::default());
        let (a, b) = (world.endpoint(net), world.endpoint(net));
        apply(&mut world, &[(&a, "a"), (&b, "b")], &[isolate(Direction::Ingress, "b")]);
        let knock = |port| tcp(&a, b.mac, 7, (b.addr(family), port), "S", (1, 0), b"");
        for port in 1..=100 {
            world.dropped(a.port, &knock(port), DropReason::PolicyIngress);
        }
        let told = |world: &mut World| -> Vec<_> {
            let events = std::mem::take(&mut world.events).into_iter();
            let denied = events.filter_map(|e| match e {
                Event::Denied(denied) => Some(*denied),
                _ => None,
            });
            denied.collect()
        };
        let first = told(&mut world);
        assert!((1..=10).contains(&first.len()), "{}", first.len());
        assert_eq!((first[0].from, first[0].to), (a.port, b.port));
        assert_eq!(first[0].dst, (b.addr(family).into(), 1));
        assert_eq!((first[0].proto, &*first[0].rule), (TCP, "test ingress of b"));
        world.advance(Span::from_secs(2));
        world.dropped(a.port, &knock(7), DropReason::PolicyIngress);
        let later = told(&mut world);
        assert_eq!(later[0].untold, 100 - first.len() as u64);
        assert_eq!(world.dp.drops(a.port, DropReason::PolicyIngress), 101, "all are counted");
    }
}

#[test]
fn a_published_port_s_client_is_judged_by_its_true_address() {
    for family in FAMILIES {
        let mut world = World::new();
        let net = world.network(NetworkOptions::default());
        let remote = world.uplink();
        let (web, near) = (world.endpoint(net), world.endpoint(net));
        let ends = [(&web, "web"), (&near, "near")];
        world.publish(1, TCP, 8080, &web, 80);
        let syn = |port| {
            let to = (own(family), 8080);
            tcp(&remote, UPLINK_MAC, port, to, "S", (1, 0), b"")
        };
        let rules = [
            at(allow(Direction::Ingress, "web", addresses(&remote)), TCP, 80),
            isolate(Direction::Ingress, "web"),
        ];
        apply(&mut world, &ends, &rules);
        let there = world.pass(UPLINK_PORT, &syn(4000));
        assert_eq!((there.port, there.dst().1), (web.port, 80));
        // From inside by the host's address: seen as the gateway, judged as who it is.
        let hairpin = |world: &mut World, port| {
            let to = (own(family), 8080);
            let frame = tcp(&near, near.router, port, to, "S", (1, 0), b"");
            world.send(near.port, &frame)
        };
        assert!(hairpin(&mut world, 4000).is_empty());
        assert_eq!(world.dp.drops(near.port, DropReason::PolicyIngress), 1);
        let rules = [
            allow(Direction::Ingress, "web", vec![Peer::Endpoints(app("near"))]),
            isolate(Direction::Ingress, "web"),
        ];
        apply(&mut world, &ends, &rules);
        let sent = hairpin(&mut world, 4001);
        assert_eq!(sent[0].port, web.port);
        world.dropped(UPLINK_PORT, &syn(4001), DropReason::PolicyIngress);
    }
}

#[test]
fn egress_to_the_world_is_judged_before_translation() {
    for family in FAMILIES {
        let mut world = World::new();
        let net = world.network(NetworkOptions::default());
        let remote = world.uplink();
        let a = world.endpoint(net);
        let frame = udp(&a, a.router, 5000, (remote.addr(family), 53), b"q");
        let rules = [
            allow(Direction::Egress, "a", addresses(&remote)),
            isolate(Direction::Egress, "a"),
            isolate(Direction::Ingress, "a"),
        ];
        apply(&mut world, &[(&a, "a")], &rules);
        let there = world.pass_resolving(a.port, &frame, &remote);
        assert_eq!(there.port, UPLINK_PORT);
        let back = udp(&remote, UPLINK_MAC, 53, there.src(), b"a");
        assert_eq!(world.pass(UPLINK_PORT, &back).port, a.port);
        apply(&mut world, &[(&a, "a")], &[isolate(Direction::Egress, "a")]);
        world.dropped(a.port, &frame, DropReason::PolicyEgress);
    }
}

#[test]
fn multicast_reaches_those_whom_it_may_reach() {
    for family in FAMILIES {
        let mut world = World::new();
        let net = world.network(NetworkOptions::default());
        let (a, b, c) = (world.endpoint(net), world.endpoint(net), world.endpoint(net));
        apply(&mut world, &[(&a, "a"), (&b, "b"), (&c, "c")], &[isolate(Direction::Ingress, "b")]);
        let (mac, group) = match family {
            Family::V4 => ("01:00:5e:00:00:fb", "224.0.0.251"),
            Family::V6 => ("33:33:00:00:00:fb", "ff02::fb"),
        };
        let frame = udp(&a, mac.parse().unwrap(), 5353, (group.parse().unwrap(), 5353), b"m");
        let heard: Vec<_> = world.send(a.port, &frame).iter().map(|sent| sent.port).collect();
        assert_eq!(heard, [c.port]);
        // Neighbours are found all the same.
        let ask = match family {
            Family::V4 => arp_request(&a, b.v4),
            Family::V6 => ndp_request(&a, b.v6),
        };
        assert!(!world.send(a.port, &ask).is_empty());
    }
}
