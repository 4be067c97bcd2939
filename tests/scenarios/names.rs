//! The gateway as a name server, and guests that ask for their addresses.

use std::sync::Arc;

use simple_dns::rdata::RData;
use simple_dns::{CLASS, Name, Packet, QCLASS, QTYPE, Question, RCODE, ResourceRecord, TYPE};
use wharf::base::ids::NetworkId;
use wharf::base::time::Span;
use wharf::config::Delta;
use wharf::datapath::{FrameRef, Output};
use wharf::packet::{DropReason, FrameBatch, Offload};
use wharf::stage::dns::{Named, Zone};
use wharf::stage::sockets::{
    FrameSlot, SockAddr, SocketCall, SocketError, SocketEvent, SocketId, Via,
};
use wharf::wire::addr::{Addr, Family};

use crate::world::*;

const RESOLVERS: [&str; 2] = ["127.0.0.53", "::1"];

fn resolver(n: usize) -> Addr {
    RESOLVERS[n].parse().unwrap()
}

/// A world with an uplink, a network that knows `web`, and resolvers of the host.
fn named_world(options: NetworkOptions) -> (World, NetworkId, Host, Host) {
    let mut world = World::new();
    world.uplink();
    let net = world.network(options);
    let (a, web) = (world.endpoint(net), world.endpoint(net));
    world.apply(Delta::Names(net, Arc::new(Zone::default())));
    let addrs = FAMILIES.map(|family| web.addr(family).into()).to_vec();
    let named =
        Named { names: vec!["web".into()], whole: "web.net0".into(), addrs, ..Named::default() };
    world.apply(Delta::Name(net, web.port, Some(named.into())));
    world.apply(Delta::Resolvers([resolver(0), resolver(1)].into()));
    (world, net, a, web)
}

pub(crate) fn question(id: u16, name: &str, kind: TYPE) -> Vec<u8> {
    let mut query = Packet::new_query(id);
    let name = Name::new(name).unwrap();
    query.questions.push(Question::new(name, QTYPE::TYPE(kind), QCLASS::CLASS(CLASS::IN), false));
    query.build_bytes_vec().unwrap()
}

fn kind(family: Family) -> TYPE {
    match family {
        Family::V4 => TYPE::A,
        Family::V6 => TYPE::AAAA,
    }
}

/// Number, code and how many records: of the message in a datagram.
fn said(sent: &Sent) -> (u16, RCODE, usize) {
    let payload = etherparse::PacketHeaders::from_ethernet_slice(&sent.bytes).unwrap();
    let reply = Packet::parse(payload.payload.slice()).unwrap();
    (reply.id(), reply.rcode(), reply.answers.len())
}

impl World {
    /// Sends a frame, and gives all that comes of it.
    pub(crate) fn raw(&mut self, from: &Host, frame: &[u8]) -> Output {
        let (mut batch, mut out) = (FrameBatch::new(), Output::default());
        assert!(batch.push(frame, Offload::NONE));
        self.dp.frames(self.now, from.port, &mut batch, &mut out);
        out
    }

    fn happens(&mut self, event: SocketEvent<'_>) -> Output {
        let mut out = Output::default();
        self.dp.socket_event(self.now, event, &mut out);
        out
    }

    /// A resolver's datagram arrives at a socket.
    pub(crate) fn arrives(&mut self, socket: SocketId, from: Addr, message: &[u8]) -> Output {
        let (mut batch, mut out) = (FrameBatch::new(), Output::default());
        assert!(batch.push(&[&[0; 42], message].concat(), Offload::NONE));
        let event = SocketEvent::Datagram {
            via: Via::Socket(socket),
            slot: FrameSlot(0),
            frame: batch.frame(0),
            from: SockAddr { addr: from, port: 53 },
            to: None,
            segment: None,
        };
        self.dp.socket_event(self.now, event, &mut out);
        out
    }
}

/// The query that went out: its socket, whom it was sent to, and what it says.
pub(crate) fn asked(out: &Output) -> (SocketId, Addr, Vec<u8>) {
    let [SocketCall::Open { socket, v4 }, SocketCall::SendMade { socket: same, to, start, len }] =
        out.sockets.calls[..]
    else {
        panic!("{:?}", out.sockets.calls)
    };
    assert_eq!((socket, v4, to.port), (same, to.addr.is_v4(), 53));
    let message = out.sockets.made[start as usize..(start + len) as usize].to_vec();
    (socket, to.addr, message)
}

fn only_frame(mut out: Output) -> Sent {
    assert_eq!(out.frames.len(), 1, "{:?}", out.frames);
    let sent = out.frames.remove(0);
    let FrameRef::Owned(frame) = sent.frame else { panic!("made here") };
    Sent { port: sent.port, bytes: frame.bytes().to_vec(), offload: frame.offload() }
}

fn reply_to(query: &[u8]) -> Vec<u8> {
    let query = Packet::parse(query).unwrap();
    let mut reply = Packet::new_reply(query.id());
    reply.questions.clone_from(&query.questions);
    let name = query.questions[0].qname.clone();
    let data = RData::A(simple_dns::rdata::A { address: 7 });
    reply.answers.push(ResourceRecord::new(name, CLASS::IN, 60, data));
    reply.build_bytes_vec_compressed().unwrap()
}

#[test]
fn a_name_of_the_network_is_answered_where_the_question_came_from() {
    for family in FAMILIES {
        let (mut world, net, a, _) = named_world(NetworkOptions::default());
        let to = (gateway(net, family), 53);
        for (asked, records) in [(kind(family), 1), (TYPE::MX, 0)] {
            let answer =
                world.pass(a.port, &udp(&a, a.router, 4_000, to, &question(7, "Web", asked)));
            assert_eq!((answer.port, answer.dst_mac()), (a.port, a.mac));
            assert_eq!((answer.src(), answer.dst()), (to, (a.addr(family), 4_000)));
            assert_eq!(said(&answer), (7, RCODE::NoError, records));
        }
    }
}

#[test]
fn a_name_of_others_is_asked_of_the_host_s_resolvers_and_then_known() {
    for family in FAMILIES {
        let (mut world, net, a, b) = named_world(NetworkOptions::default());
        let to = (gateway(net, family), 53);
        let frame =
            |host: &Host, id| udp(host, host.router, 4_000, to, &question(id, "x.test", TYPE::A));
        let (socket, server, query) = asked(&world.raw(&a, &frame(&a, 1)));
        assert_eq!(server, resolver(0));
        let out = world.arrives(socket, server, &reply_to(&query));
        assert_eq!(out.sockets.calls, [SocketCall::Close { socket, reset: false }]);
        let answer = only_frame(out);
        assert_eq!((answer.src(), answer.dst()), (to, (a.addr(family), 4_000)));
        assert_eq!(said(&answer), (1, RCODE::NoError, 1));
        let other = world.pass(b.port, &frame(&b, 2));
        assert_eq!(said(&other), (2, RCODE::NoError, 1), "from the cache");
    }
}

#[test]
fn the_next_resolver_is_asked_when_the_first_is_silent_or_not_there() {
    for family in FAMILIES {
        for silent in [true, false] {
            let (mut world, net, a, _) = named_world(NetworkOptions::default());
            let to = (gateway(net, family), 53);
            let frame = udp(&a, a.router, 4_000, to, &question(1, "x.test", TYPE::A));
            let (socket, server, _) = asked(&world.raw(&a, &frame));
            let second = if silent {
                let mut out = Output::default();
                world.now = world.now + Span::from_millis(400);
                assert!(world.dp.next_deadline(world.now).is_some_and(|at| at <= world.now));
                world.dp.tick(world.now, &mut out);
                out
            } else {
                let to = SockAddr { addr: server, port: 53 };
                let (error, offender) = (SocketError::Refused, Addr::UNSPECIFIED);
                let mut out = world.happens(SocketEvent::DatagramError {
                    via: Via::Socket(socket),
                    error,
                    offender,
                    to,
                    echo_seq: 0,
                });
                assert_eq!(out.sockets.calls.remove(0), SocketCall::Close { socket, reset: false });
                out
            };
            let (socket, server, query) = asked(&second);
            assert_eq!(server, resolver(1));
            let answer = only_frame(world.arrives(socket, server, &reply_to(&query)));
            assert_eq!(said(&answer), (1, RCODE::NoError, 1));
        }
    }
}

#[test]
fn an_internal_network_s_names_are_answered_and_all_others_refused() {
    for family in FAMILIES {
        let internal = NetworkOptions { internal: true, ..NetworkOptions::default() };
        let (mut world, net, a, _) = named_world(internal);
        let to = (gateway(net, family), 53);
        for (name, code, records) in [("web", RCODE::NoError, 1), ("x.test", RCODE::Refused, 0)] {
            let query = question(7, name, kind(family));
            let answer = world.pass(a.port, &udp(&a, a.router, 4_000, to, &query));
            assert_eq!(said(&answer), (7, code, records));
        }
    }
}

#[test]
fn a_connection_to_the_name_server_is_taken_and_what_is_no_query_dropped_by_name() {
    for family in FAMILIES {
        let (mut world, net, a, _) = named_world(NetworkOptions::default());
        let to = (gateway(net, family), 53);
        let answer = world.pass(a.port, &tcp(&a, a.router, 4_000, to, "S", (1, 0), b""));
        assert_eq!((answer.src(), answer.dst()), (to, (a.addr(family), 4_000)));
        answer.assert_checksums();
        world.dropped(a.port, &udp(&a, a.router, 4_000, to, b"nonsense"), DropReason::Malformed);
        let mut answer = question(7, "web", TYPE::A);
        answer[2] |= 0x80;
        world.dropped(a.port, &udp(&a, a.router, 4_000, to, &answer), DropReason::Malformed);
    }
}

#[test]
fn a_flood_of_questions_uses_up_its_own_port_s_share_only() {
    for family in FAMILIES {
        let (mut world, net, a, b) = named_world(NetworkOptions::default());
        let to = (gateway(net, family), 53);
        let ask = |host: &Host, n: u16| {
            udp(host, host.router, 4_000, to, &question(n, &format!("n{n}.test"), TYPE::A))
        };
        for n in 0..1_000 {
            world.raw(&a, &ask(&a, n));
        }
        assert_eq!(world.dp.drops(a.port, DropReason::NameLimit), 1_000 - 128);
        asked(&world.raw(&b, &ask(&b, 5_000)));
    }
}

#[test]
fn a_guest_that_asks_for_a_router_is_told_and_told_again() {
    let (mut world, net, a, _) = named_world(NetworkOptions::default());
    let mac = wharf::config::link_local(a.mac);
    let frame = wharf::stage::respond::ndp::router_solicitation((a.mac, mac));
    let told = world.pass(a.port, frame.bytes());
    assert_eq!((told.icmp(), told.dst_mac(), told.src_mac()), ((134, 0), a.mac, a.router));
    told.assert_checksums();
    let again = world.advance(Span::from_secs(7 * 3_600));
    assert_eq!(again.iter().filter(|sent| sent.icmp() == (134, 0)).count(), 1);
    world.apply(Delta::RemovePort(a.port));
    assert!(world.advance(Span::from_secs(7 * 3_600)).is_empty(), "{net} has no guest any more");
}
