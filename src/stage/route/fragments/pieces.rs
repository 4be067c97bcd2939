//! Which parts of a datagram have been seen.

use crate::base::limits::FRAGMENTS_PER_TRAIN_MAX;
use crate::packet::DropReason;

/// Which part of the datagram a fragment is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Piece {
    pub(super) start: u32,
    pub(super) end: u32,
    pub(super) last: bool,
}

/// The parts of one datagram.
#[derive(Debug, Default)]
pub(super) struct Pieces {
    /// Disjoint, ascending, merged.
    passed: Vec<(u32, u32)>,
    /// End of the datagram, once its last fragment passed.
    end: Option<u32>,
    /// The datagram is an attack: nothing of it passes any more.
    poisoned: bool,
}

impl Pieces {
    /// Adds a piece to what passed. One that lies within it is dropped alone: it is a duplicate, which
    /// networks make, or can do no harm.
    pub(super) fn take(&mut self, piece: Piece) -> Result<(), DropReason> {
        let beyond = |end: u32| piece.end > end || (piece.last && piece.end != end);
        let at = self.passed.partition_point(|(_, end)| *end < piece.start);
        let touching = self.passed.get(at..).unwrap_or_default();
        let touching = touching.iter().take_while(|(start, _)| *start <= piece.end).copied();
        let touching: Vec<_> = touching.collect();
        let inside = touching.iter().any(|(s, e)| *s <= piece.start && piece.end <= *e);
        let overlap = touching.iter().any(|(s, e)| *s < piece.end && piece.start < *e);
        let reaches = self.passed.last().map_or(0, |(_, end)| *end);
        if self.end.is_some_and(beyond) || (piece.last && reaches > piece.end) {
            self.poisoned = true;
            return Err(DropReason::FragmentOverlap);
        }
        if overlap {
            self.poisoned |= !inside;
            return Err(DropReason::FragmentOverlap);
        }
        if touching.is_empty() && self.passed.len() >= FRAGMENTS_PER_TRAIN_MAX {
            return Err(DropReason::FragmentLimit);
        }
        let start = touching.first().map_or(piece.start, |(s, _)| piece.start.min(*s));
        let end = touching.last().map_or(piece.end, |(_, e)| piece.end.max(*e));
        self.passed.splice(at..at + touching.len(), [(start, end)]);
        if piece.last {
            self.end = Some(piece.end);
        }
        Ok(())
    }

    /// Whether parts overlap, so that the datagram must be forgotten as a whole.
    pub(super) fn is_poisoned(&self) -> bool {
        self.poisoned
    }

    /// The end of a datagram of which nothing is missing.
    pub(super) fn whole(&self) -> Option<u32> {
        self.end.filter(|end| self.passed == [(0, *end)])
    }
}
