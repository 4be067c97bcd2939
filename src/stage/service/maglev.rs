//! Which backend serves a connection: Maglev hashing (Eisenbud and others, NSDI 2016, section 3.4).
//!
//! A table of places, each with a backend's number; a connection's hash is a place. Every backend has an
//! order of its own in which it likes the places, made of two hashes of its identity. They take turns, each
//! taking the place it likes most of those that are left, until none is. So
//!
//! - shares differ by one place at most: with a hundred places for each backend, by one per cent;
//! - when a backend comes or goes, few places change hands beside its own: the others' orders are the same;
//! - who has the same backends has the same table, in whatever order it learned of them: nodes of a cluster
//!   agree without speaking.
//!
//! A weight is how often one's turn comes: the heaviest backend's comes in every round, another's in as many
//! of a hundred rounds as its weight is hundredths of that one's. The table's size is a power of two, for
//! which any odd step visits all places.

use crate::base::hash::Seed;

/// Places for each backend, at least.
const PLACES_EACH: usize = 100;
/// The smallest table: two backends may share it a hundred to one.
const PLACES_MIN: usize = 1_024;
/// Alike on every node, so that they choose alike.
const OFFSET: Seed = Seed(0x6d61_676c_6576_2e31);
const SKIP: Seed = Seed(0x6d61_676c_6576_2e32);
const FREE: u16 = u16::MAX;

/// A backend's identity, from its name: the same on every node.
pub fn identity(name: &str) -> u64 {
    // FNV-1a, then mixed: names that differ in one letter are to differ in every bit.
    let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    OFFSET.hash([name.bytes().fold(0xcbf2_9ce4_8422_2325, step)])
}

/// A table of places.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Maglev {
    places: Box<[u16]>,
}

/// A backend while the table is being filled.
struct Filling {
    number: u16,
    weight: u32,
    /// Turns it has saved up, in parts of the heaviest weight.
    credit: u32,
    next: usize,
    skip: usize,
}

impl Maglev {
    /// The table of backends with these identities and weights; a weight of 0 takes no place. Without any
    /// backend it is empty. Numbers are positions in `members`, of which there are fewer than 65,535.
    pub fn new(members: &[(u64, u16)]) -> Self {
        let heaviest = members.iter().map(|(_, weight)| u32::from(*weight)).max().unwrap_or(0);
        if heaviest == 0 {
            return Self { places: Box::default() };
        }
        let size = (members.len() * PLACES_EACH).max(PLACES_MIN).next_power_of_two();
        let mut places = vec![FREE; size].into_boxed_slice();
        let mut filling = fillings(members, size - 1);
        let mut left = size;
        while left > 0 {
            for backend in &mut filling {
                backend.credit += backend.weight;
                if backend.credit < heaviest {
                    continue;
                }
                backend.credit -= heaviest;
                while places[backend.next] != FREE {
                    backend.next = (backend.next + backend.skip) & (size - 1);
                }
                places[backend.next] = backend.number;
                left -= 1;
                if left == 0 {
                    break;
                }
            }
        }
        Self { places }
    }

    /// The backends at a hash's place and those after it, each as often as it comes.
    #[inline]
    pub fn from_place(&self, hash: u64) -> impl Iterator<Item = usize> {
        let mask = self.places.len().wrapping_sub(1);
        let first = (hash >> 32) as usize & mask;
        (0..self.places.len()).map(move |n| usize::from(self.places[(first + n) & mask]))
    }

    /// Number of places.
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Whether nobody has a place.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// Bytes of the table.
    pub fn memory_bytes(&self) -> usize {
        size_of_val(&*self.places)
    }
}

/// The members that take places, in the order of their identities, whatever order they came in.
fn fillings(members: &[(u64, u16)], mask: usize) -> Vec<Filling> {
    let mut sorted: Vec<_> = members.iter().enumerate().filter(|(_, (_, w))| *w > 0).collect();
    sorted.sort_by_key(|(_, (identity, _))| *identity);
    let filling = |(number, (identity, weight)): (usize, &(u64, u16))| Filling {
        number: number as u16,
        weight: u32::from(*weight),
        credit: 0,
        next: OFFSET.hash([*identity]) as usize & mask,
        skip: (SKIP.hash([*identity]) as usize | 1) & mask,
    };
    sorted.into_iter().map(filling).collect()
}

#[cfg(test)]
#[allow(clippy::cast_precision_loss, reason = "shares of a few thousand places")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn members(count: u64) -> Vec<(u64, u16)> {
        (0..count).map(|n| (OFFSET.hash([n]), 1)).collect()
    }

    /// Places of each member.
    fn shares(table: &Maglev, members: usize) -> Vec<usize> {
        let mut shares = vec![0; members];
        table.from_place(0).for_each(|n| shares[n] += 1);
        shares
    }

    /// Who has each place, by identity.
    fn owners(members: &[(u64, u16)]) -> Vec<u64> {
        Maglev::new(members).from_place(0).map(|n| members[n].0).collect()
    }

    #[test]
    fn shares_are_even_within_one_per_cent() {
        for count in [2, 3, 10, 99, 100, 1_000] {
            let table = Maglev::new(&members(count));
            assert!(table.len() >= 100 * count as usize);
            let even = table.len() as f64 / count as f64;
            for share in shares(&table, count as usize) {
                let off = (share as f64 - even).abs() / even;
                assert!(off <= 0.01, "{share} of {even} with {count}");
            }
        }
    }

    #[test]
    fn few_places_change_hands_when_one_of_a_hundred_leaves() {
        let all = members(100);
        let mut worst: f64 = 0.0;
        for gone in 0..100 {
            let mut rest = all.clone();
            let (lost, _) = rest.remove(gone);
            let (before, after) = (owners(&all), owners(&rest));
            let moved = before.iter().zip(&after).filter(|(a, b)| **a != lost && a != b).count();
            worst = worst.max(moved as f64 / before.len() as f64);
        }
        println!("moved beyond the necessary: {:.2} % at worst", worst * 100.0);
        assert!(worst <= 0.02, "{worst}");
    }

    #[test]
    fn a_canary_gets_its_hundredth() {
        let table = Maglev::new(&[(7, 99), (9, 1)]);
        let share = shares(&table, 2)[1] as f64 / table.len() as f64;
        assert!((0.009..=0.011).contains(&share), "{share}");
    }

    #[test]
    fn who_weighs_nothing_has_no_place() {
        assert_eq!(shares(&Maglev::new(&[(7, 0), (9, 1)]), 2), [0, PLACES_MIN]);
        assert!(Maglev::new(&[(7, 0)]).is_empty() && Maglev::new(&[]).is_empty());
        assert_eq!(Maglev::new(&[]).from_place(7).next(), None);
    }

    proptest! {
        #[test]
        fn the_order_in_which_backends_are_known_changes_nothing(
            identities in proptest::collection::hash_set(any::<u64>(), 1..40),
            weights in proptest::collection::vec(1_u16..=100, 40),
            swaps in proptest::collection::vec((any::<usize>(), any::<usize>()), 0..40),
        ) {
            let all: Vec<_> = identities.into_iter().zip(weights).collect();
            let mut other = all.clone();
            for (a, b) in swaps {
                other.swap(a % all.len(), b % all.len());
            }
            prop_assert_eq!(owners(&all), owners(&other));
        }

        #[test]
        fn everybody_has_a_share_after_its_weight(
            weights in proptest::collection::vec(0_u16..=100, 1..30),
        ) {
            let all: Vec<_> =
                weights.iter().enumerate().map(|(n, w)| (SKIP.hash([n as u64]), *w)).collect();
            let table = Maglev::new(&all);
            let sum: u32 = weights.iter().copied().map(u32::from).sum();
            // Each of the others may have saved up a part of a turn, which the heaviest ones took.
            let heaviest = f64::from(weights.iter().copied().max().unwrap_or(0));
            let most = 1.0 + weights.len() as f64 * heaviest / f64::from(sum.max(1));
            for (share, weight) in shares(&table, all.len()).into_iter().zip(weights) {
                let fair = table.len() as f64 * f64::from(weight) / f64::from(sum.max(1));
                prop_assert!((share as f64 - fair).abs() <= most, "{} of {}", share, fair);
            }
        }
    }
}
