//! A small world around one data path: networks, endpoints, an uplink with a remote host, and frames
//! made by etherparse, which knows nothing of our own views.
#![allow(dead_code, reason = "no target uses all of it")]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use etherparse::{NetSlice, PacketBuilder, SlicedPacket, TransportSlice};
use wharf::base::hash::Seed;
use wharf::base::ids::{DomainId, NetworkId, PortId, PublicationId, UplinkId};
use wharf::base::time::{Span, Time};
use wharf::config::{Delta, Network, Port, PortKind, Subnet, Uplink, UplinkKind};
use wharf::datapath::{Datapath, Event, FrameRef, Output};
use wharf::packet::{DropReason, FrameBatch, Offload, PacketBuf};
use wharf::stage::service::publish::Publication;
use wharf::wire::addr::Family;
use wharf::wire::mac::Mac;

pub(crate) const FAMILIES: [Family; 2] = [Family::V4, Family::V6];
pub(crate) const UPLINK_PORT: PortId = PortId(1_000);
pub(crate) const UPLINK: UplinkId = UplinkId(0);
pub(crate) const REMOTE_MAC: Mac = Mac([0x02, 0xee, 0, 0, 0, 9]);
pub(crate) const UPLINK_MAC: Mac = Mac([0x02, 0xaa, 0, 0, 0, 1]);

/// A station: an endpoint of ours or a host of the LAN.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Host {
    pub(crate) port: PortId,
    pub(crate) mac: Mac,
    pub(crate) v4: Ipv4Addr,
    pub(crate) v6: Ipv6Addr,
    /// Whom it hands packets to that are not for its own link.
    pub(crate) router: Mac,
}

impl Host {
    pub(crate) fn addr(&self, family: Family) -> IpAddr {
        match family {
            Family::V4 => self.v4.into(),
            Family::V6 => self.v6.into(),
        }
    }
}

/// A frame that left, where, and what it carried.
#[derive(Debug)]
pub(crate) struct Sent {
    pub(crate) port: PortId,
    pub(crate) bytes: Vec<u8>,
    pub(crate) offload: Offload,
}

impl Sent {
    pub(crate) fn packet(&self) -> SlicedPacket<'_> {
        SlicedPacket::from_ethernet(&self.bytes).expect("what leaves is well formed")
    }

    pub(crate) fn src_mac(&self) -> Mac {
        Mac(self.bytes[6..12].try_into().unwrap())
    }

    pub(crate) fn dst_mac(&self) -> Mac {
        Mac(self.bytes[..6].try_into().unwrap())
    }

    pub(crate) fn src(&self) -> (IpAddr, u16) {
        (self.addrs().0, self.ports().0)
    }

    pub(crate) fn dst(&self) -> (IpAddr, u16) {
        (self.addrs().1, self.ports().1)
    }

    fn addrs(&self) -> (IpAddr, IpAddr) {
        match self.packet().net {
            Some(NetSlice::Ipv4(ip)) => {
                (ip.header().source_addr().into(), ip.header().destination_addr().into())
            }
            Some(NetSlice::Ipv6(ip)) => {
                (ip.header().source_addr().into(), ip.header().destination_addr().into())
            }
            other => panic!("not IP: {other:?}"),
        }
    }

    fn ports(&self) -> (u16, u16) {
        match self.packet().transport {
            Some(TransportSlice::Tcp(t)) => (t.source_port(), t.destination_port()),
            Some(TransportSlice::Udp(u)) => (u.source_port(), u.destination_port()),
            _ => (0, 0),
        }
    }

    pub(crate) fn ttl(&self) -> u8 {
        match self.packet().net {
            Some(NetSlice::Ipv4(ip)) => ip.header().ttl(),
            Some(NetSlice::Ipv6(ip)) => ip.header().hop_limit(),
            other => panic!("not IP: {other:?}"),
        }
    }

    /// Type and code of an ICMP message of either family.
    pub(crate) fn icmp(&self) -> (u8, u8) {
        match self.packet().transport {
            Some(TransportSlice::Icmpv4(i)) => (i.type_u8(), i.code_u8()),
            Some(TransportSlice::Icmpv6(i)) => (i.type_u8(), i.code_u8()),
            other => panic!("not ICMP: {other:?}"),
        }
    }

    /// Fails unless every checksum in the frame is right, recomputed by etherparse.
    pub(crate) fn assert_checksums(&self) {
        let headers = etherparse::PacketHeaders::from_ethernet_slice(&self.bytes).unwrap();
        let payload = headers.payload.slice();
        let (expected, actual) = match (&headers.net, &headers.transport) {
            (Some(etherparse::NetHeaders::Ipv4(ip, _)), transport) => {
                assert_eq!(ip.calc_header_checksum(), ip.header_checksum, "IPv4 header");
                match transport {
                    Some(etherparse::TransportHeader::Tcp(t)) => {
                        (t.calc_checksum_ipv4(ip, payload).unwrap(), t.checksum)
                    }
                    Some(etherparse::TransportHeader::Udp(u)) => {
                        (u.calc_checksum_ipv4(ip, payload).unwrap(), u.checksum)
                    }
                    Some(etherparse::TransportHeader::Icmpv4(i)) => {
                        (i.icmp_type.calc_checksum(payload), i.checksum)
                    }
                    _ => return,
                }
            }
            (Some(etherparse::NetHeaders::Ipv6(ip, _)), transport) => match transport {
                Some(etherparse::TransportHeader::Tcp(t)) => {
                    (t.calc_checksum_ipv6(ip, payload).unwrap(), t.checksum)
                }
                Some(etherparse::TransportHeader::Udp(u)) => {
                    (u.calc_checksum_ipv6(ip, payload).unwrap(), u.checksum)
                }
                Some(etherparse::TransportHeader::Icmpv6(i)) => (
                    i.icmp_type.calc_checksum(ip.source, ip.destination, payload).unwrap(),
                    i.checksum,
                ),
                _ => return,
            },
            _ => return,
        };
        assert_eq!(expected, actual, "transport checksum of {self:?}");
    }
}

/// How a network differs from the usual one.
#[derive(Clone, Copy, Debug, Default)]
#[allow(clippy::struct_excessive_bools, reason = "each is an option")]
pub(crate) struct NetworkOptions {
    pub(crate) open: bool,
    pub(crate) internal: bool,
    pub(crate) icc_off: bool,
    pub(crate) guard_off: bool,
}

pub(crate) struct World {
    pub(crate) dp: Datapath,
    pub(crate) now: Time,
    /// What was told since somebody last took it.
    pub(crate) events: Vec<Event>,
    next_port: u16,
    options: Vec<NetworkOptions>,
}

impl World {
    pub(crate) fn new() -> Self {
        let now = Time(1_000_000_000);
        Self {
            dp: Datapath::new(Seed(7)),
            now,
            events: Vec::new(),
            next_port: 1,
            options: Vec::new(),
        }
    }

    /// With room for so many flows.
    pub(crate) fn with_flow_limit(flows: usize) -> Self {
        Self { dp: Datapath::with_flow_limit(Seed(7), flows), ..Self::new() }
    }

    #[allow(clippy::needless_pass_by_value, reason = "a change is made where it is applied")]
    pub(crate) fn apply(&mut self, delta: Delta) {
        let mut out = Output::default();
        self.dp.apply(self.now, &delta, &mut out);
        assert!(out.frames.is_empty(), "a change of the configuration sends nothing");
    }

    /// Changes a port's configuration.
    pub(crate) fn change_port(&mut self, id: PortId, change: impl FnOnce(&mut Port)) {
        let mut port = Port::clone(self.dp.tables().port(id).unwrap());
        change(&mut port);
        self.apply(Delta::Port(port.into()));
    }

    /// Changes a network's configuration.
    pub(crate) fn change_network(&mut self, id: NetworkId, change: impl FnOnce(&mut Network)) {
        let mut network = Network::clone(self.dp.tables().network(id).unwrap());
        change(&mut network);
        self.apply(Delta::Network(network.into()));
    }

    /// Changes the uplink's configuration.
    pub(crate) fn change_uplink(&mut self, change: impl FnOnce(&mut Uplink)) {
        let mut uplink = Uplink::clone(self.dp.tables().uplink(UPLINK).unwrap());
        change(&mut uplink);
        self.apply(Delta::Uplink(uplink.into()));
    }

    /// The host takes part in a network: its own TAP carries the gateway's addresses and MAC.
    pub(crate) fn host(&mut self, network: NetworkId) -> Host {
        let id = PortId(self.next_port);
        self.next_port += 1;
        let mut config = Network::clone(self.dp.tables().network(network).unwrap());
        config.host_port = Some(id);
        let mac = config.gateway_mac;
        self.apply(Delta::Network(config.into()));
        let addrs = FAMILIES.map(|family| gateway(network, family).into()).to_vec();
        self.apply(Delta::Port(Arc::new(Port {
            id,
            name: "wharf0".into(),
            kind: PortKind::Host,
            domain: network.into(),
            mac,
            addrs,
            guard: false,
            isolated: false,
            mtu: 1500,
            uso: true,
        })));
        let (IpAddr::V4(v4), IpAddr::V6(v6)) =
            (gateway(network, Family::V4), gateway(network, Family::V6))
        else {
            unreachable!("one of each family")
        };
        Host { port: id, mac, v4, v6, router: mac }
    }

    pub(crate) fn advance(&mut self, span: Span) -> Vec<Sent> {
        self.now = self.now + span;
        let mut out = Output::default();
        self.dp.tick(self.now, &mut out);
        self.events.append(&mut out.events);
        collect(&mut FrameBatch::new(), &mut out)
    }

    /// Network `10.(20+N).0.0/16`, `fd00:20:N::/64`, gateway `.1`.
    pub(crate) fn network(&mut self, options: NetworkOptions) -> NetworkId {
        let id = NetworkId(self.options.len() as u16);
        self.options.push(options);
        let n = id.0 as u8;
        let subnet = |prefix: IpAddr, len, gateway: IpAddr| Subnet {
            prefix: prefix.into(),
            len,
            gateway: gateway.into(),
        };
        let v4 = subnet([10, 20 + n, 0, 0].into(), 16, [10, 20 + n, 0, 1].into());
        let v6 = subnet(v6(n, 0).into(), 64, v6(n, 1).into());
        self.apply(Delta::Network(Arc::new(Network {
            id,
            name: format!("net{n}").into(),
            subnets: vec![v4, v6],
            gateway_mac: gateway_mac(id),
            mtu: 1500,
            isolated: !options.open,
            internal: options.internal,
            uplink: Some(UPLINK),
            host_port: None,
            host_loopback: false,
            guise: wharf::config::Guise::default(),
        })));
        id
    }

    pub(crate) fn endpoint(&mut self, network: NetworkId) -> Host {
        let id = PortId(self.next_port);
        self.next_port += 1;
        let options = self.options[usize::from(network.0)];
        let (n, last) = (network.0 as u8, id.0 + 1);
        let [high, low] = last.to_be_bytes();
        let v4 = Ipv4Addr::new(10, 20 + n, high, low);
        let host = Host {
            port: id,
            mac: Mac::from_ipv4(v4),
            v4,
            v6: v6(n, last),
            router: gateway_mac(network),
        };
        self.apply(Delta::Port(Arc::new(Port {
            id,
            name: format!("c{}", id.0).into(),
            kind: PortKind::Endpoint,
            domain: network.into(),
            mac: host.mac,
            addrs: vec![host.v4.into(), host.v6.into()],
            guard: !options.guard_off,
            isolated: options.icc_off,
            mtu: 1500,
            uso: true,
        })));
        host
    }

    /// An uplink with `192.0.2.1/24` and `2001:db8:1::1/64` and a remote host `.9` on its LAN, whose
    /// MAC is already known.
    pub(crate) fn uplink(&mut self) -> Host {
        self.uplink_with_mtu(1500)
    }

    pub(crate) fn uplink_with_mtu(&mut self, mtu: u16) -> Host {
        let own: [(IpAddr, u8); 2] = [(own(Family::V4), 24), (own(Family::V6), 64)];
        let addrs: Vec<_> = own.iter().map(|(a, len)| ((*a).into(), *len)).collect();
        self.apply(Delta::Uplink(Arc::new(Uplink {
            id: UPLINK,
            name: "default".into(),
            kind: UplinkKind::Packet,
            port: UPLINK_PORT,
            addrs: addrs.clone(),
            routers: vec![IpAddr::from([192, 0, 2, 254]).into(), "2001:db8:1::fe".parse().unwrap()],
            nat_ports: 1..=65535,
            nat: Default::default(),
            shared: false,
            mtu,
        })));
        self.apply(Delta::Port(Arc::new(Port {
            id: UPLINK_PORT,
            name: "default".into(),
            kind: PortKind::PacketUplink,
            domain: DomainId::from(UPLINK),
            mac: UPLINK_MAC,
            addrs: addrs.into_iter().map(|(a, _)| a).collect(),
            guard: false,
            isolated: false,
            mtu,
            uso: true,
        })));
        Host {
            port: UPLINK_PORT,
            mac: REMOTE_MAC,
            v4: Ipv4Addr::new(192, 0, 2, 9),
            v6: "2001:db8:1::9".parse().unwrap(),
            router: UPLINK_MAC,
        }
    }

    /// Publishes `host_port` of every host address as `port` of `host`.
    pub(crate) fn publish(&mut self, id: u32, proto: u8, host_port: u16, host: &Host, port: u16) {
        let domain = self.dp.tables().port(host.port).unwrap().domain;
        self.apply(Delta::Publish(Publication {
            id: PublicationId(id),
            proto,
            host_addr: None,
            host_ports: host_port..=host_port,
            target_v4: Some(host.v4.into()),
            target_v6: Some(host.v6.into()),
            target_port: port,
            domain,
            endpoint: host.port,
        }));
    }

    /// Sends one frame and gives what leaves.
    pub(crate) fn send(&mut self, from: PortId, frame: &[u8]) -> Vec<Sent> {
        self.send_offloaded(from, frame, Offload::NONE)
    }

    pub(crate) fn send_offloaded(
        &mut self,
        from: PortId,
        frame: &[u8],
        offload: Offload,
    ) -> Vec<Sent> {
        let mut batch = FrameBatch::new();
        assert!(batch.push(frame, offload));
        let mut out = Output::default();
        self.dp.frames(self.now, from, &mut batch, &mut out);
        self.events.append(&mut out.events);
        collect(&mut batch, &mut out)
    }

    /// Sends a frame that must leave exactly once.
    pub(crate) fn pass(&mut self, from: PortId, frame: &[u8]) -> Sent {
        let mut sent = self.send(from, frame);
        assert_eq!(sent.len(), 1, "one frame leaves: {sent:?}, {}", self.why(from));
        sent.remove(0)
    }

    /// Sends a frame that must go nowhere, for this reason.
    pub(crate) fn dropped(&mut self, from: PortId, frame: &[u8], reason: DropReason) {
        let before = self.dp.drops(from, reason);
        let sent = self.send(from, frame);
        assert!(sent.is_empty(), "nothing leaves: {sent:?}");
        assert_eq!(self.dp.drops(from, reason), before + 1, "{reason}: {}", self.why(from));
    }

    /// Sends a frame that must go nowhere, for this reason; its sender is told by the ICMP error that
    /// is returned.
    pub(crate) fn refused(&mut self, from: PortId, frame: &[u8], reason: DropReason) -> Sent {
        let before = self.dp.drops(from, reason);
        let mut sent = self.send(from, frame);
        assert_eq!(sent.len(), 1, "an error leaves: {sent:?}, {}", self.why(from));
        assert_eq!(self.dp.drops(from, reason), before + 1, "{reason}: {}", self.why(from));
        let error = sent.remove(0);
        assert_eq!(error.port, from, "to the sender");
        error.assert_checksums();
        error
    }

    /// Sends a frame through the uplink's neighbour resolution: answers the ARP or NDP question.
    pub(crate) fn pass_resolving(&mut self, from: PortId, frame: &[u8], remote: &Host) -> Sent {
        let mut sent = self.send(from, frame);
        if sent.len() == 1 && sent[0].dst_mac() == remote.mac {
            return sent.remove(0);
        }
        assert_eq!(sent.len(), 1, "a question leaves: {sent:?}, {}", self.why(from));
        let answer = answer_to(&sent[0], remote);
        let mut released = self.send(UPLINK_PORT, &answer);
        assert_eq!(released.len(), 1, "the held frame leaves: {released:?}");
        released.remove(0)
    }

    fn why(&self, port: PortId) -> String {
        let named = DropReason::all().map(|reason| (reason, self.dp.drops(port, reason)));
        let named = named.filter(|(_, n)| *n > 0).map(|(reason, n)| format!("{reason}={n}"));
        named.collect::<Vec<_>>().join(" ")
    }
}

pub(crate) fn collect(batch: &mut FrameBatch, out: &mut Output) -> Vec<Sent> {
    out.frames
        .drain(..)
        .map(|sent| {
            let owned = match sent.frame {
                FrameRef::Batch(at) => {
                    let at = usize::from(at);
                    PacketBuf::new(batch.bytes(at), batch.offload(at))
                }
                FrameRef::Owned(owned) => owned,
            };
            Sent { port: sent.port, bytes: owned.bytes().to_vec(), offload: owned.offload() }
        })
        .collect()
}

/// Our own address on the uplink.
pub(crate) fn own(family: Family) -> IpAddr {
    match family {
        Family::V4 => [192, 0, 2, 1].into(),
        Family::V6 => "2001:db8:1::1".parse().unwrap(),
    }
}

pub(crate) fn gateway(network: NetworkId, family: Family) -> IpAddr {
    match family {
        Family::V4 => [10, 20 + network.0 as u8, 0, 1].into(),
        Family::V6 => v6(network.0 as u8, 1).into(),
    }
}

pub(crate) fn gateway_mac(network: NetworkId) -> Mac {
    Mac([0x02, 0x42, 10, 20 + network.0 as u8, 0, 1])
}

pub(crate) fn v6(network: u8, host: u16) -> Ipv6Addr {
    Ipv6Addr::new(0xfd00, 0x20, u16::from(network), 0, 0, 0, 0, host)
}

/// Ethernet and IP towards `to`, by way of `via`.
pub(crate) fn ip(
    from: &Host,
    via: Mac,
    src: IpAddr,
    to: IpAddr,
    ttl: u8,
) -> etherparse::PacketBuilderStep<etherparse::IpHeaders> {
    let eth = PacketBuilder::ethernet2(from.mac.0, via.0);
    match (src, to) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => eth.ip(etherparse::IpHeaders::Ipv4(
            etherparse::Ipv4Header {
                dont_fragment: true,
                ..etherparse::Ipv4Header::new(
                    0,
                    ttl,
                    etherparse::IpNumber::UDP,
                    src.octets(),
                    dst.octets(),
                )
                .unwrap()
            },
            etherparse::Ipv4Extensions::default(),
        )),
        (IpAddr::V6(src), IpAddr::V6(dst)) => eth.ipv6(src.octets(), dst.octets(), ttl),
        _ => panic!("families differ"),
    }
}

/// A UDP datagram.
pub(crate) fn udp(from: &Host, via: Mac, sport: u16, to: (IpAddr, u16), payload: &[u8]) -> Vec<u8> {
    udp_ttl(from, via, sport, to, payload, 64)
}

pub(crate) fn udp_ttl(
    from: &Host,
    via: Mac,
    sport: u16,
    to: (IpAddr, u16),
    payload: &[u8],
    ttl: u8,
) -> Vec<u8> {
    let src = from.addr(if to.0.is_ipv4() { Family::V4 } else { Family::V6 });
    let builder = ip(from, via, src, to.0, ttl).udp(sport, to.1);
    let mut frame = Vec::new();
    builder.write(&mut frame, payload).unwrap();
    frame
}

/// TCP flags as letters: `S`, `A`, `F`, `R`.
pub(crate) fn tcp(
    from: &Host,
    via: Mac,
    sport: u16,
    to: (IpAddr, u16),
    flags: &str,
    (seq, ack): (u32, u32),
    payload: &[u8],
) -> Vec<u8> {
    let src = from.addr(if to.0.is_ipv4() { Family::V4 } else { Family::V6 });
    let mut builder = ip(from, via, src, to.0, 64).tcp(sport, to.1, seq, 64_000);
    for flag in flags.chars() {
        builder = match flag {
            'S' => builder.syn(),
            'A' => builder.ack(ack),
            'F' => builder.fin(),
            'R' => builder.rst(),
            other => panic!("no flag {other}"),
        };
    }
    let mut frame = Vec::new();
    builder.write(&mut frame, payload).unwrap();
    frame
}

/// An echo request.
pub(crate) fn ping(from: &Host, via: Mac, to: IpAddr, id: u16, payload: &[u8]) -> Vec<u8> {
    let src = from.addr(if to.is_ipv4() { Family::V4 } else { Family::V6 });
    let builder = ip(from, via, src, to, 64);
    let mut frame = Vec::new();
    if to.is_ipv4() {
        builder.icmpv4_echo_request(id, 1).write(&mut frame, payload).unwrap();
    } else {
        builder.icmpv6_echo_request(id, 1).write(&mut frame, payload).unwrap();
    }
    frame
}

/// "Port unreachable" from a host, by way of a MAC, about the packet it quotes.
pub(crate) fn icmp_unreachable(from: &Host, via: Mac, to: IpAddr, quote: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    if to.is_ipv4() {
        let builder = ip(from, via, from.addr(Family::V4), to, 60);
        builder.icmpv4_raw(3, 3, [0; 4]).write(&mut frame, quote).unwrap();
    } else {
        let builder = ip(from, via, from.addr(Family::V6), to, 60);
        builder.icmpv6_raw(1, 4, [0; 4]).write(&mut frame, quote).unwrap();
    }
    frame
}

/// Turns a frame that arrived at `host` around: same ports, addresses swapped.
pub(crate) fn udp_reply(host: &Host, to: &Sent, payload: &[u8]) -> Vec<u8> {
    udp(host, to.src_mac(), to.dst().1, to.src(), payload)
}

/// A who-has request.
pub(crate) fn arp_request(from: &Host, target: Ipv4Addr) -> Vec<u8> {
    let mut frame = Vec::new();
    PacketBuilder::ethernet2(from.mac.0, [0xff; 6])
        .arp(
            etherparse::ArpPacket::new(
                etherparse::ArpHardwareId::ETHERNET,
                etherparse::EtherType::IPV4,
                etherparse::ArpOperation::REQUEST,
                &from.mac.0,
                &from.v4.octets(),
                &[0; 6],
                &target.octets(),
            )
            .unwrap(),
        )
        .write(&mut frame)
        .unwrap();
    frame
}

/// A neighbour solicitation.
pub(crate) fn ndp_request(from: &Host, target: Ipv6Addr) -> Vec<u8> {
    let o = target.octets();
    let group = Ipv6Addr::new(
        0xff02,
        0,
        0,
        0,
        0,
        1,
        0xff00 | u16::from(o[13]),
        u16::from_be_bytes([o[14], o[15]]),
    );
    let mut body = vec![0; 4];
    body.extend_from_slice(&o);
    body.extend_from_slice(&[1, 1]);
    body.extend_from_slice(&from.mac.0);
    icmpv6(from, Mac::from_ipv6_group(group), group, 135, &body)
}

fn icmpv6(from: &Host, to_mac: Mac, to: Ipv6Addr, kind: u8, body: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    let rest: [u8; 4] = body[..4].try_into().unwrap();
    PacketBuilder::ethernet2(from.mac.0, to_mac.0)
        .ipv6(from.v6.octets(), to.octets(), 255)
        .icmpv6_raw(kind, 0, rest)
        .write(&mut frame, &body[4..])
        .unwrap();
    frame
}

/// `remote`'s answer to an ARP or NDP question of ours.
pub(crate) fn answer_to(question: &Sent, remote: &Host) -> Vec<u8> {
    if question.bytes[12..14] == [0x08, 0x06] {
        let arp = &question.bytes[14..42];
        let mut frame = Vec::new();
        PacketBuilder::ethernet2(remote.mac.0, question.src_mac().0)
            .arp(
                etherparse::ArpPacket::new(
                    etherparse::ArpHardwareId::ETHERNET,
                    etherparse::EtherType::IPV4,
                    etherparse::ArpOperation::REPLY,
                    &remote.mac.0,
                    &arp[24..28],
                    &arp[8..14],
                    &arp[14..18],
                )
                .unwrap(),
            )
            .write(&mut frame)
            .unwrap();
        return frame;
    }
    let target = &question.bytes[62..78];
    let asker = Ipv6Addr::from(<[u8; 16]>::try_from(&question.bytes[22..38]).unwrap());
    let mut body = vec![0x60, 0, 0, 0];
    body.extend_from_slice(target);
    body.extend_from_slice(&[2, 1]);
    body.extend_from_slice(&remote.mac.0);
    let speaker = Host { v6: Ipv6Addr::from(<[u8; 16]>::try_from(target).unwrap()), ..*remote };
    icmpv6(&speaker, question.src_mac(), asker, 136, &body)
}
