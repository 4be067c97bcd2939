//! What came before its time: copies of segments that wait for an earlier one.
//!
//! The one place where bytes of containers have memory of ours. It is a pool of the worker's and not of
//! its flows: a flow that receives in order has nothing here, and all flows together have what
//! [`SOCKET_HELD_BYTES_MAX`] says. When it is full, the flow that has held longest gives up what it
//! holds; that costs a retransmission and nothing else, since nothing here has been acknowledged.
//!
//! A flow's bytes are *ranges*. A segment that continues one is appended to it, so one gap makes one range,
//! however many segments come behind it. Ranges may overlap; whoever takes them out skips what is old.

use std::collections::VecDeque;

use super::seq::Seq;
use crate::base::ids::PortId;
use crate::base::limits::{
    SOCKET_HELD_BYTES_MAX, SOCKET_HELD_BYTES_PER_FLOW_MAX, SOCKET_HELD_FLOWS_MAX,
    SOCKET_HELD_RANGES_MAX,
};
use crate::stage::sockets::calls::SocketId;

/// Bytes in one piece of the stream, and perhaps its end.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Range {
    pub(super) seq: Seq,
    pub(super) bytes: Vec<u8>,
    /// The container's FIN is behind them.
    pub(super) fin: bool,
}

impl Range {
    fn end(&self) -> Seq {
        self.seq.plus(self.bytes.len() as u32)
    }

    /// Whether there is something new in it for a stream that has come to `at`.
    fn outlasts(&self, at: Seq) -> bool {
        at.before(self.end()) || (self.fin && at == self.end())
    }

    /// Takes in a segment that begins inside this range or at its end.
    fn extend(&mut self, seq: Seq, bytes: &[u8], fin: bool) -> usize {
        let known = self.end().since(seq) as usize;
        let fresh = bytes.get(known..).unwrap_or_default();
        self.bytes.extend_from_slice(fresh);
        self.fin |= fin && known <= bytes.len();
        fresh.len()
    }
}

/// What one flow holds.
#[derive(Debug)]
struct Waiting {
    flow: SocketId,
    port: PortId,
    bytes: usize,
    ranges: Vec<Range>,
}

/// What a full pool let go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::stage::sockets) struct Evicted {
    pub(in crate::stage::sockets) port: PortId,
    /// How many ranges it was.
    pub(in crate::stage::sockets) ranges: usize,
}

/// All that a worker holds.
#[derive(Debug, Default)]
pub(in crate::stage::sockets) struct Held {
    /// Who began to hold first is first.
    flows: VecDeque<Waiting>,
    bytes: usize,
}

/// There is no room for this flow's segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct NoRoom;

impl Held {
    fn find(&self, flow: SocketId) -> Option<usize> {
        self.flows.iter().position(|waiting| waiting.flow == flow)
    }

    /// Keeps a copy of a segment. What had to go for it comes out of [`evict`](Self::evict).
    pub(super) fn insert(
        &mut self,
        (flow, port): (SocketId, PortId),
        (seq, bytes, fin): (Seq, &[u8], bool),
    ) -> Result<(), NoRoom> {
        let at = self.find(flow).unwrap_or_else(|| {
            self.flows.push_back(Waiting { flow, port, bytes: 0, ranges: Vec::new() });
            self.flows.len() - 1
        });
        let waiting = &mut self.flows[at];
        if waiting.bytes + bytes.len() > SOCKET_HELD_BYTES_PER_FLOW_MAX {
            return Err(NoRoom);
        }
        let touches =
            |range: &&mut Range| !seq.before(range.seq) && !range.end().before(seq) && !range.fin;
        let covered = |range: &Range| {
            !seq.before(range.seq) && !range.end().before(seq.plus(bytes.len() as u32))
        };
        let fresh = if waiting.ranges.iter().any(|range| covered(range) && range.fin >= fin) {
            0
        } else if let Some(range) = waiting.ranges.iter_mut().find(touches) {
            range.extend(seq, bytes, fin)
        } else if waiting.ranges.len() < SOCKET_HELD_RANGES_MAX {
            waiting.ranges.push(Range { seq, bytes: bytes.to_vec(), fin });
            bytes.len()
        } else {
            return Err(NoRoom);
        };
        waiting.bytes += fresh;
        self.bytes += fresh;
        Ok(())
    }

    /// Lets the longest-waiting flow go if there is too much; called until it has nothing to say.
    pub(super) fn evict(&mut self) -> Option<Evicted> {
        if self.bytes <= SOCKET_HELD_BYTES_MAX && self.flows.len() <= SOCKET_HELD_FLOWS_MAX {
            return None;
        }
        let gone = self.flows.pop_front()?;
        self.bytes -= gone.bytes;
        Some(Evicted { port: gone.port, ranges: gone.ranges.len() })
    }

    /// Takes out what continues the stream at `at`. What is older than that is forgotten.
    pub(super) fn take(&mut self, flow: SocketId, at: Seq) -> Option<Range> {
        let place = self.find(flow)?;
        let waiting = &mut self.flows[place];
        let before = waiting.bytes;
        waiting.ranges.retain(|range| range.outlasts(at));
        let next = waiting.ranges.iter().position(|range| !at.before(range.seq));
        let range = next.map(|n| waiting.ranges.swap_remove(n));
        waiting.bytes = waiting.ranges.iter().map(|range| range.bytes.len()).sum();
        self.bytes -= before - waiting.bytes;
        if waiting.ranges.is_empty() {
            self.flows.remove(place);
        }
        range
    }

    /// Whether this flow holds anything.
    pub(super) fn has(&self, flow: SocketId) -> bool {
        self.find(flow).is_some()
    }

    /// The flow is gone.
    pub(super) fn forget(&mut self, flow: SocketId) {
        if let Some(waiting) = self.find(flow).and_then(|at| self.flows.remove(at)) {
            self.bytes -= waiting.bytes;
        }
    }

    /// Bytes of all flows.
    pub(in crate::stage::sockets) fn bytes(&self) -> usize {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::stage::sockets::calls::SocketKind;

    fn flow(n: u32) -> (SocketId, PortId) {
        (SocketId::new(SocketKind::Tcp, n, 0), PortId(n as u16))
    }

    #[test]
    fn segments_behind_one_gap_are_one_range_and_come_out_when_it_is_filled() {
        let mut held = Held::default();
        let start = Seq(u32::MAX - 5);
        for n in 0..3_u8 {
            let seq = start.plus(10 + 10 * u32::from(n));
            held.insert(flow(1), (seq, &[n; 10], n == 2)).unwrap();
        }
        assert_eq!(held.take(flow(1).0, start), None, "the gap is still there");
        let range = held.take(flow(1).0, start.plus(10)).unwrap();
        assert_eq!((range.bytes.len(), range.fin), (30, true));
        assert_eq!((held.bytes(), held.has(flow(1).0)), (0, false));
    }

    #[test]
    fn a_repeated_segment_is_held_once() {
        let mut held = Held::default();
        for _ in 0..5 {
            held.insert(flow(1), (Seq(100), &[1; 50], false)).unwrap();
            held.insert(flow(1), (Seq(120), &[1; 10], false)).unwrap();
        }
        assert_eq!(held.bytes(), 50);
    }

    #[test]
    fn a_flow_s_gaps_and_bytes_have_a_bound() {
        let mut held = Held::default();
        for n in 0..SOCKET_HELD_RANGES_MAX as u32 {
            held.insert(flow(1), (Seq(n * 10), &[1], false)).unwrap();
        }
        assert_eq!(held.insert(flow(1), (Seq(5), &[1], false)), Err(NoRoom), "gaps");
        let much = vec![1; SOCKET_HELD_BYTES_PER_FLOW_MAX];
        held.insert(flow(2), (Seq(5), &much, false)).unwrap();
        assert_eq!(held.insert(flow(2), (Seq(0), &[1], false)), Err(NoRoom), "bytes");
    }

    #[test]
    fn a_full_pool_lets_the_longest_waiting_go() {
        let mut held = Held::default();
        let much = vec![1; SOCKET_HELD_BYTES_PER_FLOW_MAX];
        let fit = SOCKET_HELD_BYTES_MAX / SOCKET_HELD_BYTES_PER_FLOW_MAX;
        for n in 0..fit as u32 {
            held.insert(flow(n), (Seq(5), &much, false)).unwrap();
            assert_eq!(held.evict(), None);
        }
        held.insert(flow(99), (Seq(5), &much, false)).unwrap();
        assert_eq!(held.evict(), Some(Evicted { port: PortId(0), ranges: 1 }));
        assert_eq!((held.evict(), held.bytes()), (None, SOCKET_HELD_BYTES_MAX));
        for n in 100..200 + SOCKET_HELD_FLOWS_MAX as u32 {
            held.insert(flow(n), (Seq(5), &[1], false)).unwrap();
            while held.evict().is_some() {}
        }
        assert_eq!(held.flows.len(), SOCKET_HELD_FLOWS_MAX);
        for n in 0..200 + SOCKET_HELD_FLOWS_MAX as u32 {
            held.forget(flow(n).0);
        }
        assert_eq!((held.bytes(), held.flows.len()), (0, 0));
    }

    proptest! {
        /// Against the plain model: a stream, of which pieces arrive in any order and more than once.
        #[test]
        fn whatever_comes_in_whatever_order_the_stream_comes_out(
            start: u32,
            pieces in prop::collection::vec((0_usize..400, 1_usize..60), 1..60),
        ) {
            let stream: Vec<u8> = (0..500_u32).map(|n| (n * 7 % 251) as u8).collect();
            let (start, mut held, mut got) = (Seq(start), Held::default(), Vec::new());
            let whole = (0..500).step_by(50).map(|from| (from, 50));
            for (from, len) in pieces.into_iter().chain(whole) {
                let (seq, bytes) = (start.plus(from as u32), &stream[from..(from + len).min(500)]);
                let at = start.plus(got.len() as u32);
                let fin = from + bytes.len() == 500;
                if at.before(seq) {
                    let _ = held.insert(flow(1), (seq, bytes, fin));
                } else if let Some(fresh) = bytes.get(at.since(seq) as usize..) {
                    got.extend_from_slice(fresh);
                }
                while let Some(range) = held.take(flow(1).0, start.plus(got.len() as u32)) {
                    let old = start.plus(got.len() as u32).since(range.seq) as usize;
                    got.extend_from_slice(&range.bytes[old..]);
                    prop_assert!(!range.fin || got.len() == 500);
                }
            }
            prop_assert_eq!(got, stream);
            prop_assert_eq!(held.bytes(), 0);
        }
    }
}
