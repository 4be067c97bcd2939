//! Policy where flows end in sockets of the host, and rules about names.

use std::net::IpAddr;
use std::sync::Arc;

use simple_dns::rdata::{A, AAAA, RData};
use simple_dns::{CLASS, Packet, ResourceRecord, TYPE};
use wharf::base::time::Span;
use wharf::config::Delta;
use wharf::datapath::Output;
use wharf::packet::DropReason;
use wharf::stage::policy::{Direction, NamePattern, Peer};
use wharf::stage::sockets::{
    Link, ListenerId, Published, Room, SockAddr, SocketCall, SocketEvent, SocketId, Target,
};
use wharf::wire::addr::Family;

use crate::names::{asked, question};
use crate::policy::{addresses, allow, apply, isolate};
use crate::sockets::{outside, world};
use crate::world::*;

const ROOM: Room = Room { free: 100_000, total: 100_000 };

fn event(world: &mut World, event: SocketEvent<'_>) -> Output {
    let mut out = Output::default();
    world.dp.socket_event(world.now, event, &mut out);
    world.dp.flush_sockets(world.now, &mut out);
    out
}

/// A listening socket that leads to a container's port 80.
fn listen(world: &mut World, web: &Host) -> ListenerId {
    let network = world.dp.tables().port(web.port).unwrap().domain;
    let gateways =
        FAMILIES.map(|f| Some(gateway(wharf::base::ids::NetworkId(network.0), f).into()));
    let target = Target {
        port: web.port,
        domain: network,
        link: Link { inside: web.mac, gateway: web.router },
        addrs: FAMILIES.map(|family| Some(web.addr(family).into())),
        gateways,
        subnets: Vec::new(),
        mtu: 1500,
    };
    let listener = ListenerId(1);
    world.dp.serve_listener(Published { listener, target: Arc::new(target), port: 80 }, true);
    listener
}

/// The socket that the next client is taken in with.
fn awaited(out: &Output) -> SocketId {
    let asked = out.sockets.calls.iter().find_map(|call| match call {
        SocketCall::Accept { socket, .. } => Some(*socket),
        _ => None,
    });
    asked.expect("it is asked for")
}

/// A client comes; what becomes of it.
fn comes(world: &mut World, socket: SocketId, client: (IpAddr, u16)) -> Output {
    let addr = |addr: IpAddr, port| SockAddr { addr: addr.into(), port };
    let local = addr(if client.0.is_ipv4() { own(Family::V4) } else { own(Family::V6) }, 8080);
    let client = addr(client.0, client.1);
    event(world, SocketEvent::Accepted { socket, client, local, room: ROOM })
}

fn is_reset(out: &Output, which: SocketId) -> bool {
    out.sockets
        .calls
        .iter()
        .any(|call| matches!(call, SocketCall::Close { socket, reset: true } if *socket == which))
}

#[test]
fn a_client_of_a_host_s_socket_is_judged_by_its_own_address() {
    for family in FAMILIES {
        let (mut world, web) = world();
        let listener = listen(&mut world, &web);
        let friend =
            Host { v4: "198.51.100.9".parse().unwrap(), v6: "2001:db8::9".parse().unwrap(), ..web };
        let rules = [
            allow(Direction::Ingress, "web", addresses(&friend)),
            isolate(Direction::Ingress, "web"),
        ];
        apply(&mut world, &[(&web, "web")], &rules);
        let out = event(&mut world, SocketEvent::Incoming { listener });
        let socket = awaited(&out);
        let out = comes(&mut world, socket, (outside(family), 4_000));
        assert!(is_reset(&out, socket), "{:?}", out.sockets.calls);
        assert_eq!(world.dp.drops(web.port, DropReason::PolicyIngress), 1);
        let socket = awaited(&out);
        let out = comes(&mut world, socket, (friend.addr(family), 4_000));
        assert!(!is_reset(&out, socket));
        assert!(!out.sockets.deliveries.is_empty(), "the container is asked: {out:?}");
        // The host itself is the container's node.
        let loopback: IpAddr = if family == Family::V4 {
            [127, 0, 0, 1].into()
        } else {
            std::net::Ipv6Addr::LOCALHOST.into()
        };
        let socket = awaited(&out);
        let out = comes(&mut world, socket, (loopback, 4_000));
        assert!(!is_reset(&out, socket));
    }
}

#[test]
fn a_connection_that_a_change_forbids_is_closed_at_the_host_too() {
    for family in FAMILIES {
        let (mut world, a) = world();
        let syn = tcp(&a, a.router, 5_000, (outside(family), 443), "S", (1, 0), b"");
        let mut out = Output::default();
        let mut batch = wharf::packet::FrameBatch::new();
        assert!(batch.push(&syn, wharf::packet::Offload::NONE));
        world.dp.frames(world.now, a.port, &mut batch, &mut out);
        let connects = out.sockets.calls.iter().find_map(|call| match call {
            SocketCall::Connect { socket, .. } => Some(*socket),
            _ => None,
        });
        let socket = connects.expect("a socket of the host connects");
        apply(&mut world, &[(&a, "a")], &[isolate(Direction::Egress, "a")]);
        let mut out = Output::default();
        world.dp.tick(world.now, &mut out);
        assert!(is_reset(&out, socket), "{:?}", out.sockets.calls);
        assert_eq!(world.dp.footprint().flows, 0);
    }
}

#[test]
fn a_rule_about_a_name_opens_what_the_name_server_gave_for_a_while() {
    for family in FAMILIES {
        let mut world = World::new();
        let remote = world.uplink();
        let net = world.network(NetworkOptions::default());
        let (a, b) = (world.endpoint(net), world.endpoint(net));
        let resolver: IpAddr = "127.0.0.53".parse().unwrap();
        world.apply(Delta::Resolvers([resolver.into()].into()));
        let pattern = NamePattern::new("*.Example.org").unwrap();
        let rules = [
            allow(Direction::Egress, "a", vec![Peer::Name(pattern)]),
            isolate(Direction::Egress, "a"),
        ];
        apply(&mut world, &[(&a, "a"), (&b, "a")], &rules);
        let frame =
            |from: &Host, port| udp(from, from.router, port, (remote.addr(family), 9_000), b"q");
        world.dropped(a.port, &frame(&a, 1), DropReason::PolicyEgress);

        let kind = if family == Family::V4 { TYPE::A } else { TYPE::AAAA };
        let query = udp(
            &a,
            a.router,
            5_353,
            (gateway(net, family), 53),
            &question(1, "www.example.org", kind),
        );
        let out = world.raw(&a, &query);
        let (socket, at, message) = asked(&out);
        let question = Packet::parse(&message).unwrap();
        let mut reply = Packet::new_reply(question.id());
        reply.questions.clone_from(&question.questions);
        let data = match remote.addr(family) {
            IpAddr::V4(ip) => RData::A(A { address: ip.into() }),
            IpAddr::V6(ip) => RData::AAAA(AAAA { address: ip.into() }),
        };
        reply.answers.push(ResourceRecord::new(
            question.questions[0].qname.clone(),
            CLASS::IN,
            60,
            data,
        ));
        world.arrives(socket, at, &reply.build_bytes_vec_compressed().unwrap());

        let there = world.pass_resolving(a.port, &frame(&a, 2), &remote);
        assert_eq!(there.port, UPLINK_PORT);
        let back = udp(&remote, UPLINK_MAC, 9_000, there.src(), b"a");
        assert_eq!(world.pass(UPLINK_PORT, &back).port, a.port);
        world.dropped(b.port, &frame(&b, 2), DropReason::PolicyEgress);
        // Its time and a while have passed: nothing begins any more, and what stands goes on.
        world.advance(Span::from_secs(61));
        world.pass_resolving(a.port, &frame(&a, 2), &remote);
        world.advance(Span::from_secs(60));
        world.dropped(a.port, &frame(&a, 3), DropReason::PolicyEgress);
        apply(&mut world, &[(&a, "a"), (&b, "a")], &rules);
        world.pass_resolving(a.port, &frame(&a, 2), &remote);
    }
}
