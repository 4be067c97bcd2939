//! What the sender left undone: segmentation and checksum.

use super::DropReason;
use crate::wire::vnet::{self, VnetHeader};

/// Whether a frame is a super-frame, and of what.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Gso {
    /// An ordinary frame.
    #[default]
    None,
    /// TCP over IPv4, to be cut into segments of `gso_size` payload bytes.
    TcpV4,
    /// TCP over IPv6.
    TcpV6,
    /// UDP datagrams of `gso_size` bytes each.
    UdpL4,
}

/// The state of the transport checksum.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Csum {
    /// In the frame, and somebody we trust has verified it.
    Complete,
    /// The field holds the sum of the pseudo-header; what starts at `start` is still to be summed.
    Partial {
        /// Offset from the Ethernet header.
        start: u16,
        /// Offset of the field from `start`.
        offset: u16,
    },
    /// In the frame, unverified: it passes through as it is.
    #[default]
    Unverified,
}

/// Offload metadata of one frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Offload {
    /// Kind of super-frame.
    pub gso: Gso,
    /// The first segment carries CWR, the others must not (RFC 3168 6.1.2).
    pub ecn: bool,
    /// Payload bytes of a segment; zero unless `gso` says otherwise.
    pub gso_size: u16,
    /// State of the transport checksum.
    pub csum: Csum,
}

impl Offload {
    /// An ordinary frame with an unverified checksum of its own.
    pub const NONE: Self = Self { gso: Gso::None, ecn: false, gso_size: 0, csum: Csum::Unverified };

    /// Reads the header that came with a frame of `frame_len` bytes.
    ///
    /// A container with a packet socket of its own chooses this header freely, so nothing in it is
    /// believed: offsets must lie in the frame, the types must be known, `hdr_len` is ignored.
    #[inline]
    pub fn from_vnet(header: &VnetHeader, frame_len: usize) -> Result<Self, DropReason> {
        if header.gso_type == vnet::GSO_NONE && header.flags == 0 {
            return Ok(Self::NONE);
        }
        let csum = if header.flags & vnet::NEEDS_CSUM != 0 {
            let (start, offset) = (header.csum_start(), header.csum_offset());
            let end = usize::from(start) + usize::from(offset) + 2;
            if start < 34 || end > frame_len {
                return Err(DropReason::OffloadHeader);
            }
            Csum::Partial { start, offset }
        } else if header.flags & vnet::DATA_VALID != 0 {
            Csum::Complete
        } else {
            Csum::Unverified
        };
        let gso = match header.gso_type & !vnet::GSO_ECN {
            vnet::GSO_NONE => Gso::None,
            vnet::GSO_TCPV4 => Gso::TcpV4,
            vnet::GSO_TCPV6 => Gso::TcpV6,
            vnet::GSO_UDP_L4 => Gso::UdpL4,
            _ => return Err(DropReason::OffloadHeader),
        };
        let gso_size = if gso == Gso::None { 0 } else { header.gso_size() };
        let unfinished = matches!(csum, Csum::Partial { .. });
        if gso != Gso::None && (gso_size == 0 || !unfinished) {
            // Linux always leaves the checksum of a super-frame to whoever cuts it.
            return Err(DropReason::OffloadHeader);
        }
        Ok(Self { gso, ecn: header.gso_type & vnet::GSO_ECN != 0, gso_size, csum })
    }

    /// The header to write before a frame. `hdr_len` is the length of all its headers.
    #[inline]
    pub fn to_vnet(self, hdr_len: u16) -> VnetHeader {
        let mut header = VnetHeader::NONE;
        match self.csum {
            Csum::Partial { start, offset } => {
                header.flags = vnet::NEEDS_CSUM;
                header.csum_start = start.to_ne_bytes();
                header.csum_offset = offset.to_ne_bytes();
            }
            Csum::Complete => header.flags = vnet::DATA_VALID,
            Csum::Unverified => {}
        }
        if self.gso != Gso::None {
            header.gso_type = match self.gso {
                Gso::None => vnet::GSO_NONE,
                Gso::TcpV4 => vnet::GSO_TCPV4,
                Gso::TcpV6 => vnet::GSO_TCPV6,
                Gso::UdpL4 => vnet::GSO_UDP_L4,
            } | if self.ecn { vnet::GSO_ECN } else { 0 };
            header.hdr_len = hdr_len.to_ne_bytes();
            header.gso_size = self.gso_size.to_ne_bytes();
        }
        header
    }

    /// Moves the checksum's start by `by` bytes after headers were put before (or taken from) the frame.
    pub fn shift(&mut self, by: i32) {
        if let Csum::Partial { start, .. } = &mut self.csum {
            *start = (i32::from(*start) + by) as u16;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn partial() -> VnetHeader {
        VnetHeader {
            flags: vnet::NEEDS_CSUM,
            gso_type: vnet::GSO_TCPV4,
            hdr_len: 9999_u16.to_ne_bytes(),
            gso_size: 1448_u16.to_ne_bytes(),
            csum_start: 34_u16.to_ne_bytes(),
            csum_offset: 16_u16.to_ne_bytes(),
        }
    }

    #[test]
    fn a_super_frame_round_trips_and_its_header_length_is_not_believed() {
        let offload = Offload::from_vnet(&partial(), 4000).unwrap();
        assert_eq!(offload.gso, Gso::TcpV4);
        let again = offload.to_vnet(66);
        assert_eq!(u16::from_ne_bytes(again.hdr_len), 66);
        assert_eq!(Offload::from_vnet(&again, 4000).unwrap(), offload);
    }

    #[test]
    fn hostile_headers_are_dropped_by_name() {
        let cases = [
            VnetHeader { csum_start: 65535_u16.to_ne_bytes(), ..partial() },
            VnetHeader { csum_start: 3_u16.to_ne_bytes(), ..partial() },
            VnetHeader { csum_offset: 4000_u16.to_ne_bytes(), ..partial() },
            VnetHeader { gso_size: [0; 2], ..partial() },
            VnetHeader { gso_type: 0x7f, ..partial() },
            VnetHeader { gso_type: vnet::GSO_UDP, ..partial() },
            VnetHeader { flags: 0, ..partial() },
        ];
        for header in cases {
            assert_eq!(
                Offload::from_vnet(&header, 4000),
                Err(DropReason::OffloadHeader),
                "{header:?}"
            );
        }
    }
}
