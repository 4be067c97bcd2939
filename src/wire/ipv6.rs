//! IPv6 (RFC 8200) and its extension headers; protocol numbers shared with IPv4.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::addr::Addr;
use super::{Be16, Be32};

/// Hop-by-hop options.
pub const HOP_BY_HOP: u8 = 0;
/// ICMP for IPv4.
pub const ICMP: u8 = 1;
/// TCP.
pub const TCP: u8 = 6;
/// UDP.
pub const UDP: u8 = 17;
/// DCCP (RFC 4340).
pub const DCCP: u8 = 33;
/// Routing header.
pub const ROUTING: u8 = 43;
/// Fragment header.
pub const FRAGMENT: u8 = 44;
/// ICMP for IPv6.
pub const ICMPV6: u8 = 58;
/// Nothing follows.
pub const NO_NEXT: u8 = 59;
/// Destination options.
pub const DEST_OPTIONS: u8 = 60;
/// SCTP.
pub const SCTP: u8 = 132;
/// UDP-Lite (RFC 3828).
pub const UDP_LITE: u8 = 136;

/// Length of the fixed header.
pub const HEADER_LEN: usize = 40;
/// Hop limit of what we originate (RFC 1700).
pub const DEFAULT_HOP_LIMIT: u8 = 64;
/// The smallest MTU a link may have (RFC 8200 5).
pub const MIN_MTU: u16 = 1280;

/// The fixed header, 40 bytes.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Ipv6 {
    /// Version (6), traffic class, flow label.
    pub version_class_label: Be32,
    /// Length of all that follows this header.
    pub payload_len: Be16,
    /// Type of the next header.
    pub next_header: u8,
    /// Hop limit.
    pub hop_limit: u8,
    /// Source.
    pub src: [u8; 16],
    /// Destination.
    pub dst: [u8; 16],
}

/// The fragment header, 8 bytes (RFC 8200 4.5).
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Fragment {
    /// Type of the next header.
    pub next_header: u8,
    /// Reserved.
    pub reserved: u8,
    /// Offset in units of eight bytes (upper 13 bits), reserved (2), more fragments (1).
    pub offset_more: Be16,
    /// Identification.
    pub id: Be32,
}

/// The first two bytes of the options and routing headers: type of the next, length beyond 8 bytes.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Extension {
    /// Type of the next header.
    pub next_header: u8,
    /// Length in units of eight bytes, the first eight not counted.
    pub len: u8,
}

const _: () = assert!(size_of::<Ipv6>() == HEADER_LEN);
const _: () = assert!(size_of::<Fragment>() == 8);

impl Ipv6 {
    /// A header with class and label zero.
    pub fn new(src: Addr, dst: Addr, next_header: u8, payload_len: u16) -> Self {
        Self {
            version_class_label: (6 << 28).into(),
            payload_len: payload_len.into(),
            next_header,
            hop_limit: DEFAULT_HOP_LIMIT,
            src: src.bytes(),
            dst: dst.bytes(),
        }
    }

    /// The version nibble.
    pub fn version(&self) -> u8 {
        (self.version_class_label.get() >> 28) as u8
    }

    /// Source address.
    #[inline]
    pub fn src_addr(&self) -> Addr {
        Addr::from_v6_bytes(self.src)
    }

    /// Destination address.
    #[inline]
    pub fn dst_addr(&self) -> Addr {
        Addr::from_v6_bytes(self.dst)
    }
}

impl Fragment {
    /// Offset of this fragment's payload in bytes.
    pub fn offset(&self) -> usize {
        usize::from(self.offset_more.get() & 0xfff8)
    }

    /// Whether more fragments follow.
    pub fn more(&self) -> bool {
        self.offset_more.get() & 1 != 0
    }
}
