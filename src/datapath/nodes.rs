//! Other nodes: what goes to them through tunnels and what comes from them.
//!
//! A tunnel is a link of the router, and a peer a station on it: packets keep their own addresses, what is
//! not ours to forward is dropped by name, and nothing passes from one peer to another.

use super::decide::{self, Decision, NextHop, Notes, Route, Snat};
use super::{Datapath, pipeline::Slot, slow::Frame};
use crate::base::ids::PeerId;
use crate::config::{Network, Port, RouteTarget, Tables};
use crate::packet::{DropReason, FlowKey, Parsed, Scope};
use crate::stage::route::icmp_error::IcmpError;
use crate::wire::addr::Addr;

/// From a network of ours to what is behind another node.
pub(super) fn to_peer(
    tables: &Tables,
    network: &Network,
    id: PeerId,
    key: &FlowKey,
    notes: &mut Notes,
) -> Decision {
    let Some(peer) = tables.peer(id) else { return Decision::Drop(DropReason::NoRoute) };
    notes.note("route", || format!("{} is behind node {}", key.dst, peer.name));
    if !tables.tunnel().is_some_and(|tunnel| tunnel.owns(key.src)) {
        // The peer would take it for a forgery.
        notes.note("policy", || format!("network {} is not in this node's subnets", network.name));
        return Decision::Reject(DropReason::NetworkIsolated, IcmpError::Prohibited);
    }
    let (to, next_hop) = ((key.dst, key.dst_port), NextHop::Station(peer.mac));
    Decision::Route(Route { egress: peer.port, next_hop, to, snat: Snat::Keep })
}

/// From another node to a network of ours.
pub(super) fn from_peer(
    tables: &Tables,
    from: &Port,
    key: &FlowKey,
    notes: &mut Notes,
) -> Decision {
    if let Err(reason) = may_come(tables, from, key.src) {
        return Decision::Drop(reason);
    }
    let owned = tables.tunnel().is_some_and(|tunnel| tunnel.owns(key.dst));
    let network = match tables.route(key.dst) {
        Some(RouteTarget::Network(id)) if owned => tables.network(id),
        _ => None,
    };
    let Some(network) = network else {
        notes.note("route", || format!("{} is not on this node", key.dst));
        return Decision::Reject(DropReason::NoRoute, IcmpError::NetUnreachable);
    };
    if network.is_gateway(key.dst) {
        notes.note("route", || format!("{} is the gateway itself", key.dst));
        return Decision::Gateway;
    }
    decide::deliver(tables, from, network, key, notes)
}

/// Whether the peer at a port may speak for an address.
fn may_come(tables: &Tables, from: &Port, src: Addr) -> Result<(), DropReason> {
    let peer = tables.peer_at(from.id).ok_or(DropReason::PortGone)?;
    if peer.owns(src) { Ok(()) } else { Err(DropReason::TunnelSource) }
}

impl Datapath {
    /// A frame that came out of a tunnel.
    pub(super) fn from_tunnel(
        &mut self,
        port: &Port,
        slot: &Slot,
        frame: &mut Frame<'_>,
    ) -> Result<(), DropReason> {
        let parsed = &slot.parsed;
        if slot.key.scope != Scope::Routed || !parsed.is_ip() {
            return Err(DropReason::NotForUs);
        }
        // Errors and fragments are let through by the flow they belong to, and that is not enough.
        may_come(&self.tables, port, parsed.src)?;
        self.routed(port, slot, frame)
    }

    /// Whom errors towards another node come from: the gateway of a network that the packet was meant for,
    /// else of any that peers can reach.
    pub(super) fn address_towards_peers(&self, parsed: &Parsed) -> Option<Addr> {
        let tunnel = self.tables.tunnel()?;
        let family = parsed.src.family();
        let meant = match self.tables.route(parsed.dst) {
            Some(RouteTarget::Network(id)) => self.tables.network(id),
            _ => None,
        };
        let gateways = meant.into_iter().chain(self.tables.networks());
        gateways.filter_map(|n| n.gateway(family)).find(|gateway| tunnel.owns(*gateway))
    }
}
