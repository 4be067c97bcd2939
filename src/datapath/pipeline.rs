//! The order in which a frame meets the stages. This is the page to read first.
//!
//! A batch is walked twice. First every frame is parsed and its flow key hashed. Then, sixteen at a time,
//! the lines of the flow table that they will need are asked for, so that the memory's latency is waited
//! for once and not by each (VPP and OVS do the same), and each frame is decided:
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
use crate::base::ids::{DomainId, PortId};
use crate::base::limits::BATCH_FRAMES_MAX;
use crate::base::time::Time;
use crate::packet::parse::is_icmp_non_query;
use crate::packet::{DropReason, FlowKey, Fragment, FrameBatch, Offload, Parsed, Scope};
use crate::stage::flow::{Likely, Place};
use crate::wire::mac::Mac;

/// Frames whose flows are asked for together: enough for the processor to wait for all of them at once,
/// and few enough for what came to be still in the first-level cache when its frame's turn is there.
const GROUP: usize = 16;

/// What the first pass found about each frame; memory that is used again for every batch.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    slots: Vec<Slot>,
}

/// One parsed frame.
#[derive(Clone, Copy, Debug)]
pub(super) struct Slot {
    pub(super) parsed: Parsed,
    pub(super) key: FlowKey,
    pub(super) hash: u64,
    /// Where in the flow table's index it is looked for.
    place: Place,
    /// Where its flow most likely is.
    pub(super) likely: Likely,
    /// What its train of fragments is numbered with, if it belongs to one.
    pub(super) fragment_id: u16,
    /// Whether it was handed to the router.
    routed: bool,
    /// Whether it may have a flow at all.
    pub(super) may_hit: bool,
    verdict: Result<(), DropReason>,
}

/// What all frames of a batch have in common.
#[derive(Clone, Copy, Debug)]
pub(super) struct Way {
    pub(super) ingress: PortId,
    /// The only source MAC that may come from there.
    pub(super) guard: Option<Mac>,
    domain: DomainId,
    router_mac: Mac,
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
        self.batch_drops.begin();
        self.process(now, ingress, batch, out);
        self.batch_drops.end();
        if !self.whole.is_empty() {
            self.send_whole(now, batch, out);
        }
    }

    /// The same for frames that have been counted.
    pub(super) fn process(
        &mut self,
        now: Time,
        ingress: PortId,
        batch: &mut FrameBatch,
        out: &mut Output,
    ) {
        let Some(entry) = self.tables.entry(ingress) else {
            for index in 0..batch.len() {
                self.batch_drops.at(index);
                self.drop_frame(ingress, DropReason::PortGone);
            }
            return;
        };
        let way = Way {
            ingress,
            guard: entry.guard.as_ref().map(|guard| guard.mac),
            domain: entry.port.domain,
            router_mac: entry.router_mac,
        };
        let mut scratch = std::mem::take(&mut self.scratch);
        scratch.slots.resize(BATCH_FRAMES_MAX, Slot::EMPTY);
        let slots = &mut scratch.slots[..batch.len()];
        self.read(&way, batch, slots);
        let mut hits = 0;
        for (group, some) in slots.chunks_mut(GROUP).enumerate() {
            self.ask_for(some);
            for (n, slot) in some.iter().enumerate() {
                let index = group * GROUP + n;
                self.batch_drops.at(index);
                match slot.verdict {
                    Ok(()) if self.fast(now, &way, slot, index, batch, out) => hits += 1,
                    Ok(()) => {
                        self.totals.misses += 1;
                        self.slow(now, ingress, slot, index, batch, out);
                    }
                    Err(reason) => self.drop_frame(ingress, reason),
                }
            }
        }
        self.totals.hits += hits;
        self.settle_tally(ingress);
        self.scratch = scratch;
    }

    /// The first pass, in two rounds: what is written in small pieces must not be read in large ones
    /// before it has reached the cache.
    fn read(&self, way: &Way, batch: &FrameBatch, slots: &mut [Slot]) {
        for (index, slot) in slots.iter_mut().enumerate() {
            slot.verdict = slot.read(batch.bytes(index), batch.offload(index), way);
        }
        for slot in slots.iter_mut() {
            let scope = if slot.routed { Scope::Routed } else { Scope::Bridged };
            let key = FlowKey::new(&slot.parsed, way.domain, scope);
            slot.hash = key.hash(self.seed);
            slot.place = self.flows.place(slot.hash);
            slot.key = key;
        }
    }

    /// Asks for the memory that the flows of a group need, in rounds as short as can be: a processor waits
    /// for as many lines at once as such instructions fit into its window.
    fn ask_for(&self, slots: &mut [Slot]) {
        // One alone would be asked for and waited for at once.
        if slots.len() > 1 {
            for slot in slots.iter() {
                self.flows.prefetch_index(slot.place);
            }
        }
        for slot in slots.iter_mut() {
            slot.likely = self.flows.likely(slot.hash, slot.place);
        }
        for slot in slots.iter() {
            self.flows.prefetch(slot.likely);
        }
    }
}

impl Slot {
    const EMPTY: Self = Self {
        parsed: Parsed::NOTHING,
        key: FlowKey::NOTHING,
        hash: 0,
        place: Place::NOWHERE,
        likely: Likely::NOWHERE,
        fragment_id: 0,
        routed: false,
        may_hit: false,
        verdict: Ok(()),
    };

    #[inline]
    fn read(&mut self, frame: &[u8], offload: Offload, way: &Way) -> Result<(), DropReason> {
        let parsed = &mut self.parsed;
        parsed.read(frame)?;
        offload.check(parsed)?;
        let routed = parsed.dst_mac == way.router_mac;
        // RFC 1812 5.2.2 asks it of routers; a bridged frame is its receiver's to judge.
        if routed && !parsed.ipv4_checksum_is_right(frame) {
            return Err(DropReason::Ipv4Checksum);
        }
        self.routed = routed;
        // ICMP errors and neighbour discovery make no flow and hit none; nor do fragments.
        self.may_hit = parsed.is_ip()
            && parsed.fragment == Fragment::Whole
            && !is_icmp_non_query(parsed, frame);
        Ok(())
    }
}
