//! UDP (RFC 768).

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::Be16;

/// Length of the header.
pub const HEADER_LEN: usize = 8;
/// Offset of the checksum in the header.
pub const CHECKSUM_OFFSET: u16 = 6;

/// The header, 8 bytes.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Udp {
    /// Source port.
    pub src_port: Be16,
    /// Destination port.
    pub dst_port: Be16,
    /// Length of header and data.
    pub len: Be16,
    /// Checksum; zero means none over IPv4 and is forbidden over IPv6 (RFC 8200 8.1).
    pub checksum: Be16,
}

const _: () = assert!(size_of::<Udp>() == HEADER_LEN);
