//! A batch of frames in one arena.

use std::ops::Range;

use zerocopy::{FromBytes, IntoBytes};

use super::{DropReason, FrameMut, Gso, Offload, PacketBuf};
use crate::base::limits::{BATCH_BYTES_MAX, BATCH_FRAMES_MAX, FRAME_MAX, HEADROOM};
use crate::wire::ethernet;
use crate::wire::vnet::{HEADER_LEN as VNET_LEN, VnetHeader};

/// Where a frame lies in its room.
#[derive(Clone, Copy, Debug)]
pub(super) struct Slot {
    start: u32,
    len: u32,
    /// How far the frame may grow to the front.
    floor: u32,
    /// How far it may grow at its end: in a batch the next frame begins there.
    ceiling: u32,
    pub(super) offload: Offload,
}

impl Slot {
    pub(super) fn new(start: usize, len: usize, ceiling: usize, offload: Offload) -> Self {
        let floor = (start + VNET_LEN).saturating_sub(HEADROOM);
        Self {
            start: start as u32,
            len: len as u32,
            floor: floor as u32,
            ceiling: ceiling as u32,
            offload,
        }
    }

    /// A frame inside this one, which may grow into all that lies before it and not at its end.
    pub(super) fn part(&self, range: Range<usize>, offload: Offload) -> Self {
        let (start, len) = (range.start as u32, range.len() as u32);
        Self { start, len, floor: self.floor, ceiling: start + len, offload }
    }

    #[inline]
    pub(super) fn range(&self) -> Range<usize> {
        self.start as usize..(self.start + self.len) as usize
    }

    #[inline]
    pub(super) fn len(&self) -> usize {
        self.len as usize
    }

    /// Sets the length, if that much room is there.
    pub(super) fn set_len(&mut self, len: usize) -> Option<()> {
        if len > (self.ceiling - self.start) as usize {
            return None;
        }
        self.len = len as u32;
        Some(())
    }

    pub(super) fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len as u32);
    }

    pub(super) fn grow_front(&mut self, n: usize) -> Option<()> {
        if n > (self.start - self.floor) as usize || !self.offload.can_shift(n) {
            return None;
        }
        self.start -= n as u32;
        self.len += n as u32;
        self.offload.shift(n as i32);
        Some(())
    }

    pub(super) fn shrink_front(&mut self, n: usize) {
        self.start += n as u32;
        self.len -= n as u32;
        self.offload.shift(-(n as i32));
    }

    /// Writes the virtio-net header before the frame and gives the range of both.
    #[inline]
    pub(super) fn write_vnet(&self, room: &mut [u8]) -> Range<usize> {
        let frame = self.range();
        let hdr_len = header_len(&room[frame.clone()], self.offload);
        let header = self.offload.to_vnet(hdr_len);
        let whole = frame.start - VNET_LEN..frame.end;
        room[whole.start..frame.start].copy_from_slice(header.as_bytes());
        whole
    }
}

/// Length of all headers of a super-frame; the kernel raises a value that is too small, and only
/// looks at it for super-frames.
fn header_len(frame: &[u8], offload: Offload) -> u16 {
    let super::Csum::Partial { start, offset } = offload.csum else { return 0 };
    if offload.gso == Gso::None {
        return 0;
    }
    match offset {
        crate::wire::tcp::CHECKSUM_OFFSET => {
            let data_offset = frame.get(usize::from(start) + 12).map_or(5, |b| b >> 4);
            start.saturating_add(u16::from(data_offset) * 4)
        }
        _ => start.saturating_add(8),
    }
}

/// Frames read together, processed together, written together.
///
/// The arena is filled from the front; every frame has [`HEADROOM`] before it. Small frames come up to
/// [`BATCH_FRAMES_MAX`] at a time, super-frames four at a time, so that a batch stays in the cache.
#[derive(Debug)]
pub struct FrameBatch {
    arena: Box<[u8]>,
    used: usize,
    slots: Vec<Slot>,
}

impl Default for FrameBatch {
    fn default() -> Self {
        Self::new()
    }
}

impl FrameBatch {
    /// An empty batch; the only allocation it ever makes.
    pub fn new() -> Self {
        Self {
            arena: vec![0; BATCH_BYTES_MAX].into_boxed_slice(),
            used: 0,
            slots: Vec::with_capacity(BATCH_FRAMES_MAX),
        }
    }

    /// Forgets all frames.
    #[inline]
    pub fn clear(&mut self) {
        self.used = 0;
        self.slots.clear();
    }

    /// Number of frames.
    #[inline]
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Whether there is no frame.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// Room for one read: virtio-net header and frame. `None` when the batch is full.
    #[inline]
    pub fn spare(&mut self) -> Option<&mut [u8]> {
        let start = self.used + HEADROOM - VNET_LEN;
        let end = start + VNET_LEN + FRAME_MAX;
        if self.slots.len() == BATCH_FRAMES_MAX {
            return None;
        }
        self.arena.get_mut(start..end)
    }

    /// Takes in the `n` bytes that a read put into [`spare`](Self::spare).
    ///
    /// # Errors
    /// A frame too short for its headers, or a virtio-net header that lies: nothing is kept of it.
    #[inline]
    pub fn commit(&mut self, n: usize) -> Result<(), DropReason> {
        let start = self.used + HEADROOM;
        let frame_len = n.saturating_sub(VNET_LEN);
        // A packet socket may say the length that a frame had before it was cut to our room.
        if !(ethernet::HEADER_LEN..=FRAME_MAX).contains(&frame_len) {
            return Err(DropReason::Truncated);
        }
        let header = self
            .arena
            .get(start - VNET_LEN..start)
            .and_then(|h| VnetHeader::read_from_bytes(h).ok());
        let offload = Offload::from_vnet(&header.unwrap_or(VnetHeader::NONE), frame_len)?;
        self.keep(start, frame_len, offload);
        Ok(())
    }

    #[inline]
    fn keep(&mut self, start: usize, len: usize, offload: Offload) {
        // The next frame starts on a cache line (see limits::HEADROOM).
        self.used = (start + len).next_multiple_of(64);
        let ceiling = self.used.min(self.arena.len());
        self.slots.push(Slot::new(start, len, ceiling, offload));
    }

    /// Copies a frame in; `false` when the batch is full.
    #[must_use]
    pub fn push(&mut self, frame: &[u8], offload: Offload) -> bool {
        let Some(room) = self.spare() else { return false };
        let Some(target) = room.get_mut(VNET_LEN..VNET_LEN + frame.len()) else { return false };
        target.copy_from_slice(frame);
        self.keep(self.used + HEADROOM, frame.len(), offload);
        true
    }

    /// Makes the last frame longer by these bytes; `false` when there is no room, or no frame.
    #[must_use]
    pub fn grow_last(&mut self, bytes: &[u8]) -> bool {
        let Some(slot) = self.slots.last_mut() else { return false };
        let (end, len) = (slot.range().end, slot.len() + bytes.len());
        let room = self.arena.get_mut(end..end + bytes.len()).filter(|_| len <= FRAME_MAX);
        let Some(room) = room else { return false };
        room.copy_from_slice(bytes);
        self.used = (end + bytes.len()).next_multiple_of(64);
        slot.ceiling = self.used.min(self.arena.len()) as u32;
        slot.len = len as u32;
        true
    }

    /// Copies an owned frame in; `false` when the batch is full.
    #[must_use]
    pub fn push_owned(&mut self, buf: &PacketBuf) -> bool {
        self.push(buf.bytes(), buf.offload())
    }

    /// Copies in a frame that was made from others of this batch, though the batch may have all the frames
    /// that it reads; `false` when its memory is used up.
    #[must_use]
    pub fn append(&mut self, buf: &PacketBuf) -> bool {
        let start = self.used + HEADROOM;
        let Some(room) = self.arena.get_mut(start..start + buf.len()) else { return false };
        room.copy_from_slice(buf.bytes());
        self.keep(start, buf.len(), buf.offload());
        true
    }

    /// The length of frame `index`.
    #[inline]
    pub fn len_of(&self, index: usize) -> usize {
        self.slots[index].len()
    }

    /// Whether frame `index` is a super-frame of that kind.
    #[inline]
    pub fn is_gso(&self, index: usize, gso: Gso) -> bool {
        self.slots[index].offload.gso == gso
    }

    /// The lengths of all frames.
    #[inline]
    pub fn lens(&self) -> impl Iterator<Item = usize> {
        self.slots.iter().map(Slot::len)
    }

    /// Frame `index` with the room around it.
    #[inline]
    pub fn frame(&mut self, index: usize) -> FrameMut<'_> {
        FrameMut::new(&mut self.arena, &mut self.slots[index])
    }

    /// The bytes of frame `index`.
    #[inline]
    pub fn bytes(&self, index: usize) -> &[u8] {
        &self.arena[self.slots[index].range()]
    }

    /// The offload metadata of frame `index`.
    #[inline]
    pub fn offload(&self, index: usize) -> Offload {
        self.slots[index].offload
    }

    /// Frame `index` with a virtio-net header put before it, ready for one `write`.
    #[inline]
    pub fn with_vnet_header(&mut self, index: usize) -> &[u8] {
        let range = self.slots[index].write_vnet(&mut self.arena);
        &self.arena[range]
    }
}

#[cfg(test)]
mod tests {
    use super::super::Csum;
    use super::*;

    #[test]
    fn small_frames_fill_a_batch_by_number_and_super_frames_by_bytes() {
        let mut batch = FrameBatch::new();
        let small =
            std::iter::from_fn(|| batch.push(&[0; 60], Offload::NONE).then_some(())).count();
        assert_eq!(small, BATCH_FRAMES_MAX);
        batch.clear();
        let large =
            std::iter::from_fn(|| batch.push(&vec![0; FRAME_MAX], Offload::NONE).then_some(()));
        assert_eq!(large.count(), 4);
    }

    #[test]
    fn a_full_batch_still_takes_what_was_made_of_its_frames_while_there_is_memory() {
        let mut batch = FrameBatch::new();
        while batch.push(&[1; 1514], Offload::NONE) {}
        let whole = PacketBuf::new(&[2; 60_000], Offload::NONE);
        let appended = std::iter::from_fn(|| batch.append(&whole).then_some(())).count();
        assert_eq!((appended, batch.len()), (2, BATCH_FRAMES_MAX + 2));
        assert_eq!(batch.bytes(BATCH_FRAMES_MAX + 1), whole.bytes());
    }

    #[test]
    fn a_read_is_taken_in_and_written_out_with_the_same_header() {
        let mut batch = FrameBatch::new();
        let mut read = vec![0_u8; VNET_LEN + 60];
        read[VNET_LEN + 12] = 0x08;
        batch.spare().unwrap()[..read.len()].copy_from_slice(&read);
        batch.commit(read.len()).unwrap();
        assert_eq!(batch.with_vnet_header(0), read);
    }

    #[test]
    fn a_read_shorter_than_its_headers_is_refused() {
        let mut batch = FrameBatch::new();
        for n in [0, 9, 10, VNET_LEN + 13] {
            assert_eq!(batch.commit(n), Err(DropReason::Truncated));
        }
        assert!(batch.is_empty());
    }

    #[test]
    fn a_read_longer_than_its_room_is_refused() {
        let mut batch = FrameBatch::new();
        assert_eq!(batch.commit(VNET_LEN + FRAME_MAX + 1), Err(DropReason::Truncated));
        assert_eq!(batch.commit(VNET_LEN + FRAME_MAX), Ok(()));
        assert_eq!(batch.len(), 1);
    }

    #[test]
    fn a_frame_that_grows_at_its_end_never_reaches_its_neighbour() {
        let mut batch = FrameBatch::new();
        assert!(batch.push(&[1; 60], Offload::NONE) && batch.push(&[2; 60], Offload::NONE));
        assert!(batch.frame(0).resize(61));
        assert_eq!(batch.bytes(0)[59..], [1, 0]);
        assert!(!batch.frame(0).resize(200));
        assert_eq!((batch.bytes(0).len(), batch.bytes(1)), (61, &[2; 60][..]));
        assert!(batch.frame(1).prepend(HEADROOM - VNET_LEN).is_some());
        assert_eq!(batch.bytes(0)[59..], [1, 0]);
    }

    #[test]
    fn a_checksum_s_start_at_the_end_of_its_sixteen_bits_overflows_nothing() {
        let csum = Csum::Partial { start: u16::MAX - 4, offset: 16 };
        let offload = Offload { gso: Gso::TcpV4, gso_size: 1000, csum, ecn: false };
        let mut batch = FrameBatch::new();
        assert!(batch.push(&vec![0xff; FRAME_MAX], offload));
        assert_eq!(batch.with_vnet_header(0).len(), VNET_LEN + FRAME_MAX);
        assert!(batch.frame(0).prepend(8).is_none(), "it would wrap round to an outer header");
        assert!(batch.frame(0).prepend(4).is_some());
    }

    #[test]
    fn what_is_unfinished_goes_with_its_header() {
        let csum = Csum::Partial { start: 34, offset: 6 };
        let mut batch = FrameBatch::new();
        assert!(batch.push(&[0; 200], Offload { csum, ..Offload::NONE }));
        batch.frame(0).trim_front(30);
        assert_eq!(batch.offload(0).csum, Csum::Partial { start: 4, offset: 6 });
        batch.frame(0).trim_front(20);
        assert_eq!(batch.offload(0).csum, Csum::Unverified, "the outer header is gone");
    }
}
