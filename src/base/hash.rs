//! A seeded hash of machine words: folded multiplication, as wyhash and foldhash do it.
//!
//! The packet path hashes packed words, not fields: 40 bytes of a flow key cost four multiplications.
//! Two words go into one, each mixed with half of the secret: who does not know it cannot make a factor
//! zero.
//! The seed is random per process, so that a container cannot choose colliding tuples offline; the
//! tables are bounded per port beside that, since no fast hash withstands an adaptive attacker.

/// The seed of a table's hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seed(pub u64);

const K0: u64 = 0x9e37_79b9_7f4a_7c15;
const K1: u64 = 0xd1b5_4a32_d192_ed03;

#[inline(always)]
#[allow(clippy::inline_always, reason = "one multiplication; measured")]
fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    (product as u64) ^ ((product >> 64) as u64)
}

impl Seed {
    /// Hashes a fixed number of words.
    #[inline]
    pub fn hash<const N: usize>(self, words: [u64; N]) -> u64 {
        let (mut h, secret) = (self.0 ^ K0, K1 ^ self.0.rotate_left(32));
        let (pairs, last) = words.as_chunks::<2>();
        for [a, b] in pairs {
            h = fold(h ^ a, secret ^ b);
        }
        for word in last {
            h = fold(h ^ word, secret);
        }
        fold(h, K0)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn single_bit_changes_reach_the_low_and_the_high_bits() {
        let seed = Seed(42);
        let mut low = HashSet::new();
        let mut high = HashSet::new();
        for bit in 0..320 {
            let mut words = [0_u64; 5];
            words[bit / 64] = 1 << (bit % 64);
            let hash = seed.hash(words);
            low.insert(hash as u32 & 0xfffff);
            high.insert(hash >> 44);
        }
        assert!(low.len() > 315 && high.len() > 315, "{} {}", low.len(), high.len());
    }

    #[test]
    fn another_seed_gives_another_hash() {
        assert_ne!(Seed(1).hash([1, 2, 3]), Seed(2).hash([1, 2, 3]));
    }
}
