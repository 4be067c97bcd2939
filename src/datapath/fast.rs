//! The fast path: a flow's answer replayed.
//!
//! Cost model, per frame: one probe of the flow index, the flow's three cache lines, the hop's one, and
//! the packet's first two. Nothing is allocated, and nothing is written but the flow and the frame.
//! Whatever is not plain (a stale flow, a fragment, a neighbour in doubt, a frame too large, a TTL at
//! its end) returns `false` and takes the slow path, which knows all the rules.

use super::{Datapath, Output, pipeline::Slot};
use crate::base::ids::PortId;
use crate::base::time::Time;
use crate::packet::parse::is_icmp_non_query;
use crate::packet::{DropReason, Fragment, FrameBatch, Parsed, Rewrite};
use crate::stage::flow::tcp::Phase;
use crate::stage::flow::{Direction, FlowIndex, TcpSegment, Transition};
use crate::stage::route::mtu;
use crate::wire::{ipv6, tcp};

impl Datapath {
    /// Forwards the frame if its flow is known, fresh and plain.
    #[inline]
    pub(super) fn fast(
        &mut self,
        now: Time,
        ingress: PortId,
        slot: &Slot,
        at: usize,
        batch: &mut FrameBatch,
        out: &mut Output,
    ) -> bool {
        let parsed = &slot.parsed;
        if !parsed.is_ip() || parsed.fragment != Fragment::Whole || has_no_flow(parsed, batch, at) {
            return false;
        }
        let Some((index, direction)) = self.flows.lookup(&slot.key, slot.hash) else {
            return false;
        };
        let flow = self.flows.get(index);
        if flow.generation != self.tables.generation() || flow.port(direction) != ingress {
            return false;
        }
        let Some(entry) = self.tables.entry(ingress) else { return false };
        if entry.guard.as_ref().is_some_and(|guard| guard.mac != parsed.src_mac) {
            return false;
        }
        let Some(hop) = self.hops.get(flow.hops[direction.index()]) else { return false };
        let routed = hop.is_routed();
        let plain = if routed {
            parsed.ttl > 1
                && (parsed.tcp_flags & tcp::SYN == 0 || hop.is_sockets())
                && mtu::fits(parsed, batch.bytes(at), batch.offload(at), hop.mtu)
        } else {
            hop.dst_mac == parsed.dst_mac
        };
        if !plain || hop.fresh_until <= now {
            return false;
        }
        if hop.is_sockets() {
            let sent = self.track(now, index, direction, parsed, batch.bytes(at));
            let sent = sent.and_then(|_| self.to_sockets(now, ingress, parsed, at, batch, out));
            if let Err(reason) = sent {
                self.drop_frame(ingress, reason);
            }
            return true;
        }
        let egress = hop.port();
        let rewrite = Rewrite {
            nat: flow.rewrite(direction),
            route: routed.then_some((hop.dst_mac, hop.src_mac)),
        };
        match self.track(now, index, direction, parsed, batch.bytes(at)) {
            Ok(Transition::Over) => return false,
            Ok(_) => {
                rewrite.apply(&mut batch.frame(at), parsed);
                self.emit(egress, at, batch, out);
            }
            Err(reason) => self.drop_frame(ingress, reason),
        }
        true
    }

    /// Counts the packet in its flow and lets TCP's state machine see it.
    #[inline]
    pub(super) fn track(
        &mut self,
        now: Time,
        index: FlowIndex,
        direction: Direction,
        parsed: &Parsed,
        frame: &[u8],
    ) -> Result<Transition, DropReason> {
        let flow = self.flows.get_mut(index);
        let mut transition = Transition::Unchanged;
        if flow.tcp.phase() != Phase::None && parsed.fragment == Fragment::Whole {
            let segment = TcpSegment::read(parsed, frame).ok_or(DropReason::Malformed)?;
            transition = flow.tcp.track(direction, &segment)?;
        }
        flow.count(direction, parsed.ip_len);
        if transition != Transition::Ignored {
            let class = flow.class_after(direction);
            self.flows.touch(now, index, class);
        }
        Ok(transition)
    }
}

/// ICMP errors and neighbour discovery make no flow and hit none.
#[inline]
fn has_no_flow(parsed: &Parsed, batch: &FrameBatch, at: usize) -> bool {
    matches!(parsed.proto, ipv6::ICMP | ipv6::ICMPV6) && is_icmp_non_query(parsed, batch.bytes(at))
}
