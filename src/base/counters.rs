//! Counters written by one thread and read by others: no read-modify-write instruction, no lock.

use std::sync::atomic::{AtomicU64, Ordering};

/// A count with one writer. An increment is a plain load, add and store.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `n`. Only the owning thread may call this: a second writer would lose counts.
    #[inline]
    pub fn add(&self, n: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
    }

    /// The count as any thread sees it.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
