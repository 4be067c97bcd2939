//! The small world that is fuzzed: two networks of endpoints, with and without guard, USO and the
//! host, one LAN, and the ways in which its configuration changes.

use std::sync::Arc;

use super::frames::Bytes;
use crate::base::ids::{DomainId, NetworkId, PortId, PublicationId, UplinkId};
use crate::config::{Delta, Network, Port, PortKind, Subnet, Uplink, UplinkKind, link_local};
use crate::stage::flow::{Behaviour, Binding, Filtering};
use crate::stage::service::publish::Publication;
use crate::wire::addr::Addr;
use crate::wire::ipv6;
use crate::wire::mac::Mac;

pub(super) const UPLINK: UplinkId = UplinkId(0);
pub(super) const UPLINK_PORT: PortId = PortId(7);
pub(super) const SOCKETS: UplinkId = UplinkId(1);
const HOST_PORT: PortId = PortId(6);
/// All ports there may be, and one that never is.
pub(super) const PORTS: [PortId; 9] = [
    PortId(1),
    PortId(2),
    PortId(3),
    PortId(4),
    PortId(5),
    HOST_PORT,
    UPLINK_PORT,
    PortId(8),
    PortId(99),
];

const fn endpoint_mac(n: u8) -> Mac {
    Mac([2, 0x42, 10, 20, 0, n])
}

const fn gateway_mac(network: u8) -> Mac {
    Mac([2, 0x42, 10, 20 + network, 0, 1])
}

const UPLINK_MAC: Mac = Mac([2, 0xaa, 0, 0, 0, 1]);
const REMOTE_MAC: Mac = Mac([2, 0xee, 0, 0, 0, 9]);

/// MACs that mean something here, and one that does not.
pub(super) const MACS: [Mac; 12] = [
    endpoint_mac(1),
    endpoint_mac(2),
    endpoint_mac(3),
    endpoint_mac(4),
    endpoint_mac(5),
    gateway_mac(0),
    gateway_mac(1),
    UPLINK_MAC,
    REMOTE_MAC,
    Mac::BROADCAST,
    Mac([0x33, 0x33, 0, 0, 0, 1]),
    Mac([2, 9, 9, 9, 9, 9]),
];

const fn v4(a: u8, b: u8, c: u8, d: u8) -> Addr {
    Addr::from_v4_bytes([a, b, c, d])
}

const fn v6(prefix: u64, id: u64) -> Addr {
    Addr::from_prefix_and_id(prefix, id)
}

const NET6: [u64; 2] = [0xfd00_0020_0000_0000, 0xfd00_0020_0001_0000];
const LAN6: u64 = 0x2001_0db8_0001_0000;

/// Addresses that mean something here, in pairs of both families, and some that must not.
pub(super) const ADDRS: [(Addr, Addr); 16] = [
    (v4(10, 20, 0, 11), v6(NET6[0], 11)),
    (v4(10, 20, 0, 12), v6(NET6[0], 12)),
    (v4(10, 21, 0, 13), v6(NET6[1], 13)),
    (v4(10, 21, 0, 14), v6(NET6[1], 14)),
    (v4(10, 21, 0, 15), v6(NET6[1], 15)),
    (v4(10, 20, 0, 1), v6(NET6[0], 1)),
    (v4(10, 21, 0, 1), v6(NET6[1], 1)),
    (v4(192, 0, 2, 1), v6(LAN6, 1)),
    (v4(192, 0, 2, 9), v6(LAN6, 9)),
    (v4(198, 51, 100, 7), v6(0x2001_0db8_0099_0000, 7)),
    (v4(198, 51, 100, 5), v6(0x2001_0db8_0005_0000, 5)),
    (v4(10, 20, 0, 200), v6(NET6[0], 200)),
    (v4(224, 0, 0, 1), v6(0xff02 << 48, 1)),
    (v4(255, 255, 255, 255), v6(0xfe80 << 48, 0x0042_0aff_fe14_0001)),
    (v4(127, 0, 0, 1), v6(0, 1)),
    (v4(0, 0, 0, 0), v6(0, 0)),
];

fn network(n: u8, isolated: bool, uplink: UplinkId, host: bool) -> Delta {
    let gateways = ADDRS[5 + usize::from(n)];
    Delta::Network(Arc::new(Network {
        id: NetworkId(n.into()),
        name: "net".into(),
        subnets: vec![
            Subnet { prefix: v4(10, 20 + n, 0, 0), len: 16, gateway: gateways.0 },
            Subnet { prefix: v6(NET6[usize::from(n)], 0), len: 64, gateway: gateways.1 },
        ],
        gateway_mac: gateway_mac(n),
        mtu: 1500,
        isolated,
        internal: false,
        uplink: Some(uplink),
        host_port: host.then_some(HOST_PORT),
        host_loopback: false,
        guise: crate::config::Guise::default(),
    }))
}

fn endpoint(n: u8, isolated: bool) -> Delta {
    let (addr4, addr6) = ADDRS[usize::from(n) - 1];
    Delta::Port(Arc::new(Port {
        id: PortId(n.into()),
        name: "c".into(),
        kind: PortKind::Endpoint,
        domain: NetworkId(u16::from(n > 2)).into(),
        mac: endpoint_mac(n),
        addrs: vec![addr4, addr6],
        guard: n <= 3,
        isolated,
        mtu: if n == 5 { 1_280 } else { 1_500 },
        uso: n != 4,
    }))
}

fn host() -> Delta {
    let (addr4, addr6) = ADDRS[6];
    Delta::Port(Arc::new(Port {
        id: HOST_PORT,
        name: "host".into(),
        kind: PortKind::Host,
        domain: NetworkId(1).into(),
        mac: gateway_mac(1),
        addrs: vec![addr4, addr6],
        guard: false,
        isolated: false,
        mtu: 1_500,
        uso: true,
    }))
}

fn uplink(
    id: UplinkId,
    last: u8,
    nat_ports: std::ops::RangeInclusive<u16>,
    nat: Behaviour,
    shared: bool,
    mtu: u16,
) -> [Delta; 2] {
    let is_packet = id == UPLINK;
    let addrs = vec![(v4(192, 0, 2, last), 24), (v6(LAN6, last.into()), 64)];
    let addrs = if is_packet { addrs } else { Vec::new() };
    let (kind, port_kind) = if is_packet {
        (UplinkKind::Packet, PortKind::PacketUplink)
    } else {
        (UplinkKind::Sockets, PortKind::SocketUplink)
    };
    let port = if is_packet { UPLINK_PORT } else { PortId(8) };
    let uplink = Uplink {
        id,
        name: "up".into(),
        kind,
        port,
        addrs: addrs.clone(),
        routers: vec![v4(192, 0, 2, 254), v6(LAN6, 0xfe)],
        nat_ports,
        nat,
        shared,
        mtu,
    };
    let plug = Port {
        id: port,
        name: "up".into(),
        kind: port_kind,
        domain: DomainId::from(id),
        mac: UPLINK_MAC,
        addrs: addrs.into_iter().map(|(addr, _)| addr).collect(),
        guard: false,
        isolated: false,
        mtu,
        uso: false,
    };
    [Delta::Uplink(Arc::new(uplink)), Delta::Port(Arc::new(plug))]
}

fn publication(id: u32, to: u8, host_port: u16, proto: u8) -> Delta {
    let (target_v4, target_v6) = ADDRS[usize::from(to) - 1];
    Delta::Publish(Publication {
        id: PublicationId(id),
        proto,
        host_addr: None,
        host_ports: host_port..=host_port + 3,
        target_v4: Some(target_v4),
        target_v6: Some(target_v6),
        target_port: 5_000,
        domain: NetworkId(u16::from(to > 2)).into(),
        endpoint: PortId(to.into()),
    })
}

/// How it begins.
pub(super) fn beginning() -> Vec<Delta> {
    let mut all = vec![network(0, true, UPLINK, false), network(1, false, UPLINK, true)];
    all.extend((1..=5).map(|n| endpoint(n, false)));
    all.extend(uplink(UPLINK, 1, 40_000..=40_015, Behaviour::default(), false, 1_500));
    all.extend(uplink(SOCKETS, 0, 1..=2, Behaviour::default(), false, 1_500));
    all.extend([host(), publication(1, 1, 1_180, ipv6::UDP), publication(2, 4, 1_180, ipv6::TCP)]);
    all.push(Delta::HostAddresses(Arc::from([ADDRS[10].0, ADDRS[10].1])));
    all
}

fn behaviour(n: u8, flag: bool) -> Behaviour {
    Behaviour {
        mapping: if n & 0b110 == 0b110 {
            Binding::AddressAndPortDependent
        } else {
            Binding::default()
        },
        filtering: match n & 0b1100 {
            0b100 => Filtering::EndpointIndependent,
            0b1000 => Filtering::AddressAndPortDependent,
            _ => Filtering::default(),
        },
        inbound_refresh: flag,
        nat66: n & 0b1_0001 == 0b1_0001,
    }
}

/// One change.
pub(super) fn change(input: &mut Bytes<'_>) -> Vec<Delta> {
    let (kind, flag) = (input.byte(), input.byte() & 1 == 1);
    let n = input.byte();
    let one = match kind % 10 {
        0 => network(n & 1, flag, UPLINK, n & 1 == 1),
        1 => network(n & 1, flag, if n & 2 == 0 { UPLINK } else { SOCKETS }, false),
        2 | 3 => endpoint(1 + n % 5, flag),
        4 => Delta::RemovePort(input.pick(&PORTS)),
        5 => host(),
        6 => {
            let ports = 40_000..=40_000 + u16::from(n >> 4);
            return uplink(UPLINK, 1 + (n & 1), ports, behaviour(n, flag), false, 1_500).into();
        }
        7 => {
            let mtu = if flag { 1_280 } else { 1_500 };
            let shared = n & 0b10_0000 != 0;
            let nat = behaviour(n, flag);
            return uplink(UPLINK, 1, 40_000..=40_100, nat, shared, mtu).into();
        }
        8 => publication(
            n.into(),
            1 + n % 5,
            1_180 + u16::from(n >> 6),
            [ipv6::UDP, ipv6::TCP][usize::from(flag)],
        ),
        _ => Delta::Unpublish(PublicationId(n.into())),
    };
    vec![one]
}

/// Whether an address is a gateway's own link-local one.
pub(super) fn is_gateway_link_local(addr: Addr) -> bool {
    [gateway_mac(0), gateway_mac(1)].iter().any(|mac| link_local(*mac) == addr)
}
