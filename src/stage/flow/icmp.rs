//! ICMP errors: which flow they speak of, and their translation (RFC 5508 4, RFC 7857 7).
//!
//! An error quotes the packet it is about, as that packet looked where the error was made. Reversed,
//! the quote has the key of a packet that the error's own side would send; so the flow is found like
//! any other, and the error travels in the direction that the look-up gives. To be understood by who
//! sent the packet, the quote must become again what it sent, and the error must be addressed to it:
//!
//! ```text
//!  side B (sent the packet)             we                 side A (here the error comes from)
//!  keys[!dir] -------------------------------------------> leaves as keys[dir] reversed
//!  <- to keys[!dir].src, quote as keys[!dir] ------------- to keys[dir].dst, quote as keys[dir] reversed
//! ```
//!
//! What is checked and what is not follows RFC 5508 REQ-3: the error's checksum and the quoted IPv4
//! header's must be right, options are skipped, the quoted transport checksum is not verified, and
//! extensions (RFC 4884) are left as they are. No error ever ends or refreshes a flow (RFC 4787 REQ-12,
//! RFC 5382 REQ-10, RFC 5508 REQ-6).

use zerocopy::FromBytes;

use super::flow::{Direction, Flow};
use crate::base::ids::DomainId;
use crate::packet::parse::L3_OFFSET;
use crate::packet::{Csum, DropReason, FlowKey, Fragment, FrameMut, L3, Parsed, Scope};
use crate::wire::addr::Addr;
use crate::wire::checksum;
use crate::wire::icmp::{self, Icmp};
use crate::wire::ipv4::{self, Ipv4};
use crate::wire::ipv6::{self, Extension, Ipv6};
use crate::wire::tcp;
use crate::wire::udp;

/// The packet that an ICMP error quotes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EmbeddedKey {
    /// The quoted packet's own key, in the domain and scope that were asked for.
    pub key: FlowKey,
    /// TCP sequence number, if it is TCP: see [`super::TcpState::has_sent`].
    pub tcp_seq: Option<u32>,
    /// What the next hop takes, if the packet was too big for it (RFC 1191 4, RFC 4443 3.2).
    pub mtu: Option<u16>,
    /// Where the quoted IP header lies in the frame.
    l3: usize,
    /// Where the quoted transport header lies.
    l4: usize,
    /// Where the quote ends; extensions may follow.
    end: usize,
}

impl EmbeddedKey {
    /// The key under which to look up the flow; the direction found is the error's own.
    pub fn lookup_key(&self) -> FlowKey {
        self.key.reversed(self.key.domain, self.key.scope)
    }
}

/// IPv6 extension headers skipped in a quote.
const EXTENSIONS_MAX: usize = 8;

/// What an ICMP error that arrived in `domain` and `scope` quotes; `None` for anything that is not an
/// ICMP error, and for redirects, which concern one link only.
///
/// # Errors
/// `IcmpBad` for wrong checksums and malformed quotes; `IcmpUnrelated` for quotes that can belong to no
/// flow: of a later fragment, too short for ports, or not from the error's own addressee.
pub fn related(
    frame: &[u8],
    parsed: &Parsed,
    csum: Csum,
    domain: DomainId,
    scope: Scope,
) -> Result<Option<EmbeddedKey>, DropReason> {
    if !is_error(frame, parsed) {
        return Ok(None);
    }
    if parsed.fragment != Fragment::Whole || !checksum_is_right(frame, parsed, csum) {
        return Err(DropReason::IcmpBad);
    }
    let l3 = usize::from(parsed.l4) + icmp::HEADER_LEN;
    let end = quote_end(frame, parsed, l3);
    let quote = match parsed.l3 {
        L3::V4 => quoted_v4(frame, l3, end)?,
        _ => quoted_v6(frame, l3, end)?,
    };
    if quote.src != parsed.dst {
        return Err(DropReason::IcmpUnrelated);
    }
    let bytes = frame.get(quote.l4..quote.end).unwrap_or_default();
    let (src_port, dst_port) = ports(quote.proto, bytes).ok_or(DropReason::IcmpUnrelated)?;
    let key = FlowKey {
        src: quote.src,
        dst: quote.dst,
        src_port,
        dst_port,
        domain,
        proto: quote.proto,
        scope,
    };
    let tcp_seq = bytes.get(4..8).filter(|_| quote.proto == ipv6::TCP);
    let tcp_seq = tcp_seq.and_then(|seq| seq.try_into().ok()).map(u32::from_be_bytes);
    let mtu = too_big(frame, parsed);
    Ok(Some(EmbeddedKey { key, tcp_seq, mtu, l3, l4: quote.l4, end: quote.end }))
}

fn too_big(frame: &[u8], parsed: &Parsed) -> Option<u16> {
    let (header, _) = Icmp::ref_from_prefix(parsed.l4_bytes(frame)).ok()?;
    let too_big = match parsed.l3 {
        L3::V4 => (icmp::v4::UNREACHABLE, icmp::v4::CODE_TOO_BIG),
        _ => (icmp::v6::TOO_BIG, 0),
    };
    // ICMPv6 has 32 bits for it: who claims more than 16 takes whatever we send.
    let (high, low) = (header.id.get(), header.seq.get());
    let mtu = if parsed.l3 == L3::V6 && high > 0 { u16::MAX } else { low };
    ((header.kind, header.code) == too_big).then_some(mtu)
}

/// Whether the packet is an ICMP error that may concern a flow.
pub fn is_error(frame: &[u8], parsed: &Parsed) -> bool {
    let kind = parsed.l4_bytes(frame).first();
    match (parsed.l3, parsed.proto) {
        (L3::V4, ipv6::ICMP) => matches!(
            kind,
            Some(&(icmp::v4::UNREACHABLE | icmp::v4::TIME_EXCEEDED | icmp::v4::PARAMETER_PROBLEM))
        ),
        // RFC 4443 2.1: all errors are below 128; later ones than these are passed alike.
        (L3::V6, ipv6::ICMPV6) => kind.is_some_and(|kind| *kind < 128),
        _ => false,
    }
}

/// RFC 5508 REQ-3. What a host has not finished or somebody trusted has verified is not summed again.
fn checksum_is_right(frame: &[u8], parsed: &Parsed, csum: Csum) -> bool {
    if csum != Csum::Unverified {
        return true;
    }
    let bytes = parsed.l4_bytes(frame);
    let sum = checksum::sum(bytes);
    let sum = if parsed.l3 == L3::V6 {
        let len = bytes.len() as u32;
        checksum::add(sum, checksum::pseudo_header(parsed.src, parsed.dst, ipv6::ICMPV6, len))
    } else {
        sum
    };
    sum == 0xffff
}

/// Where the quote ends: with the error, or where its length attribute says (RFC 4884 4, 5).
fn quote_end(frame: &[u8], parsed: &Parsed, l3: usize) -> usize {
    let end = L3_OFFSET + parsed.ip_len as usize;
    let header = parsed.l4_bytes(frame);
    let byte = |at: usize| header.get(at).map_or(0, |byte| usize::from(*byte));
    let length = match (parsed.l3, header.first()) {
        (L3::V4, _) => byte(5) * 4,
        (_, Some(&(icmp::v6::UNREACHABLE | icmp::v6::TIME_EXCEEDED))) => byte(4) * 8,
        _ => 0,
    };
    if length == 0 { end } else { end.min(l3 + length) }
}

/// The headers of a quoted packet.
struct Quote {
    src: Addr,
    dst: Addr,
    proto: u8,
    l4: usize,
    end: usize,
}

fn quoted_v4(frame: &[u8], l3: usize, end: usize) -> Result<Quote, DropReason> {
    let bytes = frame.get(l3..end).ok_or(DropReason::IcmpBad)?;
    let (ip, _) = Ipv4::ref_from_prefix(bytes).map_err(|_| DropReason::IcmpBad)?;
    let header = bytes.get(..ip.header_len()).ok_or(DropReason::IcmpBad)?;
    let total = usize::from(ip.total_len.get());
    if ip.version() != 4 || header.len() < ipv4::HEADER_LEN || total < header.len() {
        return Err(DropReason::IcmpBad);
    }
    if checksum::sum(header) != 0xffff {
        return Err(DropReason::IcmpBad);
    }
    if ip.fragment_offset() != 0 {
        return Err(DropReason::IcmpUnrelated);
    }
    Ok(Quote {
        src: ip.src_addr(),
        dst: ip.dst_addr(),
        proto: ip.protocol,
        l4: l3 + header.len(),
        // A short packet may be padded to 128 bytes before extensions (RFC 4884 5.1).
        end: end.min(l3 + total),
    })
}

fn quoted_v6(frame: &[u8], l3: usize, end: usize) -> Result<Quote, DropReason> {
    let bytes = frame.get(l3..end).ok_or(DropReason::IcmpBad)?;
    let (ip, mut rest) = Ipv6::ref_from_prefix(bytes).map_err(|_| DropReason::IcmpBad)?;
    if ip.version() != 6 {
        return Err(DropReason::IcmpBad);
    }
    let mut proto = ip.next_header;
    for _ in 0..EXTENSIONS_MAX {
        let len = match proto {
            ipv6::FRAGMENT => {
                let (fragment, _) =
                    ipv6::Fragment::ref_from_prefix(rest).map_err(|_| DropReason::IcmpUnrelated)?;
                if fragment.offset() != 0 {
                    return Err(DropReason::IcmpUnrelated);
                }
                8
            }
            ipv6::HOP_BY_HOP | ipv6::ROUTING | ipv6::DEST_OPTIONS => {
                let (extension, _) =
                    Extension::ref_from_prefix(rest).map_err(|_| DropReason::IcmpUnrelated)?;
                8 + usize::from(extension.len) * 8
            }
            _ => break,
        };
        proto = *rest.first().ok_or(DropReason::IcmpUnrelated)?;
        rest = rest.get(len..).ok_or(DropReason::IcmpUnrelated)?;
    }
    let l4 = end - rest.len();
    let total = ipv6::HEADER_LEN + usize::from(ip.payload_len.get());
    Ok(Quote { src: ip.src_addr(), dst: ip.dst_addr(), proto, l4, end: end.min(l3 + total) })
}

/// Ports as [`FlowKey`] has them; `None` if the quote is too short for them.
fn ports(proto: u8, bytes: &[u8]) -> Option<(u16, u16)> {
    let word = |at: usize| {
        let [a, b] = *bytes.get(at..at + 2)? else { return None };
        Some(u16::from_be_bytes([a, b]))
    };
    let query = |is_request: bool| {
        let id = word(4)?;
        Some(if is_request { (id, 0) } else { (0, id) })
    };
    let kind = bytes.first().copied();
    match proto {
        ipv6::TCP | ipv6::UDP | ipv6::SCTP => Some((word(0)?, word(2)?)),
        ipv6::ICMP => match kind? {
            icmp::v4::ECHO_REQUEST | icmp::v4::TIMESTAMP_REQUEST => query(true),
            icmp::v4::ECHO_REPLY | icmp::v4::TIMESTAMP_REPLY => query(false),
            _ => None,
        },
        ipv6::ICMPV6 => match kind? {
            icmp::v6::ECHO_REQUEST => query(true),
            icmp::v6::ECHO_REPLY => query(false),
            _ => None,
        },
        _ => Some((0, 0)),
    }
}

/// Translates an ICMP error that travels in `dir` of `flow`: addresses the error to whoever sent the
/// quoted packet, and makes the quote what was sent. MAC addresses and TTL are the route's business.
///
/// The error's source becomes the address under which its side is known, if that is a translated one
/// (RFC 5508 REQ-5 c), and stays otherwise: so that a traceroute shows the routers outside.
pub fn translate_error(
    frame: &mut FrameMut<'_>,
    parsed: &Parsed,
    embedded: &EmbeddedKey,
    flow: &Flow,
    dir: Direction,
) {
    if flow.rewrite(dir).is_none() {
        return;
    }
    let (here, there) = (*flow.key(dir), *flow.key(dir.flip()));
    let src = if here.src == there.dst { parsed.src } else { there.dst };
    let dst = there.src;
    let unfinished =
        matches!(frame.offload().csum, Csum::Partial { start, .. } if start == parsed.l4);
    let bytes = frame.bytes_mut();

    // The quote's headers are all that changes; sums before and after give the difference.
    let changed = embedded.l3..embedded.end.min(embedded.l4 + tcp::HEADER_LEN);
    let before = checksum::sum(bytes.get(changed.clone()).unwrap_or_default());
    restore_l4(bytes, embedded, &there);
    restore_l3(bytes, embedded, parsed.l3, &there);
    let after = checksum::sum(bytes.get(changed).unwrap_or_default());

    let of = |src, dst| checksum::add(checksum::sum_addr(src), checksum::sum_addr(dst));
    let addrs = checksum::delta(of(parsed.src, parsed.dst), of(src, dst));
    address(bytes, parsed.l3, src, dst, addrs);
    let pseudo = if parsed.l3 == L3::V6 { addrs } else { 0 };
    let Some(rest) = bytes.get_mut(usize::from(parsed.l4)..) else { return };
    let Ok((header, _)) = Icmp::mut_from_prefix(rest) else { return };
    let field = header.checksum.get();
    header.checksum = if unfinished {
        checksum::update_partial(field, pseudo)
    } else {
        checksum::update(field, checksum::add(checksum::delta(before, after), pseudo))
    }
    .into();
}

/// Writes the error's own addresses.
fn address(bytes: &mut [u8], l3: L3, src: Addr, dst: Addr, addrs: u16) {
    let Some(packet) = bytes.get_mut(L3_OFFSET..) else { return };
    if l3 == L3::V4 {
        let Ok((ip, _)) = Ipv4::mut_from_prefix(packet) else { return };
        ip.src = ipv4::v4_bytes(src);
        ip.dst = ipv4::v4_bytes(dst);
        ip.checksum = checksum::update(ip.checksum.get(), addrs).into();
    } else {
        let Ok((ip, _)) = Ipv6::mut_from_prefix(packet) else { return };
        ip.src = src.bytes();
        ip.dst = dst.bytes();
    }
}

/// Makes the quoted IP header the one that was sent.
fn restore_l3(bytes: &mut [u8], embedded: &EmbeddedKey, l3: L3, sent: &FlowKey) {
    let Some(packet) = bytes.get_mut(embedded.l3..embedded.end) else { return };
    if l3 == L3::V4 {
        let Ok((ip, _)) = Ipv4::mut_from_prefix(packet) else { return };
        ip.src = ipv4::v4_bytes(sent.src);
        ip.dst = ipv4::v4_bytes(sent.dst);
        let change = addrs_delta(&embedded.key, sent);
        ip.checksum = checksum::update(ip.checksum.get(), change).into();
    } else {
        let Ok((ip, _)) = Ipv6::mut_from_prefix(packet) else { return };
        ip.src = sent.src.bytes();
        ip.dst = sent.dst.bytes();
    }
}

fn addrs_delta(from: &FlowKey, to: &FlowKey) -> u16 {
    let of =
        |key: &FlowKey| checksum::add(checksum::sum_addr(key.src), checksum::sum_addr(key.dst));
    checksum::delta(of(from), of(to))
}

/// Makes the quoted ports, and the quoted checksum where the quote reaches so far, what was sent.
fn restore_l4(bytes: &mut [u8], embedded: &EmbeddedKey, sent: &FlowKey) {
    let Some(quote) = bytes.get_mut(embedded.l4..embedded.end) else { return };
    let key = &embedded.key;
    let addrs = addrs_delta(key, sent);
    let ports = |key: &FlowKey| checksum::add(key.src_port, key.dst_port);
    let ports = checksum::delta(ports(key), ports(sent));
    match key.proto {
        ipv6::TCP | ipv6::UDP | ipv6::SCTP => {
            put(quote, 0, sent.src_port);
            put(quote, 2, sent.dst_port);
            let both = checksum::add(addrs, ports);
            match key.proto {
                ipv6::TCP => amend(quote, usize::from(tcp::CHECKSUM_OFFSET), both),
                // Zero means "none" (RFC 768).
                ipv6::UDP if quote.get(6..8).is_some_and(|field| field != [0, 0]) => {
                    amend(quote, usize::from(udp::CHECKSUM_OFFSET), both);
                    if quote.get(6..8) == Some(&[0, 0]) {
                        put(quote, usize::from(udp::CHECKSUM_OFFSET), 0xffff);
                    }
                }
                // SCTP's CRC32c covers more than is quoted.
                _ => {}
            }
        }
        ipv6::ICMP => {
            amend(quote, 2, ports);
            put(quote, 4, sent.src_port.max(sent.dst_port));
        }
        ipv6::ICMPV6 => {
            amend(quote, 2, checksum::add(addrs, ports));
            put(quote, 4, sent.src_port.max(sent.dst_port));
        }
        _ => {}
    }
}

fn put(bytes: &mut [u8], at: usize, value: u16) {
    if let Some(field) = bytes.get_mut(at..at + 2) {
        field.copy_from_slice(&value.to_be_bytes());
    }
}

fn amend(bytes: &mut [u8], at: usize, delta: u16) {
    if let Some(&[a, b]) = bytes.get(at..at + 2) {
        put(bytes, at, checksum::update(u16::from_be_bytes([a, b]), delta));
    }
}

#[cfg(test)]
mod tests;
