//! Each transition of a TCP flow, with a host socket played by the test.

mod endings;
mod hostile;
mod path;
mod published;
mod reordering;

use std::sync::Arc;

use super::super::testing::{self, GATEWAY, INSIDE};
use super::super::*;
use super::TcpState;
use crate::base::ids::DomainId;
use crate::base::limits::{FRAME_MAX, SOCKET_EMBRYONIC_PER_PORT_MAX};
use crate::base::time::Span;
use crate::packet::{FrameBatch, Gso, Offload, Scope};
use crate::wire::addr::Addr;
use crate::wire::ipv6;
use crate::wire::tcp::{ACK, FIN, Options, PSH, RST, SYN, Tcp, TcpOption};
use headers::TcpFields;
use zerocopy::FromBytes;

const ISN: u32 = 0xffff_fff0;
const ROOM: Room = Room { free: 80_000, total: 80_000 };

/// A segment that came out, as far as tests look at it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Seen {
    flags: u8,
    seq: u32,
    ack: u32,
    window: u16,
    data: Vec<u8>,
    options: Vec<TcpOption>,
    gso: (Gso, u16),
    icmp: Option<(u8, u8)>,
}

struct Rig {
    flows: SocketFlows,
    out: SocketOutput,
    now: Time,
    inside: (Addr, u16),
    outside: (Addr, u16),
    /// Next sequence number of the container.
    seq: u32,
    /// What the container acknowledges.
    ack: u32,
    /// Bytes that the last peek asked for.
    asked: usize,
    batch: FrameBatch,
    /// Of the container's network.
    mtu: u16,
}

fn addr(text: &str) -> Addr {
    text.parse().unwrap()
}

impl Rig {
    fn new(v4: bool) -> Self {
        let (a, b) = if v4 { ("172.17.0.2", "192.0.2.7") } else { ("fd00::2", "2001:db8::7") };
        Self {
            flows: SocketFlows::new(Seed(7)),
            out: SocketOutput::default(),
            now: Time(1_000_000_000),
            inside: (addr(a), 40_000),
            outside: (addr(b), 443),
            seq: ISN,
            ack: 0,
            asked: 0,
            batch: FrameBatch::new(),
            mtu: 1500,
        }
    }

    fn inside(&self, parsed: &Parsed) -> Inside {
        let gateway = if self.inside.0.is_v4() { "172.17.0.1" } else { "fd00::1" };
        Inside {
            port: PortId(3),
            key: FlowKey::new(parsed, DomainId(1), Scope::Routed),
            mtu: self.mtu,
            gateway: Some(addr(gateway)),
            redirect: None,
            assembled: false,
        }
    }

    fn raw(&mut self, fields: TcpFields, options: &[u8], data: &[u8]) -> Result<(), DropReason> {
        let mut buf = testing::tcp(self.inside, self.outside, fields, options, data);
        let parsed = Parsed::new(buf.bytes()).unwrap();
        let inside = self.inside(&parsed);
        self.flows.frame(self.now, &inside, &parsed, &buf.frame(), FrameSlot(0), &mut self.out)
    }

    /// The container sends the next segment of its stream.
    fn send(&mut self, flags: u8, data: &[u8]) -> Result<(), DropReason> {
        let fields = TcpFields { seq: self.seq, ack: self.ack, flags, window: 500 };
        self.seq = self.seq.wrapping_add(data.len() as u32 + u32::from(flags & (SYN | FIN) != 0));
        self.raw(fields, &[], data)
    }

    fn event(&mut self, event: SocketEvent<'_>) {
        self.flows.event(self.now, event, &mut self.out);
    }

    /// Ends the batch and takes the calls.
    fn calls(&mut self) -> Vec<SocketCall> {
        self.flows.flush(self.now, &mut self.out);
        let calls = std::mem::take(&mut self.out.calls);
        for call in &calls {
            if let SocketCall::Peek { len, .. } = call {
                self.asked = *len as usize;
            }
        }
        calls
    }

    /// Ends the batch and takes the segments.
    fn segments(&mut self) -> Vec<Seen> {
        self.flows.flush(self.now, &mut self.out);
        let deliveries = std::mem::take(&mut self.out.deliveries);
        let seen = deliveries.iter().map(|delivery| match delivery {
            Delivery::Made { frame, .. } => see(frame.bytes(), frame.offload),
            Delivery::Slot { slot, .. } => {
                let n = usize::from(slot.0);
                see(self.batch.bytes(n), self.batch.offload(n))
            }
        });
        seen.collect()
    }

    fn segment(&mut self) -> Seen {
        let mut seen = self.segments();
        assert_eq!(seen.len(), 1, "{seen:?}");
        seen.remove(0)
    }

    fn socket(&self) -> SocketId {
        self.flows.tcp_flows().next().unwrap().id
    }

    /// Answers a peek with `data`.
    fn data(&mut self, socket: SocketId, data: &[u8]) {
        self.batch.clear();
        let headers = headers::tcp_headers(self.inside.0.is_v4());
        let mut bytes = vec![0; headers];
        bytes.extend_from_slice(data);
        assert!(self.batch.push(&bytes, Offload::NONE));
        let frame = self.batch.frame(0);
        let event =
            SocketEvent::Data { socket, slot: FrameSlot(0), frame, more: data.len() == self.asked };
        self.flows.event(self.now, event, &mut self.out);
    }

    /// A connection that the container opened; MSS 1460, window scale 8.
    fn connected(v4: bool) -> (Self, SocketId) {
        let mut rig = Self::new(v4);
        let fields = TcpFields { seq: ISN, ack: 0, flags: SYN, window: 64_000 };
        rig.raw(fields, &[2, 4, 5, 180, 1, 3, 3, 8], &[]).unwrap();
        rig.seq = ISN.wrapping_add(1);
        let socket = rig.socket();
        rig.event(SocketEvent::Connected { socket, room: ROOM });
        let answer = rig.segment();
        rig.ack = answer.seq.wrapping_add(1);
        rig.send(ACK, &[]).unwrap();
        rig.calls();
        assert_eq!(rig.segments(), []);
        assert_eq!(rig.state(), Some(TcpState::Open));
        (rig, socket)
    }

    fn state(&self) -> Option<TcpState> {
        self.flows.tcp_flows().next().map(TcpFlow::state)
    }

    fn sent(&mut self, socket: SocketId, accepted: u32) {
        self.event(SocketEvent::Sent { socket, accepted, room: ROOM });
    }

    fn wait(&mut self, span: Span) {
        self.now = self.now + span;
        self.flows.tick(self.now, &mut self.out);
    }
}

fn see(bytes: &[u8], offload: Offload) -> Seen {
    let parsed = Parsed::new(bytes).unwrap();
    let mut l4 = parsed.l4_bytes(bytes);
    assert_eq!((parsed.dst_mac, parsed.src_mac), (INSIDE, GATEWAY));
    let empty = [0; 20];
    let icmp = (parsed.proto != ipv6::TCP).then(|| (l4[0], l4[1]));
    if icmp.is_some() {
        l4 = &empty;
    }
    let (header, rest) = Tcp::ref_from_prefix(l4).unwrap();
    let options = header.header_len().saturating_sub(20);
    Seen {
        flags: header.flags,
        seq: header.seq.get(),
        ack: header.ack.get(),
        window: header.window.get(),
        data: rest[options..].to_vec(),
        options: Options::new(&rest[..options]).collect(),
        gso: (offload.gso, offload.gso_size),
        icmp,
    }
}

#[test]
fn a_syn_is_answered_only_when_the_host_s_socket_has_connected() {
    for v4 in [true, false] {
        let mut rig = Rig::new(v4);
        rig.send(SYN, &[]).unwrap();
        let socket = rig.socket();
        let to = SockAddr { addr: rig.outside.0, port: 443 };
        assert_eq!(rig.calls(), [SocketCall::Connect { socket, to }]);
        rig.seq = ISN;
        rig.send(SYN, &[]).unwrap();
        assert_eq!((rig.calls(), rig.segments()), (vec![], vec![]), "a repeated SYN waits too");
        rig.event(SocketEvent::Connected { socket, room: ROOM });
        let answer = rig.segment();
        assert_eq!((answer.flags, answer.ack), (SYN | ACK, ISN.wrapping_add(1)));
        let mss = if v4 { 1460 } else { 1440 };
        assert_eq!(answer.options, [TcpOption::Mss(mss)], "no scale was offered, so none is");
        assert_eq!(answer.window, 60_000);
    }
}

#[test]
fn refusal_becomes_a_reset_and_unreachability_an_icmp_error() {
    let cases = [
        (SocketError::Refused, None, None),
        (SocketError::Limit, None, None),
        (SocketError::HostUnreachable, Some((3, 1)), Some((1, 3))),
        (SocketError::NetUnreachable, Some((3, 0)), Some((1, 0))),
        (SocketError::Prohibited, Some((3, 13)), Some((1, 1))),
        (SocketError::TimedOut, Some((3, 1)), Some((1, 3))),
    ];
    for (error, icmp4, icmp6) in cases {
        for (v4, icmp) in [(true, icmp4), (false, icmp6)] {
            let mut rig = Rig::new(v4);
            rig.send(SYN, &[]).unwrap();
            let socket = rig.socket();
            rig.calls();
            rig.event(SocketEvent::Failed { socket, error });
            let answer = rig.segment();
            assert_eq!(answer.icmp, icmp, "{error:?}");
            if icmp.is_none() {
                assert_eq!((answer.flags, answer.ack), (RST | ACK, ISN.wrapping_add(1)));
            }
            assert_eq!(rig.calls(), [SocketCall::Close { socket, reset: true }]);
            assert_eq!(rig.flows.counts()[0], 0);
        }
    }
}

#[test]
fn forbidden_destinations_and_strangers_open_nothing() {
    for v4 in [true, false] {
        let mut rig = Rig::new(v4);
        let refused = if v4 {
            ["127.0.0.1", "0.0.0.0", "224.0.0.1", "169.254.169.254"]
        } else {
            ["::1", "::", "ff02::1", "fe80::1"]
        };
        let outside = rig.outside.0;
        for dst in refused {
            rig.outside.0 = addr(dst);
            assert_eq!(rig.send(SYN, &[]), Err(DropReason::ForbiddenDestination), "{dst}");
        }
        assert_eq!((rig.calls(), rig.segments()), (vec![], vec![]));
        rig.outside.0 = outside;
        rig.ack = 77;
        assert_eq!(rig.send(ACK, b"lost"), Err(DropReason::TcpNoFlow));
        let answer = rig.segment();
        assert_eq!((answer.flags, answer.seq), (RST, 77));
        assert_eq!(rig.send(RST, &[]), Err(DropReason::TcpNoFlow));
        assert_eq!(rig.segments(), [], "a reset is not answered");
    }
}

#[test]
fn bytes_of_one_batch_go_out_in_one_call_and_are_acknowledged_when_taken() {
    for v4 in [true, false] {
        let (mut rig, socket) = Rig::connected(v4);
        for n in 0..3 {
            rig.send(ACK, &vec![n; 1000]).unwrap();
        }
        let calls = rig.calls();
        let [SocketCall::Send { socket: of, parts }] = calls[..] else { panic!("{calls:?}") };
        assert_eq!((of, parts.bytes, parts.count), (socket, 3000, 3));
        let headers = headers::tcp_headers(v4) as u32;
        assert!(rig.out.chain(parts).all(|part| (part.start, part.len) == (headers, 1000)));
        assert_eq!(rig.segments(), [], "nothing is acknowledged yet");
        rig.sent(socket, 3000);
        let answer = rig.segment();
        assert_eq!((answer.flags, answer.ack), (ACK, rig.seq));
        assert_eq!(u32::from(answer.window) << 7, 60_032, "three quarters, rounded up");
    }
}

#[test]
fn what_the_socket_did_not_take_is_not_acknowledged_and_asked_for_again() {
    for v4 in [true, false] {
        let (mut rig, socket) = Rig::connected(v4);
        rig.send(ACK | PSH, &[1; 5000]).unwrap();
        rig.send(ACK | FIN, &[]).unwrap();
        rig.calls();
        rig.event(SocketEvent::Sent {
            socket,
            accepted: 2000,
            room: Room { free: 0, total: 80_000 },
        });
        assert_eq!(rig.calls(), [SocketCall::WatchWritable { socket }]);
        let taken = ISN.wrapping_add(1 + 2000);
        assert_eq!(rig.segment().ack, taken);
        rig.event(SocketEvent::Writable { socket, room: ROOM });
        let acks = rig.segments();
        assert_eq!(acks.len(), 4, "the window, and three duplicates of it");
        assert!(acks.iter().all(|seen| (seen.ack, seen.flags) == (taken, ACK)));
        rig.seq = taken;
        rig.send(ACK, &[1; 3000]).unwrap();
        let calls = rig.calls();
        assert!(matches!(calls[..], [SocketCall::Send { parts, .. }] if parts.bytes == 3000));
    }
}

#[test]
fn bytes_from_the_host_become_a_super_frame_and_leave_the_socket_when_acknowledged() {
    for v4 in [true, false] {
        let (mut rig, socket) = Rig::connected(v4);
        rig.event(SocketEvent::Readable { socket, hangup: false });
        let calls = rig.calls();
        let [SocketCall::Peek { offset: 0, len, headers, .. }] = calls[..] else { panic!() };
        let mss = if v4 { 1460 } else { 1440 };
        assert_eq!(len % mss, 0);
        assert!(len > 60_000 && usize::from(headers) + (len as usize) <= FRAME_MAX);
        rig.data(socket, &[5; 10_000]);
        let seen = rig.segment();
        assert_eq!((seen.seq, seen.flags, seen.data.len()), (rig.ack, ACK | PSH, 10_000));
        assert_eq!(seen.gso, (if v4 { Gso::TcpV4 } else { Gso::TcpV6 }, mss as u16));
        assert_eq!(rig.calls(), [], "a short peek means that there is no more");
        rig.ack = rig.ack.wrapping_add(4000);
        rig.send(ACK, &[]).unwrap();
        rig.ack = rig.ack.wrapping_add(6000);
        rig.send(ACK, &[]).unwrap();
        assert_eq!(rig.calls(), [SocketCall::Discard { socket, len: 10_000 }], "one for both");
    }
}

#[test]
fn the_container_s_window_bounds_what_is_peeked_and_is_asked_for_when_closed() {
    for v4 in [true, false] {
        let (mut rig, socket) = Rig::connected(v4);
        let window = |window| TcpFields { seq: rig.seq, ack: rig.ack, flags: ACK, window };
        let (narrow, closed) = (window(8), window(0));
        rig.raw(narrow, &[], &[]).unwrap();
        rig.event(SocketEvent::Readable { socket, hangup: false });
        assert!(matches!(rig.calls()[..], [SocketCall::Peek { len: 2048, .. }]));
        rig.data(socket, &[1; 2048]);
        rig.segments();
        rig.ack = rig.ack.wrapping_add(2048);
        rig.raw(TcpFields { ack: rig.ack, ..closed }, &[], &[]).unwrap();
        assert_eq!(rig.calls(), [SocketCall::Discard { socket, len: 2048 }]);
        rig.wait(Span::from_millis(200));
        let probe = rig.segment();
        assert_eq!((probe.seq, probe.data.len()), (rig.ack.wrapping_sub(1), 0));
        rig.raw(TcpFields { ack: rig.ack, ..closed }, &[], &[]).unwrap();
        assert_eq!(rig.calls(), []);
        rig.wait(Span::from_millis(300));
        assert_eq!(rig.segments(), [], "probes back off");
        rig.wait(Span::from_millis(100));
        assert_eq!(rig.segment().seq, rig.ack.wrapping_sub(1));
        rig.raw(TcpFields { ack: rig.ack, ..narrow }, &[], &[]).unwrap();
        assert!(matches!(rig.calls()[..], [SocketCall::Peek { len: 2048, offset: 0, .. }]));
    }
}

#[test]
fn loss_towards_the_container_rewinds_the_peek() {
    for v4 in [true, false] {
        let (mut rig, socket) = Rig::connected(v4);
        rig.event(SocketEvent::Readable { socket, hangup: false });
        rig.calls();
        rig.data(socket, &[1; 4000]);
        rig.segments();
        for _ in 0..3 {
            assert_eq!(rig.calls(), []);
            rig.send(ACK, &[]).unwrap();
        }
        let calls = rig.calls();
        assert!(
            matches!(
                calls[..],
                [SocketCall::SetPeekOffset { offset: 0, .. }, SocketCall::Peek { offset: 0, .. }]
            ),
            "{calls:?}"
        );
        rig.data(socket, &[1; 4000]);
        assert_eq!(rig.segment().seq, rig.ack);
        for _ in 0..5 {
            rig.send(ACK, &[]).unwrap();
        }
        assert_eq!(rig.calls(), [], "duplicates of the resent bytes count for nothing");
        let mut wait = Span::from_millis(200);
        for _ in 0..3 {
            rig.wait(wait);
            let calls = rig.calls();
            assert!(matches!(
                calls[..],
                [SocketCall::SetPeekOffset { .. }, SocketCall::Peek { .. }]
            ));
            rig.data(socket, &[1; 4000]);
            rig.segments();
            wait = Span(wait.0 * 2);
        }
        // The container had it all: only acknowledgements were lost.
        rig.wait(wait);
        rig.calls();
        rig.ack = rig.ack.wrapping_add(4000);
        rig.send(ACK, &[]).unwrap();
        assert_eq!(rig.calls(), [SocketCall::Discard { socket, len: 4000 }]);
        rig.data(socket, &[7; 10]);
        assert_eq!(rig.segments(), [], "what was peeked before the acknowledgement is not sent");
    }
}

#[test]
fn a_container_that_falls_silent_is_given_up_and_its_peer_reset() {
    for v4 in [true, false] {
        let (mut rig, socket) = Rig::connected(v4);
        rig.event(SocketEvent::Readable { socket, hangup: false });
        rig.calls();
        rig.data(socket, &[1; 100]);
        let mut waited = 0;
        while rig.state() == Some(TcpState::Open) {
            rig.wait(Span::from_secs(1));
            if rig.calls().iter().any(|call| matches!(call, SocketCall::Peek { .. })) {
                rig.data(socket, &[1; 100]);
            }
            waited += 1;
            assert!(waited < 1000);
        }
        assert!((100..600).contains(&waited), "{waited} s");
        assert_eq!(rig.segments().last().unwrap().flags, RST | ACK);
    }
}

#[test]
fn the_container_s_half_close_is_passed_on_after_its_bytes() {
    for v4 in [true, false] {
        let (mut rig, socket) = Rig::connected(v4);
        rig.send(ACK | PSH | FIN, b"last words").unwrap();
        assert!(matches!(rig.calls()[..], [SocketCall::Send { .. }]));
        rig.sent(socket, 10);
        assert_eq!(rig.calls(), [SocketCall::Shutdown { socket }]);
        assert_eq!(rig.segment().ack, rig.seq);
        rig.event(SocketEvent::Readable { socket, hangup: true });
        rig.calls();
        rig.data(socket, b"and an answer");
        rig.event(SocketEvent::Readable { socket, hangup: true });
        let last = rig.segment();
        assert_eq!(last.flags & FIN, FIN, "with its bytes and not apart");
        rig.ack = rig.ack.wrapping_add(13 + 1);
        rig.send(ACK, &[]).unwrap();
        let calls = rig.calls();
        assert_eq!(
            calls,
            [SocketCall::Discard { socket, len: 13 }, SocketCall::Close { socket, reset: false }],
            "an unread byte at close would reset the peer"
        );
        assert_eq!(rig.flows.counts()[0], 0);
    }
}

#[test]
fn the_host_s_half_close_leaves_the_other_half_open_and_ends_in_time_wait() {
    for v4 in [true, false] {
        let (mut rig, socket) = Rig::connected(v4);
        rig.event(SocketEvent::Readable { socket, hangup: true });
        rig.calls();
        rig.event(SocketEvent::Drained { socket, eof: true });
        let fin = rig.segment();
        assert_eq!((fin.flags, fin.seq), (FIN | ACK, rig.ack));
        rig.wait(Span::from_millis(200));
        assert_eq!(rig.segment().flags, FIN | ACK, "sent again until acknowledged");
        rig.ack = rig.ack.wrapping_add(1);
        rig.send(ACK, b"still talking").unwrap();
        assert!(matches!(rig.calls()[..], [SocketCall::Send { .. }]));
        rig.sent(socket, 13);
        rig.segments();
        rig.send(ACK | FIN, &[]).unwrap();
        assert_eq!(
            rig.calls(),
            [SocketCall::Shutdown { socket }, SocketCall::Close { socket, reset: false }]
        );
        assert_eq!(rig.segment().ack, rig.seq);
        assert_eq!(rig.state(), Some(TcpState::TimeWait));
        rig.seq = rig.seq.wrapping_sub(1);
        rig.send(ACK | FIN, &[]).unwrap();
        assert_eq!(rig.segment().ack, rig.seq, "a lost last acknowledgement is repeated");
        rig.wait(Span::from_secs(1));
        assert_eq!(rig.flows.counts()[0], 0);
    }
}

#[test]
fn a_new_syn_reopens_a_connection_in_time_wait() {
    for v4 in [true, false] {
        let (mut rig, socket) = Rig::connected(v4);
        rig.event(SocketEvent::Readable { socket, hangup: true });
        rig.calls();
        rig.event(SocketEvent::Drained { socket, eof: true });
        rig.segments();
        rig.ack = rig.ack.wrapping_add(1);
        rig.send(ACK | FIN, &[]).unwrap();
        rig.calls();
        assert_eq!(rig.state(), Some(TcpState::TimeWait));
        rig.seq = rig.seq.wrapping_add(100_000);
        rig.send(SYN, &[]).unwrap();
        let calls = rig.calls();
        let [SocketCall::Connect { socket: again, .. }] = calls[..] else { panic!("{calls:?}") };
        assert_ne!(again, socket);
        assert_eq!(rig.state(), Some(TcpState::Connecting));
    }
}

#[test]
fn resets_travel_both_ways_and_blind_ones_do_not() {
    for v4 in [true, false] {
        let (mut rig, socket) = Rig::connected(v4);
        let exact = rig.seq;
        rig.seq = exact.wrapping_add(7);
        assert_eq!(rig.send(RST, &[]), Err(DropReason::TcpWindow));
        assert_eq!(rig.segment().ack, exact, "RFC 5961: prove it");
        rig.seq = exact;
        rig.send(RST, &[]).unwrap();
        assert_eq!(rig.calls(), [SocketCall::Close { socket, reset: true }]);
        assert_eq!((rig.segments(), rig.flows.counts()[0]), (vec![], 0));

        let (mut rig, socket) = Rig::connected(v4);
        rig.event(SocketEvent::Failed { socket, error: SocketError::Reset });
        let reset = rig.segment();
        assert_eq!((reset.flags, reset.seq, reset.ack), (RST | ACK, rig.ack, rig.seq));
        assert_eq!(rig.calls(), [SocketCall::Close { socket, reset: true }]);
        rig.event(SocketEvent::Readable { socket, hangup: true });
        assert_eq!((rig.calls(), rig.segments()), (vec![], vec![]), "late events are nobody's");
    }
}

#[test]
fn an_idle_flow_is_kept_alive_and_a_forgotten_one_is_found_out() {
    for v4 in [true, false] {
        let (mut rig, socket) = Rig::connected(v4);
        rig.wait(Span::from_secs(7_199));
        assert_eq!(rig.segments(), []);
        rig.wait(Span::from_secs(1));
        assert_eq!(rig.segment().seq, rig.ack.wrapping_sub(1));
        rig.send(ACK, &[]).unwrap();
        assert_eq!(rig.calls(), []);
        rig.wait(Span::from_secs(7_199));
        assert_eq!(rig.segments(), [], "an answer is a sign of life");
        for _ in 0..6 {
            rig.wait(Span::from_secs(15));
            assert!(rig.segments().len() == 1);
        }
        assert_eq!(rig.calls(), [SocketCall::Close { socket, reset: true }]);
    }
}

#[test]
fn a_lost_syn_ack_is_repeated_and_a_silent_container_given_up() {
    for v4 in [true, false] {
        let mut rig = Rig::new(v4);
        rig.send(SYN, &[]).unwrap();
        let socket = rig.socket();
        rig.event(SocketEvent::Connected { socket, room: ROOM });
        let first = rig.segment();
        for secs in [1, 2, 4, 8] {
            rig.wait(Span::from_secs(secs));
            assert_eq!(rig.segment(), first);
        }
        rig.calls();
        rig.wait(Span::from_secs(16));
        assert_eq!(rig.calls(), [SocketCall::Close { socket, reset: true }]);
    }
}

#[test]
fn a_corrupted_segment_never_reaches_the_host_s_socket() {
    for v4 in [true, false] {
        let (mut rig, _) = Rig::connected(v4);
        let fields = TcpFields { seq: rig.seq, ack: rig.ack, flags: ACK, window: 1 };
        let mut buf = testing::tcp(rig.inside, rig.outside, fields, &[], b"flipped");
        crate::packet::finish::finish_checksum(&mut buf.frame());
        buf.frame().offload_mut().csum = crate::packet::Csum::Unverified;
        let parsed = Parsed::new(buf.bytes()).unwrap();
        let inside = rig.inside(&parsed);
        for (flip, expected) in [(1, Err(DropReason::Malformed)), (1, Ok(()))] {
            *buf.frame().bytes_mut().last_mut().unwrap() ^= flip;
            let (frame, slot) = (buf.frame(), FrameSlot(0));
            let outcome = rig.flows.frame(rig.now, &inside, &parsed, &frame, slot, &mut rig.out);
            assert_eq!(outcome, expected);
        }
    }
}

#[test]
fn a_container_that_goes_takes_its_flows_along() {
    for v4 in [true, false] {
        let (mut rig, socket) = Rig::connected(v4);
        rig.flows.remove_port(rig.now, PortId(4), &mut rig.out);
        assert_eq!(rig.flows.counts()[0], 1);
        rig.flows.remove_port(rig.now, PortId(3), &mut rig.out);
        assert_eq!(rig.calls(), [SocketCall::Close { socket, reset: true }]);
        assert_eq!((rig.flows.counts()[0], rig.flows.next_deadline()), (0, None));
    }
}
