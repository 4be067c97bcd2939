//! TCP of the socket uplink: a container's segments on one side, a host's stream socket on the other,
//! and no TCP stack between them.
//!
//! # Theory
//!
//! **Nothing is buffered here.** Whatever a stack would have to keep for retransmission is in one of two
//! kernels already. Bytes from the container stay in *its* send queue until we acknowledge them; bytes
//! for the container stay in the *host socket's* receive queue until the container acknowledges them. So a
//! flow is a few hundred bytes of counters, idle or busy, and congestion control, round-trip estimation and
//! loss recovery of the real path are the host kernel's business.
//!
//! **From the container (`rcv`).** A segment that continues the stream is given to `sendmsg` out of the
//! frame it came in. What the socket took is acknowledged, at the end of the batch. We acknowledge what
//! *the host's socket* has taken and not what its peer has: the kernel has no event for the latter, so it
//! would have to be polled, which costs a round trip of throughput per poll (pasta at MTU 1500 stalls on
//! it). The price is that of every proxy: a peer that dies leaves bytes which the container believes
//! delivered, and it learns by a reset. The order of events is kept: the container's FIN is passed on and
//! acknowledged only after all its bytes, and a reset from outside becomes a reset inside.
//!
//! The *window* told to the container is three quarters of the free room in the socket's send buffer
//! (`SO_MEMINFO`), so the socket can nearly always take what comes; when the promise runs low, the
//! kernel is asked to report room (`WatchWritable`), and that is the back-pressure. A segment that it
//! could not take after all is not acknowledged; when there is room, three duplicate acknowledgements
//! make the container send it again at once instead of after its time-out.
//!
//! A segment *before* which something is missing is copied and held until the gap is filled: a TAP
//! delivers in order, but what is behind it in the container may not (several queues, a router, a
//! tunnel). These copies are the only bytes kept here, in one pool a worker (`reorder.rs`), bounded and
//! empty as long as nobody reorders; a segment that finds no room is dropped by name, for the container's
//! kernel has the bytes still. A gap is answered by *one* duplicate acknowledgement, too few to make the
//! container send again, and only if it lasts for [`timers::REORDERING`] by the three that do.
//!
//! **To the container (`snd`).** When the host's socket is readable and the container's window is open,
//! up to a super-frame of bytes is *peeked* (`MSG_PEEK` at `SO_PEEK_OFF`) straight into a frame with room
//! for the headers. Acknowledged bytes are discarded from the socket (`MSG_TRUNC`, no copy).
//! Retransmission is a rewind of the peek offset to the first unacknowledged byte, upon three duplicate
//! acknowledgements or a time-out. There is no congestion window: the only queue on this path is the
//! container's receive buffer, which its window describes. Neither timestamps nor SACK are negotiated.
//!
//! # States
//!
//! ```text
//! container's SYN ─ Connecting ── connected ──▶ SynAckSent ─ ACK ─┐
//!                      │ refused: RST; unreachable: ICMP error    ├▶ Open ─ both FINs ─▶ Closed or TimeWait
//! client accepted ─ SynSent ───── SYN-ACK ────────────────────────┘
//!                      │ RST: once more in the other family; RST again, or silence: the client is reset
//! ```
//!
//! A SYN-ACK is sent only after the host's socket has connected, and a client of a published port stays
//! connected only if the container answers. Half-closes travel through `Open`: `fin_received` with
//! `shutdown(SHUT_WR)` one way, end of stream with `fin_at` the other. `TimeWait` lasts a second, without a
//! socket, for the case that our acknowledgement of the container's FIN is lost.
//!
//! # Limits
//!
//! No urgent data (it is delivered in line, RFC 6093 6), no TCP Fast Open (data of a SYN is ignored and sent again), no ECN
//! towards the container. Simultaneous open is refused: no client of a listener does it.

mod accept;
mod flow;
mod host;
mod input;
mod output;
pub(super) mod reorder;
mod segment;
mod seq;
mod timers;

#[cfg(test)]
mod tests;

use hashbrown::{HashMap, HashTable};

pub(super) use flow::Edges;
pub use flow::{TcpFlow, TcpState};

use self::accept::{Listeners, SecondTry};
use self::flow::Birth;
use self::segment::Segment;
use self::seq::Seq;
use super::calls::{FrameSlot, ListenerId, SockAddr, SocketCall, SocketId, SocketKind};
use super::events::SocketEvent;
use super::forbidden::Forbidden;
use super::headers::{self, Link, TcpFields};
use super::output::{SmallFrame, SocketOutput};
use super::shared::{Inside, Shared};
use super::slab::Slab;
use crate::base::ids::PortId;
use crate::base::limits::{SOCKET_TCP_FLOWS_MAX, SOCKET_TIME_WAITS_MAX};
use crate::base::time::Time;
use crate::packet::{DropReason, FlowKey, FrameMut, Parsed};
use crate::wire::tcp;

/// All TCP flows of one worker's socket uplink.
#[derive(Debug)]
pub(super) struct TcpFlows {
    pub(super) slab: Slab<TcpFlow>,
    /// Slots by key.
    index: HashTable<u32>,
    listeners: Listeners,
    /// Whose `Accept` is outstanding under which name.
    accepting: HashMap<SocketId, ListenerId>,
    /// For containers that have not answered yet, if they have addresses of both families.
    second_tries: HashMap<SocketId, SecondTry>,
    /// Flows that the batch has touched.
    dirty: Vec<u32>,
    time_waits: usize,
}

/// RFC 6528: a clock of 4 µs and a hash of the connection.
fn initial_sequence(key: &FlowKey, shared: &Shared) -> Seq {
    Seq((shared.now.0 / 4_000) as u32).plus(key.hash(shared.seed) as u32)
}

impl TcpFlows {
    pub(super) fn new() -> Self {
        Self {
            slab: Slab::new(SocketKind::Tcp, SOCKET_TCP_FLOWS_MAX + SOCKET_TIME_WAITS_MAX),
            index: HashTable::new(),
            listeners: Listeners::default(),
            accepting: HashMap::new(),
            second_tries: HashMap::new(),
            dirty: Vec::new(),
            time_waits: 0,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.slab.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &TcpFlow> {
        self.slab.iter().map(|(_, flow)| flow)
    }

    pub(super) fn knows(&self, key: &FlowKey, shared: &Shared) -> bool {
        self.find(key, shared).is_some()
    }

    pub(super) fn find(&self, key: &FlowKey, shared: &Shared) -> Option<u32> {
        let same = |slot: &u32| self.slab.at(*slot).is_some_and(|flow| flow.key == *key);
        self.index.find(key.hash(shared.seed), same).copied()
    }

    fn index_insert(&mut self, slot: u32, key: &FlowKey, shared: &Shared) {
        let (seed, slab) = (shared.seed, &self.slab);
        let rehash = |slot: &u32| slab.at(*slot).map_or(0, |flow| flow.key.hash(seed));
        self.index.insert_unique(key.hash(seed), slot, rehash);
    }

    fn index_remove(&mut self, slot: u32, key: &FlowKey, shared: &Shared) {
        let hash = key.hash(shared.seed);
        if let Ok(entry) = self.index.find_entry(hash, |other| *other == slot) {
            entry.remove();
        }
    }

    fn insert(&mut self, birth: Birth) -> Option<SocketId> {
        if self.slab.len() - self.time_waits >= SOCKET_TCP_FLOWS_MAX {
            return None;
        }
        self.slab.insert(|id| TcpFlow::new(id, birth))
    }

    /// Takes in a segment from a container.
    pub(super) fn frame(
        &mut self,
        (parsed, inside): (&Parsed, &Inside),
        (frame, slot): (&FrameMut<'_>, FrameSlot),
        forbidden: &Forbidden,
        shared: &mut Shared,
        out: &mut SocketOutput,
    ) -> Result<(), DropReason> {
        let segment = Segment::read(parsed, frame)?;
        let key = inside.key;
        if let Some(at) = self.find(&key, shared)
            && let Some(flow) = self.slab.at_mut(at)
        {
            if !reopens(flow, &segment) {
                let id = flow.id;
                if flow.state == TcpState::SynSent
                    && self.try_other_family(at, &segment, shared, out)
                {
                    return Ok(());
                }
                let Some(flow) = self.slab.at_mut(at) else { return Ok(()) };
                let outcome = flow.segment(&segment, slot, shared, out);
                self.touch(id, shared);
                return outcome;
            }
            flow.finish(TcpState::Closed, shared);
            self.remove(at, shared);
        }
        if segment.flags & (tcp::SYN | tcp::ACK | tcp::RST | tcp::FIN) != tcp::SYN {
            refuse(&key, parsed, &segment, inside, shared, out);
            return Err(DropReason::TcpNoFlow);
        }
        if inside.redirect.is_none() && forbidden.refuses(parsed) {
            return Err(DropReason::ForbiddenDestination);
        }
        self.open(&key, parsed, &segment, inside, shared, out)
    }

    fn open(
        &mut self,
        key: &FlowKey,
        parsed: &Parsed,
        segment: &Segment<'_>,
        inside: &Inside,
        shared: &mut Shared,
        out: &mut SocketOutput,
    ) -> Result<(), DropReason> {
        shared.shares.open(inside.port, true)?;
        let birth = Birth {
            key: *key,
            link: Link { inside: parsed.src_mac, gateway: parsed.dst_mac },
            port: inside.port,
            gateway: inside.gateway.unwrap_or(key.dst),
            mtu: inside.mtu,
            state: TcpState::Connecting,
            iss: initial_sequence(key, shared),
        };
        let Some(socket) = self.insert(birth) else {
            shared.shares.close(inside.port, true);
            shared.stats.limits_met += 1;
            return Err(DropReason::SocketLimit);
        };
        self.index_insert(socket.slot(), key, shared);
        if let Some(flow) = self.slab.get_mut(socket) {
            flow.rcv_nxt = segment.seq.plus(1);
            flow.take_options(segment.mss, segment.scale);
        }
        let to = SockAddr { addr: inside.redirect.unwrap_or(key.dst), port: key.dst_port };
        out.call(SocketCall::Connect { socket, to });
        shared.stats.tcp_opened += 1;
        self.touch(socket, shared);
        Ok(())
    }

    /// Takes in what an ICMP error says of the path to a container.
    pub(super) fn path_mtu(
        &mut self,
        port: PortId,
        key: &FlowKey,
        (seq, mtu): (u32, u16),
        shared: &mut Shared,
    ) -> Option<Result<(), DropReason>> {
        let at = self.find(key, shared)?;
        let flow = self.slab.at_mut(at).filter(|flow| flow.port == port)?;
        let (id, outcome) = (flow.id, flow.path_mtu((Seq(seq), mtu), shared.now));
        self.touch(id, shared);
        Some(outcome)
    }

    /// Takes in an event of a TCP socket.
    pub(super) fn event(
        &mut self,
        socket: SocketId,
        event: SocketEvent<'_>,
        shared: &mut Shared,
        out: &mut SocketOutput,
    ) {
        let Some(flow) = self.slab.get_mut(socket).filter(|flow| flow.is_live()) else { return };
        match event {
            SocketEvent::Connected { room, .. } => flow.connected(room, out),
            SocketEvent::Failed { error, .. } => flow.failed(error, shared, out),
            SocketEvent::Readable { hangup, .. } => flow.became_readable(hangup),
            SocketEvent::Writable { room, .. } => flow.writable(room),
            SocketEvent::Sent { accepted, room, .. } => flow.sent(accepted, room, shared, out),
            SocketEvent::Data { slot, mut frame, more, .. } => {
                flow.data(&mut frame, slot, more, out);
            }
            SocketEvent::Drained { eof, .. } => flow.drained(eof),
            _ => {}
        }
        self.touch(socket, shared);
    }

    /// Puts a flow on the list of those that the end of the batch looks at.
    pub(super) fn touch(&mut self, socket: SocketId, _shared: &mut Shared) {
        if let Some(flow) = self.slab.get_mut(socket)
            && !std::mem::replace(&mut flow.dirty, true)
        {
            self.dirty.push(socket.slot());
        }
    }

    /// The end of a batch: every flow that it touched says what it has to say.
    pub(super) fn flush(&mut self, shared: &mut Shared, out: &mut SocketOutput) {
        for slot in std::mem::take(&mut self.dirty) {
            let Some(flow) = self.slab.at_mut(slot).filter(|flow| flow.dirty) else { continue };
            flow.dirty = false;
            flow.try_larger(shared.now);
            flow.flush(out);
            flow.rearm(shared);
            let ending = flow.state == TcpState::TimeWait && !flow.waits;
            if ending && self.time_waits < SOCKET_TIME_WAITS_MAX {
                flow.waits = true;
                self.time_waits += 1;
            } else if ending || flow.state == TcpState::Closed {
                self.remove(slot, shared);
            }
        }
    }

    fn remove(&mut self, slot: u32, shared: &mut Shared) {
        let Some(flow) = self.slab.at_mut(slot) else { return };
        shared.timers.disarm(flow.id, &mut flow.armed);
        if flow.holds {
            shared.held.forget(flow.id);
        }
        self.second_tries.remove(&flow.id);
        let key = flow.key;
        if flow.state != TcpState::Accepting {
            shared.ended.push(key);
        }
        self.index_remove(slot, &key, shared);
        if let Some(flow) = self.slab.remove(slot) {
            self.time_waits -= usize::from(flow.waits);
        }
    }

    /// A flow's deadline has come, or is said to have.
    pub(super) fn woken(&mut self, socket: SocketId, shared: &mut Shared, out: &mut SocketOutput) {
        if let Some(flow) = self.slab.get_mut(socket) {
            flow.woken(shared, out);
            self.touch(socket, shared);
        }
    }

    /// Work that is not any flow's.
    pub(super) fn tick(&mut self, shared: &mut Shared, out: &mut SocketOutput) {
        self.ask_again(shared, out);
    }

    pub(super) fn next_deadline(&self) -> Option<Time> {
        self.listeners.again_at
    }

    /// The container is gone: its flows end by reset.
    pub(super) fn remove_port(
        &mut self,
        port: PortId,
        shared: &mut Shared,
        out: &mut SocketOutput,
    ) {
        let slots: Vec<_> =
            self.slab.iter().filter(|(_, f)| f.port == port).map(|(slot, _)| slot).collect();
        for slot in slots {
            if let Some(flow) = self.slab.at_mut(slot) {
                flow.end_by_removal(shared, out);
            }
            self.remove(slot, shared);
        }
    }
}

/// RFC 9293 3.6.1: a SYN beyond the old connection's end opens a new one out of TIME-WAIT.
fn reopens(flow: &TcpFlow, segment: &Segment<'_>) -> bool {
    flow.state == TcpState::TimeWait
        && segment.has(tcp::SYN)
        && flow.rcv_nxt.before(segment.seq.plus(1))
}

/// RFC 9293 3.10.7.1: a segment of no connection is answered by a reset, unless it is one.
fn refuse(
    key: &FlowKey,
    parsed: &Parsed,
    segment: &Segment<'_>,
    inside: &Inside,
    shared: &mut Shared,
    out: &mut SocketOutput,
) {
    if segment.has(tcp::RST) || !shared.may_refuse() {
        return;
    }
    let mut fields = TcpFields { flags: tcp::RST, ..TcpFields::default() };
    if segment.has(tcp::ACK) {
        fields.seq = segment.ack.0;
    } else {
        fields.flags |= tcp::ACK;
        fields.ack = segment.seq.plus(segment.space()).0;
    }
    let link = Link { inside: parsed.src_mac, gateway: parsed.dst_mac };
    let mut frame = SmallFrame::zeroed(headers::tcp_headers(key.src.is_v4()));
    frame.offload = headers::write_tcp(frame.bytes_mut(), link, key, fields, 0, 0);
    out.made(inside.port, frame);
}
