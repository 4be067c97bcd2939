//! All flows of one worker.
//!
//! **Slots** lie in chunks of 4,096, so that growing copies nothing. **Keys** are found through
//! [`Index`], one entry for each direction. **Ageing** keeps one list for each timeout class in order
//! of last use: the head is the next to expire, and nothing is ever scanned.

use crate::base::hash::Seed;
use crate::base::ids::PortId;
use crate::base::limits::{FLOWS_CEILING, FLOWS_PER_PORT_MAX};
use crate::base::lru::{Links, LruList, NIL};
use crate::base::time::{Span, Time};
use crate::packet::{DropReason, FlowKey};

use super::flow::{Direction, Flow};
use super::index::{Index, Place};
use super::share::Shares;
use super::slab::{Linked, Slab};
use super::timeouts::{Class, Timeouts};

/// Where a flow lies. Good until the flow is removed; a later flow may get the same.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct FlowIndex(pub u32);

/// Where a look-up will most likely find its flow.
#[derive(Clone, Copy, Debug)]
pub struct Likely(u32);

impl Likely {
    /// Nowhere.
    pub const NOWHERE: Self = Self(NIL);
}

/// A hit moves a flow in its list at most once in this time, so that a busy flow writes neither list
/// links nor its own clock with each packet. Idle flows live up to this much longer than asked.
pub const GRANULARITY: Span = Span::from_secs(1);
pub(super) const GRANULARITY_MS: u32 = GRANULARITY.as_millis() as u32;

/// Flows of a chunk: 640 KiB, which the allocator maps without copying or clearing.
const CHUNK: usize = 4_096;

/// Unanswered flows go first when the table is full, whatever their age: floods and scans are made of
/// them, and among them whoever waited longest has the least hope.
const UNANSWERED: [Class; 3] = [Class::TcpEmbryonic, Class::UdpSingle, Class::UdpShort];

/// Then, in this order, what has been idle for half of its time.
const IDLE: [Class; 6] = [
    Class::TcpTransitory,
    Class::Icmp,
    Class::Other,
    Class::UdpStream,
    Class::Sctp,
    Class::TcpEstablished,
];

impl Linked for Flow {
    #[inline]
    fn links(&mut self) -> &mut Links {
        &mut self.links
    }
}

/// Every connection of one worker.
#[derive(Debug)]
pub struct FlowTable {
    seed: Seed,
    slots: Slab<Flow, CHUNK>,
    index: Index,
    lists: [LruList; Class::COUNT],
    timeouts: Timeouts,
    max: usize,
    shares: Shares,
}

impl FlowTable {
    /// An empty table of at most `max` flows.
    pub fn new(seed: Seed, max: usize) -> Self {
        Self {
            seed,
            slots: Slab::default(),
            index: Index::new(10),
            lists: [LruList::default(); Class::COUNT],
            timeouts: Timeouts::default(),
            max: max.min(FLOWS_CEILING),
            shares: Shares::new(FLOWS_PER_PORT_MAX),
        }
    }

    /// Allows so many flows from now on; those that are there stay.
    pub fn set_max(&mut self, max: usize) {
        self.max = max.min(FLOWS_CEILING);
    }

    /// The seed under which keys are hashed for [`lookup`](Self::lookup).
    #[inline]
    pub fn seed(&self) -> Seed {
        self.seed
    }

    /// Changes the timeouts; flows that are over by the new ones end with the next
    /// [`expire`](Self::expire).
    pub fn set_timeouts(&mut self, timeouts: Timeouts) {
        self.timeouts = timeouts;
    }

    /// The timeouts in force.
    pub fn timeouts(&self) -> &Timeouts {
        &self.timeouts
    }

    /// Where in the index a look-up under `hash` begins.
    #[inline]
    pub fn place(&self, hash: u64) -> Place {
        self.index.at(hash)
    }

    /// Asks for a line of the index.
    #[inline]
    pub fn prefetch_index(&self, place: Place) {
        self.index.prefetch(place);
    }

    /// Says where a look-up under `hash` will most likely find its flow.
    #[inline]
    pub fn likely(&self, hash: u64, place: Place) -> Likely {
        self.index.likely(hash, place).map_or(Likely::NOWHERE, Likely)
    }

    /// Asks for the memory of a flow.
    #[inline]
    pub fn prefetch(&self, likely: Likely) {
        if likely.0 != NIL {
            self.slots.get(likely.0 >> 1).prefetch();
        }
    }

    /// A flow that will be found by `key` is about to be inserted.
    #[inline]
    pub fn expect(&self, key: &FlowKey) {
        self.index.prefetch(self.index.at(key.hash(self.seed)));
    }

    /// As [`lookup`](Self::lookup), but looks first where [`likely`](Self::likely) said. Flows may
    /// have come and gone in between.
    #[inline]
    pub fn find(
        &mut self,
        key: &FlowKey,
        hash: u64,
        likely: Likely,
    ) -> Option<(FlowIndex, Direction, &mut Flow)> {
        let (mut slot, mut dir) = parts(likely.0);
        let hit = likely.0 != NIL && {
            let flow = self.slots.get(slot);
            flow.key(dir).matches(key) && !flow.is_vacant()
        };
        if !hit {
            (FlowIndex(slot), dir) = self.lookup(key, hash)?;
        }
        Some((FlowIndex(slot), dir, self.slots.get_mut(slot)))
    }

    /// The flow to which a packet keyed `key` belongs, and which way it goes. `hash` is
    /// `key.hash(self.seed())`.
    #[inline]
    pub fn lookup(&self, key: &FlowKey, hash: u64) -> Option<(FlowIndex, Direction)> {
        let entry = self.index.find(hash, |entry| {
            let (slot, dir) = parts(entry);
            self.slots.get(slot).key(dir).matches(key)
        })?;
        let (slot, dir) = parts(entry);
        Some((FlowIndex(slot), dir))
    }

    /// A flow by its place, which must come from this table and not have been removed since.
    #[inline]
    pub fn get(&self, index: FlowIndex) -> &Flow {
        self.slots.get(index.0)
    }

    /// The same, to be changed.
    #[inline]
    pub fn get_mut(&mut self, index: FlowIndex) -> &mut Flow {
        self.slots.get_mut(index.0)
    }

    /// Adds a flow. Call [`make_room`](Self::make_room) first: a full table refuses.
    ///
    /// # Errors
    /// `FlowTableFull`; `FlowShare` when the initiator's port has its share; `PortsExhausted` when one
    /// of the keys already names another flow, so that answers could not be told apart.
    pub fn insert(&mut self, flow: Flow) -> Result<FlowIndex, DropReason> {
        let payer = flow.port(Direction::Initiator);
        if !self.shares.has_room(payer) {
            return Err(DropReason::FlowShare);
        }
        if self.is_full() {
            return Err(DropReason::FlowTableFull);
        }
        let hashes = flow.keys().map(|key| key.hash(self.seed));
        for (key, hash) in flow.keys().iter().zip(hashes) {
            if self.lookup(key, hash).is_some() {
                return Err(DropReason::PortsExhausted);
            }
        }
        self.shares.take(payer);
        let slot = self.slots.place(flow);
        self.lists[flow.class().index()].push(&mut self.slots, slot);
        let (slots, seed) = (&self.slots, self.seed);
        let rehash = |entry| {
            let (slot, dir) = parts(entry);
            slots.get(slot).key(dir).hash(seed)
        };
        self.index.insert(hashes[0], slot << 1, rehash);
        // A host that talks to itself over one port has one key for both directions.
        if flow.keys()[0] != flow.keys()[1] {
            self.index.insert(hashes[1], slot << 1 | 1, rehash);
        }
        Ok(FlowIndex(slot))
    }

    /// Whether `port` may begin another flow.
    #[inline]
    pub fn has_share(&mut self, port: PortId) -> bool {
        self.shares.has_room(port)
    }

    /// If the table is full, ends one flow and returns it: the oldest unanswered one, else the oldest
    /// of those that have been idle for half of their time, TCP connections last.
    #[must_use = "the flow's mapping must be released"]
    pub fn make_room(&mut self, now: Time) -> Option<Flow> {
        if !self.is_full() {
            return None;
        }
        let oldest = |class: Class| self.lists[class.index()].oldest();
        let victim = UNANSWERED.into_iter().find_map(oldest).or_else(|| {
            IDLE.into_iter().find_map(|class| {
                let slot = oldest(class)?;
                let idle = now.millis().since(self.slots.get(slot).last_seen);
                (u64::from(idle) * 2 >= self.timeouts.get(class).as_millis()).then_some(slot)
            })
        })?;
        Some(self.remove(FlowIndex(victim)))
    }

    /// The flow of a class that has been idle for longest.
    pub fn oldest(&self, class: Class) -> Option<FlowIndex> {
        self.lists[class.index()].oldest().map(FlowIndex)
    }

    /// Ends a flow and returns it.
    pub fn remove(&mut self, index: FlowIndex) -> Flow {
        let slot = index.0;
        let flow = *self.slots.get(slot);
        debug_assert!(!flow.is_vacant(), "a flow is removed once");
        self.index.remove(flow.keys()[0].hash(self.seed), slot << 1);
        if flow.keys()[0] != flow.keys()[1] {
            self.index.remove(flow.keys()[1].hash(self.seed), slot << 1 | 1);
        }
        self.lists[flow.class().index()].remove(&mut self.slots, slot);
        self.slots.get_mut(slot).vacate();
        self.slots.release(slot);
        self.shares.give(flow.port(Direction::Initiator));
        flow
    }

    /// A packet keeps the flow alive; `class` is [`Flow::class_after`] it.
    #[inline]
    pub fn touch(&mut self, now: Time, index: FlowIndex, class: Class) {
        let now = now.millis();
        let flow = self.slots.get_mut(index.0);
        let old = flow.class();
        if old == class && now.since(flow.last_seen) < GRANULARITY_MS {
            return;
        }
        flow.last_seen = now;
        flow.set_class(class);
        self.lists[old.index()].remove(&mut self.slots, index.0);
        self.lists[class.index()].push(&mut self.slots, index.0);
    }

    /// Ends flows that have been idle for too long, at most `budget` of them, and hands each to
    /// `ended`. Returns how many; as many as `budget` means there may be more.
    pub fn expire(&mut self, now: Time, budget: usize, mut ended: impl FnMut(Flow)) -> usize {
        let mut count = 0;
        for class in Class::ALL {
            while count < budget {
                let Some(slot) = self.lists[class.index()].oldest() else { break };
                if self.time_left(now, class, slot) > Span::ZERO {
                    break;
                }
                ended(self.remove(FlowIndex(slot)));
                count += 1;
            }
        }
        count
    }

    /// When [`expire`](Self::expire) will next have something to do.
    pub fn next_deadline(&self, now: Time) -> Option<Time> {
        let left = Class::ALL.into_iter().filter_map(|class| {
            let slot = self.lists[class.index()].oldest()?;
            Some(self.time_left(now, class, slot))
        });
        left.min().map(|left| now + left)
    }

    fn time_left(&self, now: Time, class: Class, slot: u32) -> Span {
        let idle = now.millis().since(self.slots.get(slot).last_seen);
        // Rounded up to the granularity, since last use may be that much later than it says.
        let allowed = self.timeouts.get(class).as_millis() + u64::from(GRANULARITY_MS);
        Span::from_millis(allowed.saturating_sub(u64::from(idle)))
    }

    /// What a port may use that [`set_share`](Self::set_share) does not speak of.
    pub fn set_default_share(&mut self, max: usize) {
        self.shares.set_default(max);
    }

    /// Allows `port` to begin `max` flows; an uplink needs more than an endpoint.
    pub fn set_share(&mut self, port: PortId, max: usize) {
        self.shares.set_max(port, max);
    }

    /// Flows that `port` has begun.
    pub fn count_of_port(&self, port: PortId) -> usize {
        self.shares.used(port)
    }

    /// Flows of one class.
    pub fn count_of_class(&self, class: Class) -> usize {
        self.lists[class.index()].len()
    }

    /// Flows in all.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether no more fit.
    #[inline]
    pub fn is_full(&self) -> bool {
        self.len() >= self.max
    }

    /// All flows from place `from` on, for listings. A million take milliseconds: take some at a time
    /// and go on from the place after the last.
    pub fn iter_from(&self, from: FlowIndex) -> impl Iterator<Item = (FlowIndex, &Flow)> {
        (from.0..self.slots.high())
            .map(|slot| (FlowIndex(slot), self.slots.get(slot)))
            .filter(|(_, flow)| !flow.is_vacant())
    }

    /// All flows.
    pub fn iter(&self) -> impl Iterator<Item = (FlowIndex, &Flow)> {
        self.iter_from(FlowIndex(0))
    }

    /// Bytes allocated, for slots and index.
    pub fn memory_bytes(&self) -> usize {
        self.slots.memory_bytes() + self.index.memory_bytes() + self.shares.memory_bytes()
    }
}

#[inline]
fn parts(entry: u32) -> (u32, Direction) {
    let dir = if entry & 1 == 0 { Direction::Initiator } else { Direction::Responder };
    (entry >> 1, dir)
}

#[cfg(test)]
mod tests;
