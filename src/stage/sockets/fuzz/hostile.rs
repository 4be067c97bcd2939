//! A container that knows where its connections are, and means harm: segments about the edges of both
//! streams, of several flows in one batch; answers of host sockets as a kernel would give them; clients
//! that it refuses in one family or both; its removal in the middle of all.

use super::{Bytes, Fuzzed, INSIDE, LINK, PORT, received};
use crate::base::ids::DomainId;
use crate::base::limits::SOCKET_HELD_BYTES_MAX;
use crate::packet::{FlowKey, Offload, Parsed, Scope};
use crate::stage::sockets::headers::{self, TcpFields};
use crate::stage::sockets::tcp::Edges;
use crate::stage::sockets::{
    FrameSlot, Inside, Link, ListenerId, Room, SockAddr, SocketCall, SocketError, SocketEvent,
    SocketId, SocketKind, TcpFlow, TcpState,
};
use crate::wire::addr::Addr;
use crate::wire::ipv6;
use crate::wire::tcp::{ACK, FIN, PSH, RST, SYN};

/// What a call wants to know.
#[derive(Clone, Copy, Debug)]
pub(super) enum Asked {
    Connect(SocketId),
    Accept(SocketId),
    Send(SocketId, u32),
    Peek(SocketId, u32, u16),
}

/// A flow at some time.
pub(super) type Seen = (SocketId, TcpState, Edges);

/// Distances from an edge: at it, beside it, about a segment and a window from it, half round the circle.
const DISTANCES: [u32; 16] = [
    0,
    0,
    0,
    1,
    u32::MAX,
    2,
    100,
    100_u32.wrapping_neg(),
    1460,
    1460_u32.wrapping_neg(),
    65_535,
    65_536_u32.wrapping_neg(),
    1 << 23,
    1 << 30,
    1 << 31,
    (1 << 31) - 1,
];
const FLAGS: [u8; 16] = [
    ACK,
    ACK,
    ACK,
    ACK | PSH,
    ACK | FIN,
    ACK | FIN,
    FIN,
    RST,
    RST | ACK,
    SYN,
    SYN | ACK,
    SYN | ACK,
    SYN | FIN | ACK,
    SYN | RST,
    0,
    0xff,
];
const WINDOWS: [u16; 8] = [0, 1, 10, 500, 500, 8_000, 32_768, u16::MAX];
const LENGTHS: [usize; 8] = [0, 0, 1, 100, 101, 1460, 20_000, 64_000];
/// Initial sequence numbers: most of them close before the circle's end, and its middle.
const STARTS: [u32; 4] = [u32::MAX, u32::MAX - 70_000, (1 << 31) - 1, 7];

/// One of a table's entries.
fn one_of<T: Copy>(table: &[T], n: u8) -> T {
    table[usize::from(n) % table.len()]
}

fn address(text: &str) -> Addr {
    text.parse().unwrap_or(Addr::UNSPECIFIED)
}

impl Fuzzed {
    /// A segment of one of the flows there are.
    pub(super) fn segment(&mut self, input: &mut Bytes<'_>) {
        let flows = self.flows.tcp_flows().filter(|flow| flow.state() != TcpState::Accepting);
        let flows: Vec<_> = flows.map(|flow| (*flow.key(), flow.link(), flow.edges().1)).collect();
        let [which, seq, ack] = [input.byte(), input.byte(), input.byte()];
        let Some((key, link, edges)) = flows.get(usize::from(which) % flows.len().max(1)) else {
            return;
        };
        let distance = |byte: u8| one_of(&DISTANCES, byte);
        let seq_edge = [edges.rcv_nxt, edges.rcv_nxt, edges.rcv_edge][usize::from(seq >> 4) % 3];
        let ack_edge = [edges.snd_nxt, edges.snd_una, edges.snd_max][usize::from(ack >> 4) % 3];
        let fields = TcpFields {
            seq: seq_edge.wrapping_add(distance(seq)),
            ack: ack_edge.wrapping_add(distance(ack)),
            flags: one_of(&FLAGS, input.byte()),
            window: one_of(&WINDOWS, input.byte()),
        };
        let len = one_of(&LENGTHS, input.byte());
        self.container_sends(key, *link, fields, &[], len);
    }

    /// A container opens a connection.
    pub(super) fn syn(&mut self, input: &mut Bytes<'_>) {
        let kind = input.byte();
        let v4 = kind & 1 == 0;
        let key = FlowKey {
            src: address(INSIDE[usize::from(!v4)]),
            dst: address(if v4 { "192.0.2.1" } else { "2001:db8::1" }),
            src_port: 1000 + u16::from(kind >> 1 & 3),
            dst_port: 1,
            domain: DomainId(1),
            proto: ipv6::TCP,
            scope: Scope::Routed,
        };
        let link = Link { inside: LINK.gateway, gateway: LINK.inside };
        let seq = one_of(&STARTS, kind >> 3);
        let [mss_high, mss_low, scale] = [input.byte(), input.byte(), input.byte()];
        let options = [2, 4, mss_high, mss_low, 1, 3, 3, scale];
        let fields = TcpFields { seq, ack: 0, flags: SYN, window: one_of(&WINDOWS, kind >> 5) };
        let most = if kind & 0x80 == 0 { options.len() } else { 0 };
        self.container_sends(&key, link, fields, &options[..most], 0);
    }

    fn container_sends(
        &mut self,
        key: &FlowKey,
        link: Link,
        fields: TcpFields,
        options: &[u8],
        len: usize,
    ) {
        let mut bytes = vec![0; headers::tcp_headers(key.src.is_v4()) + options.len() + len];
        let at = headers::tcp_headers(key.src.is_v4());
        bytes[at..at + options.len()].copy_from_slice(options);
        // The writers write towards a container, so everything is the other way round.
        let turned = FlowKey {
            src: key.dst,
            dst: key.src,
            src_port: key.dst_port,
            dst_port: key.src_port,
            ..*key
        };
        let link = Link { inside: link.gateway, gateway: link.inside };
        let offload = headers::write_tcp(&mut bytes, link, &turned, fields, options.len(), 1448);
        let Ok(parsed) = Parsed::new(&bytes) else { return };
        let slot = FrameSlot(self.batch.len() as u16);
        if !self.batch.push(&bytes, offload) {
            return;
        }
        let (port, key) = (PORT, FlowKey::new(&parsed, DomainId(1), Scope::Routed));
        let (mtu, gateway, redirect, assembled) = (1500, None, None, false);
        let inside = Inside { port, key, mtu, gateway, redirect, assembled };
        let frame = self.batch.frame(usize::from(slot.0));
        let _ = self.flows.frame(self.now, &inside, &parsed, &frame, slot, &mut self.out);
    }

    /// A host socket answers what it was asked, and may do so in part.
    pub(super) fn answer(&mut self, input: &mut Bytes<'_>) {
        let [which, how] = [input.byte(), input.byte()];
        if self.asked.is_empty() {
            return;
        }
        let asked = self.asked.remove(usize::from(which) % self.asked.len());
        let share = |of: u32| (u64::from(of) * u64::from(how) / 255) as u32;
        let room = Room { free: share(80_000), total: 80_000 };
        let error = if how & 1 == 0 { SocketError::Limit } else { SocketError::Refused };
        let event = match asked {
            Asked::Connect(socket) if how < 32 => SocketEvent::Failed { socket, error },
            Asked::Connect(socket) => SocketEvent::Connected { socket, room },
            Asked::Accept(socket) if how < 32 => {
                if self.state_of(socket) == Some(TcpState::Accepting) {
                    self.alive.remove(&socket);
                }
                SocketEvent::NotAccepted { socket, error: (how & 2 == 0).then_some(error) }
            }
            Asked::Accept(socket) => {
                // A socket that was closed before it existed exists now.
                self.alive.insert(socket);
                let v4 = how & 1 == 0;
                let peer = |last: u8| {
                    let text = if v4 { "192.0.2.0" } else { "2001:db8::" };
                    SockAddr { addr: address(text), port: 1 + u16::from(last) }
                };
                SocketEvent::Accepted { socket, client: peer(how & 6), local: peer(0), room }
            }
            Asked::Send(socket, bytes) => {
                SocketEvent::Sent { socket, accepted: share(bytes), room }
            }
            Asked::Peek(socket, ..) if how < 32 => SocketEvent::Drained { socket, eof: how < 16 },
            Asked::Peek(socket, len, headers) => {
                let bytes = vec![0; usize::from(headers) + share(len) as usize];
                self.batch.clear();
                if !self.batch.push(&bytes, Offload::NONE) {
                    return;
                }
                let frame = self.batch.frame(0);
                SocketEvent::Data { socket, slot: FrameSlot(0), frame, more: how & 1 == 0 }
            }
        };
        self.flows.event(self.now, event, &mut self.out);
    }

    /// A client comes to a published port.
    pub(super) fn client(&mut self, _input: &mut Bytes<'_>) {
        let event = SocketEvent::Incoming { listener: ListenerId(1) };
        self.flows.event(self.now, event, &mut self.out);
    }

    /// Seldom, since everything ends with it.
    pub(super) fn removal(&mut self, input: &mut Bytes<'_>) {
        if input.byte() < 16 {
            self.remove_port();
        } else if let Some(frame) = received(&mut self.batch, input) {
            let socket = SocketId::from_token(u64::from(frame.len() as u32));
            let event = SocketEvent::Data { socket, slot: FrameSlot(0), frame, more: true };
            self.flows.event(self.now, event, &mut self.out);
        }
    }

    /// Nothing of a container is left when it has gone.
    pub(super) fn remove_port(&mut self) {
        self.look();
        self.flows.remove_port(self.now, PORT, &mut self.out);
        assert_eq!((self.flows.counts(), self.flows.held_bytes()), ([0, 0, 0], 0));
        self.look();
        assert!(self.alive.is_empty(), "open for ever: {:?}", self.alive);
    }

    fn state_of(&self, socket: SocketId) -> Option<TcpState> {
        self.flows.tcp_flows().find(|flow| flow.edges().0 == socket).map(TcpFlow::state)
    }

    pub(super) fn waits_for_accept(&self, socket: SocketId) -> bool {
        self.state_of(socket) == Some(TcpState::Accepting)
    }

    /// No call may name a socket that is closed or was never made.
    pub(super) fn calls_make_sense(&mut self) {
        for call in &self.out.calls {
            match *call {
                SocketCall::Connect { socket, .. } => {
                    assert!(self.alive.insert(socket), "{call:?}");
                    self.asked.push(Asked::Connect(socket));
                }
                SocketCall::Accept { socket, .. } => {
                    assert!(self.alive.insert(socket), "{call:?}");
                    self.asked.push(Asked::Accept(socket));
                }
                SocketCall::Close { socket, .. } if socket.kind() == SocketKind::Tcp => {
                    assert!(self.alive.remove(&socket), "{call:?}");
                }
                SocketCall::Send { socket, parts } => {
                    assert!(self.alive.contains(&socket), "{call:?}");
                    self.asked.push(Asked::Send(socket, parts.bytes));
                }
                SocketCall::Peek { socket, len, headers, .. } => {
                    assert!(self.alive.contains(&socket), "{call:?}");
                    self.asked.push(Asked::Peek(socket, len, headers));
                }
                SocketCall::Discard { socket, .. }
                | SocketCall::SetPeekOffset { socket, .. }
                | SocketCall::Shutdown { socket }
                | SocketCall::WatchWritable { socket } => {
                    assert!(self.alive.contains(&socket), "{call:?}");
                }
                _ => {}
            }
        }
    }

    /// Streams go forwards only, and what waits is bounded.
    pub(super) fn places_make_sense(&mut self) {
        assert!(self.flows.held_bytes() <= SOCKET_HELD_BYTES_MAX);
        let now = self.flows.tcp_flows().map(|flow| {
            let (id, edges) = flow.edges();
            (id, flow.state(), edges)
        });
        let now: Vec<Seen> = now.collect();
        let comes_before = |a: u32, b: u32| b.wrapping_sub(a) as i32 >= 0;
        for (id, state, edges) in now.iter().filter(|seen| seen.1 == TcpState::Open) {
            assert!(comes_before(edges.snd_una, edges.snd_nxt), "{edges:?}");
            assert!(comes_before(edges.snd_nxt, edges.snd_max), "{edges:?}");
            let then = self.places.iter().find(|seen| (seen.0, seen.1) == (*id, *state));
            let Some((.., then)) = then else { continue };
            let moved = [
                (then.rcv_nxt, edges.rcv_nxt),
                (then.rcv_edge, edges.rcv_edge),
                (then.snd_una, edges.snd_una),
                (then.snd_max, edges.snd_max),
            ];
            assert!(moved.iter().all(|(a, b)| comes_before(*a, *b)), "{then:?} then {edges:?}");
        }
        self.places = now;
    }
}
