//! A packet of a flow on its way: tracked, rewritten, sized, addressed.

use zerocopy::FromBytes;

use super::Datapath;
use super::fast::segments;
use super::hops::{Hop, HopKey};
use super::inspect::FlowEnd;
use super::pipeline::Slot;
use super::slow::Frame;
use crate::packet::parse::L3_OFFSET;
use crate::packet::rewrite::{is_numbered, renumber};
use crate::packet::{DropReason, Fragment, Gso, L3, Offload, Parsed, Rewrite};
use crate::stage::flow::{Direction, FlowIndex, Transition};
use crate::stage::route::fragments::fragment_v4;
use crate::stage::route::mtu;
use crate::wire::ipv4::{self, Ipv4};
use crate::wire::tcp;

impl Datapath {
    /// Tracks a packet of a flow that exists, and sends it on.
    pub(super) fn track_and_send(
        &mut self,
        index: FlowIndex,
        direction: Direction,
        slot: &Slot,
        frame: &mut Frame<'_>,
    ) -> Result<(), DropReason> {
        let bytes = frame.batch.bytes(frame.at);
        let transition = self.track(frame.now, index, direction, &slot.parsed, bytes)?;
        if transition == Transition::Over {
            // The responder of a finished connection begins a new one between the same ports.
            self.remove_flow(frame.now, index, FlowEnd::Replaced);
            return self.slow_steps(slot, frame);
        }
        self.send_on(index, direction, slot, frame)
    }

    /// Rewrites and sends a packet of a flow.
    pub(super) fn send_on(
        &mut self,
        index: FlowIndex,
        direction: Direction,
        slot: &Slot,
        frame: &mut Frame<'_>,
    ) -> Result<(), DropReason> {
        let parsed = &slot.parsed;
        let flow = self.flows.get(index);
        let (hop_id, nat) = (flow.hops[direction.index()], flow.rewrite(direction));
        let Some(hop) = self.hops.get(hop_id).copied() else { return Err(DropReason::PortGone) };
        if hop.is_sockets() {
            return self.first_to_sockets(slot, frame);
        }
        let back = self.hops.get(flow.hops[direction.flip().index()]).map_or(hop.mtu, |h| h.mtu);
        let route = hop.is_routed().then_some((hop.dst_mac, hop.src_mac));
        let source = flow.is_source_rewritten(direction);
        Rewrite { nat, route }.apply(&mut frame.batch.frame(frame.at), parsed);
        if source && is_numbered(parsed, frame.batch.bytes(frame.at)) {
            let id = if parsed.fragment == Fragment::Whole {
                let count = segments(frame.batch.offload(frame.at));
                self.ip_ids.take(parsed.dst, parsed.proto, count)
            } else {
                slot.fragment_id
            };
            renumber(&mut frame.batch.frame(frame.at), id);
        }
        if route.is_some() && parsed.tcp_flags & tcp::SYN != 0 {
            // What is offered here is what will come the other way.
            mtu::clamp_mss(&mut frame.batch.frame(frame.at), parsed, hop.mtu.min(back));
        }
        if hop.fresh_until > frame.now {
            return self.send_sized(&hop, parsed, frame);
        }
        let HopKey::Neighbour(port, addr) = hop.key else {
            return Err(DropReason::NeighbourFailed);
        };
        self.resolve(port, addr, frame)
    }

    /// Sends a frame whose MACs are right, in fragments if it must be and may be.
    fn send_sized(
        &mut self,
        hop: &Hop,
        parsed: &Parsed,
        frame: &mut Frame<'_>,
    ) -> Result<(), DropReason> {
        let offload = frame.batch.offload(frame.at);
        let bytes = frame.batch.bytes(frame.at);
        if !hop.is_routed() || mtu::fits(parsed, bytes, offload, hop.mtu) {
            self.emit(hop.port(), frame.at, frame.batch, frame.out);
            return Ok(());
        }
        let fragments = fragment_v4(&mut frame.batch.frame(frame.at), parsed, hop.mtu);
        if fragments.is_empty() {
            return Err(DropReason::TooBig);
        }
        for fragment in fragments {
            self.emit_owned(hop.port(), fragment, frame.out);
        }
        Ok(())
    }
}

/// Whether a packet too large may be sent in fragments: IPv4 without DF (RFC 791), and no super-frame.
pub(super) fn may_be_cut(parsed: &Parsed, frame: &[u8], offload: Offload) -> bool {
    parsed.l3 == L3::V4
        && offload.gso == Gso::None
        && Ipv4::ref_from_prefix(&frame[L3_OFFSET..])
            .is_ok_and(|(ip, _)| ip.flags_offset.get() & ipv4::DF == 0)
}
