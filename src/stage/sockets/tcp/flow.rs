//! One connection: its state and what it remembers.

use super::seq::Seq;
use super::timers::Timer;
use crate::base::ids::PortId;
use crate::base::limits::{FRAME_MAX, SOCKET_FLOW_BYTES_MAX};
use crate::base::time::Time;
use crate::packet::FlowKey;
use crate::stage::sockets::calls::{Room, SocketId};
use crate::stage::sockets::headers::{self, Link};
use crate::wire::addr::Addr;

/// Where a connection is in its life. How far each half is closed is said by
/// [`TcpFlow::fin_received`] and [`TcpFlow::fin_at`], not by states of their own: the halves are independent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TcpState {
    /// A listener has been asked for a connection. The flow has no key yet.
    Accepting,
    /// The container's SYN came; the host's socket is connecting. *Nothing is answered yet.*
    Connecting,
    /// The host's socket is connected and our SYN-ACK on its way.
    SynAckSent,
    /// A client of a published port was accepted and our SYN is on its way to the container. *The client
    /// is told nothing yet but that its connection stands; a refusal becomes a reset.*
    SynSent,
    /// Both sides are connected; either may have closed its half.
    Open,
    /// Both halves are closed, the host's socket is gone; only a lost last acknowledgement is served.
    TimeWait,
    /// To be removed.
    Closed,
}

/// A connection of the socket uplink. `rcv` is the direction from the container, `snd` towards it
/// (RFC 9293's names, seen from us, who stand in for the outside host).
#[derive(Clone, Debug)]
#[allow(
    clippy::struct_excessive_bools,
    reason = "independent facts about two halves of a connection; their product is not a state"
)]
pub struct TcpFlow {
    pub(in crate::stage::sockets) id: SocketId,
    /// As the container's packets are keyed: `src` is the inside.
    pub(super) key: FlowKey,
    pub(super) link: Link,
    pub(super) port: PortId,
    /// Source of ICMP errors.
    pub(super) gateway: Addr,
    pub(super) state: TcpState,
    /// It was begun by a client of a published port.
    pub(in crate::stage::sockets) by_client: bool,
    pub(super) mtu: u16,
    /// Largest segment the container takes, and the unit of our super-frames.
    pub(super) mss: u16,
    /// The same as the container said it: `mss` is less while a hop behind it is known to take less.
    pub(super) mss_told: u16,
    /// When more is tried again.
    pub(super) larger_at: Time,
    /// Shift of the windows the container tells us.
    pub(super) their_scale: u8,
    /// Shift of the windows we tell it.
    pub(super) our_scale: u8,

    /// Next byte of the container that the host's socket has not taken.
    pub(super) rcv_nxt: Seq,
    /// Right edge of the window we have told the container; it never moves left.
    pub(super) rcv_edge: Seq,
    /// Bytes handed to a `Send` that has not been answered.
    pub(super) sending: u32,
    /// Where in the output that `Send` is.
    pub(super) send_call: u32,
    /// Send buffer of the host's socket, when it was last seen.
    pub(super) room: Room,
    /// `WatchWritable` is outstanding.
    pub(super) watching: bool,
    /// Bytes were not taken: the container must be told to send them again once there is room.
    pub(super) not_taken: bool,
    /// The container's FIN comes after the bytes that are being sent.
    pub(super) fin_pending: bool,
    /// The container's FIN has been passed on.
    pub(super) fin_received: bool,
    /// Acknowledgements to be sent at the end of the batch: more than one are duplicates.
    pub(super) acks_due: u8,
    /// Where bytes are missing that later ones wait for, or did not find room to wait.
    pub(super) gap_at: Option<Seq>,
    /// When the gap counts as a loss, unless it is filled before.
    pub(super) lost_at: Option<Time>,
    /// Bytes behind a gap may be in the worker's [`Held`](super::reorder::Held).
    pub(super) holds: bool,

    /// First byte the container has not acknowledged: the head of the host socket's queue.
    pub(super) snd_una: Seq,
    /// Next byte to be sent to it.
    pub(super) snd_nxt: Seq,
    /// Highest byte ever sent to it.
    pub(super) snd_max: Seq,
    /// Its window, scaled.
    pub(super) snd_wnd: u32,
    /// Segment that told the window (RFC 9293 3.10.7.4).
    pub(super) snd_wl1: Seq,
    pub(super) snd_wl2: Seq,
    /// Acknowledged, but still in the host socket's queue.
    pub(super) discard: u32,
    /// Duplicate acknowledgements seen in a row.
    pub(super) dup_acks: u8,
    /// End of what was sent when a loss was noticed: until it is acknowledged, duplicates count for nothing.
    pub(super) recover: Option<Seq>,
    /// Place of our FIN, once the host's socket has come to its end.
    pub(super) fin_at: Option<Seq>,
    /// The host's socket has bytes that we have not seen the end of.
    pub(super) readable: bool,
    /// Its peer has shut down: when the bytes end, the stream ends.
    pub(super) hangup: bool,
    /// Where the outstanding `Peek` began.
    pub(super) peeking: Option<Seq>,
    /// The kernel's peek offset is not `snd_nxt` any more.
    pub(super) peek_moved: bool,
    /// We closed first, so a lost last acknowledgement is ours to repeat.
    pub(super) closed_first: bool,

    pub(super) timer: Timer,
    pub(super) deadline: Time,
    /// Entry in the timer queue.
    pub(super) armed: Option<Time>,
    /// The timer starts anew at the end of the batch.
    pub(super) restart: bool,
    /// Expiries in a row without progress: the exponent of the back-off.
    pub(super) retries: u8,
    /// Expiries in a row without a word from the container.
    pub(super) silent: u8,
    /// In the list of flows that the end of the batch looks at.
    pub(super) dirty: bool,
    /// Counted among those in [`TcpState::TimeWait`].
    pub(super) waits: bool,
}

const _: () = assert!(size_of::<TcpFlow>() <= SOCKET_FLOW_BYTES_MAX);

/// Largest window shift that we offer: 65,535 × 2⁷ is 8 MiB, twice the kernel's usual send buffer.
pub(super) const OUR_SCALE: u8 = 7;
/// Segments without an MSS option have this (RFC 9293 3.7.1, RFC 8200 5).
pub(super) const DEFAULT_MSS: [u16; 2] = [1220, 536];
/// A container that claims to take less is not believed: each byte would cost a frame.
pub(super) const MSS_MIN: u16 = 88;

/// Who and where a new flow is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Birth {
    pub(super) key: FlowKey,
    pub(super) link: Link,
    pub(super) port: PortId,
    pub(super) gateway: Addr,
    pub(super) mtu: u16,
    pub(super) state: TcpState,
    pub(super) iss: Seq,
}

/// Where a flow is in both streams, for whoever plays a container that knows it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::stage::sockets) struct Edges {
    pub(in crate::stage::sockets) rcv_nxt: u32,
    pub(in crate::stage::sockets) rcv_edge: u32,
    pub(in crate::stage::sockets) snd_una: u32,
    pub(in crate::stage::sockets) snd_nxt: u32,
    pub(in crate::stage::sockets) snd_max: u32,
}

impl TcpFlow {
    /// Its places in both streams, and its socket.
    pub(in crate::stage::sockets) fn edges(&self) -> (SocketId, Edges) {
        let edges = Edges {
            rcv_nxt: self.rcv_nxt.0,
            rcv_edge: self.rcv_edge.0,
            snd_una: self.snd_una.0,
            snd_nxt: self.snd_nxt.0,
            snd_max: self.snd_max.0,
        };
        (self.id, edges)
    }

    /// The two stations of its inside.
    pub(in crate::stage::sockets) fn link(&self) -> Link {
        self.link
    }

    pub(super) fn new(id: SocketId, birth: Birth) -> Self {
        let Birth { key, link, port, gateway, mtu, state, iss } = birth;
        Self {
            id,
            key,
            link,
            port,
            gateway,
            state,
            by_client: state == TcpState::Accepting,
            mtu,
            mss: MSS_MIN,
            mss_told: MSS_MIN,
            larger_at: Time::ZERO,
            their_scale: 0,
            our_scale: 0,
            rcv_nxt: Seq(0),
            rcv_edge: Seq(0),
            sending: 0,
            send_call: 0,
            room: Room::default(),
            watching: false,
            not_taken: false,
            fin_pending: false,
            fin_received: false,
            acks_due: 0,
            gap_at: None,
            lost_at: None,
            holds: false,
            snd_una: iss,
            snd_nxt: iss,
            snd_max: iss,
            snd_wnd: 0,
            snd_wl1: Seq(0),
            snd_wl2: iss,
            discard: 0,
            dup_acks: 0,
            recover: None,
            fin_at: None,
            readable: false,
            hangup: false,
            peeking: None,
            peek_moved: false,
            closed_first: false,
            timer: Timer::None,
            deadline: Time::ZERO,
            armed: None,
            restart: false,
            retries: 0,
            silent: 0,
            dirty: false,
            waits: false,
        }
    }

    /// The state.
    pub fn state(&self) -> TcpState {
        self.state
    }

    /// Whether it still has a host socket.
    pub fn is_open(&self) -> bool {
        self.is_live()
    }

    /// The key of the container's packets.
    pub fn key(&self) -> &FlowKey {
        &self.key
    }

    /// Where the container is plugged in.
    pub fn port(&self) -> PortId {
        self.port
    }

    /// Not yet established: counts against the port's share of those.
    pub(super) fn is_embryonic(&self) -> bool {
        use TcpState::{Accepting, Connecting, SynAckSent, SynSent};
        matches!(self.state, Accepting | Connecting | SynAckSent | SynSent)
    }

    /// Whether it still counts against the port's share, and has a host socket.
    pub(super) fn is_live(&self) -> bool {
        !matches!(self.state, TcpState::TimeWait | TcpState::Closed)
    }

    /// The largest segment that fits our MTU.
    pub(super) fn own_mss(&self) -> u16 {
        let headers = headers::tcp_headers(self.key.src.is_v4()) - 14;
        self.mtu.saturating_sub(headers as u16).max(MSS_MIN)
    }

    /// Takes the container's MSS and window scale from its SYN or SYN-ACK.
    pub(super) fn take_options(&mut self, mss: Option<u16>, scale: Option<u8>) {
        let default = DEFAULT_MSS[usize::from(self.key.src.is_v4())];
        self.mss = mss.unwrap_or(default).clamp(MSS_MIN, self.own_mss());
        self.mss_told = self.mss;
        self.their_scale = scale.unwrap_or(0);
        self.our_scale = if scale.is_some() { OUR_SCALE } else { 0 };
    }

    /// The longest payload of a super-frame: whole segments, so that no runt is cut at its end.
    pub(super) fn super_frame(&self) -> u32 {
        let most = (FRAME_MAX - headers::tcp_headers(true)) as u32;
        // For IPv6 the largest frame counts the IP header beside the packet; keep to the smaller.
        let most = if self.key.src.is_v4() { most } else { most - 20 };
        most / u32::from(self.mss) * u32::from(self.mss)
    }

    /// Next byte expected from the container, what is being sent taken as sent.
    pub(super) fn expected(&self) -> Seq {
        self.rcv_nxt.plus(self.sending)
    }

    /// Whether anything sent to the container is unacknowledged.
    pub(super) fn in_flight(&self) -> bool {
        self.snd_una != self.snd_nxt
    }
}
