//! The whole data path under an operation list made of foreign bytes: hostile frames with hostile
//! offload headers, answers to what it sent, changes of the configuration, leaps of time, questions.
//! Called by the fuzz target, and by the replay of its corpus.

mod frames;
mod world;

use std::collections::BTreeSet;

use self::frames::{Bytes, frame, turned_around};
use self::world::{ADDRS, PORTS, UPLINK, UPLINK_PORT};
use super::inspect::{FlowFilter, TraceRequest};
use super::{Datapath, FrameRef, Output};
use crate::base::hash::Seed;
use crate::base::ids::PortId;
use crate::base::limits::{FRAME_MAX, HOLD_FRAMES_MAX};
use crate::base::time::{Span, Time};
use crate::config::{Delta, Port};
use crate::packet::{DropReason, FrameBatch, Gso, L3, Offload, Parsed};

/// Room for so few flows that a full table is soon met.
const FLOWS_MAX: usize = 48;
/// Calls of `tick` until a deadline lies ahead again.
const TICKS_MAX: usize = 64;
/// Ticks until nothing is left, at the end.
const END_TICKS_MAX: usize = 4_000;
/// Longer than anything is remembered.
const FOR_EVER: Span = Span::from_secs(3 * 7_440);
const LEAPS: [Span; 8] = [
    Span::from_micros(1),
    Span::from_millis(300),
    Span::from_secs(1),
    Span::from_secs(6),
    Span::from_secs(31),
    Span::from_secs(125),
    Span::from_secs(301),
    Span::from_secs(7_500),
];
/// Frames remembered, to be answered.
const SEEN_MAX: usize = 4;

/// Runs the operations in `data`.
///
/// # Panics
/// If something does not hold that always must: a frame that vanishes, leaves under a foreign name or
/// to where it must not; counters that do not add up; deadlines that make no progress; memory that
/// time does not free.
pub fn fuzz(data: &[u8]) {
    let mut fuzzed = Fuzzed::new();
    let mut input = Bytes(data);
    while let Some(op) = input.next() {
        match op % 16 {
            0..=8 => fuzzed.frames(op, &mut input),
            9 | 10 => fuzzed.answer(&mut input),
            11 => fuzzed.change(&mut input),
            12 | 13 => fuzzed.leap(&mut input),
            14 => fuzzed.question(&mut input),
            _ => fuzzed.flush_or_configure(&mut input),
        }
        fuzzed.bounds();
    }
    fuzzed.end();
}

struct Fuzzed {
    dp: Datapath,
    now: Time,
    /// What left lately, and by which port.
    seen: Vec<(PortId, Vec<u8>, Offload)>,
    leased: bool,
}

impl Fuzzed {
    fn new() -> Self {
        let dp = Datapath::with_flow_limit(Seed(7), FLOWS_MAX);
        let mut it = Self { dp, now: Time(1_000_000_000), seen: Vec::new(), leased: false };
        for delta in world::beginning() {
            it.apply(&delta);
        }
        it
    }

    fn apply(&mut self, delta: &Delta) {
        let mut out = Output::default();
        self.dp.apply(self.now, delta, &mut out);
        self.remember(&FrameBatch::new(), &mut out);
    }

    /// One frame, or several in one batch.
    fn frames(&mut self, op: u8, input: &mut Bytes<'_>) {
        let port = input.pick(&PORTS);
        let mut batch = FrameBatch::new();
        for _ in 0..=op / 64 {
            if let Some((bytes, offload)) = frame(input)
                && bytes.len() >= 14
                && bytes.len() <= FRAME_MAX
            {
                let _ = batch.push(&bytes, offload);
            }
        }
        self.process(port, batch);
    }

    /// What left by a port comes back from there.
    fn answer(&mut self, input: &mut Bytes<'_>) {
        let Some((port, bytes, offload)) = self.seen.get(usize::from(input.byte()) % SEEN_MAX)
        else {
            return;
        };
        let (port, bytes, offload) = (*port, turned_around(bytes), *offload);
        let mut batch = FrameBatch::new();
        assert!(batch.push(&bytes, offload), "it left in one");
        self.process(port, batch);
    }

    fn process(&mut self, port: PortId, mut batch: FrameBatch) {
        let originals: Vec<Vec<u8>> = (0..batch.len()).map(|n| batch.bytes(n).to_vec()).collect();
        let (before, held) = (self.sums(), self.dp.footprint().held);
        let mut out = Output::default();
        self.dp.frames(self.now, port, &mut batch, &mut out);
        let after = self.sums();
        assert_eq!(after.sent - before.sent, out.frames.len() as u64, "sent frames are counted");
        let came = if self.dp.tables().port(port).is_some() { batch.len() as u64 } else { 0 };
        assert_eq!(after.received - before.received, came, "received frames are counted");
        let dropped = (after.dropped + after.gone) - (before.dropped + before.gone);
        if !self.ends_in_sockets(port) && !self.is_the_host_s_too(port) {
            self.none_vanished(&originals, dropped, held, &out);
        }
        self.ways(port, &originals, &out);
        self.remember(&batch, &mut out);
    }

    /// What goes into a socket is nobody's frame any more; connections that end there go on when the
    /// network gets another way out.
    fn ends_in_sockets(&self, port: PortId) -> bool {
        if self.dp.socket_flows().counts() != [0; 3] {
            return true;
        }
        let tables = self.dp.tables();
        let network = tables.port(port).and_then(|port| tables.network_of(port.domain));
        network.is_some_and(|network| network.uplink == Some(world::SOCKETS))
    }

    /// On a shared address the kernel has every frame as well, and what is its is not counted here.
    fn is_the_host_s_too(&self, port: PortId) -> bool {
        let tables = self.dp.tables();
        let uplink = tables.port(port).and_then(|port| tables.uplink_of(port.domain));
        uplink.is_some_and(|uplink| uplink.shared)
    }

    fn none_vanished(&self, came: &[Vec<u8>], dropped: u64, held: usize, out: &Output) {
        let (mut sent, mut made) = (BTreeSet::new(), 0);
        for frame in &out.frames {
            match frame.frame {
                FrameRef::Batch(at) => _ = sent.insert(at),
                FrameRef::Owned(_) => made += 1,
            }
        }
        let kept = self.dp.footprint().held.saturating_sub(held);
        // What is configuration for us is nobody's frame any more.
        let taken = usize::from(self.leased);
        let accounted = sent.len() + made + dropped as usize + kept + taken;
        let what = || came.iter().map(|frame| Parsed::new(frame)).collect::<Vec<_>>();
        assert!(accounted >= came.len(), "only {accounted} of {:?} are accounted for", what());
    }

    fn ways(&self, from: PortId, originals: &[Vec<u8>], out: &Output) {
        let Some(ingress) = self.dp.tables().port(from) else { return };
        for frame in &out.frames {
            let egress =
                self.dp.tables().port(frame.port).expect("it leaves by a port that is there");
            let FrameRef::Batch(at) = frame.frame else { continue };
            let parsed =
                Parsed::new(&originals[usize::from(at)]).expect("only what is a packet passes");
            named_rightly(ingress, &parsed);
            let way = self.may_cross(ingress, egress, &parsed);
            assert!(way || frame.port == from, "{parsed:?}: {ingress:?} to {egress:?}");
        }
    }

    fn may_cross(&self, ingress: &Port, egress: &Port, parsed: &Parsed) -> bool {
        let tables = self.dp.tables();
        if ingress.domain == egress.domain {
            return true;
        }
        let target = |port: &Port, number: u16| {
            let mut all = tables.publications().iter();
            all.any(|p| p.endpoint == port.id && (5_000..=5_003).contains(&number))
        };
        match (tables.network_of(ingress.domain), tables.network_of(egress.domain)) {
            (Some(one), Some(two)) => {
                let to_us = tables.is_host_addr(parsed.dst) || one.is_gateway(parsed.dst);
                let is_gateway = ADDRS[5..7].iter().any(|g| g.0 == parsed.dst || g.1 == parsed.dst);
                !one.isolated && !two.isolated
                    || to_us
                    || is_gateway
                    || world::is_gateway_link_local(parsed.dst)
                    || target(ingress, parsed.src_port)
                    || parsed.fragment != crate::packet::Fragment::Whole
            }
            (Some(one), None) => one.uplink.is_some() && !one.internal,
            (None, _) => tables.is_host_addr(parsed.dst),
        }
    }

    /// Keeps some of what left, and sees that it is what a device can take.
    fn remember(&mut self, batch: &FrameBatch, out: &mut Output) {
        for sent in out.frames.drain(..) {
            let (bytes, offload) = match &sent.frame {
                FrameRef::Batch(at) => {
                    let at = usize::from(*at);
                    (batch.bytes(at).to_vec(), batch.offload(at))
                }
                FrameRef::Owned(owned) => (owned.bytes().to_vec(), owned.offload()),
            };
            let parsed = Parsed::new(&bytes).expect("what leaves is a packet");
            assert_eq!(offload.check(&parsed), Ok(()), "and its offload header is true");
            let takes = self.dp.tables().port(sent.port).is_some_and(|port| port.uso);
            assert!(takes || offload.gso != Gso::UdpL4, "the device cannot cut it");
            self.seen.push((sent.port, bytes, offload));
        }
        let old = self.seen.len().saturating_sub(SEEN_MAX);
        self.seen.drain(..old);
    }

    fn change(&mut self, input: &mut Bytes<'_>) {
        for delta in world::change(input) {
            // Control never publishes under a number in use, or for a port that is not there.
            let known = match &delta {
                Delta::Publish(p) => self.dp.tables().publications().get(p.id).is_some(),
                _ => false,
            };
            if !known {
                self.apply(&delta);
            }
        }
    }

    fn leap(&mut self, input: &mut Bytes<'_>) {
        self.now = self.now + input.pick(&LEAPS);
        self.tick();
    }

    fn tick(&mut self) {
        for _ in 0..TICKS_MAX {
            let before = self.sums();
            let mut out = Output::default();
            self.dp.tick(self.now, &mut out);
            assert_eq!(self.sums().sent - before.sent, out.frames.len() as u64);
            self.remember(&FrameBatch::new(), &mut out);
            if self.dp.next_deadline(self.now).is_none_or(|at| at > self.now) {
                return;
            }
        }
        panic!("deadlines make no progress");
    }

    fn question(&mut self, input: &mut Bytes<'_>) {
        let (dp, now) = (&self.dp, self.now);
        let listed = dp.list_flows(now, &FlowFilter::default()).len();
        assert_eq!(listed, dp.footprint().flows);
        let _ = (dp.list_fdb(now), dp.list_neighbours(now), dp.list_routes());
        let to = input.pick(&ADDRS);
        let to = if input.byte() & 1 == 0 { to.0 } else { to.1 };
        let proto = input.pick(&["tcp", "udp", "icmp", "sctp"]).to_owned();
        let request =
            TraceRequest { from: input.pick(&PORTS), to: to.ip(), port: Some(5_000), proto };
        assert!(!dp.trace(now, &request).verdict.is_empty());
    }

    fn flush_or_configure(&mut self, input: &mut Bytes<'_>) {
        if input.byte() & 1 == 0 {
            self.dp.flush_flows(
                self.now,
                &FlowFilter { port: Some(input.pick(&PORTS)), ..Default::default() },
            );
        } else if self.dp.tables().port(UPLINK_PORT).is_some() {
            let mut out = Output::default();
            self.dp.configure(self.now, UPLINK, UPLINK_PORT, &mut out);
            self.leased = true;
            self.remember(&FrameBatch::new(), &mut out);
        }
    }

    fn bounds(&self) {
        let footprint = self.dp.footprint();
        assert!(footprint.flows <= FLOWS_MAX && footprint.hops <= 2 * FLOWS_MAX, "{footprint:?}");
        assert!(footprint.held <= 2 * HOLD_FRAMES_MAX, "{footprint:?}");
        assert!(footprint.mappings <= 4_096 && footprint.stations <= 4_096, "{footprint:?}");
    }

    /// All that was remembered ends by time alone.
    fn end(&mut self) {
        self.dp.apply(self.now, &Delta::RemoveUplink(UPLINK), &mut Output::default());
        let end = self.now + FOR_EVER;
        for _ in 0..END_TICKS_MAX {
            let Some(at) = self.dp.next_deadline(self.now).filter(|at| *at < end) else {
                let left = self.dp.footprint();
                let left = (left.flows, left.mappings, left.hops, left.stations, left.held);
                assert_eq!(left, (0, 0, 0, 0, 0));
                return;
            };
            self.now = at.max(self.now);
            self.dp.tick(self.now, &mut Output::default());
        }
        panic!("it never ends: {:?}", self.dp.footprint());
    }

    fn sums(&self) -> Sums {
        let mut sums = Sums::default();
        for port in self.dp.list_ports() {
            sums.sent += port.tx_frames;
            sums.received += port.rx_frames;
            sums.dropped += port.drops.iter().map(|(_, n)| n).sum::<u64>();
        }
        sums.gone = PORTS.iter().map(|port| self.gone(*port)).sum();
        sums
    }

    /// Frames of a port that the configuration does not list.
    fn gone(&self, port: PortId) -> u64 {
        if self.dp.tables().port(port).is_some() {
            0
        } else {
            self.dp.drops(port, DropReason::PortGone)
        }
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Sums {
    sent: u64,
    received: u64,
    dropped: u64,
    gone: u64,
}

fn named_rightly(ingress: &Port, parsed: &Parsed) {
    if !ingress.guard {
        return;
    }
    assert_eq!(parsed.src_mac, ingress.mac, "the guard lets no other MAC pass");
    let own = ingress.addrs.contains(&parsed.src)
        || parsed.src.is_unspecified()
        || parsed.src == crate::config::link_local(ingress.mac);
    let is_ip = matches!(parsed.l3, L3::V4 | L3::V6);
    assert!(!is_ip || own, "the guard lets no other address pass: {parsed:?}");
}
