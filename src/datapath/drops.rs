//! Which frames of the batch at hand were dropped, and why: for those who capture. Nothing is noted unless
//! somebody wants to know.

use super::Datapath;
use crate::packet::DropReason;

/// Drops of the last batch.
#[derive(Debug, Default)]
pub(super) struct BatchDrops {
    wanted: bool,
    /// While the batch is walked: what is dropped at other times is none of its frames.
    walking: bool,
    at: u16,
    found: Vec<(u16, DropReason)>,
}

impl BatchDrops {
    pub(super) fn begin(&mut self) {
        self.found.clear();
        self.walking = self.wanted;
    }

    pub(super) fn end(&mut self) {
        self.walking = false;
    }

    #[inline]
    pub(super) fn at(&mut self, index: usize) {
        self.at = index as u16;
    }

    pub(super) fn note(&mut self, reason: DropReason) {
        if self.walking {
            self.found.push((self.at, reason));
        }
    }
}

impl Datapath {
    /// Whether drops are to be noted from the next batch on.
    pub fn note_drops(&mut self, wanted: bool) {
        self.batch_drops.wanted = wanted;
    }

    /// Numbers of the frames of the last batch that were dropped, and why, in their order. One frame may
    /// stand there several times, if it was dropped on several ways.
    pub fn noted_drops(&self) -> &[(u16, DropReason)] {
        &self.batch_drops.found
    }
}
