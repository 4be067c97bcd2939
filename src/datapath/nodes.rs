//! Other nodes: what goes to them through tunnels and what comes from them.
//!
//! A tunnel is a link of the router, and a peer a station on it: packets keep their own addresses, what is
//! not ours to forward is dropped by name, and nothing passes from one peer to another.

use hashbrown::HashMap;
use zerocopy::FromBytes;

use super::decide::{self, Decision, NextHop, Notes, Route, Snat};
use super::inspect::{PeerInfo, TunnelStats};
use super::{Datapath, FrameRef, Output, pipeline::Slot, slow::Frame};
use crate::base::ids::{PeerId, PortId};
use crate::base::time::Time;
use crate::config::{Backend, BackendKind, Network, Port, RouteTarget, Tables};
use crate::packet::merge::{Merged, Merger};
use crate::packet::{DropReason, FlowKey, FrameBatch, Parsed, Scope};
use crate::stage::route::icmp_error::IcmpError;
use crate::stage::tunnel::{Link, Wrap, vxlan};
use crate::wire::addr::Addr;
use crate::wire::ethernet::Ethernet;
use crate::wire::{ethernet, ipv4, ipv6, udp, vxlan as wire_vxlan};

/// Smallest inner MTU: what every host must take (RFC 791, RFC 8200 is stricter and asks more of the way).
const MTU_MIN: u16 = 576;

/// What WireGuard puts round a packet: type, receiver, counter; authentication tag.
const WIREGUARD_OVERHEAD: usize = 32;

/// What the tunnel adds to an inner IP packet: outer IP and UDP, and VXLAN with the inner Ethernet header
/// (RFC 7348 4.3) or what WireGuard needs.
pub fn overhead(outer: Addr, backend: BackendKind) -> u16 {
    let ip = if outer.is_v4() { ipv4::HEADER_LEN } else { ipv6::HEADER_LEN };
    let inner = match backend {
        BackendKind::Vxlan => wire_vxlan::HEADER_LEN + ethernet::HEADER_LEN,
        BackendKind::Wireguard => WIREGUARD_OVERHEAD,
    };
    (ip + udp::HEADER_LEN + inner) as u16
}

/// What came through tunnels and is not processed yet, and when something last came.
#[derive(Debug, Default)]
pub(super) struct Inbound {
    /// Whose frames the batch has.
    port: Option<PortId>,
    merger: Merger,
    heard: HashMap<PortId, Time>,
    /// Both ways.
    pub(super) stats: TunnelStats,
}

impl Inbound {
    pub(super) fn forget(&mut self, port: PortId) {
        self.heard.remove(&port);
    }
}

/// A datagram, or a train of one sender's (UDP_GRO).
#[derive(Clone, Copy, Debug)]
pub struct Arrived<'a> {
    /// Who sent it.
    pub from: (Addr, u16),
    /// Its bytes; what has been taken is taken away.
    pub bytes: &'a [u8],
    /// Bytes of each datagram but the last.
    pub segment: usize,
}

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

    /// Takes the frames for other nodes out of what is to be sent, and wraps them. To be called after
    /// everything that gives frames, before the batch is cleared.
    pub fn flush_tunnels(&mut self, batch: &mut FrameBatch, out: &mut Output) {
        if self.tables.tunnel().is_none() {
            return;
        }
        let mut known: Option<(PortId, Option<Link>)> = None;
        let mut refused = Vec::new();
        let Output { frames, tunnels, .. } = out;
        frames.retain_mut(|sent| {
            let link = match known {
                Some((port, link)) if port == sent.port => link,
                _ => known.insert((sent.port, self.link(sent.port))).1,
            };
            let Some(link) = link else { return true };
            let wrapped = match std::mem::replace(&mut sent.frame, FrameRef::Batch(0)) {
                FrameRef::Batch(at) => tunnels.wrap(&link, usize::from(at), batch),
                FrameRef::Owned(owned) => tunnels.wrap_owned(&link, owned),
            };
            refused.extend(wrapped.err().map(|reason| (link.port, reason)));
            false
        });
        let trains = tunnels.trains();
        self.inbound.stats.trains += trains.len() as u64;
        self.inbound.stats.sent += trains.iter().map(|train| u64::from(train.count)).sum::<u64>();
        for (port, reason) in refused {
            self.drop_frame(port, reason);
        }
    }

    /// The way to the peer at a port, if there is one.
    fn link(&self, port: PortId) -> Option<Link> {
        let peer = self.tables.peer_at(port)?;
        let wrap = match peer.backend {
            Backend::Vxlan { vni } => Wrap::Vxlan { vni },
            Backend::Wireguard { .. } => Wrap::Bare,
        };
        Some(Link { port, to: peer.endpoint, wrap })
    }

    /// Takes frames of a datagram into the batch. `false`: the batch has no room for the rest, or that is
    /// another peer's; then [`finish_inbound`](Self::finish_inbound) and `frames` come before it is given again.
    pub fn unwrap_datagrams(&mut self, arrived: &mut Arrived<'_>, batch: &mut FrameBatch) -> bool {
        // A datagram is counted when it is taken: what is left is given again.
        while !arrived.bytes.is_empty() {
            let len = arrived.segment.clamp(1, arrived.bytes.len());
            let (datagram, rest) = arrived.bytes.split_at(len);
            match self.open(arrived.from.0, datagram) {
                Ok((port, mtu, frame)) => {
                    if !self.take_in(port, mtu, frame, batch) {
                        return false;
                    }
                }
                Err((port, reason)) => self.drop_frame(port, reason),
            }
            arrived.bytes = rest;
            self.inbound.stats.received += 1;
        }
        self.inbound.stats.receives += 1;
        true
    }

    /// Takes an IP packet into the batch that the peer at a port has sent and that was decrypted; `frame`
    /// has room for an Ethernet header before it. `false` as for
    /// [`unwrap_datagrams`](Self::unwrap_datagrams).
    pub fn unwrap_packet(
        &mut self,
        port: PortId,
        frame: &mut [u8],
        batch: &mut FrameBatch,
    ) -> bool {
        let ends = self.tables.peer_at(port).zip(self.tables.tunnel());
        let Some((peer, tunnel)) = ends else { return true };
        let Ok((header, packet)) = Ethernet::mut_from_prefix(frame) else { return true };
        let v4 = packet.first().is_some_and(|first| first >> 4 == 4);
        let ethertype = if v4 { ethernet::IPV4 } else { ethernet::IPV6 };
        *header = Ethernet { dst: tunnel.mac, src: peer.mac, ethertype: ethertype.into() };
        let mtu = peer.mtu;
        self.take_in(port, mtu, frame, batch)
    }

    /// `false`: the batch has no room, or has another peer's frames.
    fn take_in(&mut self, port: PortId, mtu: u16, frame: &[u8], batch: &mut FrameBatch) -> bool {
        if self.inbound.port.is_some_and(|of| of != port) {
            return false;
        }
        match self.inbound.merger.push(batch, frame, mtu) {
            Ok(Merged::Full) => return false,
            Ok(merged) => {
                self.inbound.port = Some(port);
                self.inbound.stats.merged += u64::from(merged == Merged::Joined);
            }
            Err(reason) => self.drop_frame(port, reason),
        }
        true
    }

    /// Whose a datagram is, and the frame in it.
    fn open<'a>(
        &self,
        from: Addr,
        datagram: &'a [u8],
    ) -> Result<(PortId, u16, &'a [u8]), (PortId, DropReason)> {
        let Some(tunnel) = self.tables.tunnel() else {
            return Err((PortId(0), DropReason::PortGone));
        };
        let nobody = |reason| (tunnel.port, reason);
        let inner = vxlan::open(datagram).map_err(nobody)?;
        let peer = self.tables.peer_by_mac(inner.src).filter(|peer| peer.endpoint.0 == from);
        let peer = peer.ok_or_else(|| nobody(DropReason::TunnelStranger))?;
        let Backend::Vxlan { vni } = peer.backend else {
            return Err((peer.port, DropReason::TunnelHeader));
        };
        if inner.vni != vni {
            return Err((peer.port, DropReason::TunnelVni));
        }
        Ok((peer.port, peer.mtu, inner.frame))
    }

    /// Completes the frames that [`unwrap_datagrams`](Self::unwrap_datagrams) has taken into the batch: they
    /// are now to be processed as having come from this port, if there are any.
    #[must_use]
    pub fn finish_inbound(&mut self, now: Time, batch: &mut FrameBatch) -> Option<PortId> {
        let port = self.inbound.port.take()?;
        self.inbound.merger.finish(batch);
        self.inbound.heard.insert(port, now);
        Some(port)
    }

    /// The way to a peer takes IP packets of at most `path` bytes, the tunnel's headers included: what is
    /// too large from now on is answered so, and what TCP offers is sized after it.
    pub fn tunnel_is_narrow(&mut self, port: PortId, path: u16) {
        let Some(peer) = self.tables.peer_at(port).cloned() else { return };
        let mtu = path.saturating_sub(overhead(peer.endpoint.0, peer.backend.kind())).max(MTU_MIN);
        if mtu >= peer.mtu {
            return;
        }
        let peer = std::sync::Arc::new(crate::config::Peer { mtu, ..(*peer).clone() });
        self.tables.apply(&crate::config::Delta::Peer(peer));
        self.hops.set_mtu(port, mtu);
    }

    /// Other nodes, and what passes to and from them.
    pub fn list_peers(&self, now: Time) -> Vec<PeerInfo> {
        let stats = self.list_ports();
        let of = |port| stats.iter().find(|s| s.port == Some(port)).cloned().unwrap_or_default();
        let info = |peer: &std::sync::Arc<crate::config::Peer>| PeerInfo {
            id: peer.id,
            mtu: peer.mtu,
            heard_ms: self.inbound.heard.get(&peer.port).map(|at| now.since(*at).as_millis()),
            stats: of(peer.port),
        };
        self.tables.peers().map(info).collect()
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
