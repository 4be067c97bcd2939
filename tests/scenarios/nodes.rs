//! Two nodes: what containers send one another through a tunnel, in both families, over both.

use std::net::IpAddr;

use wharf::base::ids::{NetworkId, PeerId, PortId};
use wharf::config::{Backend, Delta, Peer, Prefix, Tunnel};
use wharf::datapath::Output;
use wharf::datapath::nodes::Arrived;
use wharf::packet::{Csum, DropReason, FrameBatch, Gso, Offload};
use wharf::wire::addr::{Addr, Family};
use wharf::wire::mac::Mac;

use crate::world::*;

/// The port at which datagrams of strangers are counted, and that of the other node.
const TUNNEL: PortId = PortId(2_000);
const PEER: PortId = PortId(2_001);
const VNI: u32 = 7;

/// A node: its switch, one container, and where its end of the tunnel is.
struct Node {
    world: World,
    network: NetworkId,
    container: Host,
    at: (Addr, u16),
    mac: Mac,
}

/// A train as it is on the wire: its bytes, and the size of each datagram.
struct Wire(Vec<u8>, usize);

impl Node {
    /// Node `n` has the network `n` of the common world.
    fn new(n: u8, outer: Family) -> Self {
        let mut world = World::new();
        let network = (0..=n).map(|_| world.network(NetworkOptions::default())).last().unwrap();
        let container = world.endpoint(network);
        let at = match outer {
            Family::V4 => Addr::from_v4_bytes([192, 0, 2, n]),
            Family::V6 => Addr::from_prefix_and_id(0x2001_0db8_0000_0000, u64::from(n)),
        };
        Self { world, network, container, at: (at, 4789), mac: Mac([2, 0x57, 0, 0, 0, n]) }
    }

    fn subnets(&self) -> Vec<Prefix> {
        let network = self.world.dp.tables().network(self.network).unwrap();
        network.subnets.iter().map(|s| Prefix { addr: s.prefix, len: s.len }).collect()
    }

    fn knows(&mut self, other: &Node, mtu: u16) {
        let (subnets, mac) = (self.subnets(), self.mac);
        self.world.apply(Delta::Tunnel(Tunnel { port: TUNNEL, subnets, mac }.into()));
        let peer = Peer {
            id: PeerId(1),
            port: PEER,
            name: "other".into(),
            endpoint: other.at,
            subnets: other.subnets(),
            mac: other.mac,
            backend: Backend::Vxlan { vni: VNI },
            mtu,
        };
        self.world.apply(Delta::Peer(peer.into()));
    }

    /// What leaves when a frame comes from the container.
    fn send(&mut self, frame: &[u8], offload: Offload) -> (Vec<Sent>, Vec<Wire>) {
        let (mut batch, mut out) = (FrameBatch::new(), Output::default());
        assert!(batch.push(frame, offload));
        self.world.dp.frames(self.world.now, self.container.port, &mut batch, &mut out);
        self.left(&mut batch, &mut out)
    }

    /// What leaves when datagrams come from somewhere.
    fn receive(&mut self, from: (Addr, u16), wires: &[Wire]) -> (Vec<Sent>, Vec<Wire>) {
        let (mut batch, mut out) = (FrameBatch::new(), Output::default());
        let (mut sent, mut answers) = (Vec::new(), Vec::new());
        for Wire(bytes, segment) in wires {
            let mut arrived = Arrived { from, bytes, segment: *segment };
            while !self.world.dp.unwrap_datagrams(&mut arrived, &mut batch) {
                let (frames, wires) = self.process(&mut batch, &mut out);
                sent.extend(frames);
                answers.extend(wires);
                batch.clear();
            }
        }
        let (frames, wires) = self.process(&mut batch, &mut out);
        sent.extend(frames);
        answers.extend(wires);
        (sent, answers)
    }

    fn process(&mut self, batch: &mut FrameBatch, out: &mut Output) -> (Vec<Sent>, Vec<Wire>) {
        let now = self.world.now;
        if let Some(port) = self.world.dp.finish_inbound(now, batch) {
            self.world.dp.frames(now, port, batch, out);
        }
        self.left(batch, out)
    }

    fn left(&mut self, batch: &mut FrameBatch, out: &mut Output) -> (Vec<Sent>, Vec<Wire>) {
        self.world.dp.flush_tunnels(batch, out);
        let trains = out.tunnels.trains().iter();
        let wire = |train| {
            let bytes = out.tunnels.pieces(train, batch).flatten().copied().collect();
            Wire(bytes, train.segment as usize)
        };
        let wires = trains.map(wire).collect();
        out.tunnels.clear();
        (collect(batch, out), wires)
    }

    fn drops(&self, port: PortId, reason: DropReason) -> u64 {
        self.world.dp.drops(port, reason)
    }
}

fn two(outer: Family) -> (Node, Node) {
    let (mut a, mut b) = (Node::new(0, outer), Node::new(1, outer));
    let mtu = if outer == Family::V4 { 1450 } else { 1430 };
    a.knows(&b, mtu);
    b.knows(&a, mtu);
    (a, b)
}

/// Every family inside every family.
fn each(test: impl Fn(Family, Node, Node)) {
    for outer in FAMILIES {
        for inner in FAMILIES {
            let (a, b) = two(outer);
            test(inner, a, b);
        }
    }
}

fn datagram(a: &Node, b: &Node, family: Family, payload: &[u8]) -> Vec<u8> {
    let to = (b.container.addr(family), 53);
    udp(&a.container, gateway_mac(a.network), 4000, to, payload)
}

#[test]
fn a_container_s_datagram_reaches_one_on_another_node_with_its_own_address() {
    each(|family, mut a, mut b| {
        let (here, wires) = a.send(&datagram(&a, &b, family, b"hello"), Offload::NONE);
        assert!(here.is_empty() && wires.len() == 1);
        let (arrived, back) = b.receive(a.at, &wires);
        assert!(back.is_empty());
        let [sent] = &arrived[..] else { panic!("{arrived:?}") };
        assert_eq!(sent.port, b.container.port);
        assert_eq!(sent.src(), (a.container.addr(family), 4000));
        assert_eq!(sent.dst(), (b.container.addr(family), 53));
        assert_eq!((sent.dst_mac(), sent.src_mac()), (b.container.mac, gateway_mac(b.network)));
        assert_eq!(sent.ttl(), 62, "two routers");
        sent.assert_checksums();
        // The answer finds the flow that the question made, at both nodes.
        let to = (a.container.addr(family), 4000);
        let answer = udp(&b.container, gateway_mac(b.network), 53, to, b"yes");
        let (_, wires) = b.send(&answer, Offload::NONE);
        let (arrived, _) = a.receive(b.at, &wires);
        assert_eq!(arrived[0].src(), (b.container.addr(family), 53));
        assert_eq!(a.world.dp.footprint().flows, 1);
    });
}

#[test]
fn a_super_frame_crosses_as_segments_and_arrives_as_one() {
    each(|family, mut a, mut b| {
        let payload: Vec<u8> = (0..20_000_u32).map(|n| n as u8).collect();
        let to = (b.container.addr(family), 80);
        let frame = tcp_data(&a.container, gateway_mac(a.network), 4000, to, &payload);
        let (whole, offload) = as_super_frame(frame, family, 1300);
        let (_, wires) = a.send(&whole, offload);
        assert_eq!(wires.iter().map(|w| w.0.len().div_ceil(w.1)).sum::<usize>(), 16);
        let (arrived, _) = b.receive(a.at, &wires);
        let [sent] = &arrived[..] else { panic!("{} frames", arrived.len()) };
        assert_eq!((sent.offload.gso, sent.offload.gso_size), (offload.gso, 1300));
        assert!(sent.bytes.ends_with(&payload));
        let (out, back) = (a.world.dp.worker_stats().tunnel, b.world.dp.worker_stats().tunnel);
        assert_eq!((out.trains, out.sent), (wires.len() as u64, 16));
        assert_eq!((back.receives, back.received, back.merged), (out.trains, 16, 15));
    });
}

#[test]
fn what_is_too_large_for_the_tunnel_is_answered_and_tcp_offers_less() {
    each(|family, mut a, b| {
        let (back, wires) = a.send(&datagram(&a, &b, family, &[0; 1440]), Offload::NONE);
        assert!(wires.is_empty());
        let too_big = if family == Family::V4 { (3, 4) } else { (2, 0) };
        assert_eq!(back[0].icmp(), too_big);
        assert_eq!(a.drops(a.container.port, DropReason::TooBig), 1);
        // And when the way gets narrower, less still.
        a.world.dp.tunnel_is_narrow(PEER, 1400);
        let (back, _) = a.send(&datagram(&a, &b, family, &[0; 1400]), Offload::NONE);
        assert_eq!(back[0].icmp(), too_big);
        let told = if family == Family::V4 { 40..42 } else { 60..62 };
        let overhead = if a.at.0.is_v4() { 50 } else { 70 };
        assert_eq!(back[0].bytes[told], (1400_u16 - overhead).to_be_bytes());
    });
}

#[test]
fn a_gateway_on_another_node_answers_pings() {
    each(|family, mut a, mut b| {
        let to = gateway(b.network, family);
        let question = ping(&a.container, gateway_mac(a.network), to, 5, b"x");
        let (_, wires) = a.send(&question, Offload::NONE);
        let (here, answers) = b.receive(a.at, &wires);
        assert!(here.is_empty());
        let (arrived, _) = a.receive(b.at, &answers);
        assert_eq!(arrived[0].icmp(), if family == Family::V4 { (0, 0) } else { (129, 0) });
        assert_eq!(arrived[0].port, a.container.port);
        arrived[0].assert_checksums();
    });
}

#[test]
fn who_is_not_there_is_said_by_the_other_node_s_gateway() {
    each(|family, mut a, mut b| {
        let nobody = match b.container.addr(family) {
            IpAddr::V4(ip) => IpAddr::from([ip.octets()[0], ip.octets()[1], 99, 99]),
            IpAddr::V6(ip) => IpAddr::V6((ip.to_bits() | 0xff00).into()),
        };
        let lost = udp(&a.container, gateway_mac(a.network), 4000, (nobody, 53), b"?");
        let (_, wires) = a.send(&lost, Offload::NONE);
        let (_, answers) = b.receive(a.at, &wires);
        assert_eq!(b.drops(PEER, DropReason::NeighbourFailed), 1);
        let (arrived, _) = a.receive(b.at, &answers);
        assert_eq!(arrived[0].icmp(), if family == Family::V4 { (3, 1) } else { (1, 3) });
        assert_eq!(arrived[0].src().0, gateway(b.network, family));
    });
}

#[test]
fn what_does_not_belong_to_a_peer_is_dropped_by_name() {
    each(|family, mut a, mut b| {
        // A forged source, as a node that was broken into would send it.
        let forger = Host { v4: [10, 99, 0, 9].into(), v6: v6(9, 9), ..a.container };
        let to = (b.container.addr(family), 53);
        let forged = udp(&forger, b.mac, 4000, to, b"");
        let mut wrapped = [8, 0, 0, 0, 0, 0, VNI as u8, 0].to_vec();
        wrapped.extend(&forged);
        wrapped[14..20].copy_from_slice(&a.mac.0);
        let len = wrapped.len();
        b.receive(a.at, &[Wire(wrapped.clone(), len)]);
        assert_eq!(b.drops(PEER, DropReason::TunnelSource), 1);
        // A network that is not this one.
        wrapped[6] = 9;
        b.receive(a.at, &[Wire(wrapped.clone(), len)]);
        assert_eq!(b.drops(PEER, DropReason::TunnelVni), 1);
        // The peer's MAC from another address, and a MAC that nobody has.
        b.receive((Addr::LOOPBACK_V4, 1), &[Wire(wrapped.clone(), len)]);
        wrapped[19] ^= 1;
        b.receive(a.at, &[Wire(wrapped.clone(), len)]);
        assert_eq!(b.drops(TUNNEL, DropReason::TunnelStranger), 2);
        // No VXLAN at all.
        b.receive(a.at, &[Wire(vec![0; 60], 60), Wire(vec![8; 9], 9)]);
        assert_eq!(b.drops(TUNNEL, DropReason::TunnelHeader), 2);
        assert_eq!(b.world.dp.footprint().flows, 0);
        let _ = &mut a;
    });
}

#[test]
fn nothing_passes_from_a_peer_to_anything_that_is_not_this_node_s() {
    each(|family, mut a, mut b| {
        let elsewhere: IpAddr = if family == Family::V4 {
            [198, 51, 100, 1].into()
        } else {
            "2001:db8:5::1".parse().unwrap()
        };
        b.world.uplink();
        let through = udp(&a.container, gateway_mac(a.network), 4000, (elsewhere, 53), b"");
        let mut wrapped = [8, 0, 0, 0, 0, 0, VNI as u8, 0].to_vec();
        wrapped.extend(&through);
        wrapped[8..14].copy_from_slice(&b.mac.0);
        wrapped[14..20].copy_from_slice(&a.mac.0);
        let len = wrapped.len();
        let (sent, _) = b.receive(a.at, &[Wire(wrapped, len)]);
        assert!(sent.is_empty(), "{sent:?}");
        assert_eq!(b.drops(PEER, DropReason::NoRoute), 1);
        let _ = &mut a;
    });
}

#[test]
fn a_network_that_is_not_this_node_s_reaches_no_other_node() {
    for family in FAMILIES {
        let (mut a, b) = two(Family::V4);
        let other = a.world.network(NetworkOptions::default());
        let _ = other;
        let third = a.world.network(NetworkOptions::default());
        let stranger = a.world.endpoint(third);
        let to = (b.container.addr(family), 53);
        let frame = udp(&stranger, gateway_mac(third), 4000, to, b"");
        let told = a.world.refused(stranger.port, &frame, DropReason::NetworkIsolated);
        assert_eq!(told.icmp(), if family == Family::V4 { (3, 13) } else { (1, 1) });
    }
}

#[test]
fn a_peer_that_goes_takes_its_flows_along() {
    each(|family, mut a, mut b| {
        let frame = datagram(&a, &b, family, b"hello");
        let (_, wires) = a.send(&frame, Offload::NONE);
        b.receive(a.at, &wires);
        b.world.apply(Delta::RemovePeer(PeerId(1)));
        assert_eq!(b.world.dp.footprint().flows, 0);
        let (sent, _) = b.receive(a.at, &wires);
        assert!(sent.is_empty());
        assert_eq!(b.drops(TUNNEL, DropReason::TunnelStranger), 1);
    });
}

#[test]
fn a_listing_says_what_passed_and_when_a_peer_was_last_heard() {
    let (mut a, mut b) = two(Family::V4);
    let (_, wires) = a.send(&datagram(&a, &b, Family::V4, b"hello"), Offload::NONE);
    assert_eq!(b.world.dp.list_peers(b.world.now)[0].heard_ms, None);
    b.receive(a.at, &wires);
    b.world.advance(wharf::base::time::Span::from_millis(70));
    let heard = b.world.dp.list_peers(b.world.now).remove(0);
    assert_eq!((heard.heard_ms, heard.stats.rx_frames, heard.mtu), (Some(70), 1, 1450));
    assert_eq!(a.world.dp.list_peers(a.world.now)[0].stats.tx_frames, 1);
}

/// TCP data that opens nothing: it is picked up in the middle.
fn tcp_data(from: &Host, router: Mac, port: u16, to: (IpAddr, u16), payload: &[u8]) -> Vec<u8> {
    let link = etherparse::PacketBuilder::ethernet2(from.mac.0, router.0);
    let mut frame = Vec::new();
    match to.0 {
        IpAddr::V4(ip) => link
            .ipv4(from.v4.octets(), ip.octets(), 64)
            .tcp(port, to.1, 1000, 64_000)
            .ack(1)
            .write(&mut frame, payload)
            .unwrap(),
        IpAddr::V6(ip) => link
            .ipv6(from.v6.octets(), ip.octets(), 64)
            .tcp(port, to.1, 1000, 64_000)
            .ack(1)
            .write(&mut frame, payload)
            .unwrap(),
    }
    frame
}

/// The frame as a container's kernel hands it out: uncut and unsummed.
fn as_super_frame(mut frame: Vec<u8>, family: Family, size: u16) -> (Vec<u8>, Offload) {
    let parsed = wharf::packet::Parsed::new(&frame).unwrap();
    let (l4, len) = (usize::from(parsed.l4), parsed.l4_len() as u32);
    let pseudo = wharf::wire::checksum::pseudo_header(parsed.src, parsed.dst, 6, len);
    frame[l4 + 16..l4 + 18].copy_from_slice(&pseudo.to_be_bytes());
    let gso = if family == Family::V4 { Gso::TcpV4 } else { Gso::TcpV6 };
    let csum = Csum::Partial { start: parsed.l4, offset: 16 };
    (frame, Offload { gso, gso_size: size, csum, ecn: false })
}
