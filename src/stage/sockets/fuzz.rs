//! The flow machines under an operation list made of foreign bytes: hostile frames, events in any order
//! about sockets that exist or do not, time that leaps. Called by the fuzz target and by a test here.

mod hostile;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use self::hostile::{Asked, Seen};
use super::headers::TcpFields;
use super::{
    Delivery, Forbidden, FrameSlot, Inside, Link, ListenerId, Published, Room, SockAddr,
    SocketCall, SocketError, SocketEvent, SocketFlows, SocketId, SocketOutput, Target, TcpState,
    Via, headers,
};
use crate::base::hash::Seed;
use crate::base::ids::{DomainId, PortId};
use crate::base::time::{Span, Time};
use crate::packet::{Csum, FlowKey, FrameBatch, FrameMut, Gso, Offload, Parsed, Scope};
use crate::wire::addr::Addr;
use crate::wire::ipv6;
use crate::wire::mac::Mac;

/// Runs the operations in `data`.
///
/// # Panics
/// If something does not hold that always must: a frame of ours that does not parse, a call for a
/// forbidden destination, flows or timers that outlive their port.
pub fn fuzz(data: &[u8]) {
    let mut world = Fuzzed::new();
    world.run(data);
    world.end();
}

/// Foreign bytes, read one after another; zeros when they are used up.
struct Bytes<'a>(&'a [u8]);

impl Bytes<'_> {
    fn next(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    fn byte(&mut self) -> u8 {
        self.next().unwrap_or(0)
    }

    fn short(&mut self) -> u16 {
        u16::from_be_bytes([self.byte(), self.byte()])
    }
}

/// Outside addresses, and some that are forbidden.
const DESTINATIONS: [[u8; 4]; 8] = [
    [192, 0, 2, 1],
    [192, 0, 2, 2],
    [127, 0, 0, 1],
    [0, 0, 0, 0],
    [172, 17, 0, 9],
    [224, 0, 0, 1],
    [169, 254, 0, 1],
    [255, 255, 255, 255],
];
const DESTINATIONS_V6: [&str; 8] = [
    "2001:db8::1",
    "2001:db8::2",
    "::1",
    "::",
    "fd00::9",
    "ff02::1",
    "fe80::1",
    "::ffff:127.0.0.1",
];
/// The switch's own networks.
const OWN: [(&str, u8); 2] = [("172.17.0.0", 16), ("fd00::", 64)];
/// Where the gateway's address leads, when it leads anywhere.
const REDIRECT: Addr = Addr::LOOPBACK_V4;
/// The container.
const INSIDE: [&str; 2] = ["172.17.0.2", "fd00::2"];
const GATEWAYS: [&str; 2] = ["172.17.0.1", "fd00::1"];
const PORT: PortId = PortId(1);
const LINK: Link = Link { inside: Mac([4; 6]), gateway: Mac([2; 6]) };

/// A frame as a hostile container would send it. `seen` is the last sequence number of ours: without
/// it nothing would ever be acknowledged.
fn frame_of(input: &mut Bytes<'_>, seen: u32) -> (Vec<u8>, Offload) {
    let kind = input.byte();
    let (v4, number) = (kind & 8 == 0, usize::from(input.byte()) % DESTINATIONS.len());
    let dst = if v4 {
        Addr::from_v4_bytes(DESTINATIONS[number])
    } else {
        DESTINATIONS_V6[number].parse().unwrap_or(Addr::UNSPECIFIED)
    };
    let src = INSIDE[usize::from(!v4)].parse().unwrap_or(Addr::UNSPECIFIED);
    let port = if kind & 0x40 != 0 { 80 } else { 1000 + u16::from(input.byte() % 4) };
    // The writers write towards a container, so this key is the other way round.
    let key = FlowKey {
        src: dst,
        dst: src,
        src_port: u16::from(input.byte() % 4) + 1,
        dst_port: port,
        domain: DomainId(1),
        proto: 0,
        scope: Scope::Routed,
    };
    let small = |n: u8| u32::from(n).wrapping_sub(16);
    let len = usize::from(input.byte()) << (kind >> 6);
    let (mut bytes, mut offload) = match kind % 4 {
        0 | 1 => {
            let mut bytes = vec![0; headers::tcp_headers(v4) + len];
            let fields = TcpFields {
                seq: small(input.byte()),
                ack: seen.wrapping_add(small(input.byte()).wrapping_add(17)),
                flags: input.byte(),
                window: input.short(),
            };
            let offload = headers::write_tcp(&mut bytes, LINK, &key, fields, 0, 100);
            (bytes, offload)
        }
        2 => {
            let mut bytes = vec![0; headers::udp_headers(v4) + len];
            let segment = Some(u16::from(input.byte()));
            let offload = headers::write_udp(&mut bytes, LINK, &key, segment);
            (bytes, offload)
        }
        _ => {
            let mut bytes = vec![0; headers::l4_at(v4) + 8 + len];
            headers::write_echo_reply(&mut bytes, LINK, src, dst, port);
            bytes[headers::l4_at(v4)] = input.byte() % 16;
            (bytes, Offload::NONE)
        }
    };
    // Sometimes one byte is anything, and the offload header is not what the frame is.
    if kind & 0x10 != 0 {
        let at = usize::from(input.short()) % bytes.len();
        bytes[at] = input.byte();
    }
    if kind & 0x20 != 0 {
        offload.gso = Gso::UdpL4;
        offload.gso_size = input.short();
        offload.csum = Csum::Complete;
    }
    (bytes, offload)
}

struct Fuzzed {
    /// Sequence number of the last segment that came out.
    seen: u32,
    flows: SocketFlows,
    out: SocketOutput,
    now: Time,
    batch: FrameBatch,
    /// Sockets that calls have named: events are mostly about these.
    known: Vec<SocketId>,
    /// Sockets that calls have made and not closed.
    alive: BTreeSet<SocketId>,
    /// What calls want to know and nobody has answered.
    asked: Vec<Asked>,
    /// Each flow's places when they were last looked at.
    places: Vec<Seen>,
    /// Whether the configuration has allowed [`REDIRECT`].
    redirected: bool,
}

impl Fuzzed {
    fn new() -> Self {
        let mut flows = SocketFlows::new(Seed(1));
        let own = OWN.map(|(prefix, len)| (prefix.parse().unwrap_or(Addr::UNSPECIFIED), len));
        flows.set_forbidden(Forbidden::new(&own));
        let target = Target {
            port: PORT,
            domain: DomainId(1),
            link: Link { inside: LINK.gateway, gateway: LINK.inside },
            // Both families: who refuses a client in one is asked in the other.
            addrs: INSIDE.map(|addr| addr.parse().ok()),
            gateways: GATEWAYS.map(|addr| addr.parse().ok()),
            subnets: own.to_vec(),
            mtu: 1500,
        };
        let target = Arc::new(target);
        let published =
            |id| Published { listener: ListenerId(id), target: target.clone(), port: 80 };
        flows.publish_tcp(published(1));
        flows.publish_udp(published(2));
        Self {
            seen: 0,
            flows,
            out: SocketOutput::default(),
            now: Time(1_000_000_000),
            batch: FrameBatch::new(),
            known: Vec::new(),
            alive: BTreeSet::new(),
            asked: Vec::new(),
            places: Vec::new(),
            redirected: false,
        }
    }

    fn run(&mut self, data: &[u8]) {
        let mut input = Bytes(data);
        while let Some(op) = input.next() {
            let what = op % 16;
            // Segments of one batch are looked at together, and time may pass before that.
            if !matches!(what, 7..=10) {
                self.look();
            }
            match what {
                0..=3 => self.frame(&mut input),
                4..=6 => self.event(&mut input),
                7 => self.time(&mut input),
                8..=10 => self.segment(&mut input),
                11 => self.syn(&mut input),
                12 | 13 => self.answer(&mut input),
                14 => self.client(&mut input),
                _ => self.removal(&mut input),
            }
            if op & 0x80 == 0 || self.batch.len() > 8 {
                self.look();
            }
        }
        self.look();
    }

    fn frame(&mut self, input: &mut Bytes<'_>) {
        let (bytes, offload) = frame_of(input, self.seen);
        self.batch.clear();
        if !self.batch.push(&bytes, offload) {
            return;
        }
        let Ok(parsed) = Parsed::new(&bytes) else { return };
        let mtu = u16::from(input.byte()) * 37;
        // Now and then the destination only stands for the host's loopback.
        let redirect = (mtu > 250 * 37).then_some(REDIRECT);
        let key = FlowKey::new(&parsed, DomainId(1), Scope::Routed);
        let (port, assembled) = (PORT, redirect.is_some());
        let inside = Inside { port, key, mtu, gateway: None, redirect, assembled };
        self.redirected |= redirect.is_some();
        let (frame, slot) = (self.batch.frame(0), FrameSlot(0));
        let _ = self.flows.frame(self.now, &inside, &parsed, &frame, slot, &mut self.out);
    }

    fn socket(&self, input: &mut Bytes<'_>) -> SocketId {
        let n = input.byte();
        let stranger = SocketId::from_token(u64::from(input.short()) << 52 | u64::from(n));
        let known = usize::from(n).checked_rem(self.known.len());
        known.and_then(|n| self.known.get(n)).copied().unwrap_or(stranger)
    }

    fn event(&mut self, input: &mut Bytes<'_>) {
        let socket = self.socket(input);
        // The kernel says nothing of sockets that do not exist (yet), but of strangers' all it likes.
        if self.waits_for_accept(socket) {
            return;
        }
        let room = Room { free: input.short().into(), total: input.short().into() };
        let [a, b] = [input.byte(), input.byte()];
        let peer = SockAddr { addr: Addr::from_v4_bytes([192, 0, 2, a]), port: u16::from(b) };
        let error = [
            SocketError::Refused,
            SocketError::Reset,
            SocketError::HostUnreachable,
            SocketError::TooBig(u16::from(b) << 4),
            SocketError::TimeExceeded,
            SocketError::Limit,
        ][usize::from(b) % 6];
        let slot = FrameSlot(0);
        let event = match a % 14 {
            0 => SocketEvent::Connected { socket, room },
            1 => SocketEvent::Failed { socket, error },
            2 => SocketEvent::Incoming { listener: ListenerId(u32::from(b) % 4) },
            // The answers to `Accept` are in `hostile.rs`.
            3 | 4 => SocketEvent::Connected { socket, room },
            5 => SocketEvent::Readable { socket, hangup: b > 128 },
            6 => SocketEvent::Writable { socket, room },
            7 | 8 => SocketEvent::Sent { socket, accepted: room.free, room },
            9 => SocketEvent::Drained { socket, eof: b > 128 },
            10 => {
                let (offender, echo_seq) = (peer.addr, 7);
                let listener = Via::Listener(ListenerId(2));
                let via = if b % 16 > 8 { listener } else { Via::Socket(socket) };
                if b % 16 == 7 {
                    SocketEvent::NotSent { via, frames: 2 }
                } else {
                    SocketEvent::DatagramError { via, error, offender, to: peer, echo_seq }
                }
            }
            11 | 12 => {
                let Some(frame) = received(&mut self.batch, input) else { return };
                SocketEvent::Data { socket, slot, frame, more: b > 64 }
            }
            _ => {
                let via = if b > 128 { Via::Listener(ListenerId(2)) } else { Via::Socket(socket) };
                let segment = (b % 2 == 0).then_some(u16::from(b));
                let Some(frame) = received(&mut self.batch, input) else { return };
                SocketEvent::Datagram { via, slot, frame, from: peer, to: None, segment }
            }
        };
        self.flows.event(self.now, event, &mut self.out);
    }

    fn time(&mut self, input: &mut Bytes<'_>) {
        let leap = 1_u64 << (input.byte() % 13);
        self.now = self.now + Span::from_millis(leap);
        self.flows.tick(self.now, &mut self.out);
    }

    /// What comes out must make sense.
    fn look(&mut self) {
        self.flows.flush(self.now, &mut self.out);
        self.calls_make_sense();
        for call in &self.out.calls {
            match *call {
                SocketCall::Connect { socket, to } => {
                    assert!(self.may_reach(to.addr), "{to:?}");
                    self.known.push(socket);
                }
                SocketCall::Accept { socket, .. } | SocketCall::Open { socket, .. } => {
                    self.known.push(socket);
                }
                SocketCall::SendTo { to, parts, via: Via::Socket(_), .. } => {
                    assert!(self.may_reach(to.addr), "{to:?}");
                    assert!(self.out.chain(parts).count() == parts.count as usize);
                }
                SocketCall::Send { parts, .. } => {
                    let pieces =
                        self.out.chain(parts).map(|part| self.out.piece(part, &self.batch));
                    let bytes: usize =
                        pieces.map(|piece| piece.expect("bytes that are there").len()).sum();
                    assert_eq!(bytes, parts.bytes as usize);
                }
                _ => {}
            }
        }
        for delivery in &self.out.deliveries {
            let bytes = match delivery {
                Delivery::Made { frame, .. } => frame.bytes(),
                Delivery::Slot { slot, .. } => self.batch.bytes(usize::from(slot.0)),
            };
            let parsed = Parsed::new(bytes).expect("what we send can be parsed");
            if parsed.proto == ipv6::TCP
                && let Some(seq) = parsed.l4_bytes(bytes).get(4..).and_then(|b| b.first_chunk())
            {
                self.seen = u32::from_be_bytes(*seq);
            }
        }
        self.out.clear();
        self.places_make_sense();
    }

    /// Judged by other means than the flow machines judge by.
    fn may_reach(&self, addr: Addr) -> bool {
        if addr == REDIRECT {
            return self.redirected;
        }
        let forbidden = match addr.ip() {
            IpAddr::V4(ip) => {
                let own = ip.octets()[..2] == [172, 17];
                let nowhere = ip.octets()[0] == 0 || ip.is_broadcast();
                ip.is_loopback() || nowhere || ip.is_multicast() || ip.is_link_local() || own
            }
            IpAddr::V6(ip) => {
                let own = ip.segments()[..4] == [0xfd00, 0, 0, 0];
                let link = ip.is_unicast_link_local();
                let v4 = ip.to_ipv4().is_some();
                ip.is_loopback() || ip.is_unspecified() || ip.is_multicast() || link || own || v4
            }
        };
        !forbidden
    }

    fn end(mut self) {
        self.remove_port();
        let later = self.now + Span::from_secs(1);
        self.flows.tick(later, &mut self.out);
        self.flows.unpublish(ListenerId(1));
        self.flows.unpublish(ListenerId(2));
        let left: Vec<_> = self.flows.tcp_flows().collect();
        assert!(left.iter().all(|flow| flow.state() == TcpState::Accepting), "{left:?}");
    }
}

/// A frame of some length, as a receive would have left it.
fn received<'a>(batch: &'a mut FrameBatch, input: &mut Bytes<'_>) -> Option<FrameMut<'a>> {
    let len = 14 + usize::from(input.short()) % 5000;
    batch.clear();
    batch.push(&vec![0; len], Offload::NONE).then(|| batch.frame(0))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SYN: [u8; 12] = [0, 0, 0, 0, 0, 0, 16, 0, 2, 255, 255, 40];
    const CONNECTED: [u8; 10] = [4, 0, 0, 0, 64, 0, 64, 0, 0, 0];
    const ACK: [u8; 12] = [0, 0, 0, 0, 0, 0, 17, 0, 16, 255, 255, 40];

    /// A fuzzer that never gets past the handshake would find nothing.
    #[test]
    fn a_dozen_bytes_each_make_a_handshake() {
        let mut world = Fuzzed::new();
        world.run(&SYN);
        assert_eq!(world.flows.tcp_flows().next().unwrap().state(), TcpState::Connecting);
        world.run(&CONNECTED);
        world.run(&ACK);
        assert_eq!(world.flows.tcp_flows().next().unwrap().state(), TcpState::Open);
    }

    proptest! {
        #[test]
        fn whatever_happens_nothing_panics_and_nothing_is_left(data in prop::collection::vec(any::<u8>(), 0..2000)) {
            fuzz(&data);
            fuzz(&[&SYN[..], &CONNECTED, &ACK, &data].concat());
        }
    }
}
