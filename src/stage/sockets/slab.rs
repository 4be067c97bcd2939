//! Flows in numbered slots: a free list, and an epoch a slot, so that a late event about a closed
//! socket can never be taken for one about its successor.

use super::calls::{SocketId, SocketKind};

#[derive(Debug)]
struct Slot<T> {
    epoch: u32,
    value: Option<T>,
}

/// A bounded table of `T`s named by [`SocketId`]s.
#[derive(Debug)]
pub(super) struct Slab<T> {
    kind: SocketKind,
    max: usize,
    slots: Vec<Slot<T>>,
    free: Vec<u32>,
    len: usize,
}

impl<T> Slab<T> {
    pub(super) fn new(kind: SocketKind, max: usize) -> Self {
        Self { kind, max, slots: Vec::new(), free: Vec::new(), len: 0 }
    }

    /// Takes a slot; `None` when the table is full.
    pub(super) fn insert(&mut self, make: impl FnOnce(SocketId) -> T) -> Option<SocketId> {
        if self.len == self.max {
            return None;
        }
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot { epoch: 0, value: None });
            self.slots.len() as u32 - 1
        });
        let entry = &mut self.slots[slot as usize];
        let id = SocketId::new(self.kind, slot, entry.epoch);
        entry.value = Some(make(id));
        self.len += 1;
        Some(id)
    }

    /// The flow called `id`, unless that has been closed.
    pub(super) fn get_mut(&mut self, id: SocketId) -> Option<&mut T> {
        let entry = self.slots.get_mut(id.slot() as usize)?;
        let current = SocketId::new(self.kind, id.slot(), entry.epoch) == id;
        entry.value.as_mut().filter(|_| current)
    }

    /// The flow in a slot that an index of ours says is taken.
    pub(super) fn at(&self, slot: u32) -> Option<&T> {
        self.slots.get(slot as usize)?.value.as_ref()
    }

    /// The same, to be changed.
    pub(super) fn at_mut(&mut self, slot: u32) -> Option<&mut T> {
        self.slots.get_mut(slot as usize)?.value.as_mut()
    }

    /// Frees a slot; its name is never used again until 2²⁸ others have been.
    pub(super) fn remove(&mut self, slot: u32) -> Option<T> {
        let entry = self.slots.get_mut(slot as usize)?;
        let value = entry.value.take()?;
        entry.epoch = entry.epoch.wrapping_add(1);
        self.free.push(slot);
        self.len -= 1;
        Some(value)
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &T)> {
        self.slots.iter().enumerate().filter_map(|(n, slot)| Some((n as u32, slot.value.as_ref()?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_closed_flow_s_name_does_not_reach_its_successor() {
        let mut slab = Slab::new(SocketKind::Udp, 2);
        let first = slab.insert(|_| 'a').unwrap();
        assert_eq!(slab.remove(first.slot()), Some('a'));
        let second = slab.insert(|_| 'b').unwrap();
        assert_eq!(second.slot(), first.slot());
        assert_eq!(
            (slab.get_mut(first).copied(), slab.get_mut(second).copied()),
            (None, Some('b'))
        );
    }

    #[test]
    fn a_full_table_refuses_and_recovers() {
        let mut slab = Slab::new(SocketKind::Tcp, 2);
        let ids = [slab.insert(|_| 0), slab.insert(|_| 1)];
        assert!(slab.insert(|_| 2).is_none());
        slab.remove(ids[0].unwrap().slot());
        assert!(slab.insert(|_| 3).is_some());
        assert_eq!(slab.len(), 2);
    }
}
