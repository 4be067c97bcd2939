//! What the flow machines want of the operating system, and what it answers: plain values.
//!
//! **Contract with whoever executes the calls.** Calls are executed in order, before the batch whose
//! frames they name is cleared, and every call that has an answer is answered by exactly one event,
//! `Receive` by several (see the variants). Answers go back into [`super::SocketFlows::event`], which may ask for more.
//! An event about a socket that has been closed is recognised by its epoch and ignored.

use crate::base::ids::PortId;
use crate::packet::{DropReason, FrameBatch, FrameMut, Offload};
use crate::wire::addr::Addr;

/// Which table a socket's flow is in.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum SocketKind {
    /// A TCP connection.
    Tcp = 0,
    /// A UDP socket of one inside address and port.
    Udp = 1,
    /// A ping socket of one inside address and identifier.
    Ping = 2,
    /// A UDP socket of the name server's own, for one query to a resolver of the host.
    NameUdp = 3,
    /// A TCP connection of the same.
    NameTcp = 4,
}

/// Names a host socket: kind, slot, and how often the slot has been used before. It is the readiness
/// token too; its two highest bits are always zero and may be used by the poller.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SocketId(u64);

impl SocketId {
    const EPOCH_MASK: u32 = (1 << 27) - 1;

    /// The name of `slot` in its `epoch`-th use.
    pub const fn new(kind: SocketKind, slot: u32, epoch: u32) -> Self {
        Self(((kind as u64) << 59) | (((epoch & Self::EPOCH_MASK) as u64) << 32) | slot as u64)
    }

    /// Which table it is in.
    pub const fn kind(self) -> SocketKind {
        match (self.0 >> 59) & 7 {
            0 => SocketKind::Tcp,
            1 => SocketKind::Udp,
            2 => SocketKind::Ping,
            3 => SocketKind::NameUdp,
            _ => SocketKind::NameTcp,
        }
    }

    /// How often its place had been used before.
    pub const fn epoch(self) -> u32 {
        (self.0 >> 32) as u32 & Self::EPOCH_MASK
    }

    /// Its place in that table.
    pub const fn slot(self) -> u32 {
        self.0 as u32
    }

    /// The name as a readiness token.
    pub const fn token(self) -> u64 {
        self.0
    }

    /// The name a token stands for; any number will do, a stranger is recognised later.
    pub const fn from_token(token: u64) -> Self {
        Self(token & !(3 << 62))
    }
}

impl std::fmt::Debug for SocketId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}#{}.{}", self.kind(), self.slot(), self.epoch())
    }
}

/// A listening (TCP) or bound (UDP) socket of a publication, bound by control.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ListenerId(pub u32);

/// An address and a port outside.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct SockAddr {
    /// The address.
    pub addr: Addr,
    /// The port; zero for ping.
    pub port: u16,
}

/// Index of a frame in the batch at hand; from [`FrameSlot::HELD`] on, in [`SocketOutput::held`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FrameSlot(pub u16);

impl FrameSlot {
    /// No batch is so long.
    pub const HELD: u16 = 1 << 15;
}

/// Free and whole room of a socket's send buffer, as SO_MEMINFO reports it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Room {
    /// Bytes that may still be queued.
    pub free: u32,
    /// Size of the buffer.
    pub total: u32,
}

/// "No further part".
pub const NO_PART: u32 = u32::MAX;

/// A piece of a frame to be sent; pieces of one call are chained, so that frames of different flows
/// may alternate in a batch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SendPart {
    /// The frame.
    pub slot: FrameSlot,
    /// Offset of the first byte in the frame.
    pub start: u32,
    /// Number of bytes.
    pub len: u32,
    /// The next piece, or [`NO_PART`].
    pub next: u32,
}

/// A chain of [`SendPart`]s.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Parts {
    /// First piece.
    pub first: u32,
    /// Last piece.
    pub last: u32,
    /// Number of pieces.
    pub count: u32,
    /// Bytes of all pieces.
    pub bytes: u32,
}

/// Which socket a datagram leaves by or arrived at.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Via {
    /// A flow's own.
    Socket(SocketId),
    /// A publication's.
    Listener(ListenerId),
}

/// One thing to be done with a host socket.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SocketCall {
    /// Begin a TCP connection. Answered by `Connected` or `Failed`, at once or later.
    Connect {
        /// The new socket.
        socket: SocketId,
        /// Where to.
        to: SockAddr,
    },
    /// Take one connection from a listener. Answered by `Accepted` or `NotAccepted`.
    Accept {
        /// The listener.
        listener: ListenerId,
        /// What the connection will be called.
        socket: SocketId,
    },
    /// Send stream bytes. Answered by `Sent` or `Failed`.
    Send {
        /// The connection.
        socket: SocketId,
        /// What to send.
        parts: Parts,
    },
    /// Report by `Writable` when the send buffer is a third free, at once if it is already.
    WatchWritable {
        /// The connection.
        socket: SocketId,
    },
    /// Copy received bytes into a new frame behind `headers` bytes of room, leaving them in the socket.
    /// Answered by `Data`, `Drained` or `Failed`.
    Peek {
        /// The connection.
        socket: SocketId,
        /// How many bytes of the socket's queue to skip. With SO_PEEK_OFF the kernel knows already.
        offset: u32,
        /// How many bytes at most.
        len: u32,
        /// Room to leave before them.
        headers: u16,
    },
    /// Set SO_PEEK_OFF, where the kernel has it.
    SetPeekOffset {
        /// The connection.
        socket: SocketId,
        /// Bytes from the head of the socket's queue.
        offset: u32,
    },
    /// Take bytes off the socket's queue: the container has them. Answered by `Failed` if they are not there.
    Discard {
        /// The connection.
        socket: SocketId,
        /// How many.
        len: u32,
    },
    /// No more bytes will be sent.
    Shutdown {
        /// The connection.
        socket: SocketId,
    },
    /// Close the socket. No answer, and no event about it counts any more.
    Close {
        /// The socket.
        socket: SocketId,
        /// By a reset (SO_LINGER with zero) and not by a FIN.
        reset: bool,
    },
    /// Make a UDP or ping socket, after the identifier's kind. Answered by `Failed` if that fails.
    Open {
        /// The new socket.
        socket: SocketId,
        /// For IPv4 or for IPv6.
        v4: bool,
    },
    /// Send a datagram, or a train of `segment` bytes each. Answered by `DatagramError` if that fails.
    SendTo {
        /// Which socket.
        via: Via,
        /// Local address to send from, when the socket has several.
        from: Option<Addr>,
        /// Where to.
        to: SockAddr,
        /// What to send.
        parts: Parts,
        /// Size of each datagram when there are several; the last may be shorter.
        segment: u16,
        /// TTL or hop limit, if it matters (traceroute).
        ttl: Option<u8>,
        /// Whether it may be cut where a link is too narrow. If not, the answer says how narrow.
        fragment: bool,
    },
    /// Send bytes of our own, which lie in [`SocketOutput::made`]. Answered by `Sent` or `Failed` on a
    /// connection, by `DatagramError` if that fails otherwise.
    SendMade {
        /// Which socket.
        socket: SocketId,
        /// Where to.
        to: SockAddr,
        /// Offset of the first byte.
        start: u32,
        /// Number of bytes.
        len: u32,
    },
    /// Receive datagrams, or trains of them, into new frames. Answered by any number of `Datagram`s and
    /// then, unless others are to have their turn first, by `Drained` or `ListenerDrained`. If they are,
    /// `Readable` or `Incoming` comes again after them.
    Receive {
        /// Which socket.
        via: Via,
        /// Room to leave before the payload.
        headers: u16,
    },
    /// Read one entry of the error queue. Answered by `DatagramError` or `ErrorsDrained`.
    ReceiveError {
        /// Which socket.
        socket: SocketId,
    },
}

/// Why a socket call failed, as far as the container must know.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SocketError {
    /// ECONNREFUSED, or port unreachable.
    Refused,
    /// ECONNRESET, EPIPE.
    Reset,
    /// ENETUNREACH, EADDRNOTAVAIL for want of an address of the family.
    NetUnreachable,
    /// EHOSTUNREACH.
    HostUnreachable,
    /// ETIMEDOUT.
    TimedOut,
    /// EACCES, EPERM: a firewall, or no right to make such a socket.
    Prohibited,
    /// EMSGSIZE, or "too big" from the path, with its MTU where known.
    TooBig(u16),
    /// TTL ran out on the way.
    TimeExceeded,
    /// Descriptors, ports or memory ran out.
    Limit,
    /// Anything else.
    Other,
}

/// Something that happened to a host socket.
#[derive(Debug)]
pub enum SocketEvent<'a> {
    /// A connection stands.
    Connected {
        /// Which.
        socket: SocketId,
        /// Room in its send buffer.
        room: Room,
    },
    /// A call failed, or the socket reported an error by itself.
    Failed {
        /// Which.
        socket: SocketId,
        /// Why.
        error: SocketError,
    },
    /// A listener has connections or datagrams waiting (edge-triggered).
    Incoming {
        /// Which.
        listener: ListenerId,
    },
    /// A connection was taken from a listener.
    Accepted {
        /// The new socket.
        socket: SocketId,
        /// The other end.
        client: SockAddr,
        /// The address it asked for.
        local: SockAddr,
        /// Room in its send buffer.
        room: Room,
    },
    /// None was taken: there is none, or no descriptor for it.
    NotAccepted {
        /// The name that stays unused.
        socket: SocketId,
        /// `None`: nobody is waiting.
        error: Option<SocketError>,
    },
    /// Bytes, datagrams, or an end of stream arrived (edge-triggered).
    Readable {
        /// Which.
        socket: SocketId,
        /// The peer has shut down its side (EPOLLRDHUP).
        hangup: bool,
    },
    /// The send buffer has room again, after `WatchWritable`.
    Writable {
        /// Which.
        socket: SocketId,
        /// How much.
        room: Room,
    },
    /// Answer to `Send`.
    Sent {
        /// Which.
        socket: SocketId,
        /// Bytes taken: all, some, or none.
        accepted: u32,
        /// Room left.
        room: Room,
    },
    /// Answer to `Peek`: `frame` has room for the headers and then the bytes.
    Data {
        /// Which.
        socket: SocketId,
        /// Where the frame is.
        slot: FrameSlot,
        /// The frame.
        frame: FrameMut<'a>,
        /// Another `Peek` may give more; if not, the socket is empty.
        more: bool,
    },
    /// Answer to `Peek` or `Receive`: nothing (more) there.
    Drained {
        /// Which.
        socket: SocketId,
        /// The stream has ended.
        eof: bool,
    },
    /// Answer to `Receive`.
    Datagram {
        /// Which socket.
        via: Via,
        /// Where the frame is.
        slot: FrameSlot,
        /// The frame: room for the headers, then the payload.
        frame: FrameMut<'a>,
        /// Who sent it.
        from: SockAddr,
        /// The local address it was sent to, where the socket has several.
        to: Option<Addr>,
        /// Size of each datagram if these are several.
        segment: Option<u16>,
    },
    /// Answer to `Receive` on a listener: nothing more there.
    ListenerDrained {
        /// Which.
        listener: ListenerId,
    },
    /// The error queue has entries.
    ErrorsWaiting {
        /// Which.
        socket: SocketId,
    },
    /// Answer to `ReceiveError`.
    DatagramError {
        /// Which.
        socket: SocketId,
        /// What happened.
        error: SocketError,
        /// Who says so; unspecified if the host itself.
        offender: Addr,
        /// Where the datagram was sent.
        to: SockAddr,
        /// Echo sequence of the lost request, for ping.
        echo_seq: u16,
    },
    /// Answer to `ReceiveError`: nothing more there.
    ErrorsDrained {
        /// Which.
        socket: SocketId,
    },
}

/// A frame of ours that is small enough to be passed by value: control segments and ICMP errors.
#[derive(Clone, Copy)]
pub struct SmallFrame {
    bytes: [u8; Self::MAX],
    len: u8,
    /// What is left to be done to it.
    pub offload: Offload,
}

impl SmallFrame {
    /// Ethernet, IPv6 and ICMPv6 headers before a quoted IPv6 and TCP header.
    pub const MAX: usize = 128;

    pub(super) fn zeroed(len: usize) -> Self {
        Self { bytes: [0; Self::MAX], len: len.min(Self::MAX) as u8, offload: Offload::NONE }
    }

    /// The frame, from its Ethernet header.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }

    pub(super) fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[..usize::from(self.len)]
    }
}

impl std::fmt::Debug for SmallFrame {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SmallFrame").field("len", &self.len).finish_non_exhaustive()
    }
}

/// A frame for a container.
#[derive(Clone, Copy, Debug)]
pub enum Delivery {
    /// The frame that came with a `Data` or `Datagram` event, headers now written.
    Slot {
        /// To which port.
        port: PortId,
        /// Where the frame is.
        slot: FrameSlot,
    },
    /// One of our own.
    Made {
        /// To which port.
        port: PortId,
        /// The frame.
        frame: SmallFrame,
    },
}

/// What comes out of the flow machines. Emptied and reused, so that it allocates only while it grows.
#[derive(Debug, Default)]
pub struct SocketOutput {
    /// To be executed in order.
    pub calls: Vec<SocketCall>,
    /// Pieces of frames that `calls` name.
    pub parts: Vec<SendPart>,
    /// Bytes of earlier batches, whose turn has come.
    pub held: Vec<Vec<u8>>,
    /// To be written in order.
    pub deliveries: Vec<Delivery>,
    /// Frames that were dropped after all, and of new flows those that the host refused, by the port that
    /// they came from.
    pub drops: Vec<(PortId, DropReason)>,
    /// Bytes that [`SocketCall::SendMade`] names.
    pub made: Vec<u8>,
}

impl SocketOutput {
    /// Forgets everything.
    pub fn clear(&mut self) {
        self.calls.clear();
        self.parts.clear();
        self.held.clear();
        self.deliveries.clear();
        self.drops.clear();
        self.made.clear();
    }

    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.calls.is_empty() && self.deliveries.is_empty() && self.drops.is_empty()
    }

    /// The pieces of a chain, in order.
    pub fn chain(&self, parts: Parts) -> impl Iterator<Item = SendPart> + '_ {
        let mut at = parts.first;
        std::iter::from_fn(move || {
            let part = *self.parts.get(at as usize)?;
            at = part.next;
            Some(part)
        })
    }

    /// The bytes of a piece; `None` if its frame is not there any more.
    pub fn piece<'a>(&'a self, part: SendPart, batch: &'a FrameBatch) -> Option<&'a [u8]> {
        let slot = usize::from(part.slot.0);
        let bytes = match part.slot.0.checked_sub(FrameSlot::HELD) {
            Some(held) => self.held.get(usize::from(held))?,
            None => (slot < batch.len()).then(|| batch.bytes(slot))?,
        };
        bytes.get(part.start as usize..(part.start + part.len) as usize)
    }

    /// Keeps bytes until the calls that name them have been executed.
    pub(super) fn hold(&mut self, bytes: Vec<u8>) -> FrameSlot {
        self.held.push(bytes);
        FrameSlot(FrameSlot::HELD + (self.held.len() - 1) as u16)
    }

    /// Notes a drop that nobody else counts.
    pub(super) fn dropped(&mut self, port: PortId, reason: DropReason) {
        self.drops.push((port, reason));
    }

    /// Asks for bytes of our own to be sent.
    pub fn send_made(&mut self, socket: SocketId, to: SockAddr, bytes: &[u8]) {
        let (start, len) = (self.made.len() as u32, bytes.len() as u32);
        self.made.extend_from_slice(bytes);
        self.calls.push(SocketCall::SendMade { socket, to, start, len });
    }

    pub(super) fn call(&mut self, call: SocketCall) {
        self.calls.push(call);
    }

    pub(super) fn made(&mut self, port: PortId, frame: SmallFrame) {
        self.deliveries.push(Delivery::Made { port, frame });
    }

    /// A chain of one piece.
    pub(super) fn part(&mut self, slot: FrameSlot, start: u32, len: u32) -> Parts {
        let at = self.parts.len() as u32;
        self.parts.push(SendPart { slot, start, len, next: NO_PART });
        Parts { first: at, last: at, count: 1, bytes: len }
    }

    /// Adds a piece to the chain of call `hint`, if that is still a call of `want`'s.
    pub(super) fn append(
        &mut self,
        hint: u32,
        slot: FrameSlot,
        start: u32,
        len: u32,
        want: impl Fn(&SocketCall) -> bool,
    ) -> bool {
        let at = self.parts.len() as u32;
        let Some(call) = self.calls.get_mut(hint as usize).filter(|call| want(call)) else {
            return false;
        };
        let (SocketCall::Send { parts, .. } | SocketCall::SendTo { parts, .. }) = call else {
            return false;
        };
        let last = std::mem::replace(&mut parts.last, at);
        parts.count += 1;
        parts.bytes += len;
        self.parts[last as usize].next = at;
        self.parts.push(SendPart { slot, start, len, next: NO_PART });
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_s_name_survives_being_a_token() {
        use SocketKind::{NameTcp, NameUdp, Ping, Tcp, Udp};
        for kind in [Tcp, Udp, Ping, NameUdp, NameTcp] {
            let id = SocketId::new(kind, 0xdead_beef, 0xffff_ffff);
            assert_eq!(id.token() >> 62, 0, "the poller's bits");
            let again = SocketId::from_token(id.token() | 3 << 62);
            assert_eq!((again, again.kind(), again.slot()), (id, kind, 0xdead_beef));
        }
        assert_ne!(SocketId::new(Tcp, 1, 1), SocketId::new(Tcp, 1, 2), "another use of the slot");
    }

    #[test]
    fn pieces_of_alternating_flows_stay_in_their_own_chains() {
        let mut out = SocketOutput::default();
        let ids = [0, 1].map(|slot| SocketId::new(SocketKind::Tcp, slot, 0));
        for (n, socket) in ids.into_iter().enumerate() {
            let parts = out.part(FrameSlot(n as u16), 54, 10);
            out.call(SocketCall::Send { socket, parts });
        }
        for n in 2..6_u32 {
            let hint = n % 2;
            let own = |call: &SocketCall| matches!(call, SocketCall::Send { socket, .. } if *socket == ids[hint as usize]);
            assert!(out.append(hint, FrameSlot(n as u16), 54, 10, own));
        }
        let SocketCall::Send { parts, .. } = out.calls[1] else { panic!() };
        let slots: Vec<_> = out.chain(parts).map(|part| part.slot.0).collect();
        assert_eq!(slots, [1, 3, 5]);
        assert_eq!((parts.count, parts.bytes), (3, 30));
    }
}
