//! What the sender left undone: segmentation and checksum.

use super::{DropReason, Fragment, L3, Parsed};
use crate::wire::vnet::{self, VnetHeader};
use crate::wire::{icmp, ipv6, sctp, tcp, udp};

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
        if header.gso_type == vnet::GSO_NONE {
            return Ok(Self { csum, ..Self::NONE });
        }
        let ecn = header.gso_type & vnet::GSO_ECN != 0;
        let (gso, field) = match header.gso_type & !vnet::GSO_ECN {
            vnet::GSO_TCPV4 => (Gso::TcpV4, tcp::CHECKSUM_OFFSET),
            vnet::GSO_TCPV6 => (Gso::TcpV6, tcp::CHECKSUM_OFFSET),
            vnet::GSO_UDP_L4 if !ecn => (Gso::UdpL4, udp::CHECKSUM_OFFSET),
            _ => return Err(DropReason::OffloadHeader),
        };
        // Linux always leaves the checksum of a super-frame to whoever cuts it, and refuses these
        // sizes on writing (0xffff is its GSO_BY_FRAGS).
        let unfinished = matches!(csum, Csum::Partial { offset, .. } if offset == field);
        let gso_size = header.gso_size();
        if !unfinished || gso_size == 0 || gso_size == 0xffff {
            return Err(DropReason::OffloadHeader);
        }
        Ok(Self { gso, ecn, gso_size, csum })
    }

    /// Whether this metadata fits the frame it came with, to be asked once after parsing.
    ///
    /// Finishing a checksum *writes* at a place that the sender chose, after every decision about
    /// the frame: it must not reach an address, a port or flags. So an unfinished checksum is that of
    /// the transport header, at its own place, or one that lies in the payload (a tunnel inside the
    /// container leaves its inner checksum unfinished).
    ///
    /// # Errors
    /// [`DropReason::OffloadHeader`].
    #[inline]
    pub fn check(self, parsed: &Parsed) -> Result<(), DropReason> {
        let Csum::Partial { start, offset } = self.csum else {
            return if self.gso == Gso::None { Ok(()) } else { Err(DropReason::OffloadHeader) };
        };
        let (header_len, field) = match parsed.proto {
            ipv6::TCP => (tcp::HEADER_LEN, Some(tcp::CHECKSUM_OFFSET)),
            ipv6::UDP => (udp::HEADER_LEN, Some(udp::CHECKSUM_OFFSET)),
            ipv6::ICMP | ipv6::ICMPV6 => (icmp::HEADER_LEN, Some(icmp::CHECKSUM_OFFSET)),
            ipv6::SCTP => (sctp::HEADER_LEN, None),
            _ => (0, None),
        };
        let own = start == parsed.l4 && Some(offset) == field;
        let in_payload = start >= parsed.l4
            && usize::from(start) + usize::from(offset) >= usize::from(parsed.l4) + header_len;
        let whole_ip = parsed.is_ip() && parsed.fragment == Fragment::Whole;
        let right_place = match parsed.l3 {
            L3::V4 | L3::V6 => whole_ip && (own || in_payload),
            L3::Arp => false,
            L3::Other(_) => true,
        };
        let right_kind = match self.gso {
            Gso::None => true,
            Gso::TcpV4 => own && parsed.l3 == L3::V4 && parsed.proto == ipv6::TCP,
            Gso::TcpV6 => own && parsed.l3 == L3::V6 && parsed.proto == ipv6::TCP,
            Gso::UdpL4 => own && parsed.proto == ipv6::UDP,
        };
        if right_place && right_kind { Ok(()) } else { Err(DropReason::OffloadHeader) }
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
    ///
    /// When the header it belongs to is itself taken away, nothing is left to finish: what was inside
    /// has a checksum of its own.
    pub fn shift(&mut self, by: i32) {
        if let Csum::Partial { start, offset } = self.csum {
            self.csum = u16::try_from(i32::from(start) + by)
                .map_or(Csum::Unverified, |start| Csum::Partial { start, offset });
        }
    }

    /// Whether `by` more bytes before the frame still leave the checksum's start in its sixteen bits.
    pub(super) fn can_shift(self, by: usize) -> bool {
        let Csum::Partial { start, .. } = self.csum else { return true };
        u16::try_from(usize::from(start) + by).is_ok()
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
            VnetHeader { gso_size: [0xff; 2], ..partial() },
            VnetHeader { gso_type: vnet::GSO_ECN, ..partial() },
            VnetHeader { gso_type: vnet::GSO_UDP_L4 | vnet::GSO_ECN, ..partial() },
            VnetHeader { gso_type: vnet::GSO_UDP_L4, ..partial() },
            VnetHeader { csum_offset: 6_u16.to_ne_bytes(), ..partial() },
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
