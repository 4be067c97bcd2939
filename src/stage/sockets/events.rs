//! What happens to host sockets, as far as the flow machines must know.

use super::calls::{FrameSlot, ListenerId, Room, SockAddr, SocketId, Via};
use crate::packet::FrameMut;
use crate::wire::addr::Addr;

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
        /// Which socket's.
        via: Via,
    },
    /// Answer to `ReceiveError`, and to a `SendTo` that failed.
    DatagramError {
        /// Which socket.
        via: Via,
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
        /// Which socket's.
        via: Via,
    },
    /// The socket's send buffer was full, as a device's queue may be: frames are lost.
    NotSent {
        /// Which socket.
        via: Via,
        /// How many frames.
        frames: u32,
    },
}

impl SocketEvent<'_> {
    /// The flow's or query's own socket that this is about; `None`: it is about a listener.
    pub fn socket(&self) -> Option<SocketId> {
        match self {
            Self::Connected { socket, .. }
            | Self::Failed { socket, .. }
            | Self::Accepted { socket, .. }
            | Self::NotAccepted { socket, .. }
            | Self::Readable { socket, .. }
            | Self::Writable { socket, .. }
            | Self::Sent { socket, .. }
            | Self::Data { socket, .. }
            | Self::Drained { socket, .. }
            | Self::Datagram { via: Via::Socket(socket), .. }
            | Self::ErrorsWaiting { via: Via::Socket(socket) }
            | Self::DatagramError { via: Via::Socket(socket), .. }
            | Self::NotSent { via: Via::Socket(socket), .. }
            | Self::ErrorsDrained { via: Via::Socket(socket) } => Some(*socket),
            Self::Incoming { .. }
            | Self::ListenerDrained { .. }
            | Self::Datagram { via: Via::Listener(_), .. }
            | Self::ErrorsWaiting { via: Via::Listener(_) }
            | Self::DatagramError { via: Via::Listener(_), .. }
            | Self::NotSent { via: Via::Listener(_), .. }
            | Self::ErrorsDrained { via: Via::Listener(_) } => None,
        }
    }
}
