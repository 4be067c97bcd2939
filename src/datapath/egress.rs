//! The only way out: every frame that leaves passes `emit`, which knows what a port can take.

use super::{Datapath, Output};
use crate::base::ids::PortId;
use crate::packet::{DropReason, FrameBatch, Gso, PacketBuf, Parsed, split};

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
        let Some(entry) = self.tables.entry(port) else {
            self.drop_frame(port, DropReason::PortGone);
            return;
        };
        let offload = batch.offload(at);
        if offload.gso == Gso::UdpL4 && !entry.port.uso {
            self.emit_split(port, at, batch, out);
            return;
        }
        self.count_sent(port, batch.bytes(at).len());
        out.batch(port, at);
    }

    /// Sends a frame of its own out of `port`.
    pub(super) fn emit_owned(&mut self, port: PortId, frame: PacketBuf, out: &mut Output) {
        if self.tables.entry(port).is_none() {
            self.drop_frame(port, DropReason::PortGone);
            return;
        }
        self.count_sent(port, frame.len());
        out.owned(port, frame);
    }

    /// Cuts a super-frame that the port's device cannot take (UDP before Linux 6.2).
    fn emit_split(&mut self, port: PortId, at: usize, batch: &mut FrameBatch, out: &mut Output) {
        // Cutting uses the frame up, and in a flood another port may be about to get it whole.
        let mut copy = batch.frame(at).to_owned();
        let segments = Parsed::new(copy.bytes())
            .and_then(|parsed| split::Segments::new(copy.frame(), &parsed));
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
        let counters = self.port_counters(port);
        counters.tx_frames += 1;
        counters.tx_bytes += bytes as u64;
    }
}
