//! From a hash to slots: 1,024 small hash tables instead of a large one.
//!
//! **Why.** A hash table that doubles moves all of its entries at once: at a million flows that is a
//! pause of 100 ms. Here every table is small and doubles alone, in tens of microseconds.
//!
//! **Why uneven.** If all tables got the same share of the entries they would still double at nearly
//! the same moment, and right afterwards half of the memory would be empty. So the table is chosen with
//! a probability that rises by a factor of two from the first to the last (`2^(i/n)`): at any time the
//! tables stand at all degrees of filling between 7/16 and 7/8, one doubles every few hundred entries,
//! and an entry costs 8.2 bytes on average whatever their number.
//!
//! **Bits.** hashbrown takes the bucket from the low bits of the hash and the tag from the top seven;
//! the table is chosen by sixteen bits between, so that no two of them repeat each other.

use hashbrown::HashTable;

/// Slots by hash. Keys live with the slots; an entry is one `u32`.
#[derive(Debug)]
pub(super) struct Index {
    tables: Box<[HashTable<u32>]>,
    /// How many of sixteen bits of position are dropped to give the table.
    shift: u32,
}

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

impl Index {
    /// An empty index of `2^bits` tables.
    pub(super) fn new(bits: u32) -> Self {
        let tables = (0..1_usize << bits).map(|_| HashTable::new()).collect();
        Self { tables, shift: 16 - bits }
    }

    #[inline]
    fn table(&self, hash: u64) -> usize {
        let part = (hash >> 50) as usize % PARTS;
        let within = (hash >> 40) as u32 & 0x3ff;
        let (start, end) = (STARTS[part], STARTS[part + 1]);
        ((start + ((within * (end - start)) >> 10)) >> self.shift) as usize
    }

    /// The entry under `hash` for which `eq` holds.
    #[inline]
    pub(super) fn find(&self, hash: u64, mut eq: impl FnMut(u32) -> bool) -> Option<u32> {
        self.tables[self.table(hash)].find(hash, |entry| eq(*entry)).copied()
    }

    /// The first entry whose tag fits, unchecked: what a look-up will most likely find.
    #[inline]
    pub(super) fn likely(&self, hash: u64) -> Option<u32> {
        self.tables[self.table(hash)].iter_hash(hash).next().copied()
    }

    /// Adds an entry; the caller knows that its key is not there. `rehash` gives any entry's hash.
    pub(super) fn insert(&mut self, hash: u64, entry: u32, rehash: impl Fn(u32) -> u64) {
        let table = self.table(hash);
        self.tables[table].insert_unique(hash, entry, |entry| rehash(*entry));
    }

    /// Takes an entry out.
    pub(super) fn remove(&mut self, hash: u64, entry: u32) {
        let table = self.table(hash);
        if let Ok(found) = self.tables[table].find_entry(hash, |other| *other == entry) {
            found.remove();
        }
    }

    /// Bytes allocated.
    pub(super) fn memory_bytes(&self) -> usize {
        let own = size_of_val(&*self.tables);
        own + self.tables.iter().map(HashTable::allocation_size).sum::<usize>()
    }
}

#[cfg(test)]
mod tests {
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
            index.tables[range].iter().map(HashTable::len).sum()
        };
        let percent = part(120..128) * 100 / part(0..8);
        assert!((180..210).contains(&percent), "{percent}");
    }

    #[test]
    fn an_entry_costs_about_eight_bytes_whatever_their_number() {
        for n in [50_000, 60_000, 70_000, 80_000, 90_000, 100_000] {
            let hundredths = filled(n).memory_bytes() * 100 / n as usize;
            assert!((780..880).contains(&hundredths), "{n}: {hundredths}");
        }
    }

    #[test]
    fn tables_double_one_at_a_time() {
        let buckets =
            |index: &Index| index.tables.iter().map(HashTable::num_buckets).sum::<usize>();
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
}
