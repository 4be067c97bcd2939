//! What shall happen to a packet that no flow answers for. Pure: reads tables, changes nothing, so
//! that the slow path, the re-judging of a flow after a change, and `trace` get the same answer.
//!
//! The packet is given by its key and destination MAC, not by its bytes: a flow can be judged again
//! without a packet at hand.

use std::sync::Arc;

use super::balance;
use super::inspect::TraceStep;
use super::nodes;
use crate::base::ids::{DomainId, NetworkId, PortId, UplinkId};
use crate::config::{Network, Port, PortKind, RouteTarget, Tables, Uplink, UplinkKind};
use crate::packet::{DropReason, FlowKey};
use crate::stage::route::icmp_error::IcmpError;
use crate::wire::addr::{Addr, Family};
use crate::wire::ipv6;
use crate::wire::mac::Mac;

/// The answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Decision {
    /// To a station of the same domain, MACs untouched.
    Bridge(PortId),
    /// Through the router.
    Route(Route),
    /// For the gateway itself.
    Gateway,
    /// For the host, at this port of it.
    Host(PortId),
    /// To our own address on an uplink, where neither a publication nor a service waits: perhaps a
    /// mapping does.
    OwnAddress(UplinkId),
    /// To an address that we share with the host, and none of our business: the kernel has it too.
    Ignore,
    /// Nobody serves there: what a host's closed port says.
    Refuse(DropReason),
    /// Refused, and the sender is told.
    Reject(DropReason, IcmpError),
    /// Dropped in silence.
    Drop(DropReason),
}

/// How a routed packet leaves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Route {
    /// Out of this port.
    pub egress: PortId,
    /// Whose MAC it is addressed to: the destination or a router.
    pub next_hop: NextHop,
    /// Destination after translation; the packet's own if there is none.
    pub to: (Addr, u16),
    /// Source translation.
    pub snat: Snat,
}

/// Whom a routed packet is handed to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NextHop {
    /// A station the configuration knows.
    Station(Mac),
    /// A neighbour to be asked for.
    Neighbour(Addr),
    /// A flow of the socket uplink.
    Sockets,
}

/// Which source the packet leaves with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Snat {
    /// Its own.
    Keep,
    /// A mapped port of our address on an uplink.
    Masquerade(UplinkId, Addr),
    /// The host's port at which it is published itself: peers see a server at one place, whoever of the
    /// two spoke first, and whether or not the flow is remembered.
    Published(Addr, u16),
    /// A mapped port of the gateway: the answer must come back through us (hairpin in one subnet).
    Gateway(Addr),
}

/// Notes taken on the way, if somebody wants them.
#[derive(Debug, Default)]
pub struct Notes(Option<Vec<TraceStep>>);

impl Notes {
    /// Takes none: costs a branch.
    pub fn off() -> Self {
        Self(None)
    }

    /// Takes all.
    pub fn on() -> Self {
        Self(Some(Vec::new()))
    }

    /// What was noted.
    pub fn into_steps(self) -> Vec<TraceStep> {
        self.0.unwrap_or_default()
    }

    /// Notes what a stage said.
    pub fn note(&mut self, stage: &str, text: impl FnOnce() -> String) {
        if let Some(steps) = &mut self.0 {
            steps.push(TraceStep { stage: stage.to_owned(), text: text() });
        }
    }
}

/// A packet to one station of its own domain.
pub fn bridge(tables: &Tables, from: &Port, to: PortId, notes: &mut Notes) -> Decision {
    if to == from.id {
        return Decision::Drop(DropReason::SamePort);
    }
    let Some(port) = tables.port(to) else { return Decision::Drop(DropReason::PortGone) };
    if from.isolated && port.isolated {
        notes
            .note("policy", || format!("{} and {} are isolated (icc=false)", from.name, port.name));
        return Decision::Drop(DropReason::PortIsolated);
    }
    notes.note("bridge", || format!("{} is on port {}", port.mac, port.name));
    Decision::Bridge(to)
}

/// A packet that was handed to the router: the gateway of a network, or us on an uplink.
pub fn route(tables: &Tables, from: &Port, key: &FlowKey, notes: &mut Notes) -> Decision {
    if is_the_host_s(tables, from, key) {
        notes.note("share", || format!("{}:{} is the host's", key.dst, key.dst_port));
        return Decision::Ignore;
    }
    if let Some(reason) = martian(key) {
        return Decision::Drop(reason);
    }
    match from.kind {
        PortKind::Endpoint | PortKind::Host => from_inside(tables, from, key, notes),
        PortKind::PacketUplink | PortKind::SocketUplink => from_uplink(tables, from, key, notes),
        PortKind::Tunnel => nodes::from_peer(tables, from, key, notes),
    }
}

/// Addresses that never cross a router (RFC 1812 5.3.7, RFC 4291 2.5).
fn martian(key: &FlowKey) -> Option<DropReason> {
    let bad = |addr: Addr| {
        addr.is_unspecified() || addr.is_loopback() || addr.is_multicast_or_broadcast()
    };
    if bad(key.dst) {
        return Some(DropReason::MartianDestination);
    }
    bad(key.src).then_some(DropReason::MartianSource)
}

fn from_inside(tables: &Tables, from: &Port, key: &FlowKey, notes: &mut Notes) -> Decision {
    let Some(network) = tables.network_of(from.domain) else {
        return Decision::Drop(DropReason::PortGone);
    };
    if network.guise.without.contains(&key.proto) {
        notes.note("policy", || {
            format!("nothing of protocol {} leaves {}", key.proto, network.name)
        });
        return Decision::Drop(DropReason::NoService);
    }
    if let Some(decision) = balance::virtual_address(tables, from, key, notes) {
        return decision;
    }
    let gateway_of = gateway_owner(tables, key.dst);
    if gateway_of.is_some() || tables.is_host_addr(key.dst) {
        if let Some(decision) = published(tables, from, key, notes) {
            return decision;
        }
        notes.note("publish", || format!("nothing is published at {}:{}", key.dst, key.dst_port));
    }
    if network.is_gateway(key.dst) || gateway_of.is_some() {
        notes.note("route", || format!("{} is the gateway itself", key.dst));
        return Decision::Gateway;
    }
    if let Some(host) = network.host_port.filter(|_| tables.is_host_only(key.dst)) {
        notes.note("route", || format!("{} is the host's", key.dst));
        return Decision::Host(host);
    }
    to_elsewhere(tables, from, network, key, notes)
}

/// To what is neither the gateway nor the host: a network of ours, or the world.
fn to_elsewhere(
    tables: &Tables,
    from: &Port,
    network: &Arc<Network>,
    key: &FlowKey,
    notes: &mut Notes,
) -> Decision {
    match tables.route(key.dst) {
        Some(RouteTarget::Network(id)) if !network.guise.transparent => {
            to_network(tables, from, network, id, key, notes)
        }
        Some(RouteTarget::Peer(id)) => nodes::to_peer(tables, network, id, key, notes),
        _ => to_uplink(tables, from, network, key, notes),
    }
}

/// To a service's backend that is none of our endpoints.
pub(super) fn beyond(tables: &Tables, from: &Port, key: &FlowKey, notes: &mut Notes) -> Decision {
    match tables.network_of(from.domain) {
        Some(network) => to_elsewhere(tables, from, network, key, notes),
        None => Decision::Drop(DropReason::NotForUs),
    }
}

/// The network whose gateway has this address.
fn gateway_owner(tables: &Tables, addr: Addr) -> Option<NetworkId> {
    let RouteTarget::Network(id) = tables.route(addr)? else { return None };
    tables.network(id)?.is_gateway(addr).then_some(id)
}

/// The publication or the node port at the packet's destination, if there is one that serves its family.
fn published(tables: &Tables, from: &Port, key: &FlowKey, notes: &mut Notes) -> Option<Decision> {
    let publication = tables.publications().lookup(key.proto, key.dst, key.dst_port);
    let Some(publication) = publication else {
        return balance::node_port(tables, from, key, notes);
    };
    let target = publication.target(key.dst.family(), key.dst_port)?;
    notes.note("publish", || {
        format!("{}:{} is published, goes to {}:{}", key.dst, key.dst_port, target.0, target.1)
    });
    let Some(port) = tables.port(publication.endpoint) else {
        return Some(Decision::Drop(DropReason::PortGone));
    };
    let snat = client_source(tables, port, key.src, notes);
    let next_hop = NextHop::Station(port.mac);
    Some(Decision::Route(Route { egress: port.id, next_hop, to: target, snat }))
}

/// The container sees the client's true address, unless its answer would then not come back to us.
pub(super) fn client_source(
    tables: &Tables,
    target: &Port,
    client: Addr,
    notes: &mut Notes,
) -> Snat {
    let Some(network) = tables.network_of(target.domain) else { return Snat::Keep };
    let inside = network.subnets.iter().any(|s| s.contains(client));
    let gateway = network.gateway(client.family());
    match gateway {
        Some(gateway) if inside || client.is_link_local() => {
            notes.note("nat", || format!("client is in the container's subnet: seen as {gateway}"));
            Snat::Gateway(gateway)
        }
        _ => Snat::Keep,
    }
}

fn to_network(
    tables: &Tables,
    from: &Port,
    own: &Arc<Network>,
    id: NetworkId,
    key: &FlowKey,
    notes: &mut Notes,
) -> Decision {
    let Some(network) = tables.network(id) else { return Decision::Drop(DropReason::NoRoute) };
    notes.note("route", || format!("{} is on network {}", key.dst, network.name));
    if own.id != id && (own.isolated || network.isolated) {
        let which = if own.isolated { own } else { network };
        notes.note("policy", || format!("network {} is isolated", which.name));
        return Decision::Reject(DropReason::NetworkIsolated, IcmpError::Prohibited);
    }
    deliver(tables, from, network, key, notes)
}

/// To a station of a network of ours.
pub(super) fn deliver(
    tables: &Tables,
    from: &Port,
    network: &Network,
    key: &FlowKey,
    notes: &mut Notes,
) -> Decision {
    let domain = DomainId::from(network.id);
    let Some(port) = tables.port_by_addr(domain, key.dst).and_then(|id| tables.port(id)) else {
        notes.note("neighbour", || format!("nobody on {} has {}", network.name, key.dst));
        return Decision::Reject(DropReason::NeighbourFailed, IcmpError::HostUnreachable);
    };
    if from.domain == domain && from.isolated && port.isolated {
        notes
            .note("policy", || format!("{} and {} are isolated (icc=false)", from.name, port.name));
        return Decision::Reject(DropReason::PortIsolated, IcmpError::Prohibited);
    }
    let to = (key.dst, key.dst_port);
    let next_hop = NextHop::Station(port.mac);
    Decision::Route(Route { egress: port.id, next_hop, to, snat: Snat::Keep })
}

fn to_uplink(
    tables: &Tables,
    from: &Port,
    network: &Network,
    key: &FlowKey,
    notes: &mut Notes,
) -> Decision {
    let uplink = network.uplink.filter(|_| !network.internal).and_then(|id| tables.uplink(id));
    let Some(uplink) = uplink else {
        notes.note("route", || format!("network {} has no uplink", network.name));
        return Decision::Reject(DropReason::NoUplink, IcmpError::NetUnreachable);
    };
    notes.note("route", || format!("{} is reached by uplink {}", key.dst, uplink.name));
    if key.dst.is_link_local() {
        return Decision::Drop(DropReason::MartianDestination);
    }
    let to = (key.dst, key.dst_port);
    if uplink.kind == UplinkKind::Sockets {
        let next_hop = NextHop::Sockets;
        return Decision::Route(Route { egress: uplink.port, next_hop, to, snat: Snat::Keep });
    }
    let (Some(own), Some(next)) = (uplink.addr(key.dst.family()), uplink.next_hop(key.dst)) else {
        notes.note("route", || format!("{} has no address or router of that family", uplink.name));
        return Decision::Reject(DropReason::NoAddress, IcmpError::NetUnreachable);
    };
    if uplink.is_ours(key.dst) {
        notes.note("route", || format!("{} is our own address on {}", key.dst, uplink.name));
        return Decision::OwnAddress(uplink.id);
    }
    if uplink.shared && !has_ports(key.proto) {
        // Answers could not be told from the host's own.
        notes.note("nat", || format!("{} shares the host's address by ports", uplink.name));
        return Decision::Reject(DropReason::NoAddress, IcmpError::NetUnreachable);
    }
    let snat = if !must_masquerade(uplink, key.src) {
        Snat::Keep
    } else if let Some((addr, port)) = published_source(tables, from, uplink, own, key) {
        notes.note("nat", || format!("source is published and becomes {addr}:{port}"));
        Snat::Published(addr, port)
    } else {
        notes.note("nat", || format!("source becomes {own}"));
        Snat::Masquerade(uplink.id, own)
    };
    Decision::Route(Route { egress: uplink.port, next_hop: NextHop::Neighbour(next), to, snat })
}

/// Where the sender's own port is published on this uplink.
fn published_source(
    tables: &Tables,
    from: &Port,
    uplink: &Uplink,
    own: Addr,
    key: &FlowKey,
) -> Option<(Addr, u16)> {
    let source = (key.src, key.src_port);
    let (publication, port) = tables.publications().of_target(from.id, key.proto, source)?;
    let at = match publication.host_addr {
        None => own,
        Some(any) if any.is_unspecified() && any.family() == own.family() => own,
        Some(addr) if uplink.is_ours(addr) => addr,
        Some(_) => return None,
    };
    Some((at, port))
}

/// IPv4 always, and IPv6's unique local addresses (RFC 4193), which nobody outside can answer. Global
/// IPv6 addresses are routed as they are, unless the uplink says otherwise.
fn must_masquerade(uplink: &Uplink, src: Addr) -> bool {
    uplink.shared || uplink.nat.nat66 || src.v6().is_none_or(|ip| ip.octets()[0] & 0xfe == 0xfc)
}

/// Protocols whose packets say by a port, or a query's identifier, to whom of one address they belong.
fn has_ports(proto: u8) -> bool {
    matches!(proto, ipv6::TCP | ipv6::UDP | ipv6::SCTP | ipv6::ICMP | ipv6::ICMPV6)
}

/// Whether a packet that arrived at an address which we share with the host is the host's. Echo requests
/// are the kernel's to answer. Nothing says that such a packet was dropped, since it was not: the kernel
/// has it as well.
fn is_the_host_s(tables: &Tables, from: &Port, key: &FlowKey) -> bool {
    let Some(uplink) = tables.uplink_of(from.domain).filter(|uplink| uplink.shared) else {
        return false;
    };
    let in_range = uplink.nat_ports.contains(&key.dst_port) && has_ports(key.proto);
    let is_published = || {
        let publication = tables.publications().lookup(key.proto, key.dst, key.dst_port);
        publication.is_some_and(|p| p.target(key.dst.family(), key.dst_port).is_some())
            || tables.services().by_node_port(key.proto, key.dst_port).is_some()
    };
    !uplink.is_ours(key.dst) || !(in_range || is_published())
}

fn from_uplink(tables: &Tables, from: &Port, key: &FlowKey, notes: &mut Notes) -> Decision {
    let Some(uplink) = tables.uplink_of(from.domain) else {
        return Decision::Drop(DropReason::PortGone);
    };
    if tables.route(key.src).is_some() {
        notes.note("route", || {
            format!("{} is an inside address, yet it comes from outside", key.src)
        });
        return Decision::Drop(DropReason::SpoofedInside);
    }
    if uplink.is_ours(key.dst) || tables.is_host_addr(key.dst) {
        if let Some(decision) = published(tables, from, key, notes) {
            return decision;
        }
        return Decision::OwnAddress(uplink.id);
    }
    let Some(RouteTarget::Network(id)) = tables.route(key.dst) else {
        return Decision::Drop(DropReason::NotForUs);
    };
    let Some(network) = tables.network(id) else { return Decision::Drop(DropReason::NoRoute) };
    // A routed network (global IPv6) lets in what belongs to its flows, and echo: nothing else is
    // reachable from outside unless it is published.
    let routed = key.dst.family() == Family::V6 && !must_masquerade(uplink, key.dst);
    if routed && network.uplink == Some(uplink.id) && key.proto == ipv6::ICMPV6 {
        return deliver(tables, from, network, key, notes);
    }
    notes.note("publish", || format!("nothing is published at {}:{}", key.dst, key.dst_port));
    Decision::Drop(DropReason::NotPublished)
}
