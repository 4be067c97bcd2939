//! Ethernet II framing (IEEE 802.3) and the types we know.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::Be16;
use super::mac::Mac;

/// EtherType of IPv4.
pub const IPV4: u16 = 0x0800;
/// EtherType of ARP.
pub const ARP: u16 = 0x0806;
/// EtherType of an IEEE 802.1Q tag.
pub const VLAN: u16 = 0x8100;
/// EtherType of an IEEE 802.1ad tag.
pub const QINQ: u16 = 0x88a8;
/// EtherType of IPv6.
pub const IPV6: u16 = 0x86dd;

/// Length of the header.
pub const HEADER_LEN: usize = 14;

/// The Ethernet header, 14 bytes.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Ethernet {
    /// Destination.
    pub dst: Mac,
    /// Source.
    pub src: Mac,
    /// EtherType of the payload; values up to 1500 are an IEEE 802.3 length.
    pub ethertype: Be16,
}

const _: () = assert!(size_of::<Ethernet>() == HEADER_LEN);
