//! Echo of the socket uplink: one ping socket for each inside address and identifier.
//!
//! # Theory
//!
//! A ping socket (`SOCK_DGRAM` with `IPPROTO_ICMP`) sends echo requests under an identifier that the
//! kernel chooses and receives only their replies. The container's identifier is put back here. The
//! mapping does not depend on the destination (RFC 5508 REQ-1) and lives 60 s (REQ-2). A reply is never
//! made up: where the host forbids ping sockets (`net.ipv4.ping_group_range`), the container gets
//! "administratively prohibited", at once and honestly.

use hashbrown::HashTable;

use super::calls::{FrameSlot, SockAddr, SocketCall, SocketId, SocketKind, Via};
use super::events::{SocketError, SocketEvent};
use super::forbidden::Forbidden;
use super::headers::{self, Link, Quote};
use super::output::{Delivery, SocketOutput};
use super::shared::{Inside, Shared};
use super::slab::Slab;
use crate::base::ids::PortId;
use crate::base::limits::{SOCKET_FLOW_BYTES_MAX, SOCKET_PING_FLOWS_MAX};
use crate::base::time::{Span, Time};
use crate::packet::{DropReason, FlowKey, Fragment, FrameMut, Parsed};
use crate::wire::addr::Addr;
use crate::wire::icmp;

/// RFC 5508 REQ-2.
const TIMEOUT: Span = Span::from_secs(60);
/// Below this a TTL is a traceroute's.
const TTL_KEPT: u8 = 32;

#[derive(Debug)]
struct PingFlow {
    id: SocketId,
    /// As the container's requests are keyed, but without a destination.
    key: FlowKey,
    link: Link,
    port: PortId,
    gateway: Addr,
    /// Where the last request went, and its sequence number: for errors of the socket itself.
    last: (Addr, u16),
    last_sent: Time,
    armed: Option<Time>,
}

const _: () = assert!(size_of::<PingFlow>() <= SOCKET_FLOW_BYTES_MAX);

/// All ping sockets of one worker's socket uplink.
#[derive(Debug)]
pub(super) struct PingFlows {
    slab: Slab<PingFlow>,
    index: HashTable<u32>,
}

impl PingFlows {
    pub(super) fn new() -> Self {
        Self { slab: Slab::new(SocketKind::Ping, SOCKET_PING_FLOWS_MAX), index: HashTable::new() }
    }

    pub(super) fn len(&self) -> usize {
        self.slab.len()
    }

    /// Takes in an echo request from a container.
    pub(super) fn frame(
        &mut self,
        (parsed, inside): (&Parsed, &Inside),
        (frame, slot): (&FrameMut<'_>, FrameSlot),
        forbidden: &Forbidden,
        shared: &mut Shared,
        out: &mut SocketOutput,
    ) -> Result<(), DropReason> {
        if parsed.fragment != Fragment::Whole {
            return Err(DropReason::FragmentLimit);
        }
        if inside.redirect.is_some() || forbidden.refuses(parsed) {
            return Err(DropReason::ForbiddenDestination);
        }
        let bytes = parsed.l4_bytes(frame.bytes());
        let seq = bytes.get(6..icmp::HEADER_LEN).ok_or(DropReason::Truncated)?;
        let seq = u16::from_be_bytes([seq[0], seq[1]]);
        let id = self.find_or_open(parsed, inside, shared, out)?;
        let Some(flow) = self.slab.get_mut(id) else { return Err(DropReason::SocketLimit) };
        flow.last = (parsed.dst, seq);
        flow.last_sent = shared.now;
        shared.timers.arm(id, &mut flow.armed, shared.now + TIMEOUT);
        // The kernel sets identifier and checksum itself.
        let parts = out.part(slot, u32::from(parsed.l4), bytes.len() as u32);
        out.call(SocketCall::SendTo {
            via: Via::Socket(id),
            from: None,
            to: SockAddr { addr: parsed.dst, port: 0 },
            parts,
            segment: bytes.len() as u16,
            // The gateway is a hop of its own, and the host's socket makes none.
            ttl: (parsed.ttl < TTL_KEPT).then_some(parsed.ttl.saturating_sub(1).max(1)),
            fragment: true,
        });
        Ok(())
    }

    fn find_or_open(
        &mut self,
        parsed: &Parsed,
        inside: &Inside,
        shared: &mut Shared,
        out: &mut SocketOutput,
    ) -> Result<SocketId, DropReason> {
        let key = inside.key;
        let key = FlowKey { dst: Addr::UNSPECIFIED, dst_port: 0, ..key };
        let hash = key.hash(shared.seed);
        let same = |slot: &u32| self.slab.at(*slot).is_some_and(|flow| flow.key == key);
        if let Some(flow) = self.index.find(hash, same).and_then(|slot| self.slab.at(*slot)) {
            return Ok(flow.id);
        }
        shared.shares.open(inside.port, false)?;
        let made = self.slab.insert(|id| PingFlow {
            id,
            key,
            link: Link { inside: parsed.src_mac, gateway: parsed.dst_mac },
            port: inside.port,
            gateway: inside.gateway.unwrap_or(parsed.dst),
            last: (parsed.dst, 0),
            last_sent: shared.now,
            armed: None,
        });
        let Some(id) = made else {
            shared.shares.close(inside.port, false);
            shared.stats.limits_met += 1;
            return Err(DropReason::SocketLimit);
        };
        let (seed, slab) = (shared.seed, &self.slab);
        let rehash = |slot: &u32| slab.at(*slot).map_or(0, |flow| flow.key.hash(seed));
        self.index.insert_unique(hash, id.slot(), rehash);
        shared.stats.ping_opened += 1;
        out.call(SocketCall::Open { socket: id, v4: key.src.is_v4() });
        Ok(id)
    }

    /// Takes in an event of a ping socket.
    pub(super) fn event(
        &mut self,
        socket: SocketId,
        event: SocketEvent<'_>,
        shared: &mut Shared,
        out: &mut SocketOutput,
    ) {
        let Some(flow) = self.slab.get_mut(socket) else { return };
        match event {
            SocketEvent::Readable { .. } => flow.receive(out),
            SocketEvent::Datagram { slot, mut frame, from, .. } => {
                flow.reply(&mut frame, slot, from.addr, out);
            }
            SocketEvent::ErrorsWaiting { via } => out.call(SocketCall::ReceiveError { via }),
            SocketEvent::NotSent { frames, .. } => out.not_sent(flow.port, frames),
            SocketEvent::DatagramError { via, error, offender, to, echo_seq } => {
                out.call(SocketCall::ReceiveError { via });
                flow.report(error, offender, (to.addr, echo_seq), shared, out);
            }
            SocketEvent::Failed { error, .. } => {
                if error == SocketError::Limit {
                    shared.stats.limits_met += 1;
                    out.dropped(flow.port, DropReason::SocketLimit);
                }
                flow.report(error, Addr::UNSPECIFIED, flow.last, shared, out);
                self.close(socket, shared, out);
            }
            _ => {}
        }
    }

    /// A deadline has come, or is said to have.
    pub(super) fn woken(&mut self, socket: SocketId, shared: &mut Shared, out: &mut SocketOutput) {
        let Some(flow) = self.slab.get_mut(socket) else { return };
        flow.armed = None;
        let expires = flow.last_sent + TIMEOUT;
        if expires > shared.now {
            shared.timers.arm(socket, &mut flow.armed, expires);
        } else {
            self.close(socket, shared, out);
        }
    }

    fn close(&mut self, socket: SocketId, shared: &mut Shared, out: &mut SocketOutput) {
        let Some(flow) = self.slab.get_mut(socket) else { return };
        shared.timers.disarm(socket, &mut flow.armed);
        shared.shares.close(flow.port, false);
        let hash = flow.key.hash(shared.seed);
        if let Ok(entry) = self.index.find_entry(hash, |slot| *slot == socket.slot()) {
            entry.remove();
        }
        self.slab.remove(socket.slot());
        out.call(SocketCall::Close { socket, reset: false });
    }

    pub(super) fn remove_port(
        &mut self,
        port: PortId,
        shared: &mut Shared,
        out: &mut SocketOutput,
    ) {
        let gone = self.slab.iter().filter(|(_, flow)| flow.port == port);
        let ids: Vec<_> = gone.map(|(_, flow)| flow.id).collect();
        for id in ids {
            self.close(id, shared, out);
        }
    }
}

impl PingFlow {
    fn receive(&self, out: &mut SocketOutput) {
        let headers = headers::l4_at(self.key.src.is_v4()) as u16;
        out.call(SocketCall::Receive { via: Via::Socket(self.id), headers });
    }

    fn reply(&self, frame: &mut FrameMut<'_>, slot: FrameSlot, from: Addr, out: &mut SocketOutput) {
        let v4 = self.key.src.is_v4();
        let wanted = if v4 { icmp::v4::ECHO_REPLY } else { icmp::v6::ECHO_REPLY };
        let at = headers::l4_at(v4);
        let bytes = frame.bytes_mut();
        if bytes.get(at) != Some(&wanted)
            || bytes.len() < at + icmp::HEADER_LEN
            || from.is_v4() != v4
        {
            return;
        }
        headers::write_echo_reply(bytes, self.link, from, self.key.src, self.key.src_port);
        *frame.offload_mut() = crate::packet::Offload::NONE;
        out.deliveries.push(Delivery::Slot { port: self.port, slot });
    }

    fn report(
        &self,
        error: SocketError,
        offender: Addr,
        (dst, seq): (Addr, u16),
        shared: &mut Shared,
        out: &mut SocketOutput,
    ) {
        if dst.is_v4() != self.key.src.is_v4() || !shared.may_refuse() {
            return;
        }
        let key = FlowKey { dst, ..self.key };
        let known = !offender.is_unspecified() && offender.is_v4() == dst.is_v4();
        let from = if known { offender } else { self.gateway };
        let quote = Quote::Echo { seq };
        out.made(self.port, headers::icmp_error(self.link, &key, &quote, error, from));
    }
}
