//! The forwarding database: behind which port a station is (IEEE 802.1D 7.8).
//!
//! An entry is refreshed by every frame its station sends, which is on the fast path. So the clock
//! of an entry has a granularity of a second, and only then is it moved to the end of the one list
//! that ageing reads: a hit writes nothing at all most of the time. All entries have the same
//! lifetime, hence the head of that list is always the next to go and nothing is ever scanned.

use std::collections::BTreeMap;

use hashbrown::HashTable;

use crate::base::hash::Seed;
use crate::base::ids::PortId;
use crate::base::limits::{
    FDB_AGEING, FDB_ENTRIES_MAX, FDB_ENTRIES_PER_PORT_MAX, FDB_MOVES_PER_SECOND,
};
use crate::base::lru::LruList;
use crate::base::slab::Slab;
use crate::base::time::{Span, Time};
use crate::wire::mac::Mac;

/// How exact ages are.
const GRANULARITY: Span = Span::from_secs(1);

/// What a frame's source address taught.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Learned {
    /// A new station.
    New,
    /// A known one where it was.
    Refreshed,
    /// A known one, until now behind this port.
    Moved(PortId),
    /// It moves too often: it stays where it was.
    Flapping,
    /// The port has used its share of entries.
    PortFull,
    /// The table is full.
    TableFull,
    /// No station has such an address.
    NotUnicast,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    mac: Mac,
    port: PortId,
    /// Moves since `moving_since`.
    moves: u8,
    seen: Time,
    moving_since: Time,
}

/// The stations of one layer-2 domain.
#[derive(Debug)]
pub struct Fdb {
    seed: Seed,
    index: HashTable<u32>,
    entries: Slab<Entry>,
    /// By the time they were last seen.
    ages: LruList,
    per_port: BTreeMap<PortId, u32>,
}

impl Default for Fdb {
    fn default() -> Self {
        Self::new()
    }
}

impl Fdb {
    /// An empty table.
    pub fn new() -> Self {
        Self::with_seed(Seed(0))
    }

    /// An empty table whose hash nobody can foretell.
    pub fn with_seed(seed: Seed) -> Self {
        Self {
            seed,
            index: HashTable::new(),
            entries: Slab::default(),
            ages: LruList::default(),
            per_port: BTreeMap::new(),
        }
    }

    /// Learns that `mac` sent a frame into `port`.
    #[inline]
    pub fn learn(&mut self, now: Time, mac: Mac, port: PortId) -> Learned {
        let Some(index) = self.find(mac) else { return self.add(now, mac, port) };
        let Some(entry) = self.entries.get_mut(index) else { return Learned::TableFull };
        if entry.port != port && now.since(entry.seen) < FDB_AGEING {
            return self.move_to(now, index, port);
        }
        if entry.port == port {
            if now.since(entry.seen) >= GRANULARITY {
                entry.seen = now;
                self.ages.touch(&mut self.entries, index);
            }
            return Learned::Refreshed;
        }
        // Too old to count, and not yet collected.
        self.remove(index);
        self.add(now, mac, port)
    }

    /// The port behind which `mac` is.
    #[inline]
    pub fn lookup(&self, now: Time, mac: Mac) -> Option<PortId> {
        let entry = self.entries.get(self.find(mac)?)?;
        (now.since(entry.seen) < FDB_AGEING).then_some(entry.port)
    }

    /// Forgets all stations behind `port`.
    pub fn remove_port(&mut self, port: PortId) {
        let gone: Vec<u32> =
            self.entries.iter().filter(|(_, e)| e.port == port).map(|(index, _)| index).collect();
        for index in gone {
            self.remove(index);
        }
    }

    /// Forgets stations that have been silent for the ageing time; says how many.
    pub fn expire(&mut self, now: Time) -> usize {
        let before = self.len();
        while self.next_expiry().is_some_and(|at| at <= now) {
            let Some(index) = self.ages.oldest() else { break };
            self.remove(index);
        }
        before - self.len()
    }

    /// When the next station will be forgotten.
    pub fn next_expiry(&self) -> Option<Time> {
        let entry = self.entries.get(self.ages.oldest()?)?;
        Some(entry.seen + FDB_AGEING)
    }

    /// All stations with their ports and how long ago they were seen.
    pub fn entries(&self, now: Time) -> impl Iterator<Item = (Mac, PortId, Span)> {
        let all = self.entries.iter().map(move |(_, e)| (e.mac, e.port, now.since(e.seen)));
        all.filter(|(_, _, age)| *age < FDB_AGEING)
    }

    /// Number of stations.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    #[inline]
    fn find(&self, mac: Mac) -> Option<u32> {
        let hash = self.seed.hash([mac.to_u64()]);
        let same = |index: &u32| self.entries.get(*index).is_some_and(|e| e.mac == mac);
        self.index.find(hash, same).copied()
    }

    fn add(&mut self, now: Time, mac: Mac, port: PortId) -> Learned {
        if !mac.is_unicast() {
            return Learned::NotUnicast;
        }
        if self.len() >= FDB_ENTRIES_MAX && self.expire(now) == 0 {
            return Learned::TableFull;
        }
        if !self.take_share(port) {
            return Learned::PortFull;
        }
        let entry = Entry { mac, port, moves: 0, seen: now, moving_since: now };
        let index = self.entries.insert(entry);
        self.ages.push(&mut self.entries, index);
        let (seed, entries) = (self.seed, &self.entries);
        let hash_of = |index: &u32| entries.get(*index).map_or(0, |e| seed.hash([e.mac.to_u64()]));
        self.index.insert_unique(seed.hash([mac.to_u64()]), index, hash_of);
        Learned::New
    }

    fn move_to(&mut self, now: Time, index: u32, port: PortId) -> Learned {
        let Some(entry) = self.entries.get(index).copied() else { return Learned::TableFull };
        let recent = now.since(entry.moving_since) < Span::from_secs(1);
        let moves = if recent { entry.moves } else { 0 };
        if moves >= FDB_MOVES_PER_SECOND {
            return Learned::Flapping;
        }
        if !self.take_share(port) {
            return Learned::PortFull;
        }
        self.give_back_share(entry.port);
        if let Some(entry) = self.entries.get_mut(index) {
            entry.port = port;
            entry.seen = now;
            entry.moves = moves + 1;
            entry.moving_since = if recent { entry.moving_since } else { now };
        }
        self.ages.touch(&mut self.entries, index);
        Learned::Moved(entry.port)
    }

    fn remove(&mut self, index: u32) {
        let Some(mac) = self.entries.get(index).map(|e| e.mac) else { return };
        let hash = self.seed.hash([mac.to_u64()]);
        if let Ok(found) = self.index.find_entry(hash, |i| *i == index) {
            found.remove();
        }
        self.ages.remove(&mut self.entries, index);
        if let Some(entry) = self.entries.remove(index) {
            self.give_back_share(entry.port);
        }
    }

    fn take_share(&mut self, port: PortId) -> bool {
        let used = self.per_port.entry(port).or_default();
        let free = (*used as usize) < FDB_ENTRIES_PER_PORT_MAX;
        *used += u32::from(free);
        free
    }

    fn give_back_share(&mut self, port: PortId) {
        if let Some(used) = self.per_port.get_mut(&port) {
            *used -= 1;
            if *used == 0 {
                self.per_port.remove(&port);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const A: PortId = PortId(1);
    const B: PortId = PortId(2);

    fn mac(n: u32) -> Mac {
        let [a, b, c, d] = n.to_be_bytes();
        Mac([2, 0, a, b, c, d])
    }

    fn at(secs: u64) -> Time {
        Time::ZERO + Span::from_secs(secs)
    }

    #[test]
    fn a_station_is_known_until_it_has_been_silent_for_the_ageing_time() {
        let mut fdb = Fdb::new();
        assert_eq!(fdb.learn(at(0), mac(1), A), Learned::New);
        assert_eq!(fdb.learn(at(100), mac(1), A), Learned::Refreshed);
        assert_eq!(fdb.lookup(at(399), mac(1)), Some(A));
        assert_eq!(fdb.lookup(at(400), mac(1)), None, "even before it is collected");
        assert_eq!((fdb.next_expiry(), fdb.expire(at(399))), (Some(at(400)), 0));
        assert_eq!((fdb.expire(at(400)), fdb.len()), (1, 0));
        assert_eq!(fdb.next_expiry(), None);
    }

    #[test]
    fn a_station_that_moves_is_found_at_its_new_port() {
        let mut fdb = Fdb::new();
        fdb.learn(at(0), mac(1), A);
        assert_eq!(fdb.learn(at(1), mac(1), B), Learned::Moved(A));
        assert_eq!(fdb.lookup(at(1), mac(1)), Some(B));
    }

    #[test]
    fn a_station_that_flaps_stays_where_it_is_for_the_rest_of_the_second() {
        let mut fdb = Fdb::new();
        fdb.learn(at(0), mac(1), A);
        let ports = [B, A].into_iter().cycle();
        let moved =
            ports.take(1000).filter(|p| matches!(fdb.learn(at(10), mac(1), *p), Learned::Moved(_)));
        assert_eq!(moved.count(), usize::from(FDB_MOVES_PER_SECOND));
        assert_eq!(fdb.lookup(at(10), mac(1)), Some(B));
        assert_eq!(fdb.learn(at(10), mac(1), A), Learned::Flapping);
        assert_eq!(fdb.learn(at(11), mac(1), A), Learned::Moved(B));
    }

    #[test]
    fn one_port_cannot_fill_the_table() {
        let mut fdb = Fdb::new();
        let outcomes = (0..2000).map(|n| fdb.learn(at(0), mac(n), A));
        assert_eq!(outcomes.filter(|l| *l == Learned::PortFull).count(), 976);
        assert_eq!(fdb.len(), FDB_ENTRIES_PER_PORT_MAX);
        assert_eq!(fdb.learn(at(0), mac(5000), B), Learned::New);
        assert_eq!(fdb.learn(at(0), mac(5000), A), Learned::PortFull, "nor by stealing");
        assert_eq!(fdb.lookup(at(0), mac(5000)), Some(B));
    }

    #[test]
    fn a_full_table_refuses_until_something_has_aged() {
        let mut fdb = Fdb::new();
        for n in 0..FDB_ENTRIES_MAX as u32 {
            let port = PortId((n % 64) as u16);
            assert_eq!(fdb.learn(at(0), mac(n), port), Learned::New);
        }
        let other = PortId(100);
        assert_eq!(fdb.learn(at(2), mac(1 << 20), other), Learned::TableFull);
        assert_eq!(fdb.learn(at(301), mac(1 << 20), other), Learned::New);
    }

    #[test]
    fn groups_and_zero_are_no_stations() {
        let mut fdb = Fdb::new();
        for bad in [Mac::BROADCAST, Mac::ZERO, Mac([1, 0, 0x5e, 0, 0, 1])] {
            assert_eq!(fdb.learn(at(0), bad, A), Learned::NotUnicast);
        }
        assert!(fdb.is_empty());
    }

    /// What the table should be: a list of (mac, port, seen).
    #[derive(Default)]
    struct Model(Vec<(Mac, PortId, Time)>);

    impl Model {
        fn learn(&mut self, now: Time, mac: Mac, port: PortId) {
            if let Some(entry) = self.0.iter_mut().find(|e| e.0 == mac) {
                let exact = entry.1 == port && now.since(entry.2) < GRANULARITY;
                if !exact {
                    *entry = (mac, port, now);
                }
            } else {
                self.0.push((mac, port, now));
            }
        }
    }

    proptest! {
        #[test]
        fn behaves_as_a_plain_list(ops in prop::collection::vec((0_u8..8, 0_u32..12, 0_u16..4, 0_u64..120), 0..300)) {
            let mut fdb = Fdb::with_seed(Seed(7));
            let mut model = Model::default();
            let mut now = Time::ZERO;
            for (op, n, port, pause) in ops {
                // Two seconds at least: flapping has a test of its own.
                now = now + Span::from_secs(2 + pause);
                match op {
                    0 => { fdb.remove_port(PortId(port)); model.0.retain(|e| e.1 != PortId(port)); }
                    1 => { fdb.expire(now); model.0.retain(|e| now.since(e.2) < FDB_AGEING); }
                    _ => { fdb.learn(now, mac(n), PortId(port)); model.learn(now, mac(n), PortId(port)); }
                }
                for n in 0..12 {
                    let wanted = model.0.iter().find(|e| e.0 == mac(n) && now.since(e.2) < FDB_AGEING);
                    prop_assert_eq!(fdb.lookup(now, mac(n)), wanted.map(|e| e.1));
                }
                prop_assert_eq!(fdb.len(), model.0.len());
                let oldest = model.0.iter().map(|e| e.2 + FDB_AGEING).min();
                prop_assert_eq!(fdb.next_expiry(), oldest);
                let shares: u32 = fdb.per_port.values().sum();
                prop_assert_eq!(shares as usize, fdb.len());
            }
        }
    }
}
