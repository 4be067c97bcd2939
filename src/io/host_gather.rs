//! What a call sends, as the kernel wants it: pieces of frames, none of them copied.

use std::io::IoSlice;

use crate::base::limits::{BATCH_FRAMES_MAX, SOCKET_HELD_RANGES_MAX};
use crate::packet::FrameBatch;
use crate::stage::sockets::{Parts, SocketOutput};

/// Every frame of a batch, and all that waited for one of them.
pub(super) const PARTS_MAX: usize = BATCH_FRAMES_MAX + SOCKET_HELD_RANGES_MAX;

/// Pieces of frames as the kernel wants them.
pub(super) struct Gather<'a> {
    parts: [IoSlice<'a>; PARTS_MAX],
    len: usize,
}

impl<'a> Gather<'a> {
    pub(super) fn new(out: &'a SocketOutput, parts: Parts, batch: &'a FrameBatch) -> Self {
        let mut gather = Self { parts: [IoSlice::new(&[]); PARTS_MAX], len: 0 };
        for part in out.chain(parts).take(PARTS_MAX) {
            // A piece of a frame that is not there any more would be a hole in the stream.
            let Some(bytes) = out.piece(part, batch) else { break };
            gather.parts[gather.len] = IoSlice::new(bytes);
            gather.len += 1;
        }
        gather
    }

    pub(super) fn parts(&self) -> &[IoSlice<'a>] {
        &self.parts[..self.len]
    }
}
