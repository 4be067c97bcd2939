//! ICMP (RFC 792) and ICMPv6 (RFC 4443): one header, two vocabularies.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::Be16;

/// Length of the header, the four bytes that depend on the type included.
pub const HEADER_LEN: usize = 8;
/// Offset of the checksum in the header.
pub const CHECKSUM_OFFSET: u16 = 2;

/// The header, 8 bytes. `rest` means identifier and sequence in an echo, the MTU in "too big".
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Icmp {
    /// Type.
    pub kind: u8,
    /// Code.
    pub code: u8,
    /// Checksum; over IPv6 it covers the pseudo-header.
    pub checksum: Be16,
    /// First half of what depends on the type: the identifier of an echo.
    pub id: Be16,
    /// Second half: the sequence of an echo, the next-hop MTU of ICMP's "fragmentation needed".
    pub seq: Be16,
}

const _: () = assert!(size_of::<Icmp>() == HEADER_LEN);

/// A message that has an identifier: the requester's in both directions, as a port would be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Query {
    /// Echo request, timestamp request.
    Request,
    /// The answer.
    Reply,
}

impl Query {
    /// Which one the type is in this family, if it is one.
    #[inline]
    pub fn of(is_v6: bool, kind: u8) -> Option<Self> {
        match (is_v6, kind) {
            (false, v4::ECHO_REQUEST | v4::TIMESTAMP_REQUEST) | (true, v6::ECHO_REQUEST) => {
                Some(Self::Request)
            }
            (false, v4::ECHO_REPLY | v4::TIMESTAMP_REPLY) | (true, v6::ECHO_REPLY) => {
                Some(Self::Reply)
            }
            _ => None,
        }
    }
}

/// ICMP for IPv4.
pub mod v4 {
    /// Echo reply.
    pub const ECHO_REPLY: u8 = 0;
    /// Destination unreachable.
    pub const UNREACHABLE: u8 = 3;
    /// Redirect.
    pub const REDIRECT: u8 = 5;
    /// Echo request.
    pub const ECHO_REQUEST: u8 = 8;
    /// Time exceeded.
    pub const TIME_EXCEEDED: u8 = 11;
    /// Parameter problem.
    pub const PARAMETER_PROBLEM: u8 = 12;
    /// Timestamp request.
    pub const TIMESTAMP_REQUEST: u8 = 13;
    /// Timestamp reply.
    pub const TIMESTAMP_REPLY: u8 = 14;

    /// Network unreachable.
    pub const CODE_NET: u8 = 0;
    /// Host unreachable.
    pub const CODE_HOST: u8 = 1;
    /// Protocol unreachable.
    pub const CODE_PROTOCOL: u8 = 2;
    /// Port unreachable.
    pub const CODE_PORT: u8 = 3;
    /// Fragmentation needed and DF set; the second half-word is the MTU (RFC 1191).
    pub const CODE_TOO_BIG: u8 = 4;
    /// Communication administratively prohibited (RFC 1812 5.2.7.1).
    pub const CODE_PROHIBITED: u8 = 13;
}

/// ICMP for IPv6.
pub mod v6 {
    /// Destination unreachable.
    pub const UNREACHABLE: u8 = 1;
    /// Packet too big; the four bytes after the checksum are the MTU.
    pub const TOO_BIG: u8 = 2;
    /// Time exceeded.
    pub const TIME_EXCEEDED: u8 = 3;
    /// Parameter problem.
    pub const PARAMETER_PROBLEM: u8 = 4;
    /// Echo request.
    pub const ECHO_REQUEST: u8 = 128;
    /// Echo reply.
    pub const ECHO_REPLY: u8 = 129;
    /// Router solicitation.
    pub const ROUTER_SOLICITATION: u8 = 133;
    /// Router advertisement.
    pub const ROUTER_ADVERTISEMENT: u8 = 134;
    /// Neighbour solicitation.
    pub const NEIGHBOUR_SOLICITATION: u8 = 135;
    /// Neighbour advertisement.
    pub const NEIGHBOUR_ADVERTISEMENT: u8 = 136;
    /// Redirect.
    pub const REDIRECT: u8 = 137;

    /// No route to the destination.
    pub const CODE_NO_ROUTE: u8 = 0;
    /// Administratively prohibited.
    pub const CODE_PROHIBITED: u8 = 1;
    /// Address unreachable.
    pub const CODE_ADDRESS: u8 = 3;
    /// Port unreachable.
    pub const CODE_PORT: u8 = 4;
}
