//! One frame in memory: a view into somebody's room, and an owned one.

use super::{DropReason, Offload, Parsed, batch::Slot};
use crate::base::limits::HEADROOM;
use crate::wire::vnet::HEADER_LEN as VNET_LEN;

/// A frame together with the room around it: headers can be put before it in place.
///
/// The offsets are the owner's, so what happens here is seen there.
#[derive(Debug)]
pub struct FrameMut<'a> {
    room: &'a mut [u8],
    slot: &'a mut Slot,
}

impl<'a> FrameMut<'a> {
    pub(super) fn new(room: &'a mut [u8], slot: &'a mut Slot) -> Self {
        Self { room, slot }
    }

    /// The frame, from its Ethernet header.
    #[inline]
    pub fn bytes(&self) -> &[u8] {
        &self.room[self.slot.range()]
    }

    /// The frame, to be changed in place.
    #[inline]
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.room[self.slot.range()]
    }

    /// Length of the frame.
    #[inline]
    pub fn len(&self) -> usize {
        self.slot.len()
    }

    /// Whether nothing is left of it.
    pub fn is_empty(&self) -> bool {
        self.slot.len() == 0
    }

    /// Parses the frame and holds its offload metadata against what was found.
    ///
    /// # Errors
    /// What [`Parsed::new`] and [`Offload::check`] refuse.
    #[inline]
    pub fn parse(&self) -> Result<Parsed, DropReason> {
        let parsed = Parsed::new(self.bytes())?;
        self.slot.offload.check(&parsed)?;
        Ok(parsed)
    }

    /// Its offload metadata.
    #[inline]
    pub fn offload(&self) -> Offload {
        self.slot.offload
    }

    /// Its offload metadata, to be changed.
    #[inline]
    pub fn offload_mut(&mut self) -> &mut Offload {
        &mut self.slot.offload
    }

    /// Makes the frame `n` bytes longer at the front and returns those bytes; `None` if the headroom
    /// is used up. The checksum's start moves along.
    pub fn prepend(&mut self, n: usize) -> Option<&mut [u8]> {
        self.slot.grow_front(n)?;
        Some(&mut self.bytes_mut()[..n])
    }

    /// Takes `n` bytes from the front; the caller knows that the frame is longer.
    pub fn trim_front(&mut self, n: usize) {
        self.slot.shrink_front(n.min(self.len()));
    }

    /// Cuts the frame to `len` bytes.
    pub fn truncate(&mut self, len: usize) {
        self.slot.truncate(len);
    }

    /// Makes the frame exactly `len` bytes long, zeros at the end; `false` if there is no room. In a
    /// batch that is up to the next cache line, where another frame's room begins.
    #[must_use]
    pub fn resize(&mut self, len: usize) -> bool {
        let old = self.len();
        if self.slot.set_len(len).is_none() {
            return false;
        }
        if len > old {
            self.bytes_mut()[old..].fill(0);
        }
        true
    }

    /// The frame with a virtio-net header put before it, ready for one `write`.
    pub fn with_vnet_header(&mut self) -> &[u8] {
        let range = self.slot.write_vnet(self.room);
        &self.room[range]
    }

    /// The room and where in it the frame lies.
    pub(super) fn into_parts(self) -> (&'a mut [u8], Slot) {
        (self.room, *self.slot)
    }

    /// A copy that outlives the batch.
    pub fn to_owned(&self) -> PacketBuf {
        PacketBuf::new(self.bytes(), self.slot.offload)
    }
}

/// A frame with memory of its own: what is held, queued or made by the switch itself.
#[derive(Clone, Debug)]
pub struct PacketBuf {
    room: Vec<u8>,
    slot: Slot,
}

impl PacketBuf {
    /// A copy of `frame` with fresh headroom.
    pub fn new(frame: &[u8], offload: Offload) -> Self {
        let mut room = Vec::with_capacity(HEADROOM + frame.len());
        room.resize(HEADROOM, 0);
        room.extend_from_slice(frame);
        Self { slot: Slot::new(HEADROOM, frame.len(), room.len(), offload), room }
    }

    /// A frame of `len` zero bytes.
    pub fn zeroed(len: usize) -> Self {
        let room = vec![0; HEADROOM + len];
        Self { slot: Slot::new(HEADROOM, len, room.len(), Offload::NONE), room }
    }

    /// The frame as a view.
    pub fn frame(&mut self) -> FrameMut<'_> {
        FrameMut::new(&mut self.room, &mut self.slot)
    }

    /// The frame, from its Ethernet header.
    pub fn bytes(&self) -> &[u8] {
        &self.room[self.slot.range()]
    }

    /// Its offload metadata.
    pub fn offload(&self) -> Offload {
        self.slot.offload
    }

    /// Length of the frame.
    pub fn len(&self) -> usize {
        self.slot.len()
    }

    /// Whether it has no byte.
    pub fn is_empty(&self) -> bool {
        self.slot.len() == 0
    }

    /// The frame with a virtio-net header put before it, ready for one `write`.
    pub fn with_vnet_header(&mut self) -> &[u8] {
        let range = self.slot.write_vnet(&mut self.room);
        &self.room[range]
    }
}

const _: () = assert!(HEADROOM > VNET_LEN);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_go_before_a_frame_in_place_until_the_room_ends() {
        let mut buf = PacketBuf::new(b"payload", Offload::NONE);
        buf.frame().prepend(4).unwrap().copy_from_slice(b"head");
        assert_eq!(buf.bytes(), b"headpayload");
        assert!(buf.frame().prepend(HEADROOM).is_none());
        buf.frame().trim_front(4);
        assert_eq!(buf.bytes(), b"payload");
    }
}
