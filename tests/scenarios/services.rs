//! Services, after Kubernetes' semantics, in both families.

use std::collections::BTreeMap;
use std::sync::Arc;

use wharf::base::ids::{PortId, ServiceId};
use wharf::base::time::Span;
use wharf::config::Delta;
use wharf::datapath::Event;
use wharf::datapath::inspect::TraceRequest;
use wharf::packet::DropReason;
use wharf::stage::dns::Named;
use wharf::stage::service::health::{Check, Checked, Health, Verdict};
use wharf::stage::service::{Backend, Front, Maglev, Pool, Service, Traffic, identity};
use wharf::wire::addr::{Addr, Family};
use wharf::wire::ipv6::{TCP, UDP};

use crate::world::*;

const NODE_PORT: u16 = 30_080;

/// How a service differs from the usual one.
#[derive(Clone, Copy, Default)]
struct Options {
    affinity: Option<Span>,
    internal: Traffic,
    external: Traffic,
}

fn vip(family: Family) -> std::net::IpAddr {
    match family {
        Family::V4 => [10, 96, 0, 10].into(),
        Family::V6 => "fd00:10:96::a".parse().unwrap(),
    }
}

/// Backends are hosts, their weight, and whether they are plugged in here.
fn pool(family: Family, backends: &[(Host, u16, bool)]) -> Pool {
    let backend = |(host, weight, here): &(Host, u16, bool)| Backend {
        identity: identity(&format!("c{}", host.port.0)),
        name: format!("c{}", host.port.0).into(),
        addr: host.addr(family).into(),
        port: 8080,
        plug: here.then_some(host.port),
        weight: *weight,
    };
    let backends: Vec<Backend> = backends.iter().map(backend).collect();
    let members: Vec<_> = backends.iter().map(|b| (b.identity, b.weight)).collect();
    Pool::new(backends, Arc::new(Maglev::new(&members)))
}

fn serve_with(world: &mut World, backends: &[(Host, u16, bool)], options: Options) {
    let front = |proto| Front {
        proto,
        port: 80,
        node_port: Some(NODE_PORT),
        pools: FAMILIES.map(|family| pool(family, backends)),
    };
    let service = Service {
        id: ServiceId(1),
        name: "web".into(),
        vips: FAMILIES.map(|family| vip(family).into()).to_vec(),
        fronts: vec![front(TCP), front(UDP)],
        affinity: options.affinity,
        internal: options.internal,
        external: options.external,
        health: None,
    };
    world.apply(Delta::Service(Arc::new(service), Arc::new(Named::default())));
}

fn serve(world: &mut World, backends: &[Host]) {
    let backends: Vec<_> = backends.iter().map(|host| (*host, 1, true)).collect();
    serve_with(world, &backends, Options::default());
}

/// Sends a first datagram from this port of the client's to the virtual address.
fn ask(world: &mut World, client: &Host, from: u16, family: Family) -> Sent {
    world.pass(client.port, &udp(client, client.router, from, (vip(family), 80), b"hello"))
}

/// Where new flows of a client go, by the port of the switch.
fn served_by(world: &mut World, client: &Host, flows: u16, family: Family) -> BTreeMap<u16, usize> {
    let mut served = BTreeMap::new();
    for n in 0..flows {
        *served.entry(ask(world, client, 20_000 + n, family).port.0).or_default() += 1;
    }
    served
}

#[test]
fn cluster_ip_a_virtual_address_leads_to_a_backend_s_target_port_and_answers_come_from_it() {
    for family in FAMILIES {
        let mut world = World::new();
        let open = NetworkOptions { open: true, ..Default::default() };
        let (one, two) = (world.network(open), world.network(open));
        let (client, web) = (world.endpoint(one), world.endpoint(two));
        serve(&mut world, &[web]);
        let to = (vip(family), 80);
        let asked = [
            udp(&client, client.router, 40_000, to, b"hello"),
            tcp(&client, client.router, 40_000, to, "S", (100, 0), b""),
        ];
        for (frame, proto) in asked.into_iter().zip([UDP, TCP]) {
            let there = world.pass(client.port, &frame);
            assert_eq!((there.port, there.dst()), (web.port, (web.addr(family), 8080)));
            assert_eq!(there.src(), (client.addr(family), 40_000), "the client's true address");
            there.assert_checksums();
            let reply = if proto == UDP {
                udp_reply(&web, &there, b"there")
            } else {
                tcp(&web, web.router, 8080, there.src(), "SA", (7, 101), b"")
            };
            let back = world.pass(web.port, &reply);
            assert_eq!((back.port, back.src()), (client.port, to));
            assert_eq!(back.dst(), (client.addr(family), 40_000));
            back.assert_checksums();
        }
        let flows = world.dp.list_flows(world.now, &Default::default());
        assert!(flows.iter().all(|flow| flow.service.as_deref() == Some("web")), "{flows:?}");
    }
}

#[test]
fn connections_are_spread_evenly_and_each_keeps_its_backend() {
    for family in FAMILIES {
        let mut world = World::new();
        let net = world.network(NetworkOptions::default());
        let client = world.endpoint(net);
        let backends: Vec<Host> = (0..4).map(|_| world.endpoint(net)).collect();
        serve(&mut world, &backends);
        let served = served_by(&mut world, &client, 2_000, family);
        assert!(
            served.len() == 4 && served.values().all(|n| (400..=600).contains(n)),
            "{served:?}"
        );
        let again = served_by(&mut world, &client, 2_000, family);
        assert_eq!(served, again, "the same flows, the same backends");
    }
}

#[test]
fn a_canary_gets_its_share_and_a_weight_of_zero_nothing_new() {
    for family in FAMILIES {
        let mut world = World::new();
        let net = world.network(NetworkOptions::default());
        let client = world.endpoint(net);
        let (stable, canary, old) = (world.endpoint(net), world.endpoint(net), world.endpoint(net));
        let backends = [(stable, 9, true), (canary, 1, true), (old, 0, true)];
        serve_with(&mut world, &backends, Options::default());
        let served = served_by(&mut world, &client, 4_000, family);
        let share = served[&canary.port.0];
        assert!(served.len() == 2 && (320..=480).contains(&share), "{served:?}");
    }
}

#[test]
fn no_endpoints_the_client_is_refused_and_not_left_in_silence() {
    for family in FAMILIES {
        let mut world = World::new();
        let net = world.network(NetworkOptions::default());
        let (client, remote) = (world.endpoint(net), world.uplink());
        serve(&mut world, &[]);
        let code = if family == Family::V4 { (3, 3) } else { (1, 4) };
        let on_uplink = (&remote, UPLINK_MAC, UPLINK_PORT);
        let inside = (&client, client.router, client.port);
        for ((from, router, port), to, reason) in [
            (inside, (vip(family), 80), DropReason::NoBackend),
            (inside, (vip(family), 81), DropReason::NoService),
            (on_uplink, (own(family), NODE_PORT), DropReason::NoBackend),
        ] {
            let frame = udp(from, router, 40_000, to, b"x");
            let error = world.refused(port, &frame, reason);
            assert_eq!((error.icmp(), error.dst().0), (code, from.addr(family)));
            let frame = tcp(from, router, 40_000, to, "S", (100, 0), b"");
            let reset = world.refused(port, &frame, reason);
            assert_eq!((reset.src(), reset.dst()), (to, (from.addr(family), 40_000)));
            let headers = etherparse::PacketHeaders::from_ethernet_slice(&reset.bytes).unwrap();
            let header = headers.transport.and_then(etherparse::TransportHeader::tcp).unwrap();
            assert!(header.rst && header.ack && !header.syn, "{header:?}");
            assert_eq!(header.acknowledgment_number, 101, "of that very segment");
            assert_eq!(reset.dst_mac(), from.mac);
            // Its answer is none: two switches would go on for ever.
            let frame = tcp(from, router, 40_000, to, "R", (101, 0), b"");
            world.dropped(port, &frame, reason);
        }
        assert_eq!(world.dp.worker_stats().flows, 0, "who is refused costs no flow");
    }
}

#[test]
fn a_backend_is_asked_from_its_gateway_s_address_whether_it_serves() {
    for family in FAMILIES {
        let mut world = World::new();
        let net = world.network(NetworkOptions::default());
        let (web, other) = (world.endpoint(net), world.endpoint(net));
        // What is published at the gateway's address takes nothing away from it.
        world.publish(9, TCP, 512, &other, 80);
        let seconds = Span::from_secs;
        let health =
            Health { check: Check::Tcp, interval: seconds(5), timeout: seconds(1), up: 1, down: 1 };
        let addr: Addr = web.addr(family).into();
        let checked = Checked { plug: web.port, addr, port: 8080, ready: false };
        let service = Service {
            id: ServiceId(1),
            name: "web".into(),
            vips: vec![vip(family).into()],
            fronts: Vec::new(),
            affinity: None,
            internal: Traffic::Cluster,
            external: Traffic::Cluster,
            health: Some((Arc::new(health), vec![checked])),
        };
        world.apply(Delta::Service(Arc::new(service), Arc::new(Named::default())));
        let syn = world.advance(Span::from_millis(1)).remove(0);
        assert_eq!((syn.port, syn.dst()), (web.port, (web.addr(family), 8080)));
        assert_eq!((syn.dst_mac(), syn.src_mac()), (web.mac, gateway_mac(net)));
        assert_eq!(syn.src(), (gateway(net, family), 512));
        syn.assert_checksums();
        let headers = etherparse::PacketHeaders::from_ethernet_slice(&syn.bytes).unwrap();
        let seq = headers.transport.and_then(etherparse::TransportHeader::tcp).unwrap();
        let seq = seq.sequence_number;
        let accepted = tcp(&web, web.router, 8080, syn.src(), "SA", (7, seq.wrapping_add(1)), b"");
        let sent = world.send(web.port, &accepted);
        assert!(sent.iter().all(|sent| sent.port == web.port), "{sent:?}");
        let verdict = Verdict { service: ServiceId(1), addr, port: 8080, failure: None };
        assert_eq!(world.events, [Event::Health(verdict)]);
        // Who was not asked is nobody's answer.
        let stray = (gateway(net, family), 513);
        let stray = tcp(&other, other.router, 8080, stray, "SA", (7, 1), b"");
        world.refused(other.port, &stray, DropReason::NoService);
        assert_eq!(world.dp.worker_stats().flows, 0, "none of it is a flow");
    }
}

#[test]
fn a_virtual_address_answers_a_ping() {
    for family in FAMILIES {
        let mut world = World::new();
        let net = world.network(NetworkOptions::default());
        let client = world.endpoint(net);
        serve(&mut world, &[]);
        let answer = world.pass(client.port, &ping(&client, client.router, vip(family), 7, b"x"));
        assert_eq!(answer.icmp().0, if family == Family::V4 { 0 } else { 129 });
    }
}

#[test]
fn node_port_reaches_a_backend_from_outside_with_the_client_s_own_address() {
    for family in FAMILIES {
        let mut world = World::new();
        let net = world.network(NetworkOptions::default());
        let (web, inside, remote) = (world.endpoint(net), world.endpoint(net), world.uplink());
        let local = Options { external: Traffic::Local, ..Default::default() };
        serve_with(&mut world, &[(web, 1, true)], local);
        let to = (own(family), NODE_PORT);
        let there = world.pass(UPLINK_PORT, &udp(&remote, UPLINK_MAC, 40_000, to, b"hello"));
        assert_eq!((there.port, there.dst()), (web.port, (web.addr(family), 8080)));
        assert_eq!(there.src(), (remote.addr(family), 40_000), "the source address is kept");
        let back = world.pass_resolving(web.port, &udp_reply(&web, &there, b"there"), &remote);
        assert_eq!((back.port, back.src()), (UPLINK_PORT, to));
        back.assert_checksums();
        let there = world.pass(inside.port, &udp(&inside, inside.router, 40_001, to, b"hello"));
        assert_eq!(there.port, web.port, "also from inside");
        // A virtual address is nobody's business outside.
        let frame = udp(&remote, UPLINK_MAC, 40_000, (vip(family), 80), b"x");
        world.dropped(UPLINK_PORT, &frame, DropReason::NotForUs);
        // And masquerade keeps off it.
        let frame = udp(&inside, inside.router, NODE_PORT, (remote.addr(family), 53), b"x");
        assert_ne!(world.pass_resolving(inside.port, &frame, &remote).src().1, NODE_PORT);
    }
}

#[test]
fn traffic_policy_local_uses_this_node_s_backends_and_drops_without_one() {
    for family in FAMILIES {
        let mut world = World::new();
        let net = world.network(NetworkOptions::default());
        let (client, web, remote) = (world.endpoint(net), world.endpoint(net), world.uplink());
        let local = Options { internal: Traffic::Local, ..Default::default() };
        serve_with(&mut world, &[(remote, 1, false), (web, 1, true)], local);
        let served = served_by(&mut world, &client, 50, family);
        assert_eq!(served.keys().copied().collect::<Vec<_>>(), [web.port.0]);
        serve_with(&mut world, &[(remote, 1, false)], local);
        let frame = udp(&client, client.router, 50_000, (vip(family), 80), b"x");
        world.dropped(client.port, &frame, DropReason::NoLocalBackend);
        serve_with(&mut world, &[(remote, 1, false)], Options::default());
        let there = world.pass_resolving(client.port, &frame, &remote);
        assert_eq!((there.port, there.dst()), (UPLINK_PORT, (remote.addr(family), 8080)));
        assert_eq!(there.src().0, own(family), "masqueraded on its way out");
    }
}

#[test]
fn udp_flows_of_a_gone_backend_are_flushed_and_its_tcp_connections_drain() {
    for family in FAMILIES {
        let mut world = World::new();
        let net = world.network(NetworkOptions::default());
        let (client, old, new) = (world.endpoint(net), world.endpoint(net), world.endpoint(net));
        serve(&mut world, &[old]);
        let to = (vip(family), 80);
        let datagram = udp(&client, client.router, 40_000, to, b"again");
        assert_eq!(world.pass(client.port, &datagram).port, old.port);
        let syn = tcp(&client, client.router, 40_000, to, "S", (100, 0), b"");
        let there = world.pass(client.port, &syn);
        let reply = tcp(&old, old.router, 8080, there.src(), "SA", (7, 101), b"");
        world.pass(old.port, &reply);
        let data = tcp(&client, client.router, 40_000, to, "A", (101, 8), b"data");
        assert_eq!(world.pass(client.port, &data).port, old.port);
        serve(&mut world, &[new]);
        assert_eq!(world.pass(client.port, &datagram).port, new.port, "flushed");
        let more = tcp(&client, client.router, 40_000, to, "A", (105, 8), b"more");
        assert_eq!(world.pass(client.port, &more).port, old.port, "drained");
        let fresh = tcp(&client, client.router, 40_001, to, "S", (100, 0), b"");
        assert_eq!(world.pass(client.port, &fresh).port, new.port);
        // When the container itself ends, so do its connections.
        world.apply(Delta::RemovePort(old.port));
        let late = tcp(&client, client.router, 40_000, to, "A", (109, 8), b"late");
        assert_ne!(world.send(client.port, &late).first().map(|sent| sent.port), Some(old.port));
    }
}

#[test]
fn an_established_connection_keeps_its_backend_when_others_join() {
    for family in FAMILIES {
        let mut world = World::new();
        let net = world.network(NetworkOptions::default());
        let client = world.endpoint(net);
        let backends: Vec<Host> = (0..3).map(|_| world.endpoint(net)).collect();
        serve(&mut world, &backends[..1]);
        let before = served_by(&mut world, &client, 100, family);
        assert_eq!(before.len(), 1);
        serve(&mut world, &backends);
        assert_eq!(served_by(&mut world, &client, 100, family), before);
        let fresh: std::collections::BTreeSet<_> =
            (0..100).map(|n| ask(&mut world, &client, 30_000 + n, family).port.0).collect();
        assert_eq!(fresh.len(), 3);
    }
}

#[test]
fn session_affinity_a_client_stays_with_its_backend_whatever_its_port_and_whoever_joins() {
    for family in FAMILIES {
        let mut world = World::new();
        let net = world.network(NetworkOptions::default());
        let client = world.endpoint(net);
        let all: Vec<_> = (0..8).map(|_| (world.endpoint(net), 1, true)).collect();
        let sticky = Options { affinity: Some(Span::from_secs(60)), ..Default::default() };
        serve_with(&mut world, &all[..1], sticky);
        assert_eq!(served_by(&mut world, &client, 1, family).len(), 1);
        serve_with(&mut world, &all, sticky);
        let served = served_by(&mut world, &client, 200, family);
        assert_eq!(served.keys().copied().collect::<Vec<_>>(), [all[0].0.port.0]);
        // Nothing new for its time, and it is anybody's again; still one and the same for all ports.
        world.advance(Span::from_secs(400));
        let port = ask(&mut world, &client, 50_000, family).port;
        let expected = pool(family, &all)
            .choose(
                Service {
                    id: ServiceId(1),
                    name: "web".into(),
                    vips: Vec::new(),
                    fronts: Vec::new(),
                    affinity: sticky.affinity,
                    internal: Traffic::Cluster,
                    external: Traffic::Cluster,
                    health: None,
                }
                .hash(
                    &Front { proto: UDP, port: 80, node_port: None, pools: Default::default() },
                    (client.addr(family).into(), 0),
                ),
                |_| true,
            )
            .unwrap()
            .plug;
        assert_eq!(Some(port), expected);
    }
}

#[test]
fn hairpin_a_backend_reaches_itself_by_its_service() {
    for family in FAMILIES {
        let mut world = World::new();
        let net = world.network(NetworkOptions::default());
        let web = world.endpoint(net);
        serve(&mut world, &[web]);
        let there = ask(&mut world, &web, 40_000, family);
        assert_eq!((there.port, there.dst()), (web.port, (web.addr(family), 8080)));
        assert_eq!(there.src().0, gateway(net, family), "not its own: it would answer itself");
        let back = world.pass(web.port, &udp_reply(&web, &there, b"there"));
        assert_eq!((back.port, back.src()), (web.port, (vip(family), 80)));
        assert_eq!(back.dst(), (web.addr(family), 40_000));
        back.assert_checksums();
    }
}

#[test]
fn a_service_opens_no_way_between_networks_that_keep_apart() {
    for family in FAMILIES {
        let mut world = World::new();
        let (one, two) = (world.network(Default::default()), world.network(Default::default()));
        let (client, near, far) = (world.endpoint(one), world.endpoint(one), world.endpoint(two));
        serve(&mut world, &[near, far]);
        let served = served_by(&mut world, &client, 100, family);
        assert_eq!(served.keys().copied().collect::<Vec<_>>(), [near.port.0]);
        serve(&mut world, &[far]);
        let frame = udp(&client, client.router, 50_000, (vip(family), 80), b"x");
        world.refused(client.port, &frame, DropReason::NetworkIsolated);
    }
}

#[test]
fn a_removed_service_ends_its_flows() {
    for family in FAMILIES {
        let mut world = World::new();
        let net = world.network(NetworkOptions::default());
        let (client, web) = (world.endpoint(net), world.endpoint(net));
        serve(&mut world, &[web]);
        ask(&mut world, &client, 40_000, family);
        world.apply(Delta::RemoveService(ServiceId(1)));
        world.advance(Span::from_millis(1));
        assert_eq!(world.dp.worker_stats().flows, 0);
    }
}

#[test]
fn trace_names_the_service_and_the_backend() {
    for family in FAMILIES {
        let mut world = World::new();
        let net = world.network(NetworkOptions::default());
        let (client, web) = (world.endpoint(net), world.endpoint(net));
        serve(&mut world, &[web]);
        let (to, port, proto) = (vip(family), Some(80), "tcp".to_owned());
        let request = TraceRequest { from: client.port, to, port, proto };
        let report = world.dp.trace(world.now, &request);
        let said = report.steps.iter().find(|step| step.stage == "service").unwrap();
        assert!(said.text.starts_with("web: backend c2 at "), "{}", said.text);
        assert!(report.delivered && report.verdict.contains("c2"), "{}", report.verdict);
        serve(&mut world, &[]);
        let report = world.dp.trace(world.now, &request);
        assert_eq!(report.drop.as_deref(), Some("no-backend"));
    }
}

#[test]
fn changes_of_services_leave_nothing_behind() {
    let mut world = World::new();
    let net = world.network(NetworkOptions::default());
    let web = world.endpoint(net);
    world.uplink();
    let before = world.dp.footprint();
    for _ in 0..100 {
        serve(&mut world, &[web]);
        serve(&mut world, &[]);
    }
    world.apply(Delta::RemoveService(ServiceId(1)));
    assert_eq!(world.dp.footprint(), before);
    let addr: Addr = vip(Family::V4).into();
    assert!(world.dp.tables().services().by_vip(addr).is_none());
    assert!(world.dp.tables().port(PortId(u16::MAX)).is_none());
}
