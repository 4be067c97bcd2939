//! Least-recently-used lists over slots that live elsewhere: two indices a slot, no allocation.
//!
//! A flow table keeps one list per timeout class. Because a class has one timeout, the head of a
//! list is always the next to expire: ageing looks at heads only and never scans (VPP does the same).

/// "No slot".
pub const NIL: u32 = u32::MAX;

/// The two links a slot carries for its list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Links {
    prev: u32,
    next: u32,
}

impl Default for Links {
    fn default() -> Self {
        Self { prev: NIL, next: NIL }
    }
}

/// Access to the links of slot `index`.
pub trait LinkStore {
    /// The links of one slot.
    fn links(&mut self, index: u32) -> &mut Links;
}

/// One list: oldest at the head.
#[derive(Clone, Copy, Debug)]
pub struct LruList {
    head: u32,
    tail: u32,
    len: u32,
}

impl Default for LruList {
    fn default() -> Self {
        Self { head: NIL, tail: NIL, len: 0 }
    }
}

impl LruList {
    /// The slot that was touched longest ago.
    pub fn oldest(&self) -> Option<u32> {
        (self.head != NIL).then_some(self.head)
    }

    /// The slot that was touched last.
    pub fn newest(&self) -> Option<u32> {
        (self.tail != NIL).then_some(self.tail)
    }

    /// Number of slots in the list.
    pub fn len(&self) -> usize {
        self.len as usize
    }

    /// Whether the list has no slot.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Appends `index` as the most recently used.
    pub fn push(&mut self, store: &mut impl LinkStore, index: u32) {
        *store.links(index) = Links { prev: self.tail, next: NIL };
        if self.tail == NIL {
            self.head = index;
        } else {
            store.links(self.tail).next = index;
        }
        self.tail = index;
        self.len += 1;
    }

    /// Takes `index` out; it must be in this list.
    pub fn remove(&mut self, store: &mut impl LinkStore, index: u32) {
        let Links { prev, next } = *store.links(index);
        if prev == NIL {
            self.head = next;
        } else {
            store.links(prev).next = next;
        }
        if next == NIL {
            self.tail = prev;
        } else {
            store.links(next).prev = prev;
        }
        *store.links(index) = Links::default();
        self.len -= 1;
    }

    /// Makes `index` the most recently used.
    pub fn touch(&mut self, store: &mut impl LinkStore, index: u32) {
        if self.tail != index {
            self.remove(store, index);
            self.push(store, index);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;

    struct Slots(Vec<Links>);
    impl LinkStore for Slots {
        fn links(&mut self, index: u32) -> &mut Links {
            &mut self.0[index as usize]
        }
    }

    proptest! {
        #[test]
        fn behaves_as_a_queue_with_removal(ops in prop::collection::vec((0_u8..3, 0_u32..16), 0..200)) {
            let mut slots = Slots(vec![Links::default(); 16]);
            let mut list = LruList::default();
            let mut model: VecDeque<u32> = VecDeque::new();
            for (op, index) in ops {
                let present = model.contains(&index);
                match op {
                    0 if !present => { list.push(&mut slots, index); model.push_back(index); }
                    1 if present => { list.remove(&mut slots, index); model.retain(|i| *i != index); }
                    2 if present => {
                        list.touch(&mut slots, index);
                        model.retain(|i| *i != index);
                        model.push_back(index);
                    }
                    _ => {}
                }
                prop_assert_eq!(list.oldest(), model.front().copied());
                prop_assert_eq!(list.newest(), model.back().copied());
                prop_assert_eq!(list.len(), model.len());
            }
        }
    }
}
