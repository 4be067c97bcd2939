//! SYNs from outside that nobody has asked for (RFC 5382 REQ-4).
//!
//! In a simultaneous open both sides send a SYN at once, and the outside's may be here before the
//! inside's has made a flow. To answer it with an error would end the attempt. So it gets no answer for
//! six seconds; if its connection exists by then, it never gets one. All wait equally long, so the
//! queue is in order of time. It is bounded: what finds it full is dropped in silence, as REQ-4 a
//! allows, and a scan of ports learns nothing by it.

use std::collections::VecDeque;

use hashbrown::HashSet;

use crate::base::ids::PortId;
use crate::base::limits::{HELD_SYN_BYTES_MAX, HELD_SYNS_MAX};
use crate::base::time::{Span, Time};
use crate::packet::{FlowKey, PacketBuf};

/// RFC 5382 REQ-4.
pub const SYN_HOLD: Span = Span::from_secs(6);

/// A SYN that waits.
#[derive(Debug)]
pub struct HeldSyn {
    /// Where it came from.
    pub port: PortId,
    /// Whose connection it would begin.
    pub key: FlowKey,
    /// Itself.
    pub frame: PacketBuf,
    hash: u64,
    due: Time,
}

/// All that wait.
#[derive(Debug, Default)]
pub struct HeldSyns {
    queue: VecDeque<HeldSyn>,
    /// A SYN that is sent again is not held again.
    known: HashSet<u64>,
}

impl HeldSyns {
    /// Holds a SYN whose key has this hash, unless there are too many or it is held already.
    pub fn hold(&mut self, now: Time, port: PortId, key: FlowKey, hash: u64, frame: &[u8]) {
        if self.queue.len() >= HELD_SYNS_MAX
            || frame.len() > HELD_SYN_BYTES_MAX
            || !self.known.insert(hash)
        {
            return;
        }
        let frame = PacketBuf::new(frame, crate::packet::Offload::NONE);
        self.queue.push_back(HeldSyn { port, key, frame, hash, due: now + SYN_HOLD });
    }

    /// One whose time has come.
    pub fn due(&mut self, now: Time) -> Option<HeldSyn> {
        let syn = self.queue.pop_front_if(|syn| syn.due <= now)?;
        self.known.remove(&syn.hash);
        Some(syn)
    }

    /// When [`due`](Self::due) will next have one.
    pub fn next_deadline(&self) -> Option<Time> {
        self.queue.front().map(|syn| syn.due)
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.queue.len()
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::keys;
    use super::*;
    use crate::wire::ipv6;

    const PORT: PortId = PortId(1);

    #[test]
    fn each_waits_its_time_and_once() {
        let mut held = HeldSyns::default();
        let key = keys(false, ipv6::TCP, 1)[0];
        let late = Time::ZERO + Span::from_secs(2);
        held.hold(Time::ZERO, PORT, key, 1, b"first");
        held.hold(late, PORT, key, 1, b"first, again");
        held.hold(late, PORT, key, 2, b"second");
        assert_eq!((held.len(), held.next_deadline()), (2, Some(Time::ZERO + SYN_HOLD)));
        assert!(held.due(Time::ZERO + Span::from_millis(5_999)).is_none());
        assert_eq!(held.due(Time::ZERO + SYN_HOLD).unwrap().frame.bytes(), b"first");
        assert!(held.due(Time::ZERO + SYN_HOLD).is_none());
        held.hold(late, PORT, key, 1, b"a new attempt");
        assert_eq!(held.due(late + SYN_HOLD).unwrap().frame.bytes(), b"second");
        assert!(held.due(late + SYN_HOLD).is_some() && held.is_empty());
    }

    #[test]
    fn a_flood_is_bounded_in_number_and_in_size() {
        let mut held = HeldSyns::default();
        let key = keys(true, ipv6::TCP, 1)[0];
        held.hold(Time::ZERO, PORT, key, 0, &[0; HELD_SYN_BYTES_MAX + 1]);
        assert!(held.is_empty());
        for hash in 0..2 * HELD_SYNS_MAX as u64 {
            held.hold(Time::ZERO, PORT, key, hash, b"SYN");
        }
        assert_eq!(held.len(), HELD_SYNS_MAX);
    }
}
