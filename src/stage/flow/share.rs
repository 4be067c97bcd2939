//! How much of a table each port may use, so that no container takes it from the others.

use crate::base::ids::PortId;

#[derive(Clone, Copy, Debug)]
struct Share {
    used: u32,
    /// As it was set, or the default.
    max: Option<u32>,
}

/// What each port uses of one table.
#[derive(Debug)]
pub(super) struct Shares {
    by_port: Vec<Share>,
    default_max: u32,
}

impl Shares {
    pub(super) fn new(default_max: usize) -> Self {
        Self { by_port: Vec::new(), default_max: default_max as u32 }
    }

    fn of(&mut self, port: PortId) -> &mut Share {
        let at = usize::from(port.0);
        if self.by_port.len() <= at {
            self.by_port.resize(at + 1, Share { used: 0, max: None });
        }
        &mut self.by_port[at]
    }

    pub(super) fn set_max(&mut self, port: PortId, max: usize) {
        self.of(port).max = Some(u32::try_from(max).unwrap_or(u32::MAX));
    }

    pub(super) fn set_default(&mut self, max: usize) {
        self.default_max = u32::try_from(max).unwrap_or(u32::MAX);
    }

    pub(super) fn has_room(&mut self, port: PortId) -> bool {
        let default_max = self.default_max;
        let share = self.of(port);
        share.used < share.max.unwrap_or(default_max)
    }

    pub(super) fn take(&mut self, port: PortId) {
        self.of(port).used += 1;
    }

    pub(super) fn give(&mut self, port: PortId) {
        self.of(port).used -= 1;
    }

    pub(super) fn used(&self, port: PortId) -> usize {
        self.by_port.get(usize::from(port.0)).map_or(0, |share| share.used as usize)
    }

    pub(super) fn memory_bytes(&self) -> usize {
        self.by_port.capacity() * size_of::<Share>()
    }
}
