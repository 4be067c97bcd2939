//! From what is wanted to what workers read: records become the objects of `config`.

use std::sync::Arc;

use super::policy;
use super::state::{EndpointState, NetworkState, State, UplinkState};
use super::store::record::{EndpointRecord, NetworkRecord, PublicationRecord};
use crate::base::ids::UplinkId;
use crate::config::{Delta, Guise, Network, Port, PortKind, Subnet, Uplink, UplinkKind};
use crate::control::model;
use crate::stage::flow::Behaviour;
use crate::stage::service::publish::Publication;
use crate::stage::sockets::{Link, Target};
use crate::wire::addr::Addr;

/// Outside ports that masquerade may take if the uplink names none: all. A well-known one only goes to a
/// socket that has a well-known port itself (RFC 4787 REQ-3 a).
const NAT_PORTS: (u16, u16) = (1, 65_535);
/// Name of the uplink that networks take if they name none.
pub(super) const DEFAULT: &str = "default";
/// What takes an uplink away.
pub(super) const NO_UPLINK: &str = "none";

/// The uplink a network leaves by, if it has one that works.
pub(super) fn uplink_of(state: &State, network: &NetworkRecord) -> Option<UplinkId> {
    if network.internal {
        return None;
    }
    let uplink = match network.uplink.as_deref() {
        Some(NO_UPLINK) => return None,
        Some(name) => state.uplink(name),
        None => state.uplink(DEFAULT),
    }?;
    uplink.failure.is_none().then_some(uplink.record.id)
}

pub(super) fn network(state: &State, network: &NetworkState, guise: &Guise) -> Delta {
    let record = &network.record;
    let subnet = |(net, gateway): &(ipnet::IpNet, std::net::IpAddr)| Subnet {
        prefix: net.network().into(),
        len: net.prefix_len(),
        gateway: (*gateway).into(),
    };
    Delta::Network(Arc::new(Network {
        id: record.id,
        name: record.name.as_str().into(),
        subnets: record.subnets.iter().map(subnet).collect(),
        gateway_mac: record.gateway_mac,
        mtu: record.mtu,
        isolated: record.isolated,
        internal: record.internal,
        uplink: uplink_of(state, record),
        host_loopback: record.host_loopback,
        guise: guise.clone(),
        host_port: record.host.as_ref().map(|h| h.port),
    }))
}

pub(super) fn host_port(network: &NetworkRecord, uso: bool) -> Option<Delta> {
    let host = network.host.as_ref()?;
    Some(Delta::Port(Arc::new(Port {
        id: host.port,
        name: host.ifname.as_str().into(),
        kind: PortKind::Host,
        domain: network.id.into(),
        mac: network.gateway_mac,
        addrs: network.subnets.iter().map(|(_, gateway)| (*gateway).into()).collect(),
        guard: false,
        isolated: false,
        mtu: network.mtu,
        uso,
    })))
}

pub(super) fn endpoint(network: &NetworkRecord, endpoint: &EndpointState) -> Delta {
    let record = &endpoint.record;
    Delta::Port(Arc::new(Port {
        id: record.port,
        name: record.name.as_str().into(),
        kind: PortKind::Endpoint,
        domain: record.network.into(),
        mac: record.mac,
        addrs: record.addrs.iter().copied().map(Addr::from).collect(),
        guard: network.guard,
        isolated: !network.icc && !is_exempt(network, record),
        mtu: network.mtu,
        uso: endpoint.uso,
    }))
}

/// Whether an endpoint may talk to those that may not talk to one another.
fn is_exempt(network: &NetworkRecord, endpoint: &EndpointRecord) -> bool {
    // Control has checked it when it was written.
    let except = network.icc_except.as_deref().and_then(|text| policy::selector(text).ok());
    except.is_some_and(|selector| selector.matches(&policy::facts_of(endpoint, &network.name)))
}

/// The uplink and its port. Workers need the port first known by the uplink, then plugged in.
pub(super) fn uplink(uplink: &UplinkState) -> [Delta; 2] {
    let record = &uplink.record;
    let (kind, port_kind) = match record.spec.kind {
        model::UplinkKind::Sockets => (UplinkKind::Sockets, PortKind::SocketUplink),
        model::UplinkKind::Packet(_) => (UplinkKind::Packet, PortKind::PacketUplink),
    };
    let addrs = uplink.addrs();
    let mtu = uplink.mtu();
    let shared = uplink.share.as_ref().map(|share| share.ports);
    let (first, last) = match &record.spec.kind {
        model::UplinkKind::Packet(p) => {
            shared.or(p.ports).map_or(NAT_PORTS, |r| (r.first(), r.last()))
        }
        model::UplinkKind::Sockets => NAT_PORTS,
    };
    let object = Uplink {
        id: record.id,
        name: record.spec.name.as_str().into(),
        kind,
        port: record.port,
        addrs: addrs.iter().map(|(a, len)| (Addr::from(*a), *len)).collect(),
        routers: uplink.routers().into_iter().map(Addr::from).collect(),
        nat_ports: first..=last,
        nat: behaviour(&record.spec.kind),
        shared: shared.is_some(),
        mtu,
    };
    let port = Port {
        id: record.port,
        name: record.spec.name.as_str().into(),
        kind: port_kind,
        domain: record.id.into(),
        mac: record.mac,
        addrs: addrs.iter().map(|(a, _)| Addr::from(*a)).collect(),
        guard: false,
        isolated: false,
        mtu,
        uso: uplink.uso,
    };
    [Delta::Uplink(Arc::new(object)), Delta::Port(Arc::new(port))]
}

fn behaviour(kind: &model::UplinkKind) -> Behaviour {
    match kind {
        model::UplinkKind::Sockets => Behaviour::default(),
        model::UplinkKind::Packet(packet) => Behaviour {
            mapping: packet.mapping,
            filtering: packet.filtering,
            inbound_refresh: !packet.outbound_refresh_only,
            nat66: packet.nat66,
        },
    }
}

pub(super) fn publication(state: &State, record: &PublicationRecord) -> Option<Delta> {
    let endpoint = state.endpoints.get(&record.endpoint)?;
    // An address of one family can only be answered in that family.
    let wanted = |v6: bool| record.host_addr.is_none_or(|a| a.is_ipv6() == v6);
    let target = |v6: bool| endpoint.addr(v6).filter(|_| wanted(v6)).map(Addr::from);
    Some(Delta::Publish(Publication {
        id: record.id,
        proto: record.proto.number(),
        host_addr: record.host_addr.map(Addr::from),
        host_ports: record.host_ports.first()..=record.host_ports.last(),
        target_v4: target(false),
        target_v6: target(true),
        target_port: record.ports.first(),
        domain: endpoint.record.network.into(),
        endpoint: endpoint.record.port,
    }))
}

/// The container behind an endpoint's publications, as its clients' connections see it.
pub(super) fn target(state: &State, endpoint: &EndpointState, guise: &Guise) -> Option<Target> {
    let record = &endpoint.record;
    let network = &state.networks.get(&record.network)?.record;
    let gateway = |v6: bool| {
        let gateways = network.subnets.iter().map(|(_, gateway)| *gateway);
        gateways.into_iter().find(|g| g.is_ipv6() == v6).map(Addr::from)
    };
    // It answers directly whoever is in a subnet of any of its interfaces.
    let networks = state.named(&record.name).into_iter().map(|e| e.record.network);
    let networks = networks.filter_map(|id| state.networks.get(&id));
    let subnets = networks.flat_map(|n| &n.record.subnets);
    let subnets = subnets.map(|(net, _)| (Addr::from(net.network()), net.prefix_len()));
    // Who believes to be on the host's LAN reaches all of it by way of us, but not itself.
    let itself =
        record.addrs.iter().map(|addr| (Addr::from(*addr), if addr.is_ipv4() { 32 } else { 128 }));
    Some(Target {
        port: record.port,
        domain: record.network.into(),
        link: Link { inside: record.mac, gateway: network.gateway_mac },
        addrs: [false, true].map(|v6| endpoint.addr(v6).map(Addr::from)),
        gateways: [false, true].map(gateway),
        subnets: if guise.transparent { itself.collect() } else { subnets.collect() },
        mtu: network.mtu,
    })
}
