//! Identifications of IPv4 datagrams whose source is translated (RFC 6864 5.3.1, RFC 7857 10).
//!
//! Behind one outside address several containers number their datagrams, each for itself. Where a
//! datagram may be cut into fragments, now or further on, its receiver puts together whatever has one
//! source, destination, protocol and number: two containers' datagrams must not have the same. So we
//! number them anew, as one sender would. Counters are shared among destinations, which makes numbers
//! come around sooner and never twice in a row; they begin at random, so that nobody can count what
//! others send. Datagrams with DF ("atomic" in that RFC) need no number and keep what they have.

use crate::base::hash::Seed;
use crate::wire::addr::Addr;

const COUNTERS: usize = 256;

/// The next numbers.
#[derive(Debug)]
pub struct Identifications {
    seed: Seed,
    next: Box<[u16]>,
}

impl Identifications {
    /// Counters that begin where nobody can guess.
    pub fn new(seed: Seed) -> Self {
        let next = (0..COUNTERS as u64).map(|n| seed.hash([n, 0x6864]) as u16).collect();
        Self { seed, next }
    }

    /// A number for `count` datagrams that follow each other; a super-frame becomes several.
    pub fn take(&mut self, dst: Addr, proto: u8, count: u16) -> u16 {
        let [hi, lo] = dst.words();
        let at = self.seed.hash([hi, lo, u64::from(proto)]) as usize % COUNTERS;
        let next = &mut self.next[at];
        let taken = *next;
        *next = next.wrapping_add(count);
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_number_comes_again_before_all_have_been_there() {
        let mut ids = Identifications::new(Seed(7));
        let dst: Addr = "192.0.2.9".parse().unwrap();
        let seen: std::collections::HashSet<u16> =
            (0..=u16::MAX).map(|_| ids.take(dst, 17, 1)).collect();
        assert_eq!(seen.len(), 65_536);
        let first = ids.take(dst, 17, 40);
        assert_eq!(ids.take(dst, 17, 1), first.wrapping_add(40));
    }

    #[test]
    fn counters_begin_apart() {
        let ids = Identifications::new(Seed(7));
        let starts: std::collections::HashSet<u16> = ids.next.iter().copied().collect();
        assert!(starts.len() > 200);
    }
}
