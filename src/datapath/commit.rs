//! Writing a decision down: the flow that the fast path replays.
//!
//! A flow is inserted only when everything about it is settled: a dropped first packet allocates
//! nothing. A flow whose generation is old is judged again by the same decision; its mapping, chosen
//! target and TCP state survive if the answer is still the same, and it ends if it is not.

use super::decide::{self, Decision, NextHop, Notes, Route, Snat};
use super::hops::{HopKey, HopTable};
use super::pipeline::Slot;
use super::slow::Frame;
use super::Datapath;
use crate::base::ids::{DomainId, PortId, UplinkId};
use crate::base::time::Time;
use crate::config::{Port, PortKind};
use crate::packet::{DropReason, FlowKey, PacketBuf, Parsed, Rewrite, Scope};
use crate::stage::flow::flow::{Direction, Flow, HopId, NewFlow};
use crate::stage::flow::mapping::{Inside, MappingId, MappingTable};
use crate::stage::flow::table::FlowIndex;
use crate::stage::route::icmp_error::IcmpError;
use crate::stage::route::mtu;
use crate::stage::service::publish::Publication;
use crate::wire::addr::Addr;
use crate::wire::mac::Mac;
use crate::wire::tcp;

/// Gives back what a flow held.
pub(super) fn release(mappings: &mut MappingTable, hops: &mut HopTable, now: Time, flow: &Flow) {
    if let Some(mapping) = flow.mapping {
        mappings.release(mapping, now);
    }
    for hop in flow.hops {
        hops.release(hop);
    }
}

impl Datapath {
    pub(super) fn remove_flow(&mut self, index: FlowIndex) {
        let flow = self.flows.remove(index);
        release(&mut self.mappings, &mut self.hops, Time::ZERO, &flow);
    }

    /// The flow of a packet between two stations of one domain.
    pub(super) fn commit_bridged(
        &mut self,
        egress: PortId,
        slot: &Slot,
        frame: &mut Frame<'_>,
    ) -> Result<(), DropReason> {
        if let Some((index, direction)) = self.flows.lookup(&slot.key, slot.hash) {
            let flow = self.flows.get(index);
            let same = flow.ports[direction as usize] == frame.ingress
                && flow.ports[direction.other() as usize] == egress
                && self.hops.get(flow.hops[direction as usize]).is_some_and(|hop| {
                    hop.dst_mac == slot.parsed.dst_mac && !hop.is_routed()
                });
            if same {
                self.flows.get_mut(index).generation = self.tables.generation();
                return self.forward(index, direction, slot, frame);
            }
            self.remove_flow(index);
        }
        let parsed = &slot.parsed;
        let there = HopKey::Bridge(egress, parsed.dst_mac);
        let back = HopKey::Bridge(frame.ingress, parsed.src_mac);
        let hops = [
            self.hops.acquire(there, Mac::ZERO, u16::MAX),
            self.hops.acquire(back, Mac::ZERO, u16::MAX),
        ];
        let reply = slot.key.reversed(slot.key.domain, Scope::Bridged);
        self.insert([slot.key, reply], [frame.ingress, egress], hops, None, slot, frame)
    }

    /// The flow of a packet that is routed, translated if the decision says so.
    pub(super) fn commit_routed(
        &mut self,
        port: &Port,
        route: &Route,
        slot: &Slot,
        frame: &mut Frame<'_>,
    ) -> Result<(), DropReason> {
        if !self.may_pass(port, route.egress, &slot.parsed, frame)? {
            return Ok(());
        }
        let (reply, mapping) = self.reply_key(route, &slot.key, frame.now)?;
        let hops = [
            self.hop_there(route),
            self.hop_back(port, slot.key.src, slot.parsed.src_mac),
        ];
        self.insert([slot.key, reply], [port.id, route.egress], hops, mapping, slot, frame)
    }

    /// A packet to a mapping: from outside to what somebody inside opened, or from inside to another
    /// (hairpin; RFC 4787 REQ-9: the source it is seen with is its own outside address).
    pub(super) fn commit_mapped(
        &mut self,
        port: &Port,
        uplink: UplinkId,
        target: Inside,
        slot: &Slot,
        frame: &mut Frame<'_>,
    ) -> Result<(), DropReason> {
        let egress = self.tables.port_by_addr(target.domain, target.addr);
        let Some(station) = egress.and_then(|id| self.tables.port(id)).cloned() else {
            return Err(DropReason::PortGone);
        };
        let snat = match port.kind {
            PortKind::Endpoint | PortKind::Host => Snat::Masquerade(uplink, slot.key.dst),
            PortKind::PacketUplink | PortKind::SocketUplink => Snat::Keep,
        };
        let route = Route {
            egress: station.id,
            next_hop: NextHop::Station(station.mac),
            to: (target.addr, target.port),
            snat,
        };
        self.commit_routed(port, &route, slot, frame)
    }

    /// What the inside of a mapping at this destination is, if the sender may reach it.
    pub(super) fn by_mapping(
        &self,
        uplink: UplinkId,
        key: &FlowKey,
    ) -> Result<Option<Inside>, DropReason> {
        let port = if key.dst_port == 0 { key.src_port } else { key.dst_port };
        let Some(id) = self.mappings.by_outside(uplink.into(), key.proto, key.dst, port) else {
            return Ok(None);
        };
        let inside_sender = !key.domain.is_uplink();
        if !inside_sender && !self.mappings.has_spoken_to(id, key.src) {
            return Err(DropReason::Filtered);
        }
        Ok(self.mappings.get(id).map(|mapping| mapping.inside))
    }

    /// The key under which answers arrive, and the mapping they need.
    fn reply_key(
        &mut self,
        route: &Route,
        key: &FlowKey,
        now: Time,
    ) -> Result<(FlowKey, Option<MappingId>), DropReason> {
        let domain = self.tables.port(route.egress).map_or(key.domain, |p| p.domain);
        let mut reply = key.reversed(domain, Scope::Routed);
        let is_query_reply = key.src_port == 0 && key.dst_port != 0;
        (reply.src, reply.src_port) = route.to;
        let (outside_domain, outside) = match route.snat {
            Snat::Keep => return Ok((reply, None)),
            Snat::Masquerade(uplink, addr) => (DomainId::from(uplink), addr),
            Snat::Gateway(addr) => (domain, addr),
        };
        let inside = Inside {
            domain: key.domain,
            addr: key.src,
            port: if is_query_reply { key.dst_port } else { key.src_port },
            proto: key.proto,
        };
        let range = match route.snat {
            Snat::Masquerade(uplink, _) => {
                self.tables.uplink(uplink).map_or(1024..=65535, |u| u.nat_ports.clone())
            }
            _ => 1024..=65535,
        };
        let id = self.mappings.acquire(inside, outside_domain, outside, range, now)?;
        self.mappings.speak_to(id, route.to.0);
        let port = self.mappings.get(id).map_or(key.src_port, |mapping| mapping.outside_port);
        (reply.dst, reply.dst_port) = (outside, port);
        Ok((reply, Some(id)))
    }

    fn hop_there(&mut self, route: &Route) -> HopId {
        let (src_mac, mtu) = self.source_on(route.egress);
        let key = match route.next_hop {
            NextHop::Station(mac) => HopKey::Station(route.egress, mac),
            NextHop::Neighbour(addr) => HopKey::Neighbour(route.egress, addr),
        };
        let id = self.hops.acquire(key, src_mac, mtu);
        self.refresh_hop(id);
        id
    }

    /// The way back to the initiator: the station of a network, or a neighbour on an uplink.
    fn hop_back(&mut self, port: &Port, initiator: Addr, mac: Mac) -> HopId {
        let (src_mac, mtu) = self.source_on(port.id);
        let next = self.tables.uplink_of(port.domain).and_then(|u| u.next_hop(initiator));
        let key = match next {
            Some(addr) => HopKey::Neighbour(port.id, addr),
            None => HopKey::Station(port.id, mac),
        };
        let id = self.hops.acquire(key, src_mac, mtu);
        self.refresh_hop(id);
        id
    }

    /// Our MAC and the MTU on a port.
    fn source_on(&self, port: PortId) -> (Mac, u16) {
        self.tables.entry(port).map_or((Mac::ZERO, u16::MAX), |e| (e.router_mac, e.port.mtu))
    }

    fn refresh_hop(&mut self, id: HopId) {
        let Some(hop) = self.hops.get(id) else { return };
        if let HopKey::Neighbour(port, addr) = hop.key
            && !hop.ready
            && let Some(mac) = self.neighbours.reachable(port, addr)
        {
            self.hops.set_neighbour(port, addr, Some(mac));
        }
    }

    /// TTL and size, before anything is written. `false`: the sender has been told.
    fn may_pass(
        &mut self,
        port: &Port,
        egress: PortId,
        parsed: &Parsed,
        frame: &mut Frame<'_>,
    ) -> Result<bool, DropReason> {
        if parsed.ttl <= 1 {
            let error = IcmpError::TimeExceeded;
            self.reject(port, parsed, error, DropReason::TtlExceeded, frame)?;
            return Ok(false);
        }
        let (_, mtu) = self.source_on(egress);
        let offload = frame.batch.offload(frame.at);
        if mtu::fits(parsed, &offload, mtu) {
            return Ok(true);
        }
        if mtu::may_fragment(parsed, frame.batch.bytes(frame.at), &offload) {
            return Ok(true);
        }
        self.reject(port, parsed, IcmpError::TooBig(mtu), DropReason::TooBig, frame)?;
        Ok(false)
    }

    fn insert(
        &mut self,
        keys: [FlowKey; 2],
        ports: [PortId; 2],
        hops: [HopId; 2],
        mapping: Option<MappingId>,
        slot: &Slot,
        frame: &mut Frame<'_>,
    ) -> Result<(), DropReason> {
        let generation = self.tables.generation();
        let flow = Flow::new(NewFlow { keys, ports, hops, mapping, generation }, frame.now);
        let evict = |mappings: &mut MappingTable, hops: &mut HopTable| {
            let now = frame.now;
            move |flow: &Flow| release(mappings, hops, now, flow)
        };
        let inserted = self.flows.insert(flow, evict(&mut self.mappings, &mut self.hops));
        match inserted {
            Ok(index) => self.forward(index, Direction::Initiator, slot, frame),
            Err((flow, reason)) => {
                release(&mut self.mappings, &mut self.hops, frame.now, &flow);
                Err(reason)
            }
        }
    }

    /// A packet of a flow that exists, but that the fast path would not take.
    pub(super) fn known_flow(
        &mut self,
        port: &Port,
        index: FlowIndex,
        direction: Direction,
        slot: &Slot,
        frame: &mut Frame<'_>,
    ) -> Result<(), DropReason> {
        let flow = self.flows.get(index);
        if flow.generation != self.tables.generation() && !self.judge_again(index) {
            self.remove_flow(index);
            return self.routed_with_ports(port, slot, frame);
        }
        let flow = self.flows.get(index);
        if flow.ports[direction as usize] != frame.ingress {
            // The station moved, or another one claims its address: the guard has let it pass, so it
            // is entitled to it, and the flow begins anew from there.
            self.remove_flow(index);
            return self.routed_with_ports(port, slot, frame);
        }
        let egress = flow.ports[direction.other() as usize];
        if !self.may_pass(port, egress, &slot.parsed, frame)? {
            return Ok(());
        }
        self.forward(index, direction, slot, frame)
    }

    /// Whether a flow made under another configuration would be made the same way today.
    fn judge_again(&mut self, index: FlowIndex) -> bool {
        let flow = self.flows.get(index);
        let (key, reply) = (flow.keys[0], flow.keys[1]);
        let Some(from) = self.tables.port(flow.ports[0]).cloned() else { return false };
        let same = match decide::route(&self.tables, &from, &key, &mut Notes::off()) {
            Decision::Route(route) => {
                let keeps = route.snat == Snat::Keep;
                route.egress == flow.ports[1]
                    && route.to == (reply.src, reply.src_port)
                    && keeps == (reply.dst == key.src)
            }
            Decision::Gateway => {
                let network = self.tables.network_of(from.domain);
                network.and_then(|n| n.host_port) == Some(flow.ports[1])
            }
            Decision::OwnAddress(uplink) => self
                .by_mapping(uplink, &key)
                .is_ok_and(|inside| inside.is_some_and(|i| i.addr == reply.src)),
            _ => false,
        };
        if same {
            self.flows.get_mut(index).generation = self.tables.generation();
        }
        same
    }

    /// Tracks, rewrites and sends a packet of a flow.
    fn forward(
        &mut self,
        index: FlowIndex,
        direction: Direction,
        slot: &Slot,
        frame: &mut Frame<'_>,
    ) -> Result<(), DropReason> {
        let parsed = &slot.parsed;
        self.track(frame.now, index, direction, parsed, frame.batch.bytes(frame.at))?;
        let flow = self.flows.get(index);
        let (hop_id, nat) = (flow.hops[direction as usize], flow.rewrite(direction));
        let Some(hop) = self.hops.get(hop_id).copied() else { return Err(DropReason::PortGone) };
        let route = hop.is_routed().then_some((hop.dst_mac, hop.src_mac));
        Rewrite { nat, route }.apply(&mut frame.batch.frame(frame.at), parsed);
        if route.is_some() && parsed.tcp_flags & tcp::SYN != 0 {
            mtu::clamp_mss(&mut frame.batch.frame(frame.at), parsed, hop.mtu);
        }
        if !hop.is_routed() || hop.ready {
            return self.send_sized(&hop, parsed, frame);
        }
        let HopKey::Neighbour(port, addr) = hop.key else { return Err(DropReason::NeighbourFailed) };
        self.resolve(port, addr, frame)
    }

    /// Sends a frame whose MACs are right, in fragments if it must be and may be.
    fn send_sized(
        &mut self,
        hop: &super::hops::Hop,
        parsed: &Parsed,
        frame: &mut Frame<'_>,
    ) -> Result<(), DropReason> {
        let offload = frame.batch.offload(frame.at);
        if !hop.is_routed() || mtu::fits(parsed, &offload, hop.mtu) {
            self.emit(hop.port(), frame.at, frame.batch, frame.out);
            return Ok(());
        }
        for fragment in self.cut(parsed, hop.mtu, frame)? {
            self.emit_owned(hop.port(), fragment, frame.out);
        }
        Ok(())
    }

    fn cut(
        &mut self,
        parsed: &Parsed,
        mtu: u16,
        frame: &mut Frame<'_>,
    ) -> Result<Vec<PacketBuf>, DropReason> {
        let mut view = frame.batch.frame(frame.at);
        crate::packet::finish::finish_checksum(&mut view);
        let fragments = crate::stage::route::fragments::fragment_v4(&mut view, parsed, mtu);
        if fragments.is_empty() { Err(DropReason::TooBig) } else { Ok(fragments) }
    }

    /// Keeps masquerade away from published ports, or lets it have them again.
    pub(super) fn reserve(&mut self, publication: &Publication, reserved: bool) {
        for uplink in self.tables.uplinks() {
            for (addr, _) in &uplink.addrs {
                if publication.host_addr.is_none_or(|host| host == *addr) {
                    let ports = publication.host_ports.clone();
                    let (domain, proto) = (uplink.id.into(), publication.proto);
                    self.mappings.reserve(domain, *addr, proto, ports, reserved);
                }
            }
        }
    }

    /// Flows that a publication which came or went would now decide differently end at once: a UDP
    /// sender that never pauses would otherwise keep its stale flow for ever (moby issue 8795).
    pub(super) fn drop_stale_publication_flows(&mut self, _now: Time) {
        let generation = self.tables.generation();
        let stale: Vec<FlowIndex> = self
            .flows
            .iter()
            .filter(|(_, flow)| {
                let key = &flow.keys[0];
                flow.generation != generation
                    && (self.tables.is_host_addr(key.dst) || flow.keys[1].src != key.dst)
            })
            .map(|(index, _)| index)
            .collect();
        for index in stale {
            if !self.judge_again(index) {
                self.remove_flow(index);
            }
        }
    }
}
