//! The slow path: a frame without a fresh flow meets every stage in turn.

use super::decide::{self, Decision, Notes};
use super::{Datapath, Event, Output, pipeline::Slot};
use crate::base::ids::PortId;
use crate::base::time::{Span, Time};
use crate::config::{Port, PortKind};
use crate::packet::parse::is_icmp_non_query;
use crate::packet::{DropReason, Fragment, FrameBatch, Parsed, Scope};
use crate::stage::bridge::fdb::{Fdb, Learned};
use crate::stage::bridge::flood;
use crate::stage::respond::echo;
use crate::stage::route::icmp_error::IcmpError;
use crate::wire::mac::Mac;
use crate::wire::{ipv6, tcp};

/// How often it is told that something has run out.
const SHORTAGE_PAUSE: Span = Span::from_secs(10);

/// Where a frame is, while it is being decided.
pub(super) struct Frame<'a> {
    pub(super) now: Time,
    pub(super) ingress: PortId,
    pub(super) at: usize,
    pub(super) batch: &'a mut FrameBatch,
    pub(super) out: &'a mut Output,
}

impl Datapath {
    /// Decides about a frame that the fast path left.
    pub(super) fn slow(
        &mut self,
        now: Time,
        ingress: PortId,
        slot: &Slot,
        at: usize,
        batch: &mut FrameBatch,
        out: &mut Output,
    ) {
        let mut frame = Frame { now, ingress, at, batch, out };
        if let Err(reason) = self.slow_steps(slot, &mut frame) {
            self.drop_frame(ingress, reason);
        }
    }

    /// Takes a frame through the stages; once more, if its flow has just ended.
    pub(super) fn slow_steps(
        &mut self,
        slot: &Slot,
        frame: &mut Frame<'_>,
    ) -> Result<(), DropReason> {
        let parsed = &slot.parsed;
        let Some(entry) = self.tables.entry(frame.ingress) else {
            return Err(DropReason::PortGone);
        };
        let port = std::sync::Arc::clone(&entry.port);
        if !parsed.src_mac.is_unicast() {
            return Err(DropReason::SourceMac);
        }
        if let Some(guard) = &entry.guard {
            guard.check(parsed, frame.batch.bytes(frame.at))?;
        }
        match port.kind {
            PortKind::Endpoint | PortKind::Host => self.from_inside(&port, slot, frame),
            PortKind::PacketUplink | PortKind::SocketUplink => self.from_uplink(&port, slot, frame),
            PortKind::Tunnel => self.from_tunnel(&port, slot, frame),
        }
    }

    fn from_inside(
        &mut self,
        port: &Port,
        slot: &Slot,
        frame: &mut Frame<'_>,
    ) -> Result<(), DropReason> {
        let parsed = &slot.parsed;
        self.learn(port, parsed.src_mac, frame.now)?;
        if self.discovery_inside(port, parsed, frame)? {
            return Ok(());
        }
        if slot.key.scope == Scope::Routed {
            return self.routed(port, slot, frame);
        }
        if parsed.dst_mac.is_group() {
            return self.flood(port, slot, frame);
        }
        match self.locate(port, parsed.dst_mac, frame.now) {
            Some(egress) => self.bridged(port, egress, slot, frame),
            None => self.flood(port, slot, frame),
        }
    }

    fn from_uplink(
        &mut self,
        port: &Port,
        slot: &Slot,
        frame: &mut Frame<'_>,
    ) -> Result<(), DropReason> {
        let parsed = &slot.parsed;
        if self.tables.uplink_of(port.domain).is_some_and(|u| u.shared) {
            return self.from_shared_uplink(port, slot, frame);
        }
        if slot.key.scope != Scope::Routed && !parsed.dst_mac.is_group() {
            return Err(DropReason::NotForUs);
        }
        if self.discovery_uplink(port, parsed, frame)? {
            return Ok(());
        }
        if parsed.dst_mac.is_group() {
            return Err(DropReason::NotForUs);
        }
        self.routed(port, slot, frame)
    }

    /// The host's own frames come along: what is not ours is not dropped, it is ignored, and so not counted.
    fn from_shared_uplink(
        &mut self,
        port: &Port,
        slot: &Slot,
        frame: &mut Frame<'_>,
    ) -> Result<(), DropReason> {
        let parsed = &slot.parsed;
        if slot.key.scope != Scope::Routed || self.neighbours_of_host(port, parsed, frame) {
            return Ok(());
        }
        if !parsed.is_ip() || !port.addrs.contains(&parsed.dst) {
            return Ok(());
        }
        // An error about a flow that is none of ours, or a fragment whose first one was not seen: nobody
        // can tell that it was not the host's.
        let is_unknown = is_icmp_non_query(parsed, frame.batch.bytes(frame.at))
            || parsed.fragment == Fragment::Later;
        match self.routed(port, slot, frame) {
            Err(_) if is_unknown => Ok(()),
            other => other,
        }
    }

    /// Learns where a station is, unless the configuration says it.
    fn learn(&mut self, port: &Port, mac: Mac, now: Time) -> Result<(), DropReason> {
        if port.guard || port.kind == PortKind::Host || mac == port.mac {
            return Ok(());
        }
        let seed = self.seed;
        let fdb = self.fdbs.entry(port.domain).or_insert_with(|| Fdb::with_seed(seed));
        match fdb.learn(now, mac, port.id) {
            // Flows are keyed by addresses: those that go to the old place must look again.
            Learned::Moved(from) => self.hops.moved(from, mac),
            Learned::Flapping => return Err(DropReason::MacFlapping),
            _ => {}
        }
        Ok(())
    }

    /// The port of a station: by configuration, else as learned.
    pub(super) fn locate(&self, port: &Port, mac: Mac, now: Time) -> Option<PortId> {
        let known = self.tables.port_by_mac(port.domain, mac);
        known.or_else(|| self.fdbs.get(&port.domain)?.lookup(now, mac))
    }

    fn bridged(
        &mut self,
        port: &Port,
        egress: PortId,
        slot: &Slot,
        frame: &mut Frame<'_>,
    ) -> Result<(), DropReason> {
        let parsed = &slot.parsed;
        let decision = decide::bridge(&self.tables, port, egress, &mut Notes::off());
        if let Decision::Drop(reason) = decision {
            return Err(reason);
        }
        let has_flow = parsed.is_ip()
            && parsed.fragment == Fragment::Whole
            && !is_icmp_non_query(parsed, frame.batch.bytes(frame.at));
        if has_flow {
            return self.commit_bridged(egress, slot, frame);
        }
        self.judge_loose(egress, slot, frame)?;
        self.emit(egress, frame.at, frame.batch, frame.out);
        Ok(())
    }

    fn flood(&mut self, port: &Port, slot: &Slot, frame: &mut Frame<'_>) -> Result<(), DropReason> {
        let dst = slot.parsed.dst_mac;
        if flood::is_reserved(dst) {
            return Err(DropReason::ReservedMulticast);
        }
        if !self.port_counters(port.id).flood.allow(frame.now, 1) {
            return Err(DropReason::FloodLimit);
        }
        let (mut sent, mut next) = (false, 0);
        while let Some(&id) = self.tables.members(port.domain).get(next) {
            next += 1;
            let Some(other) = self.tables.port(id) else { continue };
            if id == port.id || (port.isolated && other.isolated) {
                continue;
            }
            if !self.may_hear(port, id, slot, frame) {
                continue;
            }
            sent = true;
            self.emit(id, frame.at, frame.batch, frame.out);
        }
        if sent { Ok(()) } else { Err(DropReason::NoListener) }
    }

    pub(super) fn routed(
        &mut self,
        port: &Port,
        slot: &Slot,
        frame: &mut Frame<'_>,
    ) -> Result<(), DropReason> {
        if !slot.parsed.is_ip() {
            return Err(DropReason::NotForUs);
        }
        if is_icmp_non_query(&slot.parsed, frame.batch.bytes(frame.at)) {
            return self.icmp_error(port, slot, frame);
        }
        let Some(known) = self.with_ports(slot, frame)? else { return Ok(()) };
        if known.parsed.fragment != Fragment::First {
            return self.routed_with_ports(port, &known, frame);
        }
        // Those that came too early need the key of this one as it arrived: the frame is rewritten next.
        let original = frame.batch.frame(frame.at).to_owned();
        self.routed_with_ports(port, &known, frame)?;
        self.replay_held(&known, original, frame);
        Ok(())
    }

    /// A routed packet whose ports are known, later fragments included.
    pub(super) fn routed_with_ports(
        &mut self,
        port: &Port,
        slot: &Slot,
        frame: &mut Frame<'_>,
    ) -> Result<(), DropReason> {
        if let Some((index, direction)) = self.flows.lookup(&slot.key, slot.hash) {
            return self.known_flow(port, index, direction, slot, frame);
        }
        if let Some(done) = self.probe_answer(slot, frame) {
            return done;
        }
        if let Some(route) = self.answer_to_client(&slot.key) {
            return self.commit_routed(port, &route, slot, frame);
        }
        let decision = decide::route(&self.tables, port, &slot.key, &mut Notes::off());
        let made = self.new_routed(port, decision, slot, frame);
        made.or_else(|reason| self.tell_of_shortage(port, reason, slot, frame))
    }

    /// Who cannot have a flow because there are too many is told (RFC 5508 REQ-8), and so is whoever
    /// looks after the switch.
    fn tell_of_shortage(
        &mut self,
        port: &Port,
        reason: DropReason,
        slot: &Slot,
        frame: &mut Frame<'_>,
    ) -> Result<(), DropReason> {
        use DropReason::{FlowShare, FlowTableFull, PortShare, PortsExhausted};
        if !matches!(reason, PortsExhausted | PortShare | FlowShare | FlowTableFull) {
            return Err(reason);
        }
        let told = self.shortage_told.is_some_and(|at| frame.now < at + SHORTAGE_PAUSE);
        if !told {
            self.shortage_told = Some(frame.now);
            frame.out.events.push(Event::Shortage(port.id, reason));
        }
        self.reject(port, &slot.parsed, IcmpError::Prohibited, reason, frame)
    }

    /// Whether this is a SYN from outside that nobody asked for; then it is held (RFC 5382 REQ-4).
    fn hold_syn(&mut self, port: &Port, slot: &Slot, frame: &mut Frame<'_>) -> bool {
        let parsed = &slot.parsed;
        let is_syn = parsed.proto == ipv6::TCP
            && parsed.fragment == Fragment::Whole
            && parsed.tcp_flags & (tcp::SYN | tcp::ACK | tcp::RST) == tcp::SYN;
        if port.kind != PortKind::PacketUplink || !is_syn {
            return false;
        }
        let bytes = frame.batch.bytes(frame.at);
        self.held_syns.hold(frame.now, port.id, slot.key, slot.hash, bytes);
        true
    }

    /// Answers SYNs whose connection has not come to be.
    pub(super) fn refuse_syns(&mut self, now: Time, out: &mut Output) {
        while let Some(mut syn) = self.held_syns.due(now) {
            let known = self.flows.lookup(&syn.key, syn.key.hash(self.seed)).is_some();
            let (Ok(parsed), Some(port)) =
                (Parsed::new(syn.frame.bytes()), self.tables.port(syn.port).cloned())
            else {
                continue;
            };
            let error = IcmpError::PortUnreachable;
            if !known && self.write_error(now, &port, &parsed, error, &mut syn.frame.frame()) {
                self.emit_owned(port.id, syn.frame, out);
            }
        }
    }

    /// Carries out the decision about the first packet of a routed flow.
    fn new_routed(
        &mut self,
        port: &Port,
        decision: Decision,
        slot: &Slot,
        frame: &mut Frame<'_>,
    ) -> Result<(), DropReason> {
        match decision {
            Decision::Route(route) => {
                self.judge_begin(route.egress, &slot.key, route.to, frame)?;
                self.commit_routed(port, &route, slot, frame)?;
                self.remember_client(frame.now, &slot.key, &route);
                Ok(())
            }
            Decision::Gateway => self.to_gateway(port, slot, frame),
            Decision::Host(host) => self.to_host(port, host, slot, frame),
            Decision::OwnAddress(uplink) => match self.by_mapping(uplink, &slot.key) {
                Ok(Some(target)) => self.commit_mapped(port, uplink, target, slot, frame),
                Ok(None) | Err(_) if self.is_foreign_query(port, slot) => Ok(()),
                Ok(None) if self.hold_syn(port, slot, frame) => Err(DropReason::NotPublished),
                Ok(None) => self.to_own_address(port, slot, frame),
                Err(reason) => {
                    self.hold_syn(port, slot, frame);
                    Err(reason)
                }
            },
            Decision::Ignore => Ok(()),
            Decision::Refuse(reason) => self.refuse(port, &slot.parsed, reason, frame),
            Decision::Reject(reason, error) => {
                self.reject(port, &slot.parsed, error, reason, frame)
            }
            Decision::Drop(reason) => Err(reason),
            Decision::Bridge(_) => Err(DropReason::NoRoute),
        }
    }

    /// Addressed to the gateway: what the switch answers itself, then the host, then an honest error.
    fn to_gateway(
        &mut self,
        port: &Port,
        slot: &Slot,
        frame: &mut Frame<'_>,
    ) -> Result<(), DropReason> {
        if self.answer_echo(port, slot, frame) {
            return Ok(());
        }
        let network = self.tables.network_of(port.domain);
        let query = network.is_some_and(|network| Self::is_query(network, &slot.key));
        let host = network.and_then(|n| n.host_port).filter(|host| *host != port.id);
        if query {
            return self.name_server(port, slot, frame);
        }
        if let Some(host) = host {
            return self.to_host(port, host, slot, frame);
        }
        if self.redirect(&slot.key).is_some() {
            return self.commit_routed(port, &self.into_sockets(&slot.key), slot, frame);
        }
        self.reject(port, &slot.parsed, IcmpError::PortUnreachable, DropReason::NoService, frame)
    }

    /// Addressed to us on an uplink, and nobody inside is meant.
    fn to_own_address(
        &mut self,
        port: &Port,
        slot: &Slot,
        frame: &mut Frame<'_>,
    ) -> Result<(), DropReason> {
        if self.answer_echo(port, slot, frame) {
            return Ok(());
        }
        self.reject(port, &slot.parsed, IcmpError::PortUnreachable, DropReason::NotPublished, frame)
    }

    /// An echo reply on a shared address that no mapping of ours waits for answers the host.
    fn is_foreign_query(&self, port: &Port, slot: &Slot) -> bool {
        matches!(slot.key.proto, ipv6::ICMP | ipv6::ICMPV6)
            && self.tables.uplink_of(port.domain).is_some_and(|u| u.shared)
    }

    /// Answers a ping where it came from; `false`: it is none.
    fn answer_echo(&mut self, port: &Port, slot: &Slot, frame: &mut Frame<'_>) -> bool {
        let answered = echo::answer(&mut frame.batch.frame(frame.at), &slot.parsed);
        if answered {
            self.emit(port.id, frame.at, frame.batch, frame.out);
        }
        answered
    }
}
