//! One lazy timer queue, keyed by owner and slot.
//!
//! Lazy means: arming a slot again does not look for the old entry. When an entry comes due, its
//! owner is asked through `K` whether it still wants to be woken; a stale wake-up is cheap. Owners
//! therefore push their deadline out in their own state (a field write per packet) and re-arm only
//! when the queue wakes them early: the queue sees one entry per slot and period, not one per packet.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::time::Time;

/// Deadlines of keys, earliest first.
#[derive(Debug)]
pub struct TimerQueue<K> {
    heap: BinaryHeap<Reverse<(Time, K)>>,
}

impl<K: Ord + Copy> Default for TimerQueue<K> {
    fn default() -> Self {
        Self { heap: BinaryHeap::new() }
    }
}

impl<K: Ord + Copy> TimerQueue<K> {
    /// Wakes `key` at `at`. A key may be armed several times; its owner ignores what it outgrew.
    pub fn arm(&mut self, at: Time, key: K) {
        self.heap.push(Reverse((at, key)));
    }

    /// The earliest deadline.
    pub fn next_deadline(&self) -> Option<Time> {
        self.heap.peek().map(|Reverse((at, _))| *at)
    }

    /// The next key that is due at `now`.
    pub fn pop_due(&mut self, now: Time) -> Option<K> {
        if self.next_deadline()? > now {
            return None;
        }
        self.heap.pop().map(|Reverse((_, key))| key)
    }

    /// Entries, stale ones included.
    pub fn len(&self) -> usize {
        self.heap.len()
    }

    /// Whether nothing is armed.
    pub fn is_empty(&self) -> bool {
        self.heap.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_come_due_in_order_of_time() {
        let mut queue = TimerQueue::default();
        for (at, key) in [(30, 'c'), (10, 'a'), (20, 'b')] {
            queue.arm(Time(at), key);
        }
        assert_eq!(queue.pop_due(Time(5)), None);
        assert_eq!(queue.pop_due(Time(25)), Some('a'));
        assert_eq!(queue.pop_due(Time(25)), Some('b'));
        assert_eq!(queue.pop_due(Time(25)), None);
        assert_eq!(queue.next_deadline(), Some(Time(30)));
    }
}
