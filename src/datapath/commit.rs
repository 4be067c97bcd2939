//! Writing a decision down: the flow that the fast path replays.
//!
//! A flow is inserted only when everything about it is settled: a dropped first packet allocates
//! nothing. A flow whose generation is old is judged again by the same decision; its mapping, chosen
//! target and TCP state survive if the answer is still the same, and it ends if it is not.

use super::Datapath;
use super::decide::{NextHop, Route, Snat};
use super::hops::{Hop, HopKey, HopTable};
use super::inspect::FlowEnd;
use super::pipeline::Slot;
use super::send::may_be_cut;
use super::slow::Frame;
use crate::base::ids::{DomainId, PortId, UplinkId};
use crate::base::time::Time;
use crate::config::{Port, PortKind};
use crate::packet::{DropReason, FlowKey, Fragment, Parsed, Scope};
use crate::stage::flow::{
    Binding, Class, Direction, Endpoint, Filtering, Flag, Flow, FlowIndex, HopId, MappingId,
    MappingTable, TcpSegment, TcpState, Wanted,
};
use crate::stage::route::icmp_error::IcmpError;
use crate::stage::route::mtu;
use crate::wire::addr::Addr;
use crate::wire::ipv6;
use crate::wire::mac::Mac;

/// Ports tried for a client that must be told apart from itself; the chance that all are taken is that
/// of a container port with tens of thousands of connections from one address.
const CLIENT_PORT_ATTEMPTS: u64 = 16;

/// Connections that are over and that are forgotten for one port: some may have had another address's.
const CLOSED_FLOWS_PER_PORT: usize = 8;

/// Gives back what a flow held.
pub(super) fn release(mappings: &mut MappingTable, hops: &mut HopTable, now: Time, flow: &Flow) {
    if let Some(mapping) = flow.mapping() {
        mappings.release(now, mapping);
    }
    for hop in flow.hops {
        hops.release(hop);
    }
}

impl Datapath {
    pub(super) fn remove_flow(&mut self, now: Time, index: FlowIndex, why: FlowEnd) {
        let flow = self.flows.remove(index);
        self.journal.ended(now, &flow, why);
        release(&mut self.mappings, &mut self.hops, now, &flow);
    }

    /// The flow of a packet between two stations of one domain.
    pub(super) fn commit_bridged(
        &mut self,
        egress: PortId,
        slot: &Slot,
        frame: &mut Frame<'_>,
    ) -> Result<(), DropReason> {
        if let Some((index, direction)) = self.flows.lookup(&slot.key, slot.hash) {
            if self.is_still_bridged(frame.now, (index, direction), egress, slot, frame.ingress) {
                let hop = self.flows.get(index).hops[direction.index()];
                self.hops.settled(hop);
                self.flows.get_mut(index).generation = self.tables.generation();
                return self.track_and_send(index, direction, slot, frame);
            }
            self.remove_flow(frame.now, index, FlowEnd::Changed);
        }
        self.judge_begin(egress, &slot.key, (slot.key.dst, slot.key.dst_port), frame)?;
        let (to, from) = (self.tables.entry(egress), self.tables.entry(frame.ingress));
        let (Some(to), Some(from)) = (to, from) else { return Err(DropReason::PortGone) };
        if to.guard.as_ref().is_some_and(|guard| !guard.may_answer(&slot.key)) {
            // Its answers would be hits, and the guard would not see them: they must be asked for
            // one by one.
            self.emit(egress, frame.at, frame.batch, frame.out);
            return Ok(());
        }
        // Whoever answers the host sends to the gateway's MAC, which means "to be routed".
        let from_host = from.port.kind == PortKind::Host;
        let scope = if from_host { Scope::Routed } else { Scope::Bridged };
        let reply = slot.key.reversed(slot.key.domain, scope);
        self.insert_bridged(egress, reply, slot, frame)
    }

    /// Whether a flow still goes from where this packet comes to where it shall go.
    fn is_still_bridged(
        &mut self,
        now: Time,
        (index, direction): (FlowIndex, Direction),
        egress: PortId,
        slot: &Slot,
        ingress: PortId,
    ) -> bool {
        let flow = self.flows.get(index);
        let hop = self.hops.get(flow.hops[direction.index()]);
        let same = flow.port(direction) == ingress
            && flow.port(direction.flip()) == egress
            && hop.is_some_and(|hop| hop.dst_mac == slot.parsed.dst_mac && !hop.is_routed());
        let stale = flow.generation != self.tables.generation();
        let by_router = flow.key(Direction::Initiator).scope == Scope::Routed;
        if !same || !stale {
            return same;
        }
        if by_router { self.judge_again(now, index) } else { self.is_still_permitted(now, index) }
    }

    /// To the host's own port, as it is: for the host, this is a neighbour on a wire.
    pub(super) fn to_host(
        &mut self,
        port: &Port,
        host: PortId,
        slot: &Slot,
        frame: &mut Frame<'_>,
    ) -> Result<(), DropReason> {
        if port.id == host || self.tables.port(host).is_none() {
            return Err(DropReason::PortGone);
        }
        let reply = slot.key.reversed(slot.key.domain, Scope::Bridged);
        self.insert_bridged(host, reply, slot, frame)
    }

    fn insert_bridged(
        &mut self,
        egress: PortId,
        reply: FlowKey,
        slot: &Slot,
        frame: &mut Frame<'_>,
    ) -> Result<(), DropReason> {
        let parsed = &slot.parsed;
        let there = HopKey::Bridge(egress, parsed.dst_mac);
        let back = HopKey::Bridge(frame.ingress, parsed.src_mac);
        let hops = [
            self.hops.acquire(there, Mac::ZERO, u16::MAX),
            self.hops.acquire(back, Mac::ZERO, u16::MAX),
        ];
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
        self.commit_route(port, route, None, slot, frame)
    }

    fn commit_route(
        &mut self,
        port: &Port,
        route: &Route,
        held: Option<MappingId>,
        slot: &Slot,
        frame: &mut Frame<'_>,
    ) -> Result<(), DropReason> {
        match self.settle(port, route, slot, frame) {
            Ok(Some((reply, hops, mapping))) => {
                let ports = [port.id, route.egress];
                self.insert([slot.key, reply], ports, hops, mapping.or(held), slot, frame)
            }
            Ok(None) => {
                self.release_mapping(frame.now, held);
                Ok(())
            }
            Err(reason) => {
                self.release_mapping(frame.now, held);
                Err(reason)
            }
        }
    }

    fn release_mapping(&mut self, now: Time, mapping: Option<MappingId>) {
        if let Some(id) = mapping {
            self.mappings.release(now, id);
        }
    }

    /// Everything about a routed flow but the flow itself; `None`: the sender has been told why not.
    fn settle(
        &mut self,
        port: &Port,
        route: &Route,
        slot: &Slot,
        frame: &mut Frame<'_>,
    ) -> Result<Option<Settled>, DropReason> {
        if !self.may_pass(port, route.egress, &slot.parsed, frame)? {
            return Ok(None);
        }
        let (mut reply, mapping) = self.reply_key(frame.now, port, route, &slot.key)?;
        if mapping.is_none() && reply.src != slot.key.dst {
            self.tell_apart(&mut reply, slot.hash)?;
        }
        self.flows.expect(&reply);
        let hops = [self.hop_there(route), self.hop_back(port, slot.key.src, slot.parsed.src_mac)];
        Ok(Some((reply, hops, mapping)))
    }

    /// A packet to a mapping: from outside to what somebody inside opened, or from inside to another
    /// (hairpin; RFC 4787 REQ-9: the source it is seen with is its own outside address).
    pub(super) fn commit_mapped(
        &mut self,
        port: &Port,
        uplink: UplinkId,
        target: (Endpoint, MappingId),
        slot: &Slot,
        frame: &mut Frame<'_>,
    ) -> Result<(), DropReason> {
        let (target, id) = target;
        let egress = self.tables.port_by_addr(target.domain, target.addr);
        let Some(station) = egress.and_then(|id| self.tables.port(id)).cloned() else {
            return Err(DropReason::PortGone);
        };
        self.judge_begin(station.id, &slot.key, (target.addr, target.port), frame)?;
        let snat = match port.kind {
            PortKind::Endpoint | PortKind::Host => Snat::Masquerade(uplink, slot.key.dst),
            PortKind::PacketUplink | PortKind::SocketUplink | PortKind::Tunnel => Snat::Keep,
        };
        let route = Route {
            egress: station.id,
            next_hop: NextHop::Station(station.mac),
            to: (target.addr, target.port),
            snat,
        };
        // The flow lives on the mapping of the inside socket, as if that had begun it; but where what
        // comes in keeps nothing alive, only once the inside has answered.
        let refresh = self.tables.uplink(uplink).is_none_or(|uplink| uplink.nat.inbound_refresh);
        let keeps = route.snat == Snat::Keep && (refresh || slot.key.proto != ipv6::UDP);
        if keeps {
            self.mappings.retain(id);
        }
        self.commit_route(port, &route, keeps.then_some(id), slot, frame)
    }

    /// What the inside of a mapping at this destination is, if the sender may reach it.
    pub(super) fn by_mapping(
        &self,
        uplink: UplinkId,
        key: &FlowKey,
    ) -> Result<Option<(Endpoint, MappingId)>, DropReason> {
        let port = if key.dst_port == 0 { key.src_port } else { key.dst_port };
        let outside = Endpoint { addr: key.dst, domain: uplink.into(), port, proto: key.proto };
        let Some((id, mapping)) = self.mappings.by_outside(&outside) else { return Ok(None) };
        let inside_sender = !key.domain.is_uplink();
        if !inside_sender && !self.may_send_to(uplink, id, key) {
            return Err(DropReason::Filtered);
        }
        Ok(Some((mapping.inside, id)))
    }

    /// RFC 4787 REQ-8.
    fn may_send_to(&self, uplink: UplinkId, id: MappingId, key: &FlowKey) -> bool {
        match self.tables.uplink(uplink).map(|uplink| uplink.nat.filtering) {
            Some(Filtering::EndpointIndependent) => true,
            Some(Filtering::AddressAndPortDependent) => {
                self.mappings.has_contact(id, key.src, Some(remote_port(key.proto, key.src_port)))
            }
            Some(Filtering::AddressDependent) | None => {
                self.mappings.has_contact(id, key.src, None)
            }
        }
    }

    /// The key under which answers arrive, and the mapping they need.
    fn reply_key(
        &mut self,
        now: Time,
        port: &Port,
        route: &Route,
        key: &FlowKey,
    ) -> Result<(FlowKey, Option<MappingId>), DropReason> {
        let domain = self.tables.port(route.egress).map_or(key.domain, |p| p.domain);
        let mut reply = key.reversed(domain, Scope::Routed);
        let is_query_reply = key.src_port == 0 && key.dst_port != 0;
        (reply.src, reply.src_port) = route.to;
        let (outside_domain, outside) = match route.snat {
            Snat::Keep => return Ok((reply, None)),
            Snat::Published(addr, port) => {
                (reply.dst, reply.dst_port) = (addr, port);
                return Ok((reply, None));
            }
            Snat::Masquerade(uplink, addr) => (DomainId::from(uplink), addr),
            Snat::Gateway(addr) => (domain, addr),
        };
        let inside = Endpoint {
            addr: key.src,
            domain: key.domain,
            port: if is_query_reply { key.dst_port } else { key.src_port },
            proto: key.proto,
        };
        let wanted = Wanted { inside, payer: port.id, domain: outside_domain, addr: outside };
        let nat = self.tables.uplink_of(outside_domain).map(|u| u.nat).unwrap_or_default();
        if nat.mapping == Binding::AddressAndPortDependent {
            reply.dst = outside;
            let (flows, seed) = (&self.flows, self.seed);
            let towards = |port| FlowKey { dst_port: port, ..reply };
            reply.dst_port = self.mappings.overlapping(&wanted, |port| {
                let key = towards(port);
                flows.lookup(&key, key.hash(seed)).is_some()
            })?;
            return Ok((reply, None));
        }
        let id = self.acquire(now, &wanted)?;
        let (to, port) = (route.to.0, remote_port(key.proto, route.to.1));
        let by_port = nat.filtering == Filtering::AddressAndPortDependent;
        self.mappings.add_contact(id, to, by_port.then_some(port));
        (reply.dst, reply.dst_port) = (outside, self.mappings.get(id).outside.port);
        Ok((reply, Some(id)))
    }

    /// A mapping; if no port is left, those of connections that are over are not kept for their four
    /// minutes (RFC 5382 REQ-5 is for a NAT that can afford it): a few thousand ports would otherwise be
    /// used up within a second of short connections. Who has more than its share of them gives up its own.
    fn acquire(&mut self, now: Time, wanted: &Wanted) -> Result<MappingId, DropReason> {
        for _ in 0..CLOSED_FLOWS_PER_PORT {
            let own_only = match self.mappings.acquire(wanted) {
                Err(DropReason::PortsExhausted) => false,
                Err(DropReason::PortShare) => true,
                other => return other,
            };
            let Some(closed) = self.flows.oldest(Class::TcpTransitory) else { break };
            let payer = self.flows.get(closed).port(Direction::Initiator);
            if own_only && payer != wanted.payer {
                break;
            }
            let victim = self.flows.remove(closed);
            self.evicted(now, &victim);
        }
        self.mappings.acquire(wanted)
    }

    /// Two publications of one container port may meet the same client address and port: the
    /// container could not tell the two connections apart, so the later one gets another port.
    fn tell_apart(&self, reply: &mut FlowKey, salt: u64) -> Result<(), DropReason> {
        for attempt in 0..CLIENT_PORT_ATTEMPTS {
            if self.flows.lookup(reply, reply.hash(self.seed)).is_none() {
                return Ok(());
            }
            reply.dst_port = 1024 | self.seed.hash([salt, attempt]) as u16;
        }
        Err(DropReason::PortsExhausted)
    }

    pub(super) fn hop_there(&mut self, route: &Route) -> HopId {
        let (src_mac, mtu) = self.source_on(route.egress);
        let key = match route.next_hop {
            NextHop::Station(mac) => HopKey::Station(route.egress, mac),
            NextHop::Neighbour(addr) => HopKey::Neighbour(route.egress, addr),
            NextHop::Sockets => HopKey::Sockets(route.egress),
        };
        self.hops.acquire(key, src_mac, mtu)
    }

    /// The way back to the initiator: the station of a network, or a neighbour on an uplink.
    pub(super) fn hop_back(&mut self, port: &Port, initiator: Addr, mac: Mac) -> HopId {
        let (src_mac, mtu) = self.source_on(port.id);
        let next = self.tables.uplink_of(port.domain).and_then(|u| u.next_hop(initiator));
        let key = match next {
            Some(addr) => HopKey::Neighbour(port.id, addr),
            None => HopKey::Station(port.id, mac),
        };
        self.hops.acquire(key, src_mac, mtu)
    }

    /// Our MAC and the MTU on a port.
    fn source_on(&self, port: PortId) -> (Mac, u16) {
        self.tables.entry(port).map_or((Mac::ZERO, u16::MAX), |e| (e.router_mac, e.port.mtu))
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
        let (bytes, offload) = (frame.batch.bytes(frame.at), frame.batch.offload(frame.at));
        if mtu::fits(parsed, bytes, offload, mtu) || may_be_cut(parsed, bytes, offload) {
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
        let mut flow = Flow::new(frame.now, keys, ports);
        let to_sockets = self.hops.get(hops[0]).is_some_and(Hop::is_sockets);
        // Mappings do not survive a restart: a stranger's segment at one belongs to nothing that is older.
        let at_mapping = mapping.is_some() && keys[0].domain.is_uplink();
        let pick_up = self.pick_up && !at_mapping;
        match first_state(to_sockets, pick_up, &slot.parsed, frame.batch.bytes(frame.at)) {
            Ok(state) => flow.tcp = state,
            Err(reason) => {
                flow.hops = hops;
                flow.set_mapping(mapping);
                release(&mut self.mappings, &mut self.hops, frame.now, &flow);
                return Err(reason);
            }
        }
        flow.count(Direction::Initiator, slot.parsed.ip_len);
        flow.hops = hops;
        flow.generation = self.tables.generation();
        flow.set_mapping(mapping);
        self.mute_inbound(&mut flow);
        // Who has used his share must not cost another his flow.
        let has_share = self.flows.has_share(ports[0]);
        if let Some(victim) = has_share.then(|| self.flows.make_room(frame.now)).flatten() {
            self.evicted(frame.now, &victim);
        }
        let index = match self.flows.insert(flow) {
            Ok(index) => index,
            Err(reason) => {
                release(&mut self.mappings, &mut self.hops, frame.now, &flow);
                return Err(reason);
            }
        };
        self.journal.begun(frame.now, self.flows.get(index));
        self.send_on(index, Direction::Initiator, slot, frame)
    }

    /// A flow that had to make room for another.
    fn evicted(&mut self, now: Time, victim: &Flow) {
        let why = if victim.class().is_unanswered() {
            self.totals.evicted_unanswered += 1;
            FlowEnd::EvictedUnanswered
        } else {
            self.totals.evicted_idle += 1;
            FlowEnd::EvictedIdle
        };
        self.journal.ended(now, victim, why);
        release(&mut self.mappings, &mut self.hops, now, victim);
    }

    /// The inside has answered on a flow that a stranger began and that kept no mapping alive: from now
    /// on it does.
    pub(super) fn adopt_mapping(&mut self, index: FlowIndex) {
        let flow = self.flows.get(index);
        let key = flow.key(Direction::Initiator);
        let outside =
            Endpoint { addr: key.dst, domain: key.domain, port: key.dst_port, proto: key.proto };
        let Some((id, _)) = self.mappings.by_outside(&outside) else { return };
        self.mappings.retain(id);
        self.flows.get_mut(index).set_mapping(Some(id));
    }

    /// RFC 4787 REQ-6 a, for uplinks that ask for it: what comes from outside keeps nothing alive.
    fn mute_inbound(&self, flow: &mut Flow) {
        if flow.keys()[0].proto != ipv6::UDP {
            return;
        }
        for (dir, flag) in [
            (Direction::Initiator, Flag::InitiatorMute),
            (Direction::Responder, Flag::ResponderMute),
        ] {
            let uplink = self.tables.uplink_of(flow.key(dir).domain);
            flow.set(flag, uplink.is_some_and(|uplink| !uplink.nat.inbound_refresh));
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
        if flow.generation != self.tables.generation() && !self.judge_again(frame.now, index) {
            self.remove_flow(frame.now, index, FlowEnd::Changed);
            return self.routed_with_ports(port, slot, frame);
        }
        let flow = self.flows.get(index);
        if flow.port(direction) != frame.ingress {
            // The station moved, or another one claims its address: the guard has let it pass, so it
            // is entitled to it, and the flow begins anew from there.
            self.remove_flow(frame.now, index, FlowEnd::Changed);
            return self.routed_with_ports(port, slot, frame);
        }
        let (egress, hop) = (flow.port(direction.flip()), flow.hops[direction.index()]);
        let routed = self.hops.get(hop).is_some_and(Hop::is_routed);
        if routed && !self.may_pass(port, egress, &slot.parsed, frame)? {
            return Ok(());
        }
        self.track_and_send(index, direction, slot, frame)
    }
}

/// The remote port that filtering looks at: an identifier of ICMP is the inside's own.
fn remote_port(proto: u8, port: u16) -> u16 {
    if matches!(proto, ipv6::ICMP | ipv6::ICMPV6) { 0 } else { port }
}

/// Reply key, hops and mapping of a routed flow.
type Settled = (FlowKey, [HopId; 2], Option<MappingId>);

/// TCP's state after a flow's first packet. Connections older than the flow table are picked up: a
/// daemon that was started again has an empty one.
///
/// Of a flow that ends in sockets only one direction passes here; its state is kept there.
fn first_state(
    to_sockets: bool,
    pick_up: bool,
    parsed: &Parsed,
    frame: &[u8],
) -> Result<TcpState, DropReason> {
    if to_sockets || parsed.proto != ipv6::TCP || parsed.fragment == Fragment::Later {
        return Ok(TcpState::default());
    }
    let segment = TcpSegment::read(parsed, frame).ok_or(DropReason::Malformed)?;
    TcpState::begin(&segment, pick_up)
}
