//! UDP flows and ping sockets, with the host played by the test.

use std::sync::Arc;

use crate::base::hash::Seed;
use crate::base::ids::{DomainId, PortId};
use crate::base::limits::SOCKET_UDP_REMOTES_MAX;
use crate::base::time::{Span, Time};
use crate::packet::{DropReason, FlowKey, FrameBatch, Gso, Offload, PacketBuf, Parsed, Scope};
use crate::stage::sockets::headers;
use crate::stage::sockets::testing::{self, GATEWAY, INSIDE};
use crate::stage::sockets::*;
use crate::wire::addr::Addr;

struct Rig {
    flows: SocketFlows,
    out: SocketOutput,
    now: Time,
    inside: Addr,
    outside: Addr,
    batch: FrameBatch,
    redirect: Option<Addr>,
    assembled: bool,
}

fn addr(text: &str) -> Addr {
    text.parse().unwrap()
}

impl Rig {
    fn new(v4: bool) -> Self {
        let (a, b) = if v4 { ("172.17.0.2", "192.0.2.7") } else { ("fd00::2", "2001:db8::7") };
        Self {
            flows: SocketFlows::new(Seed(7)),
            out: SocketOutput::default(),
            now: Time(1_000_000_000),
            inside: addr(a),
            outside: addr(b),
            batch: FrameBatch::new(),
            redirect: None,
            assembled: false,
        }
    }

    fn frame(&mut self, mut buf: PacketBuf) -> Result<(), DropReason> {
        let parsed = Parsed::new(buf.bytes()).unwrap();
        let gateway = if self.inside.is_v4() { "172.17.0.1" } else { "fd00::1" };
        let inside = Inside {
            port: PortId(3),
            key: FlowKey::new(&parsed, DomainId(1), Scope::Routed),
            mtu: 1500,
            gateway: Some(addr(gateway)),
            redirect: self.redirect,
            assembled: self.assembled,
        };
        let (frame, slot) = (buf.frame(), FrameSlot(0));
        self.flows.frame(self.now, &inside, &parsed, &frame, slot, &mut self.out)
    }

    fn send(&mut self, dst: Addr, port: u16, len: usize) -> Result<(), DropReason> {
        self.frame(testing::udp(self.inside, 5000, dst, port, &vec![1; len]))
    }

    fn calls(&mut self) -> Vec<SocketCall> {
        self.flows.flush(self.now, &mut self.out);
        std::mem::take(&mut self.out.calls)
    }

    /// A flow's socket, after one datagram to the outside.
    fn opened(&mut self) -> SocketId {
        self.send(self.outside, 9999, 10).unwrap();
        let calls = self.calls();
        let [SocketCall::Open { socket, v4 }, SocketCall::SendTo { .. }] = calls[..] else {
            panic!("{calls:?}")
        };
        assert_eq!(v4, self.inside.is_v4());
        socket
    }

    fn event(&mut self, event: SocketEvent<'_>) {
        self.flows.event(self.now, event, &mut self.out);
    }

    /// A published port of the container's, both of whose addresses are known.
    fn published(&mut self) -> ListenerId {
        let target = Target {
            port: PortId(3),
            domain: DomainId(1),
            link: Link { inside: INSIDE, gateway: GATEWAY },
            addrs: [Some(addr("172.17.0.2")), Some(addr("fd00::2"))],
            gateways: [Some(addr("172.17.0.1")), Some(addr("fd00::1"))],
            subnets: vec![],
            mtu: 1500,
        };
        let listener = ListenerId(4);
        self.flows.publish_udp(Published { listener, target: Arc::new(target), port: 5000 });
        listener
    }

    /// A datagram arrives; what is delivered.
    fn arrives(
        &mut self,
        via: Via,
        from: SockAddr,
        payload: &[u8],
        segment: Option<u16>,
    ) -> Option<(Vec<u8>, Offload)> {
        self.batch.clear();
        let headers = match via {
            Via::Socket(_) => headers::udp_headers(self.inside.is_v4()),
            Via::Listener(_) => headers::udp_headers(true),
        };
        let bytes = [&vec![0; headers][..], payload].concat();
        assert!(self.batch.push(&bytes, Offload::NONE));
        let (frame, slot) = (self.batch.frame(0), FrameSlot(0));
        let to = Some(addr("198.51.100.1"));
        let event = SocketEvent::Datagram { via, slot, frame, from, to, segment };
        self.flows.event(self.now, event, &mut self.out);
        self.out.deliveries.pop().map(|_| (self.batch.bytes(0).to_vec(), self.batch.offload(0)))
    }

    fn wait(&mut self, span: Span) {
        self.now = self.now + span;
        self.flows.tick(self.now, &mut self.out);
    }
}

fn outside(rig: &Rig, port: u16) -> SockAddr {
    SockAddr { addr: rig.outside, port }
}

#[test]
fn one_socket_serves_all_destinations_and_answers_come_under_their_sender_s_address() {
    for v4 in [true, false] {
        let mut rig = Rig::new(v4);
        let socket = rig.opened();
        let other = addr(if v4 { "192.0.2.8" } else { "2001:db8::8" });
        rig.send(other, 53, 20).unwrap();
        let calls = rig.calls();
        assert!(
            matches!(calls[..], [SocketCall::SendTo { via: Via::Socket(s), to, .. }] if s == socket && to.addr == other)
        );
        let (bytes, offload) =
            rig.arrives(Via::Socket(socket), outside(&rig, 7), b"answer", None).unwrap();
        let parsed = Parsed::new(&bytes).unwrap();
        assert_eq!(
            (parsed.src, parsed.src_port),
            (rig.outside, 7),
            "from any port of a known host"
        );
        assert_eq!((parsed.dst, parsed.dst_port), (rig.inside, 5000));
        assert_eq!((parsed.dst_mac, parsed.src_mac, offload.gso), (INSIDE, GATEWAY, Gso::None));
        assert!(bytes.ends_with(b"answer"));
    }
}

#[test]
fn strangers_are_filtered_until_the_application_is_peer_to_peer() {
    for v4 in [true, false] {
        let mut rig = Rig::new(v4);
        let socket = rig.opened();
        let stranger =
            SockAddr { addr: addr(if v4 { "203.0.113.9" } else { "2001:db8:9::9" }), port: 9999 };
        assert!(rig.arrives(Via::Socket(socket), stranger, b"hello", None).is_none());
        assert_eq!(rig.flows.stats().udp_filtered, 1);
        for n in 0..SOCKET_UDP_REMOTES_MAX as u8 {
            let other = if v4 {
                Addr::from_v4_bytes([198, 51, 100, n])
            } else {
                Addr::from_prefix_and_id(0x2001_0db8_0001_0000, n.into())
            };
            rig.send(other, 1, 1).unwrap();
        }
        assert!(rig.arrives(Via::Socket(socket), stranger, b"hello", None).is_some());
    }
}

#[test]
fn datagrams_in_a_row_leave_as_one_train_and_super_frames_as_they_are() {
    for v4 in [true, false] {
        let mut rig = Rig::new(v4);
        rig.opened();
        for len in [1000, 1000, 1000, 400, 1000] {
            rig.send(rig.outside, 9999, len).unwrap();
        }
        let trains: Vec<_> = rig
            .calls()
            .iter()
            .map(|call| match call {
                SocketCall::SendTo { parts, segment, .. } => (parts.bytes, *segment, parts.count),
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(trains, [(3000 + 400, 1000, 4), (1000, 1000, 1)], "a shorter one ends a train");
        let train = testing::udp_train(rig.inside, 5000, rig.outside, 9999, &[2; 5000], Some(1200));
        rig.frame(train).unwrap();
        let calls = rig.calls();
        assert!(
            matches!(calls[..], [SocketCall::SendTo { parts, segment: 1200, .. }] if parts.bytes == 5000)
        );
    }
}

#[test]
fn a_train_that_arrives_becomes_a_super_frame() {
    for v4 in [true, false] {
        let mut rig = Rig::new(v4);
        let socket = rig.opened();
        let from = outside(&rig, 9999);
        let arrived = rig.arrives(Via::Socket(socket), from, &[3; 4000], Some(1200));
        let (bytes, offload) = arrived.unwrap();
        assert_eq!((offload.gso, offload.gso_size), (Gso::UdpL4, 1200));
        assert_eq!(Parsed::new(&bytes).unwrap().l4_len(), 8 + 4000);
    }
}

#[test]
fn what_no_router_may_cut_the_host_may_not_cut_either() {
    for (v4, df, assembled, expected) in [
        (true, true, false, false),
        (true, false, false, true),
        (true, true, true, true),
        (false, false, false, false),
        (false, false, true, true),
    ] {
        let mut rig = Rig::new(v4);
        rig.assembled = assembled;
        let mut buf = testing::udp(rig.inside, 5000, rig.outside, 9999, &[1; 1400]);
        if v4 {
            buf.frame().bytes_mut()[14 + 6] = if df { 0x40 } else { 0 };
        }
        rig.frame(buf).unwrap();
        let calls = rig.calls();
        let [SocketCall::Open { .. }, SocketCall::SendTo { fragment, .. }] = calls[..] else {
            panic!("{calls:?}")
        };
        assert_eq!(fragment, expected, "IPv4 {v4}, DF {df}, assembled {assembled}");
    }
}

#[test]
fn a_traceroute_s_ttl_is_kept_less_the_gateway_s_hop_and_others_are_the_host_s_business() {
    for (v4, ttl_at) in [(true, 14 + 8), (false, 14 + 7)] {
        for (ttl, sent) in [(2, Some(1)), (30, Some(29)), (31, Some(30)), (32, None), (64, None)] {
            let mut rig = Rig::new(v4);
            let mut buf = testing::udp(rig.inside, 5000, rig.outside, 33_434, b"probe");
            buf.frame().bytes_mut()[ttl_at] = ttl;
            rig.frame(buf).unwrap();
            let calls = rig.calls();
            assert!(
                matches!(calls[..], [SocketCall::Open { .. }, SocketCall::SendTo { ttl, .. }] if ttl == sent),
                "{calls:?}"
            );
        }
    }
}

#[test]
fn a_socket_lives_five_minutes_after_its_last_datagram_and_a_resolver_s_half_a_minute() {
    for v4 in [true, false] {
        let mut rig = Rig::new(v4);
        let socket = rig.opened();
        rig.wait(Span::from_secs(299));
        let from = outside(&rig, 1);
        rig.arrives(Via::Socket(socket), from, b"x", None).unwrap();
        rig.calls();
        rig.wait(Span::from_secs(1));
        assert_eq!(rig.calls(), [SocketCall::Close { socket, reset: false }], "RFC 4787 REQ-6");
        assert_eq!((rig.flows.counts(), rig.flows.next_deadline()), ([0, 0, 0], None));
        rig.send(rig.outside, 53, 30).unwrap();
        rig.wait(Span::from_secs(30));
        assert_eq!(rig.flows.counts(), [0, 0, 0]);
    }
}

#[test]
fn errors_of_the_path_become_icmp_errors_inside() {
    for (v4, expected) in [(true, (3, 3)), (false, (1, 4))] {
        let mut rig = Rig::new(v4);
        let socket = rig.opened();
        let via = Via::Socket(socket);
        rig.event(SocketEvent::ErrorsWaiting { via });
        assert_eq!(rig.calls(), [SocketCall::ReceiveError { via }]);
        let (error, offender, to) = (SocketError::Refused, rig.outside, outside(&rig, 9999));
        rig.event(SocketEvent::DatagramError { via, error, offender, to, echo_seq: 0 });
        let Some(Delivery::Made { frame, .. }) = rig.out.deliveries.pop() else { panic!() };
        let parsed = Parsed::new(frame.bytes()).unwrap();
        let body = parsed.l4_bytes(frame.bytes());
        assert_eq!((parsed.src, (body[0], body[1])), (rig.outside, expected));
        rig.calls();
        rig.event(SocketEvent::Failed { socket, error: SocketError::Limit });
        assert_eq!(rig.calls(), [SocketCall::Close { socket, reset: false }]);
        assert_eq!(rig.flows.stats().limits_met, 1);
        assert_eq!(rig.out.drops, [(PortId(3), DropReason::SocketLimit)], "on its port");
    }
}

#[test]
fn what_a_full_socket_does_not_take_is_counted_on_its_port() {
    for v4 in [true, false] {
        let mut rig = Rig::new(v4);
        let via = Via::Socket(rig.opened());
        rig.event(SocketEvent::NotSent { via, frames: 3 });
        assert_eq!(rig.out.drops, [(PortId(3), DropReason::SocketFull); 3]);
        rig.out.drops.clear();
        let via = Via::Listener(rig.published());
        rig.event(SocketEvent::NotSent { via, frames: 1 });
        assert_eq!(rig.out.drops, [(PortId(3), DropReason::SocketFull)]);
        assert_eq!(rig.calls(), []);
    }
}

#[test]
fn an_error_about_an_answer_to_a_client_is_told_to_the_server() {
    let router = ["203.0.113.1", "2001:db8:f::1"];
    for (client, v4) in [("192.0.2.50", true), ("2001:db8::50", false)] {
        let mut rig = Rig::new(v4);
        let via = Via::Listener(rig.published());
        let from = SockAddr { addr: addr(client), port: 777 };
        rig.arrives(via, from, b"ask", None).unwrap();
        let (refused, too_big) = if v4 { ((3, 3), (3, 4)) } else { ((1, 4), (2, 0)) };
        let router = addr(router[usize::from(!v4)]);
        let gateway = addr(if v4 { "172.17.0.1" } else { "fd00::1" });
        let cases = [
            (SocketError::Refused, from.addr, from.addr, refused),
            (SocketError::TooBig(1400), router, router, too_big),
            (SocketError::TooBig(1400), Addr::UNSPECIFIED, gateway, too_big),
        ];
        for (error, offender, seen, expected) in cases {
            rig.event(SocketEvent::ErrorsWaiting { via });
            assert_eq!(rig.calls(), [SocketCall::ReceiveError { via }]);
            let to = from;
            rig.event(SocketEvent::DatagramError { via, error, offender, to, echo_seq: 0 });
            assert_eq!(rig.calls(), [SocketCall::ReceiveError { via }], "until there is none");
            let Some(Delivery::Made { port, frame }) = rig.out.deliveries.pop() else { panic!() };
            let parsed = Parsed::new(frame.bytes()).unwrap();
            let body = parsed.l4_bytes(frame.bytes());
            assert_eq!((port, parsed.src, (body[0], body[1])), (PortId(3), seen, expected));
            let quoted = &body[if v4 { 28 } else { 48 }..];
            assert_eq!(quoted[..4], [0x13, 0x88, 0x03, 0x09], "from port 5000 to 777");
        }
        let to = SockAddr { port: 778, ..from };
        let (error, offender) = (SocketError::Refused, to.addr);
        rig.event(SocketEvent::DatagramError { via, error, offender, to, echo_seq: 0 });
        assert!(rig.out.deliveries.is_empty(), "nobody that the container knows");
    }
}

#[test]
fn forbidden_destinations_make_no_call_and_a_redirected_one_hides_the_host_s_loopback() {
    for v4 in [true, false] {
        let mut rig = Rig::new(v4);
        let refused = if v4 {
            ["127.0.0.1", "0.0.0.0", "224.0.0.251", "169.254.0.1"]
        } else {
            ["::1", "::", "ff02::fb", "fe80::1"]
        };
        let (loopback, gateway) = if v4 { ("127.0.0.1", "172.17.0.1") } else { ("::1", "fd00::1") };
        for dst in refused {
            assert_eq!(rig.send(addr(dst), 53, 9), Err(DropReason::ForbiddenDestination));
        }
        assert_eq!(rig.calls(), []);
        rig.redirect = Some(addr(loopback));
        rig.send(addr(gateway), 8000, 9).unwrap();
        let calls = rig.calls();
        let [SocketCall::Open { socket, .. }, SocketCall::SendTo { to, .. }] = calls[..] else {
            panic!("{calls:?}")
        };
        assert_eq!(to, SockAddr { addr: addr(loopback), port: 8000 });
        let (bytes, _) = rig.arrives(Via::Socket(socket), to, b"x", None).unwrap();
        assert_eq!(Parsed::new(&bytes).unwrap().src, addr(gateway));
    }
}

#[test]
fn a_published_port_s_clients_share_its_socket_and_get_their_answers_from_where_they_asked() {
    let mut rig = Rig::new(true);
    let listener = rig.published();
    rig.event(SocketEvent::Incoming { listener });
    assert!(matches!(rig.calls()[..], [SocketCall::Receive { via: Via::Listener(_), .. }]));
    for client in ["192.0.2.50", "2001:db8::50"] {
        let from = SockAddr { addr: addr(client), port: 777 };
        let (bytes, _) = rig.arrives(Via::Listener(listener), from, b"ask", None).unwrap();
        let parsed = Parsed::new(&bytes).unwrap();
        assert_eq!((parsed.src, parsed.src_port, parsed.dst_port), (from.addr, 777, 5000));
        assert!(bytes.ends_with(b"ask"));
        rig.calls();
        rig.frame(testing::udp(parsed.dst, 5000, from.addr, 777, b"tell")).unwrap();
        let calls = rig.calls();
        let [SocketCall::SendTo { via, from: local, to, .. }] = calls[..] else { panic!() };
        assert_eq!((via, local, to), (Via::Listener(listener), Some(addr("198.51.100.1")), from));
    }
    rig.flows.unpublish(listener);
    let from = SockAddr { addr: addr("192.0.2.50"), port: 777 };
    assert!(rig.arrives(Via::Listener(listener), from, b"late", None).is_none());
}

/// An echo message as a container sends it.
fn echo(rig: &Rig, kind: u8, id: u16, seq: u16) -> PacketBuf {
    let at = headers::l4_at(rig.inside.is_v4());
    let mut bytes = vec![0; at + 8 + 16];
    bytes[at] = kind;
    bytes[at + 6..at + 8].copy_from_slice(&seq.to_be_bytes());
    let link = Link { inside: GATEWAY, gateway: INSIDE };
    headers::write_echo_reply(&mut bytes, link, rig.inside, rig.outside, id);
    PacketBuf::new(&bytes, Offload::NONE)
}

#[test]
fn an_echo_reply_comes_back_under_the_container_s_own_identifier() {
    for (v4, request, reply) in [(true, 8, 0), (false, 128, 129)] {
        let mut rig = Rig::new(v4);
        rig.frame(echo(&rig, request, 77, 5)).unwrap();
        let calls = rig.calls();
        let [SocketCall::Open { socket, .. }, SocketCall::SendTo { to, parts, .. }] = calls[..]
        else {
            panic!("{calls:?}")
        };
        assert_eq!((socket.kind(), to.addr, parts.bytes), (SocketKind::Ping, rig.outside, 24));
        // The kernel gave it another identifier.
        let answer = echo(&rig, reply, 4242, 5);
        rig.batch.clear();
        assert!(rig.batch.push(answer.bytes(), Offload::NONE));
        let (frame, slot) = (rig.batch.frame(0), FrameSlot(0));
        let (via, from) = (Via::Socket(socket), SockAddr { addr: rig.outside, port: 0 });
        let event = SocketEvent::Datagram { via, slot, frame, from, to: None, segment: None };
        rig.flows.event(rig.now, event, &mut rig.out);
        assert_eq!(rig.out.deliveries.len(), 1);
        let bytes = rig.batch.bytes(0);
        let parsed = Parsed::new(bytes).unwrap();
        assert_eq!((parsed.src, parsed.dst, parsed.dst_port), (rig.outside, rig.inside, 77));
        rig.wait(Span::from_secs(60));
        assert_eq!(rig.flows.counts(), [0, 0, 0], "RFC 5508 REQ-2");
    }
}

#[test]
fn a_ping_s_ttl_is_kept_less_the_gateway_s_hop() {
    for (v4, request, ttl_at) in [(true, 8, 14 + 8), (false, 128, 14 + 7)] {
        for (ttl, sent) in [(2, Some(1)), (31, Some(30)), (32, None), (64, None)] {
            let mut rig = Rig::new(v4);
            let mut buf = echo(&rig, request, 77, 5);
            buf.frame().bytes_mut()[ttl_at] = ttl;
            rig.frame(buf).unwrap();
            let calls = rig.calls();
            assert!(
                matches!(calls[..], [SocketCall::Open { .. }, SocketCall::SendTo { ttl, .. }] if ttl == sent),
                "{calls:?}"
            );
        }
    }
}

#[test]
fn a_ping_that_finds_no_descriptor_is_counted_on_its_port() {
    for (v4, request) in [(true, 8), (false, 128)] {
        let mut rig = Rig::new(v4);
        rig.frame(echo(&rig, request, 77, 5)).unwrap();
        let SocketCall::Open { socket, .. } = rig.calls()[0] else { panic!() };
        rig.event(SocketEvent::Failed { socket, error: SocketError::Limit });
        assert_eq!(rig.out.drops, [(PortId(3), DropReason::SocketLimit)]);
        assert_eq!(rig.flows.counts(), [0, 0, 0], "its next request tries anew");
    }
}

#[test]
fn where_pinging_is_not_allowed_the_container_is_told_so() {
    for (v4, request, expected) in [(true, 8, (3, 13)), (false, 128, (1, 1))] {
        let mut rig = Rig::new(v4);
        rig.frame(echo(&rig, request, 77, 5)).unwrap();
        let calls = rig.calls();
        let SocketCall::Open { socket, .. } = calls[0] else { panic!("{calls:?}") };
        rig.event(SocketEvent::Failed { socket, error: SocketError::Prohibited });
        let Some(Delivery::Made { frame, .. }) = rig.out.deliveries.pop() else { panic!() };
        let body = Parsed::new(frame.bytes()).unwrap().l4_bytes(frame.bytes()).to_vec();
        assert_eq!((body[0], body[1]), expected);
        assert_eq!(rig.calls(), [SocketCall::Close { socket, reset: false }]);
    }
}
