//! The fast path: a flow's answer replayed.
//!
//! Cost model, per frame: one probe of the flow index, the flow's three cache lines, the hop's one, and
//! the packet's first two. Nothing is allocated, and nothing is written but the flow and the frame.
//! Whatever is not plain (a stale flow, a fragment, a neighbour in doubt, a frame too large, a TTL at
//! its end) returns `false` and takes the slow path, which knows all the rules.

use super::pipeline::{Slot, Way};
use super::{Datapath, Output};
use crate::base::ids::PortId;
use crate::base::time::Time;
use crate::packet::rewrite::{is_numbered, renumber};
use crate::packet::{DropReason, Fragment, FrameBatch, Gso, Offload, Parsed, Rewrite};
use crate::stage::flow::tcp::Phase;
use crate::stage::flow::{Class, Direction, Flow, FlowIndex, TcpSegment, Transition};
use crate::stage::route::mtu;
use crate::wire::tcp;

impl Datapath {
    /// Forwards the frame if its flow is known, fresh and plain.
    #[inline]
    pub(super) fn fast(
        &mut self,
        now: Time,
        way: &Way,
        slot: &Slot,
        at: usize,
        batch: &mut FrameBatch,
        out: &mut Output,
    ) -> bool {
        let parsed = &slot.parsed;
        let guarded = way.guard.is_none_or(|mac| mac == parsed.src_mac);
        if !slot.may_hit || !guarded {
            return false;
        }
        let found = self.flows.find(&slot.key, slot.hash, slot.likely);
        let Some((index, direction, flow)) = found else { return false };
        if flow.generation != self.tables.generation() || flow.port(direction) != way.ingress {
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
        let transition = match track(flow, direction, parsed, batch.bytes(at)) {
            Ok(Transition::Over) => return false,
            Ok(transition) => transition,
            Err(reason) => {
                self.drop_frame(way.ingress, reason);
                return true;
            }
        };
        let due = flow.is_due(now.millis(), direction, transition);
        let class = due.then(|| flow.class_after(direction));
        if routed {
            if hop.is_sockets() {
                self.touch_if(now, index, class);
                self.into_socket(now, way.ingress, slot, at, batch, out);
                return true;
            }
            let route = Some((hop.dst_mac, hop.src_mac));
            let nat = flow.rewrite(direction);
            Rewrite { nat, route }.apply(&mut batch.frame(at), parsed);
            if is_numbered(parsed, batch.bytes(at)) && flow.is_source_rewritten(direction) {
                let count = segments(batch.offload(at));
                let id = self.ip_ids.take(parsed.dst, parsed.proto, count);
                renumber(&mut batch.frame(at), id);
            }
        }
        let egress = hop.port();
        self.touch_if(now, index, class);
        self.emit_from_flow(egress, at, batch, out);
        true
    }

    #[inline]
    fn touch_if(&mut self, now: Time, index: FlowIndex, class: Option<Class>) {
        if let Some(class) = class {
            self.keep_alive(now, index, class);
        }
    }

    fn keep_alive(&mut self, now: Time, index: FlowIndex, class: Class) {
        let flow = self.flows.get(index);
        let answered = class == Class::UdpStream && flow.class() == Class::UdpSingle;
        if answered && flow.is_mute(Direction::Initiator) && flow.mapping().is_none() {
            self.adopt_mapping(index);
        }
        self.flows.touch(now, index, class);
    }

    fn into_socket(
        &mut self,
        now: Time,
        ingress: PortId,
        slot: &Slot,
        at: usize,
        batch: &mut FrameBatch,
        out: &mut Output,
    ) {
        let of = (&slot.parsed, &slot.key);
        if let Err(reason) = self.to_sockets(now, ingress, of, at, batch, out) {
            self.drop_frame(ingress, reason);
        }
    }

    /// Counts the packet in its flow (or leaves it to the next one) and lets TCP's state machine see it.
    pub(super) fn track(
        &mut self,
        now: Time,
        index: FlowIndex,
        direction: Direction,
        parsed: &Parsed,
        frame: &[u8],
    ) -> Result<Transition, DropReason> {
        let flow = self.flows.get_mut(index);
        let transition = track(flow, direction, parsed, frame)?;
        if transition != Transition::Ignored && !flow.is_mute(direction) {
            let class = flow.class_after(direction);
            self.keep_alive(now, index, class);
        }
        Ok(transition)
    }
}

/// Datagrams that a frame stands for, at most.
pub(super) fn segments(offload: Offload) -> u16 {
    if offload.gso == Gso::None { 1 } else { 64 }
}

#[inline(always)]
#[allow(clippy::inline_always, reason = "three calls a frame less; measured")]
fn track(
    flow: &mut Flow,
    direction: Direction,
    parsed: &Parsed,
    frame: &[u8],
) -> Result<Transition, DropReason> {
    let mut transition = Transition::Unchanged;
    if flow.tcp.phase() != Phase::None && parsed.fragment == Fragment::Whole {
        transition = track_tcp(flow, direction, parsed, frame)?;
        if transition == Transition::Over {
            // The packet belongs to the flow that comes next.
            return Ok(transition);
        }
    }
    flow.count(direction, parsed.ip_len);
    Ok(transition)
}

fn track_tcp(
    flow: &mut Flow,
    direction: Direction,
    parsed: &Parsed,
    frame: &[u8],
) -> Result<Transition, DropReason> {
    let segment = TcpSegment::read(parsed, frame).ok_or(DropReason::Malformed)?;
    flow.tcp.track(direction, &segment)
}
