//! The only way out: every frame that leaves passes `emit`, which knows what a port can take.

use super::{Datapath, Output};
use crate::base::ids::PortId;
use crate::packet::{DropReason, FrameBatch, Gso, PacketBuf, Parsed, split};

/// Frames sent to one port in a row, which are counted together.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tally {
    port: PortId,
    frames: u64,
    bytes: u64,
}

impl Tally {
    pub(super) const NOTHING: Self = Self { port: PortId(0), frames: 0, bytes: 0 };
}

impl Datapath {
    /// Sends frame `at` of the batch out of `port`.
    #[inline]
    pub(super) fn emit(
        &mut self,
        port: PortId,
        at: usize,
        batch: &mut FrameBatch,
        out: &mut Output,
    ) {
        if self.tables.entry(port).is_none() {
            self.drop_frame(port, DropReason::PortGone);
            return;
        }
        self.emit_from_flow(port, at, batch, out);
    }

    /// The same for a port that is there, since its flows go when it goes.
    #[inline]
    pub(super) fn emit_from_flow(
        &mut self,
        port: PortId,
        at: usize,
        batch: &mut FrameBatch,
        out: &mut Output,
    ) {
        if batch.is_gso(at, Gso::UdpL4) && !self.takes_uso(port) {
            // Cutting uses a frame up, and in a flood another port may be about to get it whole.
            let copy = batch.frame(at).to_owned();
            self.emit_split(port, copy, out);
            return;
        }
        self.count_sent(port, batch.len_of(at));
        out.batch(port, at);
    }

    fn takes_uso(&self, port: PortId) -> bool {
        self.tables.port(port).is_some_and(|port| port.uso)
    }

    /// Sends a frame of its own out of `port`.
    pub(super) fn emit_owned(&mut self, port: PortId, frame: PacketBuf, out: &mut Output) {
        if self.tables.entry(port).is_none() {
            self.drop_frame(port, DropReason::PortGone);
            return;
        }
        if frame.offload().gso == Gso::UdpL4 && !self.takes_uso(port) {
            self.emit_split(port, frame, out);
            return;
        }
        self.count_delivered(port, frame.len());
        out.owned(port, frame);
    }

    /// Cuts a super-frame that the port's device cannot take (UDP before Linux 6.2).
    fn emit_split(&mut self, port: PortId, mut whole: PacketBuf, out: &mut Output) {
        let segments = Parsed::new(whole.bytes())
            .and_then(|parsed| split::Segments::new(whole.frame(), &parsed));
        let mut segments = match segments {
            Ok(segments) => segments,
            Err(reason) => {
                self.drop_frame(port, reason);
                return;
            }
        };
        while let Some(segment) = segments.next() {
            self.emit_owned(port, segment.to_owned(), out);
        }
    }

    #[inline]
    fn count_sent(&mut self, port: PortId, bytes: usize) {
        if self.tally.port != port {
            self.settle_tally(port);
        }
        self.tally.frames += 1;
        self.tally.bytes += bytes as u64;
    }

    /// Adds what was counted aside to its port, and begins to count for another.
    pub(super) fn settle_tally(&mut self, next: PortId) {
        let done = std::mem::replace(&mut self.tally, Tally { port: next, frames: 0, bytes: 0 });
        if done.frames > 0 {
            let counters = self.port_counters(done.port);
            counters.tx_frames += done.frames;
            counters.tx_bytes += done.bytes;
        }
    }
}
