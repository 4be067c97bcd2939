//! Layer 1: bytes on the wire, one protocol a file.
//!
//! **Contract.** A header is a `#[repr(C)]`, unaligned, byte-ordered struct that is *checked once*:
//! `Header::ref_from_prefix(bytes)` (zerocopy) answers whether enough bytes are there, and after that
//! no accessor can panic, since every field lies inside the struct. What the struct cannot express
//! (a length field that contradicts the buffer) is checked where the header is parsed
//! ([`crate::packet::parse`]). Setters write in place; nothing here allocates.
//!
//! Fields carry the names of the RFCs. Multi-byte fields are big-endian on the wire and typed so.

pub mod addr;
pub mod arp;
pub mod checksum;
pub mod dhcp;
pub mod ethernet;
pub mod icmp;
pub mod ipv4;
pub mod ipv6;
pub mod mac;
pub mod ndp;
pub mod router;
pub mod sctp;
pub mod tcp;
#[cfg(test)]
mod tests;
pub mod udp;
pub mod vnet;
pub mod vxlan;

/// A sixteen-bit field in network byte order.
pub type Be16 = zerocopy::network_endian::U16;
/// A thirty-two-bit field in network byte order.
pub type Be32 = zerocopy::network_endian::U32;
