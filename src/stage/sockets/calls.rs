//! What the flow machines want of the operating system: plain values. What it answers is in `events.rs`.
//!
//! **Contract with whoever executes the calls.** Calls are executed in order, before the batch whose
//! frames they name is cleared, and every call that has an answer is answered by exactly one event,
//! `Receive` by several (see the variants). Answers go back into [`super::SocketFlows::event`], which may ask for more.
//! An event about a socket that has been closed is recognised by its epoch and ignored.

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

/// Index of a frame in the batch at hand; from [`FrameSlot::HELD`] on, in [`super::SocketOutput::held`].
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
    /// Send a datagram, or a train of `segment` bytes each. Answered by `DatagramError` if that fails,
    /// by `NotSent` if the socket is full.
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
    /// Send bytes of our own, which lie in [`super::SocketOutput::made`]. Answered by `Sent` or `Failed` on a
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
        via: Via,
    },
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
}
