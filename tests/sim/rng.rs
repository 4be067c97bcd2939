//! Chance from a seed: the same run again whenever it is asked for.

use wharf::base::hash::Seed;

/// A stream of numbers.
#[derive(Clone, Debug)]
pub(crate) struct Rng {
    seed: Seed,
    drawn: u64,
}

impl Rng {
    pub(crate) fn new(seed: u64) -> Self {
        Self { seed: Seed(seed), drawn: 0 }
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.drawn += 1;
        self.seed.hash([self.drawn])
    }

    /// A number below `n`.
    pub(crate) fn below(&mut self, n: u64) -> u64 {
        self.next() % n.max(1)
    }

    /// True in so many of a thousand cases.
    pub(crate) fn permille(&mut self, n: u64) -> bool {
        self.below(1_000) < n
    }
}

/// Byte `at` of the endless stream number `stream`.
pub(crate) fn pattern(stream: u64, at: u64) -> u8 {
    let word = Seed(stream).hash([at / 8]);
    word.to_le_bytes()[(at % 8) as usize]
}
