//! Slots in chunks, so that growing copies nothing and pauses nobody.

use crate::base::lru::{LinkStore, Links, LruList};

/// What lies in a slab carries links: for a list of its owner's while in use, for the free list after.
pub(super) trait Linked {
    fn links(&mut self) -> &mut Links;
}

/// Slots of `T`, named by number; a freed number is given out again.
#[derive(Debug)]
pub(super) struct Slab<T, const CHUNK: usize> {
    chunks: Vec<Vec<T>>,
    free: LruList,
}

impl<T, const CHUNK: usize> Default for Slab<T, CHUNK> {
    fn default() -> Self {
        Self { chunks: Vec::new(), free: LruList::default() }
    }
}

impl<T: Linked, const CHUNK: usize> Slab<T, CHUNK> {
    #[inline]
    pub(super) fn get(&self, slot: u32) -> &T {
        &self.chunks[slot as usize / CHUNK][slot as usize % CHUNK]
    }

    #[inline]
    pub(super) fn get_mut(&mut self, slot: u32) -> &mut T {
        &mut self.chunks[slot as usize / CHUNK][slot as usize % CHUNK]
    }

    /// Slots ever used.
    pub(super) fn high(&self) -> u32 {
        let before = self.chunks.len().saturating_sub(1) * CHUNK;
        (before + self.chunks.last().map_or(0, Vec::len)) as u32
    }

    /// Slots in use.
    pub(super) fn len(&self) -> usize {
        self.high() as usize - self.free.len()
    }

    /// Puts a value into a slot.
    pub(super) fn place(&mut self, value: T) -> u32 {
        let mut free = self.free;
        // The slot freed last is the one most likely still in the cache.
        if let Some(slot) = free.newest() {
            free.remove(self, slot);
            self.free = free;
            *self.get_mut(slot) = value;
            return slot;
        }
        let slot = self.high();
        if (slot as usize).is_multiple_of(CHUNK) {
            self.chunks.push(Vec::with_capacity(CHUNK));
        }
        if let Some(chunk) = self.chunks.last_mut() {
            chunk.push(value);
        }
        slot
    }

    /// Gives a slot back; it must be in use and in no list.
    pub(super) fn release(&mut self, slot: u32) {
        let mut free = self.free;
        free.push(self, slot);
        self.free = free;
    }

    pub(super) fn memory_bytes(&self) -> usize {
        self.chunks.len() * CHUNK * size_of::<T>()
    }
}

impl<T: Linked, const CHUNK: usize> LinkStore for Slab<T, CHUNK> {
    #[inline]
    fn links(&mut self, index: u32) -> &mut Links {
        self.get_mut(index).links()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Item(u32, Links);

    impl Linked for Item {
        fn links(&mut self) -> &mut Links {
            &mut self.1
        }
    }

    #[test]
    fn freed_slots_are_used_again_the_last_one_first() {
        let mut slab: Slab<Item, 4> = Slab::default();
        let slots: Vec<u32> = (0..9).map(|n| slab.place(Item(n, Links::default()))).collect();
        assert_eq!(slots, (0..9).collect::<Vec<u32>>());
        slab.release(3);
        slab.release(7);
        assert_eq!((slab.len(), slab.high()), (7, 9));
        assert_eq!(slab.place(Item(70, Links::default())), 7);
        assert_eq!(slab.place(Item(30, Links::default())), 3);
        assert_eq!((slab.get(7).0, slab.get(3).0, slab.get(8).0), (70, 30, 8));
        assert_eq!(slab.place(Item(9, Links::default())), 9);
    }
}
