//! Errors: those the switch sends, and those that pass through it.

use super::slow::Frame;
use super::{Datapath, Output, pipeline::Slot};
use crate::base::ids::PortId;
use crate::base::time::Time;
use crate::config::{Port, PortKind};
use crate::packet::{DropReason, FrameMut, PacketBuf, Parsed, Rewrite, Scope};
use crate::stage::flow::icmp;
use crate::stage::route::icmp_error::{self, IcmpError};
use crate::stage::route::tcp_reset;
use crate::wire::addr::Addr;
use crate::wire::tcp;

impl Datapath {
    /// Turns the frame into an error to its sender; counts the drop under `reason` in any case.
    pub(super) fn reject(
        &mut self,
        port: &Port,
        parsed: &Parsed,
        error: IcmpError,
        reason: DropReason,
        frame: &mut Frame<'_>,
    ) -> Result<(), DropReason> {
        let mut view = frame.batch.frame(frame.at);
        if self.write_error(frame.now, port, parsed, error, &mut view) {
            self.drop_frame(port.id, reason);
            self.emit(port.id, frame.at, frame.batch, frame.out);
            return Ok(());
        }
        Err(reason)
    }

    /// Refuses what nobody serves as a host does: by a reset if it is TCP, else by an error.
    pub(super) fn refuse(
        &mut self,
        port: &Port,
        parsed: &Parsed,
        reason: DropReason,
        frame: &mut Frame<'_>,
    ) -> Result<(), DropReason> {
        if let Some(reset) = tcp_reset::answer(&frame.batch.frame(frame.at), parsed) {
            self.drop_frame(port.id, reason);
            self.emit_owned(port.id, reset, frame.out);
            return Ok(());
        }
        if parsed.tcp_flags & tcp::RST != 0 {
            return Err(reason);
        }
        self.reject(port, parsed, IcmpError::PortUnreachable, reason, frame)
    }

    pub(super) fn write_error(
        &mut self,
        now: Time,
        port: &Port,
        parsed: &Parsed,
        error: IcmpError,
        view: &mut FrameMut<'_>,
    ) -> bool {
        let Some(from) = self.own_address(port, parsed) else { return false };
        let mac = self.tables.entry(port.id).map_or(port.mac, |entry| entry.router_mac);
        icmp_error::may_answer(parsed, view.bytes())
            && self.port_counters(port.id).icmp.allow(now)
            && icmp_error::turn_into_error(view, parsed, error, from, mac)
    }

    /// Our address towards a port: the gateway's, or our own on an uplink.
    fn own_address(&self, port: &Port, parsed: &Parsed) -> Option<Addr> {
        let family = parsed.src.family();
        if port.kind == PortKind::Tunnel {
            return self.address_towards_peers(parsed);
        }
        match self.tables.network_of(port.domain) {
            Some(network) => network.gateway(family),
            None => self.tables.uplink_of(port.domain)?.addr(family),
        }
    }

    /// A frame that waited in vain: its sender is told. It has been translated already, so the error
    /// is sent back through its flow as if a router behind the uplink had sent it.
    pub(super) fn unreachable(
        &mut self,
        now: Time,
        mut held: PacketBuf,
        error: IcmpError,
        out: &mut Output,
    ) {
        let Ok(parsed) = Parsed::new(held.bytes()) else { return };
        let Some(port) = self.port_of_source(&parsed) else { return };
        let mut view = held.frame();
        if !self.write_error(now, &port, &parsed, error, &mut view) {
            return;
        }
        if let Ok(Some(to)) = self.translate_error(&port, &mut view) {
            self.emit_owned(to, held, out);
        }
    }

    /// The uplink's port whose address a translated packet carries as its source, or the one of the
    /// station itself.
    fn port_of_source(&self, parsed: &Parsed) -> Option<std::sync::Arc<Port>> {
        let uplink = self.tables.uplinks().find(|u| u.is_ours(parsed.src));
        let id = match uplink {
            Some(uplink) => uplink.port,
            None => self.tables.uplinks().find(|u| u.addr(parsed.src.family()).is_some())?.port,
        };
        self.tables.port(id).cloned()
    }

    /// An ICMP error that passes through the router: it belongs to the flow of the packet it quotes,
    /// and is translated as that flow is (RFC 5508 REQ-3 to REQ-5). It never ends a flow.
    pub(super) fn icmp_error(
        &mut self,
        port: &Port,
        slot: &Slot,
        frame: &mut Frame<'_>,
    ) -> Result<(), DropReason> {
        if slot.parsed.ttl <= 1 {
            return Err(DropReason::TtlExceeded);
        }
        let mut view = frame.batch.frame(frame.at);
        if let Some(egress) = self.translate_error(port, &mut view)? {
            self.emit(egress, frame.at, frame.batch, frame.out);
        }
        Ok(())
    }

    /// Finds the flow an error is about, translates the error and addresses it. The port it leaves by;
    /// none if the flow ends in a socket here.
    fn translate_error(
        &mut self,
        port: &Port,
        view: &mut FrameMut<'_>,
    ) -> Result<Option<PortId>, DropReason> {
        let parsed = Parsed::new(view.bytes())?;
        let csum = view.offload().csum;
        let embedded = icmp::related(view.bytes(), &parsed, csum, port.domain, Scope::Routed)?
            .ok_or(DropReason::IcmpUnrelated)?;
        let key = embedded.lookup_key();
        if let (Some(seq), Some(mtu)) = (embedded.tcp_seq, embedded.mtu)
            && let Some(taken) = self.sockets.path_mtu(port.id, &key, (seq, mtu))
        {
            return taken.map(|()| None);
        }
        let found = self.flows.lookup(&key, key.hash(self.seed));
        let (index, direction) = found.ok_or(DropReason::IcmpUnrelated)?;
        let flow = *self.flows.get(index);
        let sent = embedded.tcp_seq.is_none_or(|seq| flow.tcp.has_sent(direction.flip(), seq));
        if flow.port(direction) != port.id || !sent {
            return Err(DropReason::IcmpUnrelated);
        }
        icmp::translate_error(view, &parsed, &embedded, &flow, direction);
        let hop = self.hops.get(flow.hops[direction.index()]).copied();
        let hop = hop.ok_or(DropReason::PortGone)?;
        let parsed = Parsed::new(view.bytes())?;
        let route = Some((hop.dst_mac, hop.src_mac));
        Rewrite { nat: None, route }.apply(view, &parsed);
        Ok(Some(hop.port()))
    }
}
