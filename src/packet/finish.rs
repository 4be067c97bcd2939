//! Completing an unfinished transport checksum, for ways out that cannot do it.

use super::{Csum, FrameMut, Gso};
use crate::wire::checksum;

/// Sums what the sender left unsummed. A super-frame stays unfinished: it must be
/// [split](super::split) first, which finishes each segment.
pub fn finish_checksum(frame: &mut FrameMut<'_>) {
    let Csum::Partial { start, offset } = frame.offload().csum else { return };
    if frame.offload().gso != Gso::None {
        return;
    }
    let (start, at) = (usize::from(start), usize::from(start) + usize::from(offset));
    let bytes = frame.bytes_mut();
    let Some(covered) = bytes.get(start..) else { return };
    let sum = !checksum::sum(covered);
    // RFC 768: a computed zero is sent as all ones; harmless for TCP, where both mean the same.
    let field = if sum == 0 { 0xffff } else { sum };
    if let Some(bytes) = bytes.get_mut(at..at + 2) {
        bytes.copy_from_slice(&field.to_be_bytes());
    }
    frame.offload_mut().csum = Csum::Complete;
}

#[cfg(test)]
mod tests {
    use super::super::{Offload, PacketBuf};
    use super::*;

    #[test]
    fn a_super_frame_stays_unfinished() {
        let csum = Csum::Partial { start: 34, offset: 16 };
        let offload = Offload { gso: Gso::TcpV4, gso_size: 10, csum, ecn: false };
        let mut buf = PacketBuf::new(&[7; 200], offload);
        finish_checksum(&mut buf.frame());
        assert_eq!((buf.bytes(), buf.offload()), (&[7; 200][..], offload));
    }
}
