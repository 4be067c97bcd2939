//! From a hash to slots: 1,024 small hash tables instead of a large one, each an array of cache lines.
//!
//! **Why small.** A hash table that doubles moves all of its entries at once: at a million flows that is a
//! pause of 100 ms. Here every table is small and doubles alone, in tens of microseconds.
//!
//! **Why uneven.** If all tables got the same share of the entries they would still double at nearly
//! the same moment, and right afterwards half of the memory would be empty. So the table is chosen with
//! a probability that rises by a factor of two from the first to the last (`2^(i/n)`): at any time the
//! tables stand at all degrees of filling between 7/16 and 7/8, one doubles every few hundred entries,
//! and an entry costs 7 bytes on average whatever their number.
//!
//! **Why lines.** At a million flows each look-up waits for main memory. An entry and its tag share a word
//! and fifteen words a cache line, so that a look-up reads one line where tags and entries apart were two,
//! and its address follows from the hash alone: a batch asks for all of its lines before it reads the
//! first ([`Index::prefetch`]). The sixteenth word counts the entries that found the line full and went on
//! to the next: a look-up stops where it is zero, and taking an entry out leaves no tombstone.
//!
//! **Bits.** The line is chosen by the low bits of the hash, the tag is its top eight, the table is chosen
//! by sixteen bits before them, so that no two repeat each other.

use crate::base::limits::{FLOWS_CEILING, MAPPINGS_MAX};
use crate::base::prefetch::prefetch;

/// Slots by hash. Keys live with the slots; an entry is a number of 24 bits.
#[derive(Debug)]
pub(super) struct Index {
    tables: Box<[Table]>,
    /// How many of sixteen bits of position are dropped to give the table.
    shift: u32,
}

/// Beside an entry, which begins with one since zero is a free place, eight bits of a word are left.
const ENTRY_MASK: u32 = (1 << 24) - 1;
const _: () = assert!(2 * FLOWS_CEILING <= ENTRY_MASK as usize);
const _: () = assert!(MAPPINGS_MAX <= ENTRY_MASK as usize);
/// Entries of a line.
const PLACES: usize = 15;
/// A table doubles when its lines hold more than so many on average: 7/8.
const FILLED: usize = 13;

/// A line of the index.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    table: u32,
    line: u32,
}

impl Place {
    /// None.
    pub const NOWHERE: Self = Self { table: u32::MAX, line: u32::MAX };
}

/// One hash table: lines by the low bits of the hash.
#[derive(Debug, Default)]
struct Table {
    lines: Box<[Line]>,
    len: usize,
}

/// A cache line: fifteen places, and how many entries have passed by because all were taken.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
struct Line([u32; PLACES + 1]);

/// The tables are placed by a straight line in each of so many parts of `log2`.
const PARTS: usize = 64;

/// `65,536 * log2(1 + part / PARTS)`: where each part of the hash's sixteen bits begins.
const STARTS: [u32; PARTS + 1] = {
    let mut starts = [0; PARTS + 1];
    let mut part = 0;
    while part <= PARTS {
        starts[part] = log2_16((1 << 32) + ((part as u64) << 32) / PARTS as u64);
        part += 1;
    }
    starts
};

/// `65,536 * log2(x / 2^32)` for `x / 2^32` from 1 to 2, bit by bit: squaring doubles the logarithm.
const fn log2_16(mut x: u64) -> u32 {
    if x == 2 << 32 {
        return 1 << 16;
    }
    let (mut bits, mut left) = (0, 16);
    while left > 0 {
        x = ((x as u128 * x as u128) >> 32) as u64;
        bits <<= 1;
        if x >= 2 << 32 {
            x >>= 1;
            bits |= 1;
        }
        left -= 1;
    }
    bits
}

impl Line {
    const EMPTY: Self = Self([0; PLACES + 1]);

    #[inline]
    fn passed(&self) -> u32 {
        self.0[PLACES]
    }

    /// Places whose word under `mask` is `wanted`: a bit in the byte of each.
    #[inline]
    fn fitting(&self, mask: u32, wanted: u32) -> u128 {
        u128::from_le_bytes(compare(&self.0, mask, wanted)) & ((1 << (8 * PLACES)) - 1)
    }
}

/// One for each word that is `wanted` under `mask`: twenty vector instructions, as long as it stays a
/// function of its own. Where it is inlined the compiler builds the answer bit by bit, which takes 140.
#[inline(never)]
fn compare(words: &[u32; PLACES + 1], mask: u32, wanted: u32) -> [u8; PLACES + 1] {
    let mut fits = [0; PLACES + 1];
    for (fit, word) in fits.iter_mut().zip(words) {
        *fit = u8::from(word & mask == wanted);
    }
    fits
}

/// The place of the first of those that [`Line::fitting`] found.
#[inline]
fn first(fitting: u128) -> Option<usize> {
    (fitting != 0).then(|| fitting.trailing_zeros() as usize / 8)
}

/// What a place holds: eight bits of the hash, and the entry.
#[inline]
fn word(hash: u64, entry: u32) -> u32 {
    tag(hash) | (entry + 1)
}

#[inline]
fn tag(hash: u64) -> u32 {
    (hash >> 32) as u32 & !ENTRY_MASK
}

#[inline]
fn entry(word: u32) -> u32 {
    (word & ENTRY_MASK) - 1
}

impl Table {
    #[inline]
    fn find(&self, hash: u64, mut eq: impl FnMut(u32) -> bool) -> Option<u32> {
        let mask = self.lines.len().wrapping_sub(1);
        let mut at = hash as usize & mask;
        loop {
            let line = self.lines.get(at)?;
            let mut fitting = line.fitting(!ENTRY_MASK, tag(hash));
            while let Some(place) = first(fitting) {
                let word = line.0[place];
                // A free place has tag zero, as have some entries.
                if word != 0 && eq(entry(word)) {
                    return Some(entry(word));
                }
                fitting &= fitting - 1;
            }
            if line.passed() == 0 {
                return None;
            }
            at = (at + 1) & mask;
        }
    }

    fn insert(&mut self, hash: u64, entry: u32, rehash: impl Fn(u32) -> u64) {
        if self.len >= self.lines.len() * FILLED {
            self.double(rehash);
        }
        self.place(hash, word(hash, entry));
        self.len += 1;
    }

    fn place(&mut self, hash: u64, word: u32) {
        let mask = self.lines.len() - 1;
        let mut at = hash as usize & mask;
        // Ends, since less than all places are taken.
        loop {
            let line = &mut self.lines[at];
            if let Some(place) = first(line.fitting(u32::MAX, 0)) {
                line.0[place] = word;
                return;
            }
            line.0[PLACES] += 1;
            at = (at + 1) & mask;
        }
    }

    /// Hashing an entry again reads its key from memory: for a few lines together, so that the processor
    /// has many such reads under way at once.
    fn double(&mut self, rehash: impl Fn(u32) -> u64) {
        const LINES: usize = 4;
        let lines = (self.lines.len() * 2).max(1);
        let old = std::mem::replace(&mut self.lines, vec![Line::EMPTY; lines].into());
        for some in old.chunks(LINES) {
            let mut moving = [(0, 0); LINES * PLACES];
            let words = some.iter().flat_map(|line| &line.0[..PLACES]).filter(|word| **word != 0);
            let mut count = 0;
            for (word, moved) in words.zip(&mut moving) {
                *moved = (rehash(entry(*word)), *word);
                count += 1;
            }
            moving[..count].iter().for_each(|(hash, word)| self.place(*hash, *word));
        }
    }

    fn remove(&mut self, hash: u64, entry: u32) {
        let Some(mask) = self.lines.len().checked_sub(1) else { return };
        let (home, wanted) = (hash as usize & mask, word(hash, entry));
        let mut passed = 0;
        let place = loop {
            let line = &self.lines[(home + passed) & mask];
            if let Some(place) = first(line.fitting(u32::MAX, wanted)) {
                break place;
            }
            if line.passed() == 0 {
                return;
            }
            passed += 1;
        };
        self.lines[(home + passed) & mask].0[place] = 0;
        (0..passed).for_each(|n| self.lines[(home + n) & mask].0[PLACES] -= 1);
        self.len -= 1;
    }
}

impl Index {
    /// An empty index of `2^bits` tables.
    pub(super) fn new(bits: u32) -> Self {
        let tables = (0..1_usize << bits).map(|_| Table::default()).collect();
        Self { tables, shift: 16 - bits }
    }

    #[inline]
    fn table(&self, hash: u64) -> usize {
        let part = (hash >> 50) as usize % PARTS;
        let within = (hash >> 40) as u32 & 0x3ff;
        let (start, end) = (STARTS[part], STARTS[part + 1]);
        ((start + ((within * (end - start)) >> 10)) >> self.shift) as usize
    }

    /// The line in which `hash` is looked for first.
    #[inline]
    pub(super) fn at(&self, hash: u64) -> Place {
        let table = self.table(hash);
        let line = hash as u32 & (self.tables[table].lines.len() as u32).wrapping_sub(1);
        Place { table: table as u32, line }
    }

    #[inline]
    fn line(&self, place: Place) -> Option<&Line> {
        self.tables.get(place.table as usize)?.lines.get(place.line as usize)
    }

    /// Asks for a line.
    #[inline]
    pub(super) fn prefetch(&self, place: Place) {
        if let Some(line) = self.line(place) {
            prefetch(line);
        }
    }

    /// The entry under `hash` for which `eq` holds.
    #[inline]
    pub(super) fn find(&self, hash: u64, eq: impl FnMut(u32) -> bool) -> Option<u32> {
        self.tables[self.table(hash)].find(hash, eq)
    }

    /// The first entry whose tag fits, unchecked: what a look-up will most likely find.
    #[inline]
    pub(super) fn likely(&self, hash: u64, place: Place) -> Option<u32> {
        let line = self.line(place)?;
        let word = line.0[first(line.fitting(!ENTRY_MASK, tag(hash)))?];
        (word != 0).then(|| entry(word))
    }

    /// Adds an entry; the caller knows that its key is not there. `rehash` gives any entry's hash.
    pub(super) fn insert(&mut self, hash: u64, entry: u32, rehash: impl Fn(u32) -> u64) {
        debug_assert!(entry < ENTRY_MASK, "an entry leaves room for its tag");
        let table = self.table(hash);
        self.tables[table].insert(hash, entry, rehash);
    }

    /// Takes an entry out.
    pub(super) fn remove(&mut self, hash: u64, entry: u32) {
        let table = self.table(hash);
        self.tables[table].remove(hash, entry);
    }

    /// Bytes allocated.
    pub(super) fn memory_bytes(&self) -> usize {
        let own = size_of_val(&*self.tables);
        own + self.tables.iter().map(|table| size_of_val(&*table.lines)).sum::<usize>()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;
    use crate::base::hash::Seed;

    fn hash(entry: u32) -> u64 {
        Seed(7).hash([u64::from(entry)])
    }

    fn fill(index: &mut Index, entries: std::ops::Range<u32>) {
        for entry in entries {
            index.insert(hash(entry), entry, hash);
        }
    }

    fn filled(n: u32) -> Index {
        let mut index = Index::new(7);
        fill(&mut index, 0..n);
        index
    }

    #[test]
    fn what_was_put_in_is_found_until_it_is_taken_out() {
        let mut index = filled(10_000);
        for entry in 0..10_000 {
            assert_eq!(index.find(hash(entry), |other| other == entry), Some(entry));
            if entry % 2 == 0 {
                index.remove(hash(entry), entry);
            }
        }
        let left = (0..10_000).filter(|e| index.find(hash(*e), |other| other == *e).is_some());
        assert!(left.eq((1..10_000).step_by(2)));
    }

    #[test]
    fn the_last_table_gets_twice_the_share_of_the_first() {
        let index = filled(100_000);
        let part = |range: std::ops::Range<usize>| -> usize {
            index.tables[range].iter().map(|table| table.len).sum()
        };
        let percent = part(120..128) * 100 / part(0..8);
        assert!((180..210).contains(&percent), "{percent}");
    }

    #[test]
    fn an_entry_costs_about_seven_bytes_whatever_their_number() {
        for n in [50_000, 60_000, 70_000, 80_000, 90_000, 100_000] {
            let hundredths = filled(n).memory_bytes() * 100 / n as usize;
            assert!((660..770).contains(&hundredths), "{n}: {hundredths}");
        }
    }

    #[test]
    fn tables_double_one_at_a_time() {
        let buckets = |index: &Index| -> usize {
            index.tables.iter().map(|table| table.lines.len() * PLACES).sum()
        };
        let mut index = filled(50_000);
        for from in (50_000..100_000).step_by(500) {
            let before = buckets(&index);
            fill(&mut index, from..from + 500);
            // On average 1.3 of the 128 double while so many entries come; each had 512 buckets or
            // more. Of one table, or of 128 equal ones, all would double in one such step or two.
            let doubled = (buckets(&index) - before) / 512;
            assert!(doubled <= 10, "{doubled} doubled within 500 entries");
        }
    }

    proptest! {
        /// Few hashes, so that lines overflow and tags are alike, zero among them.
        #[test]
        fn behaves_as_a_map_also_where_lines_overflow(
            ops in prop::collection::vec((any::<bool>(), 0_u32..400), 0..600),
            tags in 1_u64..4, homes in 1_u64..9,
        ) {
            let hash = |entry: u32| {
                let entry = u64::from(entry);
                ((entry % tags) << 56) | (entry / tags % homes)
            };
            let (mut index, mut model) = (Index::new(1), HashSet::new());
            for (put, entry) in ops {
                match (put, model.contains(&entry)) {
                    (true, false) => {
                        index.insert(hash(entry), entry, hash);
                        model.insert(entry);
                    }
                    (false, true) => {
                        index.remove(hash(entry), entry);
                        model.remove(&entry);
                    }
                    _ => {}
                }
            }
            for entry in 0..400 {
                let found = index.find(hash(entry), |other| other == entry);
                prop_assert_eq!(found.is_some(), model.contains(&entry));
            }
            let held: usize = index.tables.iter().map(|table| table.len).sum();
            prop_assert_eq!(held, model.len());
            for entry in &model {
                index.remove(hash(*entry), *entry);
            }
            for line in index.tables.iter().flat_map(|table| &table.lines) {
                prop_assert_eq!(line.0, [0; PLACES + 1]);
            }
        }
    }
}
