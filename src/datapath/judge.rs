//! Flows under a changed configuration.
//!
//! A change bumps the generation, and each flow is judged again when its next packet comes: what it
//! would be decided today must be what it was decided then, or it ends. A UDP sender that never pauses
//! is thus cut off by its very next packet when a publication goes, and found by it when one comes
//! (moby issue 8795). Idle flows are swept in slices, so that listings tell the truth soon and no pause
//! grows with the number of flows.

use std::ops::RangeInclusive;

use super::Datapath;
use super::balance;
use super::decide::{self, Decision, Notes, Route, Snat};
use super::hops::Hop;
use super::inspect::FlowEnd;
use crate::base::time::Time;
use crate::config::{Port, PortKind, Uplink};
use crate::packet::Scope;
use crate::stage::flow::{Binding, Direction, Endpoint, Flow, FlowIndex, MappingTable, PortPolicy};
use crate::stage::service::{Publication, Service};
use crate::wire::addr::Addr;

/// Flows looked at in one slice: some 50 µs.
const SLICE: usize = 512;

impl Datapath {
    /// Whether a flow made under another configuration would be made the same way today; then its way
    /// is compiled anew, since a router or a MAC may be another one.
    pub(super) fn judge_again(&mut self, now: Time, index: FlowIndex) -> bool {
        let flow = *self.flows.get(index);
        let [key, reply] = flow.keys();
        let responder = flow.port(Direction::Responder);
        let Some(from) = self.tables.port(flow.port(Direction::Initiator)).cloned() else {
            return false;
        };
        if self.sockets.answers_client(key) {
            let permitted = if self.sockets.is_client(key) {
                self.is_client_still_permitted(now, &flow)
            } else {
                self.is_still_permitted(now, index)
            };
            if !permitted {
                self.cut_off.push(*key);
                return false;
            }
            self.flows.get_mut(index).generation = self.tables.generation();
            return true;
        }
        let decision = balance::again(&self.tables, &from, &flow);
        let decision =
            decision.unwrap_or_else(|| decide::route(&self.tables, &from, key, &mut Notes::off()));
        let same = match decision {
            Decision::Route(route) => {
                let same = route.egress == responder
                    && route.to == (reply.src, reply.src_port)
                    && self.is_same_source(route.snat, &flow);
                if same {
                    self.recompile(index, &from, &route);
                }
                same
            }
            Decision::Gateway => {
                let host = self.tables.network_of(from.domain).and_then(|n| n.host_port);
                match host {
                    Some(host) => host == responder,
                    None => self.redirect(key).is_some() && responder == self.socket_port(),
                }
            }
            Decision::Host(host) => host == responder,
            Decision::OwnAddress(uplink) => self
                .by_mapping(uplink, key)
                .is_ok_and(|found| found.is_some_and(|(inside, _)| inside.addr == reply.src)),
            _ => false,
        };
        let permitted = !same || self.is_still_permitted(now, index);
        if !permitted && responder == self.socket_port() {
            self.cut_off.push(*key);
        }
        let same = same && permitted;
        if same {
            self.flows.get_mut(index).generation = self.tables.generation();
        }
        same
    }

    /// Whether the packets of a flow leave with a source that they might have today.
    fn is_same_source(&self, snat: Snat, flow: &Flow) -> bool {
        let [key, reply] = flow.keys();
        match snat {
            Snat::Keep => reply.dst == key.src,
            // An address that is ours no more belongs to somebody else; one of several is as good. A
            // flow that left by its publication ends with that.
            Snat::Masquerade(uplink, _) => {
                let uplink = self.tables.uplink(uplink);
                uplink.is_some_and(|u| {
                    let bound = flow.mapping().is_some() || u.nat.mapping != Binding::default();
                    bound && u.is_ours(reply.dst)
                })
            }
            // One that was masqueraded before it was published goes on as it began.
            Snat::Published(addr, port) => {
                flow.mapping().is_some() || (reply.dst, reply.dst_port) == (addr, port)
            }
            Snat::Gateway(addr) => reply.dst == addr,
        }
    }

    fn recompile(&mut self, index: FlowIndex, from: &Port, route: &Route) {
        let flow = *self.flows.get(index);
        let routed = |id| self.hops.get(id).is_some_and(Hop::is_routed);
        if !routed(flow.hops[0]) || !routed(flow.hops[1]) {
            return;
        }
        // Without a guard a station may have another MAC than the configuration says.
        let known = from.kind != PortKind::Endpoint || from.guard;
        let there = self.hop_there(route);
        let back = if known {
            self.hop_back(from, flow.key(Direction::Initiator).src, from.mac)
        } else {
            self.hops.again(flow.hops[1])
        };
        for old in flow.hops {
            self.hops.release(old);
        }
        self.flows.get_mut(index).hops = [there, back];
    }

    /// Judges the next slice of flows that a change made stale.
    pub(super) fn sweep(&mut self, now: Time) {
        let Some(from) = self.sweep.take() else { return };
        let generation = self.tables.generation();
        let slice: Vec<(FlowIndex, bool, bool)> = self
            .flows
            .iter_from(from)
            .take(SLICE)
            .map(|(index, flow)| {
                let routed = flow.key(Direction::Initiator).scope == Scope::Routed;
                (index, routed, flow.generation != generation)
            })
            .collect();
        for (index, routed, _) in slice.iter().filter(|(.., stale)| *stale) {
            // What is bridged rests on MACs too, and is looked at again when its next packet comes.
            let stays = if *routed {
                self.judge_again(now, *index)
            } else {
                self.is_still_permitted(now, *index)
            };
            if !stays {
                self.remove_flow(now, *index, FlowEnd::Changed);
            }
        }
        if slice.len() == SLICE {
            self.sweep = slice.last().map(|(index, ..)| FlowIndex(index.0 + 1));
        }
    }

    /// An uplink comes or changes: its range of outside ports, and which of them are published.
    pub(super) fn uplink_changes(&mut self, uplink: &Uplink) {
        let range = uplink.nat_ports.clone();
        self.mappings.set_policy(uplink.id.into(), PortPolicy { range, ..PortPolicy::default() });
        let old = self.tables.uplink(uplink.id).cloned();
        for publication in self.tables.publications().iter() {
            if let Some(old) = &old {
                reserve_on(&mut self.mappings, old, publication.into(), false);
            }
            reserve_on(&mut self.mappings, uplink, publication.into(), true);
        }
        for ports in self.tables.services().iter().flat_map(|service| node_ports(service)) {
            if let Some(old) = &old {
                reserve_on(&mut self.mappings, old, ports.clone(), false);
            }
            reserve_on(&mut self.mappings, uplink, ports, true);
        }
    }

    /// Keeps masquerade away from a service's node ports, or lets it have them again.
    pub(super) fn reserve_node_ports(&mut self, service: &Service, reserved: bool) {
        for ports in node_ports(service) {
            for uplink in self.tables.uplinks() {
                reserve_on(&mut self.mappings, uplink, ports.clone(), reserved);
            }
        }
    }

    /// Keeps masquerade away from published ports, or lets it have them again.
    pub(super) fn reserve(&mut self, publication: &Publication, reserved: bool) {
        for uplink in self.tables.uplinks() {
            reserve_on(&mut self.mappings, uplink, publication.into(), reserved);
        }
    }
}

/// Ports of the host that are somebody's.
#[derive(Clone)]
struct HostPorts {
    addr: Option<Addr>,
    proto: u8,
    ports: RangeInclusive<u16>,
}

impl From<&Publication> for HostPorts {
    fn from(publication: &Publication) -> Self {
        let ports = publication.host_ports.clone();
        Self { addr: publication.host_addr, proto: publication.proto, ports }
    }
}

fn node_ports(service: &Service) -> impl Iterator<Item = HostPorts> {
    service.fronts.iter().filter_map(|front| {
        let port = front.node_port?;
        Some(HostPorts { addr: None, proto: front.proto, ports: port..=port })
    })
}

fn reserve_on(mappings: &mut MappingTable, uplink: &Uplink, held: HostPorts, reserved: bool) {
    let HostPorts { addr: host_addr, proto, ports } = held;
    for (addr, _) in &uplink.addrs {
        let wild = |host: Addr| host.is_unspecified() && host.family() == addr.family();
        if host_addr.is_some_and(|host| host != *addr && !wild(host)) {
            continue;
        }
        let outside = Endpoint { addr: *addr, domain: uplink.id.into(), port: 0, proto };
        let ports = ports.clone();
        if reserved {
            // More addresses than spaces: then nothing is masqueraded there either.
            let _ = mappings.reserve(&outside, ports);
        } else {
            mappings.unreserve(&outside, ports);
        }
    }
}
