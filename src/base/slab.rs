//! Slots with stable numbers, each able to sit in one LRU list: the storage under every table that
//! ages its entries.

use super::lru::{LinkStore, Links};

/// Values at stable indices; a freed index is used again.
#[derive(Debug)]
pub struct Slab<T> {
    slots: Vec<(Links, Option<T>)>,
    free: Vec<u32>,
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Self { slots: Vec::new(), free: Vec::new() }
    }
}

impl<T> Slab<T> {
    /// Puts a value into a free slot and says which.
    pub fn insert(&mut self, value: T) -> u32 {
        if let Some(index) = self.free.pop() {
            self.slots[index as usize] = (Links::default(), Some(value));
            return index;
        }
        self.slots.push((Links::default(), Some(value)));
        (self.slots.len() - 1) as u32
    }

    /// Takes a value out. The caller has taken it from its list before.
    pub fn remove(&mut self, index: u32) -> Option<T> {
        let value = self.slots.get_mut(index as usize)?.1.take()?;
        self.free.push(index);
        Some(value)
    }

    /// The value at `index`.
    #[inline]
    pub fn get(&self, index: u32) -> Option<&T> {
        self.slots.get(index as usize)?.1.as_ref()
    }

    /// The value at `index`, to be changed.
    #[inline]
    pub fn get_mut(&mut self, index: u32) -> Option<&mut T> {
        self.slots.get_mut(index as usize)?.1.as_mut()
    }

    /// All values with their indices, in order of these.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &T)> {
        let numbered = self.slots.iter().enumerate();
        numbered.filter_map(|(index, (_, value))| Some((index as u32, value.as_ref()?)))
    }

    /// Number of values.
    pub fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<T> LinkStore for Slab<T> {
    fn links(&mut self, index: u32) -> &mut Links {
        &mut self.slots[index as usize].0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_freed_slot_is_used_again_and_a_stale_index_finds_nothing() {
        let mut slab = Slab::default();
        let (a, b) = (slab.insert("a"), slab.insert("b"));
        assert_eq!(slab.remove(a), Some("a"));
        assert_eq!((slab.remove(a), slab.get(a)), (None, None));
        assert_eq!(slab.insert("c"), a);
        assert_eq!(slab.len(), 2);
        assert_eq!(slab.iter().collect::<Vec<_>>(), [(a, &"c"), (b, &"b")]);
    }
}
