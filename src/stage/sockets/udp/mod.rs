//! UDP of the socket uplink: one host socket for each inside address and port.
//!
//! # Theory
//!
//! The host's kernel chooses the outside port when the socket is bound, once for all destinations: that is
//! endpoint-independent mapping (RFC 4787 REQ-1) for free, without a port table of ours. Filtering
//! (REQ-8) is address-dependent: a datagram from an address that was never spoken to is dropped. Up to
//! [`SOCKET_UDP_REMOTES_MAX`] addresses are remembered exactly; an application that speaks to more is
//! peer-to-peer and wants to be reached, so its filter opens.
//!
//! Datagrams that follow one another to the same place with the same size leave as one train (one
//! `sendmsg` with UDP_SEGMENT), whether the container sent them as a super-frame or one by one. Trains
//! that arrive (UDP_GRO) become a super-frame towards the container.
//!
//! **Published ports.** The listener's one socket serves all clients. Each client is remembered with the
//! local address that it asked (IP_PKTINFO), so that the answer leaves from there; the container sees
//! the client's own address. The container's datagrams to such a client leave by the listener, all
//! others by a socket of their own.
//!
//! **Time.** Only datagrams from the container keep a socket (REQ-6; refreshing from outside would let a
//! stranger hold it), for 300 s (REQ-5c); 30 s when it has only ever asked name servers, one question
//! after another from new ports (REQ-5a). Clients of published ports are kept by both directions.

mod clients;

#[cfg(test)]
mod tests;

use hashbrown::HashTable;
use zerocopy::FromBytes;

pub(super) use self::clients::{Clients, Datagram};

use crate::base::ids::{DomainId, PortId};
use crate::base::limits::{
    SOCKET_FLOW_BYTES_MAX, SOCKET_UDP_FLOWS_MAX, SOCKET_UDP_REMOTES_MAX,
    SOCKET_UDP_TRAIN_BYTES_MAX, SOCKET_UDP_TRAIN_MAX,
};
use crate::base::time::{Span, Time};
use crate::packet::parse::L3_OFFSET;
use crate::packet::{Csum, DropReason, FlowKey, Fragment, FrameMut, Gso, Parsed};
use crate::stage::sockets::calls::{FrameSlot, SockAddr, SocketCall, SocketId, SocketKind, Via};
use crate::stage::sockets::events::{SocketError, SocketEvent};
use crate::stage::sockets::forbidden::Forbidden;
use crate::stage::sockets::headers::{self, Link, Quote};
use crate::stage::sockets::output::{Delivery, SocketOutput};
use crate::stage::sockets::shared::{Inside, Shared};
use crate::stage::sockets::slab::Slab;
use crate::wire::addr::Addr;
use crate::wire::ipv4::{self, Ipv4};
use crate::wire::{checksum, ipv6, udp};

/// RFC 4787 REQ-5c.
const TIMEOUT: Span = Span::from_secs(300);
/// RFC 4787 REQ-5a, as the kernel's conntrack has it for unreplied UDP.
const TIMEOUT_DNS: Span = Span::from_secs(30);
const DNS: u16 = 53;
/// An IPv4 packet less its headers; IPv6 would take 20 bytes more.
const PAYLOAD_MAX: usize = 65_507;
/// Below this a TTL is a traceroute's and must be kept; above it nobody can tell.
const TTL_KEPT: u8 = 32;

/// A socket of one inside address and port.
#[derive(Clone, Debug)]
pub struct UdpFlow {
    id: SocketId,
    /// As the container's datagrams are keyed, but without a destination.
    key: FlowKey,
    /// Family of the host's socket: what is redirected may go to another than the container's.
    v4_outside: bool,
    link: Link,
    port: PortId,
    gateway: Addr,
    /// Answers from here are shown as from there: the gateway's address stood for the host's loopback.
    redirect: Option<(Addr, Addr)>,
    remotes: [Addr; SOCKET_UDP_REMOTES_MAX],
    remotes_len: u8,
    filter_open: bool,
    only_dns: bool,
    last_sent: Time,
    armed: Option<Time>,
    last_call: u32,
}

const _: () = assert!(size_of::<UdpFlow>() <= SOCKET_FLOW_BYTES_MAX);

/// All UDP flows of one worker's socket uplink.
#[derive(Debug)]
pub(super) struct UdpFlows {
    slab: Slab<UdpFlow>,
    index: HashTable<u32>,
    pub(super) clients: Clients,
}

/// Payload of a frame that is being sent.
#[derive(Clone, Copy)]
struct Payload {
    slot: FrameSlot,
    start: u32,
    len: u32,
    /// Size of each datagram.
    segment: u32,
    ttl: Option<u8>,
    /// Whether it may leave in fragments.
    fragment: bool,
}

impl UdpFlow {
    /// Inside address and port.
    pub fn inside(&self) -> (Addr, u16) {
        (self.key.src, self.key.src_port)
    }

    /// Its socket.
    pub(super) fn id(&self) -> SocketId {
        self.id
    }

    pub(super) fn is_on(&self, domain: DomainId) -> bool {
        self.key.domain == domain
    }

    /// Where the container is plugged in.
    pub fn port(&self) -> PortId {
        self.port
    }

    fn expires(&self) -> Time {
        self.last_sent + if self.only_dns { TIMEOUT_DNS } else { TIMEOUT }
    }

    fn remember(&mut self, remote: Addr) {
        let known = &self.remotes[..usize::from(self.remotes_len)];
        if self.filter_open || known.contains(&remote) {
            return;
        }
        match self.remotes.get_mut(usize::from(self.remotes_len)) {
            Some(free) => {
                *free = remote;
                self.remotes_len += 1;
            }
            None => self.filter_open = true,
        }
    }

    fn admits(&self, remote: Addr) -> bool {
        self.filter_open || self.remotes[..usize::from(self.remotes_len)].contains(&remote)
    }

    /// The key of a datagram from `from`, as an answer to the container.
    fn answered(&self, from: SockAddr) -> FlowKey {
        let shown = match self.redirect {
            Some((real, shown)) if real == from.addr => shown,
            _ => from.addr,
        };
        FlowKey { dst: shown, dst_port: from.port, ..self.key }
    }
}

/// What a socket is shared by: everything from one inside address and port. What is redirected has
/// sockets of its own.
fn inside_of(key: &FlowKey, inside: &Inside) -> FlowKey {
    let dst = if inside.redirect.is_some() { key.dst } else { Addr::UNSPECIFIED };
    FlowKey { dst, dst_port: 0, ..*key }
}

impl UdpFlows {
    pub(super) fn new() -> Self {
        Self {
            slab: Slab::new(SocketKind::Udp, SOCKET_UDP_FLOWS_MAX),
            index: HashTable::new(),
            clients: Clients::default(),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.slab.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &UdpFlow> {
        self.slab.iter().map(|(_, flow)| flow)
    }

    pub(super) fn knows_client(&self, key: &FlowKey) -> bool {
        self.clients.knows(key)
    }

    /// Takes in a datagram, or a super-frame of them, from a container.
    pub(super) fn frame(
        &mut self,
        (parsed, inside): (&Parsed, &Inside),
        (frame, slot): (&FrameMut<'_>, FrameSlot),
        forbidden: &Forbidden,
        shared: &mut Shared,
        out: &mut SocketOutput,
    ) -> Result<(), DropReason> {
        let payload = read(parsed, inside.assembled, frame, slot)?;
        let key = inside.key;
        if self.clients.answer(&key, payload, shared.now, out) {
            return Ok(());
        }
        if inside.redirect.is_none() && forbidden.refuses(parsed) {
            return Err(DropReason::ForbiddenDestination);
        }
        let id = self.find_or_open(&key, parsed, inside, shared, out)?;
        let Some(flow) = self.slab.get_mut(id) else { return Err(DropReason::SocketLimit) };
        let to = SockAddr { addr: inside.redirect.unwrap_or(key.dst), port: key.dst_port };
        if let Some(real) = inside.redirect {
            flow.redirect = Some((real, key.dst));
        }
        flow.remember(to.addr);
        flow.only_dns &= key.dst_port == DNS;
        flow.last_sent = shared.now;
        let expires = flow.expires();
        shared.timers.arm(id, &mut flow.armed, expires);
        send(Via::Socket(id), None, to, payload, &mut flow.last_call, out);
        Ok(())
    }

    fn find_or_open(
        &mut self,
        key: &FlowKey,
        parsed: &Parsed,
        inside: &Inside,
        shared: &mut Shared,
        out: &mut SocketOutput,
    ) -> Result<SocketId, DropReason> {
        let key = inside_of(key, inside);
        let v4 = inside.redirect.unwrap_or(key.src).is_v4();
        let hash = key.hash(shared.seed);
        let same = |slot: &u32| {
            self.slab.at(*slot).is_some_and(|flow| (flow.key, flow.v4_outside) == (key, v4))
        };
        if let Some(flow) = self.index.find(hash, same).and_then(|slot| self.slab.at(*slot)) {
            return Ok(flow.id);
        }
        shared.shares.open(inside.port, false)?;
        let made = self.slab.insert(|id| UdpFlow {
            id,
            key,
            v4_outside: v4,
            link: Link { inside: parsed.src_mac, gateway: parsed.dst_mac },
            port: inside.port,
            gateway: inside.gateway.unwrap_or(parsed.dst),
            redirect: None,
            remotes: [Addr::UNSPECIFIED; SOCKET_UDP_REMOTES_MAX],
            remotes_len: 0,
            filter_open: false,
            only_dns: true,
            last_sent: shared.now,
            armed: None,
            last_call: u32::MAX,
        });
        let Some(id) = made else {
            shared.shares.close(inside.port, false);
            shared.stats.limits_met += 1;
            return Err(DropReason::SocketLimit);
        };
        let (seed, slab) = (shared.seed, &self.slab);
        let rehash = |slot: &u32| slab.at(*slot).map_or(0, |flow| flow.key.hash(seed));
        self.index.insert_unique(hash, id.slot(), rehash);
        shared.stats.udp_opened += 1;
        out.call(SocketCall::Open { socket: id, v4 });
        Ok(id)
    }

    /// Takes in an event of a flow's socket.
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
            SocketEvent::Datagram { slot, mut frame, from, segment, .. } => {
                if flow.admits(from.addr) {
                    let key = flow.answered(from);
                    deliver(&key, flow.link, flow.port, (&mut frame, slot), segment, out);
                } else {
                    shared.stats.udp_filtered += 1;
                }
            }
            SocketEvent::ErrorsWaiting { via } => out.call(SocketCall::ReceiveError { via }),
            SocketEvent::NotSent { frames, .. } => out.not_sent(flow.port, frames),
            SocketEvent::DatagramError { via, error, offender, to, .. } => {
                out.call(SocketCall::ReceiveError { via });
                flow.report(error, offender, to, shared, out);
            }
            SocketEvent::Failed { error, .. } => {
                // The container learns at once; its next datagram tries anew.
                if error == SocketError::Limit {
                    shared.stats.limits_met += 1;
                    out.dropped(flow.port, DropReason::SocketLimit);
                }
                let to = SockAddr { addr: flow.remotes[0], port: 0 };
                flow.report(error, Addr::UNSPECIFIED, to, shared, out);
                self.close(socket, shared, out);
            }
            _ => {}
        }
    }

    /// A deadline has come, or is said to have.
    pub(super) fn woken(&mut self, socket: SocketId, shared: &mut Shared, out: &mut SocketOutput) {
        let Some(flow) = self.slab.get_mut(socket) else { return };
        flow.armed = None;
        let expires = flow.expires();
        if expires > shared.now {
            shared.timers.arm(socket, &mut flow.armed, expires);
        } else {
            self.close(socket, shared, out);
        }
    }

    pub(super) fn close(&mut self, socket: SocketId, shared: &mut Shared, out: &mut SocketOutput) {
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
        let ids: Vec<_> = self.iter().filter(|flow| flow.port == port).map(|f| f.id).collect();
        for id in ids {
            self.close(id, shared, out);
        }
    }
}

impl UdpFlow {
    fn receive(&self, out: &mut SocketOutput) {
        out.call(receive(Via::Socket(self.id), self.key.src.is_v4()));
    }

    /// Tells the container what became of a datagram.
    fn report(
        &self,
        error: SocketError,
        offender: Addr,
        to: SockAddr,
        shared: &mut Shared,
        out: &mut SocketOutput,
    ) {
        if to.addr.is_unspecified() || !shared.may_refuse() {
            return;
        }
        let key = self.answered(to);
        // An error of the host itself comes from the gateway; routers and the far end speak for themselves.
        let known = !offender.is_unspecified() && offender.is_v4() == key.src.is_v4();
        let from = if known {
            self.answered(SockAddr { addr: offender, port: 0 }).dst
        } else {
            self.gateway
        };
        out.made(self.port, headers::icmp_error(self.link, &key, &Quote::Udp, error, from));
    }
}

fn receive(via: Via, v4: bool) -> SocketCall {
    SocketCall::Receive { via, headers: headers::udp_headers(v4) as u16 }
}

fn deliver(
    key: &FlowKey,
    link: Link,
    port: PortId,
    (frame, slot): (&mut FrameMut<'_>, FrameSlot),
    segment: Option<u16>,
    out: &mut SocketOutput,
) {
    let payload = frame.len().checked_sub(headers::udp_headers(key.src.is_v4()));
    if payload.is_none_or(|len| len > PAYLOAD_MAX) {
        return;
    }
    *frame.offload_mut() = headers::write_udp(frame.bytes_mut(), link, key, segment);
    out.deliveries.push(Delivery::Slot { port, slot });
}

/// Sends a payload, if possible as one more piece of the train that the last one began.
fn send(
    via: Via,
    from: Option<Addr>,
    to: SockAddr,
    payload: Payload,
    last_call: &mut u32,
    out: &mut SocketOutput,
) {
    let Payload { slot, start, len, segment, ttl, fragment } = payload;
    let joins = |call: &SocketCall| match call {
        SocketCall::SendTo { via: v, from: f, to: t, parts, segment: s, ttl: l, fragment: c } => {
            let same = (*v, *f, *t, *l, *c) == (via, from, to, ttl, fragment);
            let size = u32::from(*s);
            // All datagrams but the last have one size, and this one may be the last.
            let fits = parts.bytes.checked_rem(size) == Some(0) && len <= size && segment == len;
            let segments = parts.bytes.checked_div(size).unwrap_or(u32::MAX);
            let bounded =
                segments < SOCKET_UDP_TRAIN_MAX && parts.bytes + len <= SOCKET_UDP_TRAIN_BYTES_MAX;
            same && fits && bounded && len > 0
        }
        _ => false,
    };
    if out.append(*last_call, slot, start, len, joins) {
        return;
    }
    *last_call = out.calls.len() as u32;
    let parts = out.part(slot, start, len);
    let segment = segment as u16;
    out.call(SocketCall::SendTo { via, from, to, parts, segment, ttl, fragment });
}

/// Checks a container's datagram and finds its payload.
fn read(
    parsed: &Parsed,
    assembled: bool,
    frame: &FrameMut<'_>,
    slot: FrameSlot,
) -> Result<Payload, DropReason> {
    if parsed.fragment != Fragment::Whole {
        return Err(DropReason::FragmentLimit);
    }
    let bytes = parsed.l4_bytes(frame.bytes());
    let &[_, _, _, _, high, low, sum_high, sum_low, ..] = bytes else {
        return Err(DropReason::Truncated);
    };
    let offload = frame.offload();
    let train = offload.gso == Gso::UdpL4;
    // The length field of a super-frame covers all of it or, in older kernels, one datagram.
    let told = usize::from(u16::from_be_bytes([high, low]));
    let whole = if train { bytes.len() } else { told.min(bytes.len()) };
    let summed = offload.csum == Csum::Unverified && (sum_high, sum_low) != (0, 0);
    let pseudo = checksum::pseudo_header(parsed.src, parsed.dst, ipv6::UDP, whole as u32);
    if summed && checksum::add(pseudo, checksum::sum(&bytes[..whole])) != 0xffff {
        return Err(DropReason::Malformed);
    }
    let len = whole.checked_sub(udp::HEADER_LEN).ok_or(DropReason::Malformed)? as u32;
    let segment = if train { u32::from(offload.gso_size).min(len) } else { len };
    if segment > 0 && len.div_ceil(segment) > u32::from(u8::MAX) {
        // No kernel makes trains of more than 128; cutting a hostile one into crumbs costs calls.
        return Err(DropReason::OffloadHeader);
    }
    let start = u32::from(parsed.l4) + udp::HEADER_LEN as u32;
    // The gateway is a hop of its own, and the host's socket makes none.
    let ttl = (parsed.ttl < TTL_KEPT).then_some(parsed.ttl.saturating_sub(1).max(1));
    let fragment = assembled || !keeps_whole(parsed, frame.bytes());
    Ok(Payload { slot, start, len, segment, ttl, fragment })
}

/// Whether no router may cut it: RFC 791's "don't fragment", and every packet of IPv6.
fn keeps_whole(parsed: &Parsed, frame: &[u8]) -> bool {
    let ip = frame.get(L3_OFFSET..).unwrap_or_default();
    !parsed.src.is_v4()
        || Ipv4::ref_from_prefix(ip).is_ok_and(|(ip, _)| ip.flags_offset.get() & ipv4::DF != 0)
}
