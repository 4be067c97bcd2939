//! ARP for IPv4 over Ethernet (RFC 826), with the conflict rules of RFC 5227.

use std::net::Ipv4Addr;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::Be16;
use super::mac::Mac;

/// Operation: who has?
pub const REQUEST: u16 = 1;
/// Operation: is at.
pub const REPLY: u16 = 2;

/// An ARP packet for IPv4 over Ethernet, 28 bytes.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Arp {
    /// Hardware type: 1.
    pub htype: Be16,
    /// Protocol type: 0x0800.
    pub ptype: Be16,
    /// Hardware address length: 6.
    pub hlen: u8,
    /// Protocol address length: 4.
    pub plen: u8,
    /// [`REQUEST`] or [`REPLY`].
    pub oper: Be16,
    /// Sender hardware address.
    pub sha: Mac,
    /// Sender protocol address; all zero in a probe (RFC 5227 1.1).
    pub spa: [u8; 4],
    /// Target hardware address.
    pub tha: Mac,
    /// Target protocol address.
    pub tpa: [u8; 4],
}

const _: () = assert!(size_of::<Arp>() == 28);

impl Arp {
    /// A packet of this operation with all fixed fields right.
    pub fn new(oper: u16, sender: (Mac, Ipv4Addr), target: (Mac, Ipv4Addr)) -> Self {
        Self {
            htype: 1.into(),
            ptype: super::ethernet::IPV4.into(),
            hlen: 6,
            plen: 4,
            oper: oper.into(),
            sha: sender.0,
            spa: sender.1.octets(),
            tha: target.0,
            tpa: target.1.octets(),
        }
    }

    /// Whether the fixed fields say IPv4 over Ethernet and the operation is known.
    pub fn is_valid(&self) -> bool {
        let known = self.oper == REQUEST || self.oper == REPLY;
        self.htype == 1
            && self.ptype == super::ethernet::IPV4
            && self.hlen == 6
            && self.plen == 4
            && known
    }
}
