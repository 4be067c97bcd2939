//! The virtio-net header that travels before a frame on a TAP or packet socket
//! (`include/uapi/linux/virtio_net.h`; ten bytes, native byte order on a TAP).

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Length of the header as we ask for it (`TUNSETVNETHDRSZ`): with the Ethernet header it puts the
/// IP header on an eight-byte boundary.
pub const HEADER_LEN: usize = 10;

/// `flags`: the checksum from `csum_start` on is unfinished.
pub const NEEDS_CSUM: u8 = 1;
/// `flags`: the checksum has been verified.
pub const DATA_VALID: u8 = 2;

/// `gso_type`: not a super-frame.
pub const GSO_NONE: u8 = 0;
/// `gso_type`: TCP over IPv4.
pub const GSO_TCPV4: u8 = 1;
/// `gso_type`: UDP fragmentation, long deprecated.
pub const GSO_UDP: u8 = 3;
/// `gso_type`: TCP over IPv6.
pub const GSO_TCPV6: u8 = 4;
/// `gso_type`: UDP segmentation.
pub const GSO_UDP_L4: u8 = 5;
/// `gso_type` bit: the first segment carries CWR (RFC 3168).
pub const GSO_ECN: u8 = 0x80;

/// The header, ten bytes, in the machine's byte order.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct VnetHeader {
    /// [`NEEDS_CSUM`], [`DATA_VALID`].
    pub flags: u8,
    /// One of the `GSO_` values.
    pub gso_type: u8,
    /// Length of all headers; a hint that must not be trusted on reading.
    pub hdr_len: [u8; 2],
    /// Payload bytes of a segment.
    pub gso_size: [u8; 2],
    /// Where the checksummed part starts, from the beginning of the Ethernet header.
    pub csum_start: [u8; 2],
    /// Where in that part the checksum lies.
    pub csum_offset: [u8; 2],
}

const _: () = assert!(size_of::<VnetHeader>() == HEADER_LEN);

impl VnetHeader {
    /// A header that says nothing.
    pub const NONE: Self = Self {
        flags: 0,
        gso_type: GSO_NONE,
        hdr_len: [0; 2],
        gso_size: [0; 2],
        csum_start: [0; 2],
        csum_offset: [0; 2],
    };

    /// Payload bytes of a segment.
    pub fn gso_size(&self) -> u16 {
        u16::from_ne_bytes(self.gso_size)
    }

    /// Where the checksummed part starts.
    pub fn csum_start(&self) -> u16 {
        u16::from_ne_bytes(self.csum_start)
    }

    /// Where in that part the checksum lies.
    pub fn csum_offset(&self) -> u16 {
        u16::from_ne_bytes(self.csum_offset)
    }
}
