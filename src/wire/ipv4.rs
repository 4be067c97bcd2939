//! IPv4 (RFC 791).

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::addr::Addr;
use super::checksum;
use super::{Be16, ipv6};

/// Length of the header without options.
pub const HEADER_LEN: usize = 20;

/// "Don't fragment" in the flags and fragment offset field.
pub const DF: u16 = 0x4000;
/// "More fragments" in the flags and fragment offset field.
pub const MF: u16 = 0x2000;
/// The fragment offset, in units of eight bytes.
pub const OFFSET_MASK: u16 = 0x1fff;

/// The fixed part of the header, 20 bytes.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Ipv4 {
    /// Version (4) and header length in words.
    pub version_ihl: u8,
    /// DSCP and ECN.
    pub tos: u8,
    /// Length of header and payload.
    pub total_len: Be16,
    /// Identification of a datagram's fragments.
    pub id: Be16,
    /// [`DF`], [`MF`] and the offset.
    pub flags_offset: Be16,
    /// Time to live.
    pub ttl: u8,
    /// Payload protocol, numbers in [`super::ipv6`].
    pub protocol: u8,
    /// Header checksum.
    pub checksum: Be16,
    /// Source.
    pub src: [u8; 4],
    /// Destination.
    pub dst: [u8; 4],
}

const _: () = assert!(size_of::<Ipv4>() == HEADER_LEN);

impl Ipv4 {
    /// A header without options, its checksum still to be [set](Self::fill_checksum).
    pub fn new(src: Addr, dst: Addr, protocol: u8, payload_len: u16) -> Self {
        Self {
            version_ihl: 0x45,
            tos: 0,
            total_len: (HEADER_LEN as u16 + payload_len).into(),
            id: 0.into(),
            flags_offset: DF.into(),
            ttl: ipv6::DEFAULT_HOP_LIMIT,
            protocol,
            checksum: 0.into(),
            src: v4_bytes(src),
            dst: v4_bytes(dst),
        }
    }

    /// Header length in bytes as the header says it.
    #[inline]
    pub fn header_len(&self) -> usize {
        usize::from(self.version_ihl & 0xf) * 4
    }

    /// The version nibble.
    pub fn version(&self) -> u8 {
        self.version_ihl >> 4
    }

    /// Source address.
    #[inline]
    pub fn src_addr(&self) -> Addr {
        Addr::from_v4_bytes(self.src)
    }

    /// Destination address.
    #[inline]
    pub fn dst_addr(&self) -> Addr {
        Addr::from_v4_bytes(self.dst)
    }

    /// Whether this is any fragment of a larger datagram.
    #[inline]
    pub fn is_fragment(&self) -> bool {
        self.flags_offset.get() & (MF | OFFSET_MASK) != 0
    }

    /// Whether more fragments follow.
    pub fn more_fragments(&self) -> bool {
        self.flags_offset.get() & MF != 0
    }

    /// Offset of this fragment's payload in bytes.
    pub fn fragment_offset(&self) -> usize {
        usize::from(self.flags_offset.get() & OFFSET_MASK) * 8
    }

    /// Computes the checksum of a header without options.
    pub fn fill_checksum(&mut self) {
        self.checksum = 0.into();
        self.checksum = (!checksum::sum(self.as_bytes())).into();
    }
}

/// The four bytes of an address that the caller knows to be IPv4.
pub fn v4_bytes(addr: Addr) -> [u8; 4] {
    (addr.words()[1] as u32).to_be_bytes()
}
