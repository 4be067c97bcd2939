//! What is counted, per port and in all. Plain numbers: one worker writes them, and publishes copies.

use crate::packet::DropReason;

/// Counters of one port.
#[derive(Clone, Debug, Default)]
pub(super) struct PortCounters {
    pub(super) rx_frames: u64,
    pub(super) rx_bytes: u64,
    pub(super) tx_frames: u64,
    pub(super) tx_bytes: u64,
    /// By reason; allocated at a port's first drop.
    drops: Vec<u64>,
    pub(super) flood: crate::stage::bridge::flood::FloodLimit,
    pub(super) icmp: crate::stage::route::icmp_error::ErrorLimit,
}

impl PortCounters {
    pub(super) fn drop(&mut self, reason: DropReason) {
        if self.drops.is_empty() {
            self.drops = vec![0; DropReason::COUNT];
        }
        self.drops[reason.index()] += 1;
    }

    pub(super) fn drops(&self) -> impl Iterator<Item = (DropReason, u64)> {
        DropReason::all().zip(self.drops.iter().copied()).filter(|(_, n)| *n > 0)
    }
}

/// Counters of the worker.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Totals {
    pub(super) batches: u64,
    pub(super) frames: u64,
    pub(super) hits: u64,
    pub(super) misses: u64,
    pub(super) evicted_unanswered: u64,
    pub(super) evicted_idle: u64,
    /// Batches by the power of two of their size.
    pub(super) batch_sizes: [u64; 8],
}

impl Totals {
    pub(super) fn batch(&mut self, frames: usize) {
        self.batches += 1;
        self.frames += frames as u64;
        let class = frames.checked_ilog2().unwrap_or(0) as usize;
        self.batch_sizes[class.min(7)] += 1;
    }
}
