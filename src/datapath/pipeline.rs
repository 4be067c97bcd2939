//! The order in which a frame meets the stages. This is the page to read first.
//!
//! A batch is walked twice. First every frame is parsed, its flow key hashed, and the lines of the
//! flow table that it will need are asked for, so that the memory's latency of one frame hides behind
//! the parsing of the next (VPP and OVS do the same). Then each frame is decided:
//!
//! ```text
//! frame ─ parse ─┬─ flow hit ───────────────────────────────── rewrite ─ egress      (fast.rs)
//!                └─ guard ─ learn ─┬─ ARP, NDP, DHCP ─────────────── answer          (discovery.rs)
//!                                  ├─ bridge ─ isolation ─ commit ───── egress       (slow.rs)
//!                                  ├─ flood ─────────────────────────── every port
//!                                  └─ publish ─ route ─ isolation ─ NAT ─ commit ─ neighbour ─ egress
//! ```
//!
//! Whatever ends early ends with a named reason or an ICMP error.

use super::{Datapath, Output};
use crate::base::ids::PortId;
use crate::base::limits::BATCH_FRAMES_MAX;
use crate::base::time::Time;
use crate::packet::{DropReason, FlowKey, FrameBatch, Parsed, Scope};

/// What the first pass found about each frame; memory that is used again for every batch.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    slots: Vec<Result<Slot, DropReason>>,
}

/// One parsed frame.
#[derive(Clone, Copy, Debug)]
pub(super) struct Slot {
    pub(super) parsed: Parsed,
    pub(super) key: FlowKey,
    pub(super) hash: u64,
}

impl Datapath {
    /// Processes a batch of frames that came from `ingress`, in order.
    ///
    /// Frames are changed in place; `out` refers to them by number. A port that the configuration does
    /// not have (any more) has its frames dropped as `port-gone`.
    pub fn frames(&mut self, now: Time, ingress: PortId, batch: &mut FrameBatch, out: &mut Output) {
        self.totals.batch(batch.len());
        let counters = self.port_counters(ingress);
        counters.rx_frames += batch.len() as u64;
        counters.rx_bytes += batch.lens().sum::<usize>() as u64;
        self.process(now, ingress, batch, out);
    }

    /// The same for frames that have been counted.
    pub(super) fn process(
        &mut self,
        now: Time,
        ingress: PortId,
        batch: &mut FrameBatch,
        out: &mut Output,
    ) {
        let mut scratch = std::mem::take(&mut self.scratch);
        self.parse(ingress, batch, &mut scratch);
        for (index, slot) in scratch.slots.iter().enumerate() {
            match slot {
                Ok(slot) => {
                    if self.fast(now, ingress, slot, index, batch, out) {
                        self.totals.hits += 1;
                    } else {
                        self.totals.misses += 1;
                        self.slow(now, ingress, slot, index, batch, out);
                    }
                }
                Err(reason) => self.drop_frame(ingress, *reason),
            }
        }
        scratch.slots.clear();
        self.scratch = scratch;
    }

    fn parse(&mut self, ingress: PortId, batch: &FrameBatch, scratch: &mut Scratch) {
        scratch.slots.reserve(BATCH_FRAMES_MAX);
        let Some(entry) = self.tables.entry(ingress) else {
            scratch.slots.extend((0..batch.len()).map(|_| Err(DropReason::PortGone)));
            return;
        };
        let (domain, router_mac) = (entry.port.domain, entry.router_mac);
        let seed = self.seed;
        for index in 0..batch.len() {
            let frame = batch.bytes(index);
            let slot = Parsed::new(frame).and_then(|parsed| {
                batch.offload(index).check(&parsed)?;
                let scope =
                    if parsed.dst_mac == router_mac { Scope::Routed } else { Scope::Bridged };
                // RFC 1812 5.2.2 asks it of routers; a bridged frame is its receiver's to judge.
                if scope == Scope::Routed && !parsed.ipv4_checksum_is_right(frame) {
                    return Err(DropReason::Ipv4Checksum);
                }
                let key = FlowKey::new(&parsed, domain, scope);
                let hash = key.hash(seed);
                self.flows.prefetch(hash);
                Ok(Slot { parsed, key, hash })
            });
            scratch.slots.push(slot);
        }
    }
}
