//! ICMP errors (RFC 792, RFC 4443): the packet that failed becomes the message about it.
//!
//! In place: the new headers are put into the headroom, and the Ethernet header that was there is
//! overwritten by the end of them. What the error quotes is the packet as it came in; an unfinished
//! checksum in it is finished first, since the receiver could make nothing of it.

use zerocopy::{FromBytes, IntoBytes};

use crate::base::limits::ICMP_ERRORS_PER_SECOND;
use crate::base::rate::TokenBucket;
use crate::base::time::Time;
use crate::packet::parse::L3_OFFSET;
use crate::packet::{Fragment, FrameMut, Gso, L3, Offload, Parsed, finish};
use crate::wire::addr::Addr;
use crate::wire::checksum;
use crate::wire::ethernet::{self, Ethernet};
use crate::wire::icmp::{self, Icmp, v4, v6};
use crate::wire::ipv4::{self, Ipv4};
use crate::wire::ipv6::{self, Ipv6};
use crate::wire::mac::Mac;

/// What went wrong.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum IcmpError {
    /// No route.
    NetUnreachable,
    /// The neighbour does not answer.
    HostUnreachable,
    /// Nobody listens.
    PortUnreachable,
    /// The protocol is not spoken here.
    ProtocolUnreachable,
    /// A rule forbids it.
    Prohibited,
    /// TTL or hop limit ran out.
    TimeExceeded,
    /// Larger than this MTU, and must not be fragmented.
    TooBig(u16),
    /// Fragments are missing.
    FragmentReassemblyTimeout,
}

/// The largest error: what every host takes (RFC 1812 4.3.2.3), the least MTU (RFC 4443 2.4 c).
const V4_MAX: usize = 576;
const V6_MAX: usize = ipv6::MIN_MTU as usize;
/// Internetwork control, the precedence of errors (RFC 1812 4.3.2.5).
const TOS: u8 = 0xc0;

/// Whether an error may be sent about a packet (RFC 1812 4.3.2.7, RFC 4443 2.4 e): never about
/// errors, groups, later fragments, or to who cannot be told. A broadcast into a subnet is known
/// only to the caller, who knows the subnet.
pub fn may_answer(parsed: &Parsed, frame: &[u8]) -> bool {
    matches!(parsed.l3, L3::V4 | L3::V6)
        && parsed.fragment != Fragment::Later
        && !parsed.dst_mac.is_group()
        && !parsed.dst.is_multicast_or_broadcast()
        && is_somebody(parsed.src)
        && !is_error(parsed, frame)
}

fn is_somebody(addr: Addr) -> bool {
    !addr.is_unspecified() && !addr.is_multicast_or_broadcast() && !addr.is_loopback()
}

/// An ICMP message that is not surely a question or an answer counts as an error.
fn is_error(parsed: &Parsed, frame: &[u8]) -> bool {
    let kind = parsed.l4_bytes(frame).first().copied();
    match (parsed.l3, parsed.proto) {
        (L3::V4, ipv6::ICMP) => !matches!(
            kind,
            Some(v4::ECHO_REQUEST | v4::ECHO_REPLY | v4::TIMESTAMP_REQUEST | v4::TIMESTAMP_REPLY)
        ),
        (L3::V6, ipv6::ICMPV6) => kind.is_none_or(|kind| kind < 128 || kind == v6::REDIRECT),
        _ => false,
    }
}

/// Turns a packet into an error about it, from the address `from` with the MAC `from_mac`, to its
/// sender. `false` (and the frame unchanged but for a finished checksum) if `from` is of the other
/// family or there is no headroom. Whether it [may](may_answer) be sent is the caller's question.
pub fn turn_into_error(
    frame: &mut FrameMut<'_>,
    parsed: &Parsed,
    error: IcmpError,
    from: Addr,
    from_mac: Mac,
) -> bool {
    let (header_len, limit) = match parsed.l3 {
        L3::V4 if from.is_v4() => (ipv4::HEADER_LEN + icmp::HEADER_LEN, V4_MAX),
        L3::V6 if !from.is_v4() => (ipv6::HEADER_LEN + icmp::HEADER_LEN, V6_MAX),
        _ => return false,
    };
    if frame.offload().gso == Gso::None {
        finish::finish_checksum(frame);
    }
    let quoted = (parsed.ip_len as usize).min(limit - header_len);
    let pointer = if parsed.l3 == L3::V6 { next_header_pointer(frame.bytes()) } else { 0 };
    if frame.len() < L3_OFFSET + quoted || frame.prepend(header_len).is_none() {
        return false;
    }
    frame.truncate(L3_OFFSET + header_len + quoted);
    *frame.offload_mut() = Offload::NONE;
    let eth = Ethernet {
        dst: parsed.src_mac,
        src: from_mac,
        ethertype: if from.is_v4() { ethernet::IPV4 } else { ethernet::IPV6 }.into(),
    };
    let Some((link, packet)) = frame.bytes_mut().split_at_mut_checked(L3_OFFSET) else {
        return false;
    };
    link.copy_from_slice(eth.as_bytes());
    let len = (icmp::HEADER_LEN + quoted) as u16;
    if from.is_v4() {
        let mut ip = Ipv4::new(from, parsed.src, ipv6::ICMP, len);
        ip.tos = TOS;
        ip.fill_checksum();
        write(packet, ip.as_bytes(), icmp_v4(error), 0)
    } else {
        let ip = Ipv6::new(from, parsed.src, ipv6::ICMPV6, len);
        let pseudo = checksum::pseudo_header(from, parsed.src, ipv6::ICMPV6, len.into());
        write(packet, ip.as_bytes(), icmp_v6(error, pointer), pseudo)
    }
}

/// Writes IP and ICMP headers before the quoted packet and sums them.
fn write(packet: &mut [u8], ip: &[u8], header: Icmp, pseudo: u16) -> bool {
    let Some((front, message)) = packet.split_at_mut_checked(ip.len()) else { return false };
    front.copy_from_slice(ip);
    let Ok((icmp, quoted)) = Icmp::mut_from_prefix(message) else { return false };
    *icmp = header;
    let sum = checksum::add(checksum::sum(icmp.as_bytes()), checksum::sum(quoted));
    icmp.checksum = (!checksum::add(sum, pseudo)).into();
    true
}

fn icmp_v4(error: IcmpError) -> Icmp {
    let (kind, code, mtu) = match error {
        IcmpError::NetUnreachable => (v4::UNREACHABLE, v4::CODE_NET, 0),
        IcmpError::HostUnreachable => (v4::UNREACHABLE, v4::CODE_HOST, 0),
        IcmpError::PortUnreachable => (v4::UNREACHABLE, v4::CODE_PORT, 0),
        IcmpError::ProtocolUnreachable => (v4::UNREACHABLE, v4::CODE_PROTOCOL, 0),
        IcmpError::Prohibited => (v4::UNREACHABLE, v4::CODE_PROHIBITED, 0),
        IcmpError::TooBig(mtu) => (v4::UNREACHABLE, v4::CODE_TOO_BIG, mtu),
        IcmpError::TimeExceeded => (v4::TIME_EXCEEDED, 0, 0),
        IcmpError::FragmentReassemblyTimeout => (v4::TIME_EXCEEDED, 1, 0),
    };
    Icmp { kind, code, checksum: 0.into(), id: 0.into(), seq: mtu.into() }
}

/// The four bytes after the checksum are the MTU, or where in the packet the offending field is.
fn icmp_v6(error: IcmpError, pointer: u16) -> Icmp {
    let (kind, code, rest) = match error {
        IcmpError::NetUnreachable => (v6::UNREACHABLE, v6::CODE_NO_ROUTE, 0),
        IcmpError::HostUnreachable => (v6::UNREACHABLE, v6::CODE_ADDRESS, 0),
        IcmpError::PortUnreachable => (v6::UNREACHABLE, v6::CODE_PORT, 0),
        // RFC 8200 4: an unknown next header is a parameter problem.
        IcmpError::ProtocolUnreachable => (v6::PARAMETER_PROBLEM, 1, pointer),
        IcmpError::Prohibited => (v6::UNREACHABLE, v6::CODE_PROHIBITED, 0),
        IcmpError::TooBig(mtu) => (v6::TOO_BIG, 0, mtu),
        IcmpError::TimeExceeded => (v6::TIME_EXCEEDED, 0, 0),
        IcmpError::FragmentReassemblyTimeout => (v6::TIME_EXCEEDED, 1, 0),
    };
    Icmp { kind, code, checksum: 0.into(), id: 0.into(), seq: rest.into() }
}

/// Where in an IPv6 packet the last next-header field lies: the one that names the transport.
fn next_header_pointer(frame: &[u8]) -> u16 {
    /// Offset of the field in the fixed header.
    const FIXED: usize = 6;
    let packet = frame.get(L3_OFFSET..).unwrap_or_default();
    let (mut field, mut header) = (FIXED, ipv6::HEADER_LEN);
    while let (Some(&kind), Some(&[_, len])) =
        (packet.get(field), packet.get(header..).and_then(|h| h.first_chunk()))
    {
        let len = match kind {
            ipv6::HOP_BY_HOP | ipv6::ROUTING | ipv6::DEST_OPTIONS => 8 + usize::from(len) * 8,
            ipv6::FRAGMENT => 8,
            _ => break,
        };
        (field, header) = (header, header + len);
    }
    field as u16
}

/// How many errors one port gets (RFC 1812 4.3.2.8, RFC 4443 2.4 f).
#[derive(Clone, Copy, Debug)]
pub struct ErrorLimit(TokenBucket);

impl Default for ErrorLimit {
    fn default() -> Self {
        Self::new()
    }
}

impl ErrorLimit {
    /// A full budget.
    pub fn new() -> Self {
        let rate = u64::from(ICMP_ERRORS_PER_SECOND);
        Self(TokenBucket::new(rate, rate))
    }

    /// Whether one error more may be sent.
    #[must_use]
    pub fn allow(&mut self, now: Time) -> bool {
        self.0.take(now, 1)
    }
}

#[cfg(test)]
mod tests;
