//! The socket uplink as a port: frames that leave by it end in sockets of the host.
//!
//! A flow of the flow table only remembers the decision; the connection itself lives in
//! [`SocketFlows`], which sees both of its sides.

use super::decide::{NextHop, Route, Snat};
use super::inspect::FlowEnd;
use super::pipeline::Slot;
use super::slow::Frame;
use super::{Datapath, Output};
use crate::base::ids::PortId;
use crate::base::time::Time;
use crate::config::{UplinkKind, link_local};
use crate::packet::parse::L3_OFFSET;
use crate::packet::{
    DropReason, FlowKey, Fragment, FrameBatch, FrameMut, Gso, PacketBuf, Parsed, Scope, split,
};
use crate::stage::route::fragments::fragment_own;
use crate::stage::route::mtu;
use crate::stage::sockets::{
    Forbidden, FrameSlot, Inside, ListenerId, Published, SocketEvent, SocketFlows, Target,
};
use crate::wire::addr::Addr;
use crate::wire::ipv6;

/// The port that replies to clients of published ports leave by where no network has a socket uplink.
const CLIENTS_PORT: PortId = PortId(u16::MAX);

impl Datapath {
    /// Hands a container's packet to the flows that end in sockets.
    #[inline]
    pub(super) fn to_sockets(
        &mut self,
        now: Time,
        ingress: PortId,
        (parsed, key): (&Parsed, &FlowKey),
        at: usize,
        batch: &mut FrameBatch,
        out: &mut Output,
    ) -> Result<(), DropReason> {
        if parsed.fragment == Fragment::Whole {
            return self.to_sockets_whole(now, ingress, (parsed, key, false), at, batch, out);
        }
        let domain = self.tables.port(ingress).ok_or(DropReason::PortGone)?.domain;
        let whole = self.assembler.add(now, domain, parsed, &batch.frame(at))?;
        self.whole.extend(whole.map(|whole| (ingress, whole)));
        Ok(())
    }

    /// The same for a packet of which it is known whether it came in fragments.
    fn to_sockets_whole(
        &mut self,
        now: Time,
        ingress: PortId,
        (parsed, key, assembled): (&Parsed, &FlowKey, bool),
        at: usize,
        batch: &mut FrameBatch,
        out: &mut Output,
    ) -> Result<(), DropReason> {
        let entry = self.tables.entry(ingress).ok_or(DropReason::PortGone)?;
        let redirects = entry.redirects.iter();
        let inside = Inside {
            port: ingress,
            key: *key,
            mtu: entry.port.mtu,
            gateway: entry.gateways[usize::from(!parsed.src.is_v4())],
            redirect: redirects.copied().find(|(addr, _)| *addr == key.dst).map(|(_, host)| host),
            assembled,
        };
        let slot = FrameSlot(at as u16);
        let frame = batch.frame(at);
        self.sockets.frame(now, &inside, parsed, &frame, slot, &mut out.sockets)
    }

    /// Sends datagrams that have become whole, behind the frames of the batch that their last pieces
    /// came in.
    pub(super) fn send_whole(&mut self, now: Time, batch: &mut FrameBatch, out: &mut Output) {
        for (ingress, whole) in std::mem::take(&mut self.whole) {
            let sent = Parsed::new(whole.bytes()).and_then(|parsed| {
                if !batch.append(&whole) {
                    return Err(DropReason::FragmentLimit);
                }
                let at = batch.len() - 1;
                let domain = self.tables.port(ingress).ok_or(DropReason::PortGone)?.domain;
                let key = FlowKey::new(&parsed, domain, Scope::Routed);
                self.to_sockets_whole(now, ingress, (&parsed, &key, true), at, batch, out)
            });
            if let Err(reason) = sent {
                self.drop_frame(ingress, reason);
            }
        }
    }

    /// A socket's frame in pieces, if the container's port cannot take it as it is: datagrams larger than
    /// its MTU as fragments, trains one by one where its device takes none.
    pub fn cut_delivery(&mut self, port: PortId, mut frame: FrameMut<'_>) -> Vec<PacketBuf> {
        let offload = frame.offload();
        if matches!(offload.gso, Gso::TcpV4 | Gso::TcpV6) {
            return Vec::new();
        }
        let Some(to) = self.tables.port(port) else { return Vec::new() };
        let (mtu, uso) = (to.mtu, to.uso);
        if offload.gso == Gso::None && frame.len() <= L3_OFFSET + usize::from(mtu) {
            return Vec::new();
        }
        let Ok(parsed) = Parsed::new(frame.bytes()) else { return Vec::new() };
        let fits = mtu::fits(&parsed, frame.bytes(), offload, mtu);
        if offload.gso == Gso::None {
            self.next_cut = self.next_cut.wrapping_add(1);
            return fragment_own(&mut frame, &parsed, mtu, self.next_cut);
        }
        if uso && fits {
            return Vec::new();
        }
        let mut pieces = Vec::new();
        let Ok(mut segments) = split::Segments::new(frame, &parsed) else { return pieces };
        while let Some(mut segment) = segments.next() {
            if fits {
                pieces.push(segment.to_owned());
            } else if let Ok(parsed) = Parsed::new(segment.bytes()) {
                self.next_cut = self.next_cut.wrapping_add(1);
                pieces.extend(fragment_own(&mut segment, &parsed, mtu, self.next_cut));
            }
        }
        pieces
    }

    /// What the gateway's address stands for.
    pub(super) fn redirect(&self, key: &FlowKey) -> Option<Addr> {
        self.tables.network_of(key.domain)?.redirect(key.dst)
    }

    /// The way of a packet that answers a client of a published port: back into the client's socket,
    /// whatever the network's way out is.
    pub(super) fn answer_to_client(&self, key: &FlowKey) -> Option<Route> {
        self.sockets.answers_client(key).then(|| self.into_sockets(key))
    }

    /// The way into a socket of the host.
    pub(super) fn into_sockets(&self, key: &FlowKey) -> Route {
        let (egress, to) = (self.socket_port(), (key.dst, key.dst_port));
        Route { egress, next_hop: NextHop::Sockets, to, snat: Snat::Keep }
    }

    /// The port of the socket uplink.
    pub(super) fn socket_port(&self) -> PortId {
        let sockets = self.tables.uplinks().find(|u| u.kind == UplinkKind::Sockets);
        sockets.map_or(CLIENTS_PORT, |uplink| uplink.port)
    }

    /// What the switch's own networks are, so that no socket is asked to reach them.
    pub(super) fn forbid_own_networks(&mut self) {
        let own: Vec<(Addr, u8)> = self
            .tables
            .networks()
            .flat_map(|n| {
                // Of the host's own LAN, only the switch's part is out of bounds.
                let subnets = n.subnets.iter().filter(|_| !n.guise.transparent);
                let subnets = subnets.map(|s| (s.prefix, s.len));
                subnets.chain([(link_local(n.gateway_mac), 128)])
            })
            .collect();
        self.sockets.set_forbidden(Forbidden::new(&own));
    }

    /// Takes in what happened to a host socket.
    pub fn socket_event(&mut self, now: Time, event: SocketEvent<'_>, out: &mut Output) {
        let Some(event) = self.upstream_event(now, event, out) else { return };
        if self.judge_client(now, &event, out).is_ok() {
            self.sockets.event(now, event, &mut out.sockets);
        } else if let SocketEvent::Accepted { socket, .. } = event {
            self.sockets.turn_away(now, socket, &mut out.sockets);
        }
    }

    /// Ends a batch of frames or socket events: what could wait is said now.
    pub fn flush_sockets(&mut self, now: Time, out: &mut Output) {
        for key in std::mem::take(&mut self.cut_off) {
            self.sockets.cut(now, &key, &mut out.sockets);
        }
        self.sockets.flush(now, &mut out.sockets);
        self.settle_sockets(now, out);
    }

    /// Counts what was dropped, and forgets the way of connections that are over: the four minutes that a
    /// NAT remembers them (RFC 5382 REQ-5) are the host kernel's business here, and at a thousand
    /// connections a second they would fill a container's share of the table.
    pub(super) fn settle_sockets(&mut self, now: Time, out: &mut Output) {
        for (port, reason) in out.sockets.drops.drain(..) {
            self.count_drop(port, reason);
        }
        for key in self.sockets.take_ended() {
            self.forget_socket_flow(now, &key);
        }
    }

    fn forget_socket_flow(&mut self, now: Time, key: &FlowKey) {
        let Some((index, way)) = self.flows.lookup(key, key.hash(self.flows.seed())) else {
            return;
        };
        let hop = self.hops.get(self.flows.get(index).hops[way.index()]);
        if hop.is_some_and(super::hops::Hop::is_sockets) {
            self.remove_flow(now, index, FlowEnd::Closed);
        }
    }

    /// The same from the slow path, where the packet's flow is new: one that no socket took is forgotten.
    pub(super) fn first_to_sockets(
        &mut self,
        slot: &Slot,
        frame: &mut Frame<'_>,
    ) -> Result<(), DropReason> {
        let (now, ingress, at) = (frame.now, frame.ingress, frame.at);
        let taken =
            self.to_sockets(now, ingress, (&slot.parsed, &slot.key), at, frame.batch, frame.out);
        if taken.is_err() && slot.key.proto == ipv6::TCP && !self.sockets.answers_client(&slot.key)
        {
            self.forget_socket_flow(now, &slot.key);
        }
        taken
    }

    /// Connections of a listening socket are for a container from now on.
    pub fn serve_listener(&mut self, published: Published, stream: bool) {
        if stream {
            self.sockets.publish_tcp(published);
        } else {
            self.sockets.publish_udp(published);
        }
    }

    /// The container behind these listening sockets is seen otherwise from now on.
    pub fn retarget(&mut self, ids: std::ops::Range<u32>, target: &std::sync::Arc<Target>) {
        for id in ids {
            self.sockets.retarget(ListenerId(id), target);
        }
    }

    /// A listening socket is closed.
    pub fn drop_listener(&mut self, listener: ListenerId) {
        self.sockets.unpublish(listener);
    }

    /// Counts a frame that left by `port` on its own, not in a batch.
    pub fn count_delivered(&mut self, port: PortId, bytes: usize) {
        let counters = self.port_counters(port);
        counters.tx_frames += 1;
        counters.tx_bytes += bytes as u64;
    }

    /// The flows that end in sockets.
    pub fn socket_flows(&self) -> &SocketFlows {
        &self.sockets
    }
}
