//! Numbers of ports, networks and uplinks.

use std::collections::BTreeSet;

/// Gives out numbers below a bound in sequence, so that a number that was just freed comes last: a
/// message about the old thing must not hit the new one.
#[derive(Clone, Debug)]
pub(super) struct Numbers {
    used: BTreeSet<u16>,
    next: u16,
    /// How many there are: 0 to `count - 1`.
    count: u16,
}

impl Numbers {
    pub(super) fn below(count: u16) -> Self {
        Self { used: BTreeSet::new(), next: 0, count }
    }

    /// A number that nobody has.
    pub(super) fn take(&mut self) -> Option<u16> {
        if self.used.len() >= usize::from(self.count) {
            return None;
        }
        while self.used.contains(&self.next) {
            self.advance();
        }
        let number = self.next;
        self.used.insert(number);
        self.advance();
        Some(number)
    }

    /// This number, unless somebody has it or it is beyond the bound.
    pub(super) fn claim(&mut self, number: u16) -> bool {
        number < self.count && self.used.insert(number)
    }

    pub(super) fn give_back(&mut self, number: u16) {
        self.used.remove(&number);
    }

    fn advance(&mut self) {
        self.next = if self.next + 1 >= self.count { 0 } else { self.next + 1 };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_given_back_is_given_out_last_and_all_of_them_once() {
        let mut numbers = Numbers::below(4);
        assert!(numbers.claim(1) && !numbers.claim(1) && !numbers.claim(4));
        assert_eq!(numbers.take(), Some(0));
        numbers.give_back(0);
        assert_eq!([numbers.take(), numbers.take(), numbers.take()], [Some(2), Some(3), Some(0)]);
        assert_eq!(numbers.take(), None);
        numbers.give_back(2);
        assert_eq!(numbers.take(), Some(2));
    }
}
