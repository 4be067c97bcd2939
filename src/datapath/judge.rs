//! Flows under a changed configuration.
//!
//! A change bumps the generation, and each flow is judged again when its next packet comes: what it
//! would be decided today must be what it was decided then, or it ends. A UDP sender that never pauses
//! is thus cut off by its very next packet when a publication goes, and found by it when one comes
//! (moby issue 8795). Idle flows are swept in slices, so that listings tell the truth soon and no pause
//! grows with the number of flows.

use super::Datapath;
use super::decide::{self, Decision, Notes, Snat};
use crate::base::time::Time;
use crate::config::Uplink;
use crate::packet::Scope;
use crate::stage::flow::{Direction, Endpoint, FlowIndex, MappingTable, PortPolicy};
use crate::stage::service::publish::Publication;

/// Flows looked at in one slice: some 50 µs.
const SLICE: usize = 512;

impl Datapath {
    /// Whether a flow made under another configuration would be made the same way today.
    pub(super) fn judge_again(&mut self, index: FlowIndex) -> bool {
        let flow = self.flows.get(index);
        let [key, reply] = *flow.keys();
        let responder = flow.port(Direction::Responder);
        let Some(from) = self.tables.port(flow.port(Direction::Initiator)).cloned() else {
            return false;
        };
        if self.sockets.answers_client(&key) {
            self.flows.get_mut(index).generation = self.tables.generation();
            return true;
        }
        let same = match decide::route(&self.tables, &from, &key, &mut Notes::off()) {
            Decision::Route(route) => {
                let keeps = route.snat == Snat::Keep;
                route.egress == responder
                    && route.to == (reply.src, reply.src_port)
                    && keeps == (reply.dst == key.src)
            }
            Decision::Gateway => {
                let network = self.tables.network_of(from.domain);
                let loopback = network.is_some_and(|n| n.host_loopback);
                let host = network.and_then(|n| n.host_port);
                if loopback { responder == self.socket_port() } else { host == Some(responder) }
            }
            Decision::OwnAddress(uplink) => self
                .by_mapping(uplink, &key)
                .is_ok_and(|found| found.is_some_and(|(inside, _)| inside.addr == reply.src)),
            _ => false,
        };
        if same {
            self.flows.get_mut(index).generation = self.tables.generation();
        }
        same
    }

    /// Judges the next slice of flows that a change made stale.
    pub(super) fn sweep(&mut self, now: Time) {
        let Some(from) = self.sweep.take() else { return };
        let generation = self.tables.generation();
        let slice: Vec<(FlowIndex, bool)> = self
            .flows
            .iter_from(from)
            .take(SLICE)
            .map(|(index, flow)| {
                let routed = flow.key(Direction::Initiator).scope == Scope::Routed;
                (index, routed && flow.generation != generation)
            })
            .collect();
        for (index, stale) in &slice {
            if *stale && !self.judge_again(*index) {
                self.remove_flow(now, *index);
            }
        }
        if slice.len() == SLICE {
            self.sweep = slice.last().map(|(index, _)| FlowIndex(index.0 + 1));
        }
    }

    /// An uplink comes or changes: its range of outside ports, and which of them are published.
    pub(super) fn uplink_changes(&mut self, uplink: &Uplink) {
        let range = uplink.nat_ports.clone();
        self.mappings.set_policy(uplink.id.into(), PortPolicy { range, ..PortPolicy::default() });
        let old = self.tables.uplink(uplink.id).cloned();
        for publication in self.tables.publications().iter() {
            if let Some(old) = &old {
                reserve_on(&mut self.mappings, old, publication, false);
            }
            reserve_on(&mut self.mappings, uplink, publication, true);
        }
    }

    /// Keeps masquerade away from published ports, or lets it have them again.
    pub(super) fn reserve(&mut self, publication: &Publication, reserved: bool) {
        for uplink in self.tables.uplinks() {
            reserve_on(&mut self.mappings, uplink, publication, reserved);
        }
    }
}

fn reserve_on(
    mappings: &mut MappingTable,
    uplink: &Uplink,
    publication: &Publication,
    reserved: bool,
) {
    for (addr, _) in &uplink.addrs {
        if publication.host_addr.is_some_and(|host| host != *addr) {
            continue;
        }
        let (domain, proto) = (uplink.id.into(), publication.proto);
        let outside = Endpoint { addr: *addr, domain, port: 0, proto };
        let ports = publication.host_ports.clone();
        if reserved {
            // More addresses than spaces: then nothing is masqueraded there either.
            let _ = mappings.reserve(&outside, ports);
        } else {
            mappings.unreserve(&outside, ports);
        }
    }
}
