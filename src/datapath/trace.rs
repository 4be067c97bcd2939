//! Which way a packet would go, stage by stage, and why it would be dropped: `decide` with notes on.

use super::Datapath;
use super::decide::{self, Decision, NextHop, Notes, Snat};
use super::inspect::{TraceReport, TraceRequest};
use super::policy::Begun;
use crate::base::time::Time;
use crate::config::Port;
use crate::packet::{DropReason, FlowKey, Scope};
use crate::wire::addr::Addr;
use crate::wire::ipv6;

/// A source port that no flow has: the packet is one that nobody sent.
const TRACE_PORT: u16 = 40_000;

impl Datapath {
    /// Follows an imagined packet.
    pub fn trace(&self, now: Time, request: &TraceRequest) -> TraceReport {
        let mut notes = Notes::on();
        let Some(port) = self.tables.port(request.from).cloned() else {
            return report(notes, Decision::Drop(DropReason::PortGone), self);
        };
        let dst = Addr::from(request.to);
        let Some(src) = port.addrs.iter().copied().find(|a| a.family() == dst.family()) else {
            notes.note("guard", || format!("{} has no address of that family", port.name));
            return report(notes, Decision::Drop(DropReason::NoAddress), self);
        };
        notes.note("guard", || format!("{} may speak as {src}", port.name));
        let key = self.imagined_key(&port, src, dst, request);
        if let Some((index, direction)) = self.flows.lookup(&key, key.hash(self.seed)) {
            let flow = self.flows.get(index);
            let fresh = flow.generation == self.tables.generation();
            notes.note("flow", || format!("a flow exists ({direction:?}), fresh: {fresh}"));
        }
        let decision = if key.scope == Scope::Bridged {
            let located = self.tables.port_by_addr(port.domain, dst);
            match located {
                Some(egress) => decide::bridge(&self.tables, &port, egress, &mut notes),
                None => {
                    notes.note("bridge", || format!("nobody here has {dst}: ARP finds no answer"));
                    Decision::Drop(DropReason::NeighbourFailed)
                }
            }
        } else {
            decide::route(&self.tables, &port, &key, &mut notes)
        };
        let decision = self.judge_traced(now, (&port, &key), decision, &mut notes);
        let decision = self.note_rest(now, decision, &mut notes);
        report(notes, decision, self)
    }

    fn judge_traced(
        &self,
        now: Time,
        (port, key): (&Port, &FlowKey),
        decision: Decision,
        notes: &mut Notes,
    ) -> Decision {
        let (egress, to) = match decision {
            Decision::Bridge(egress) => (egress, (key.dst, key.dst_port)),
            Decision::Route(route) => (route.egress, route.to),
            _ => return decision,
        };
        let begun = Begun::new(port.id, egress, key, to);
        self.note_policy(now, &begun, notes).map_or(decision, Decision::Drop)
    }

    fn imagined_key(&self, port: &Port, src: Addr, dst: Addr, request: &TraceRequest) -> FlowKey {
        let network = self.tables.network_of(port.domain);
        let on_link = network
            .is_some_and(|n| n.subnets.iter().any(|s| s.contains(dst)) && !n.is_gateway(dst));
        let proto = match (request.proto.as_str(), dst.is_v4()) {
            ("udp", _) => ipv6::UDP,
            ("sctp", _) => ipv6::SCTP,
            ("icmp" | "icmpv6", true) => ipv6::ICMP,
            ("icmp" | "icmpv6", false) => ipv6::ICMPV6,
            _ => ipv6::TCP,
        };
        FlowKey {
            src,
            dst,
            src_port: TRACE_PORT,
            dst_port: request.port.unwrap_or(0),
            domain: port.domain,
            proto,
            scope: if on_link { Scope::Bridged } else { Scope::Routed },
        }
    }

    fn note_rest(&self, now: Time, decision: Decision, notes: &mut Notes) -> Decision {
        let Decision::Route(route) = decision else { return decision };
        // Any other source has been noted where it was decided.
        if route.snat == Snat::Keep {
            notes.note("nat", || "source is kept".to_owned());
        }
        match route.next_hop {
            NextHop::Sockets => notes.note("sockets", || "ends in a socket of the host".to_owned()),
            NextHop::Station(mac) => notes.note("neighbour", || format!("known: {mac}")),
            NextHop::Neighbour(addr) => {
                let mut known = self.neighbours.entries(now);
                let known = known.find(|n| n.port == route.egress && n.addr == addr);
                let state = match known.and_then(|n| n.mac) {
                    Some(mac) => format!("{addr} is at {mac}"),
                    None => format!("{addr} would be asked for"),
                };
                notes.note("neighbour", || state);
            }
        }
        decision
    }
}

fn report(notes: Notes, decision: Decision, datapath: &Datapath) -> TraceReport {
    let name =
        |id| datapath.tables.port(id).map_or_else(|| format!("{id}"), |port| port.name.to_string());
    let (verdict, delivered, drop) = match decision {
        Decision::Bridge(port) => (format!("delivered to {}", name(port)), true, None),
        Decision::Route(route) => (
            format!("delivered to {} as {}:{}", name(route.egress), route.to.0, route.to.1),
            true,
            None,
        ),
        Decision::Gateway => ("for the gateway itself".to_owned(), true, None),
        Decision::Host(port) => (format!("delivered to {}", name(port)), true, None),
        Decision::Ignore => ("left to the host's kernel".to_owned(), false, None),
        Decision::OwnAddress(_) => (
            "for our own address on the uplink, where nothing is published".to_owned(),
            false,
            Some(DropReason::NotPublished),
        ),
        Decision::Refuse(reason) => (format!("refused: {}", reason.explain()), false, Some(reason)),
        Decision::Reject(reason, error) => {
            (format!("refused ({error:?}): {}", reason.explain()), false, Some(reason))
        }
        Decision::Drop(reason) => (reason.explain().to_owned(), false, Some(reason)),
    };
    let drop = drop.map(|reason| reason.name().to_owned());
    TraceReport { steps: notes.into_steps(), verdict, delivered, drop }
}
