//! The change a flow makes to each of its packets, compiled once and applied in place.
//!
//! **Checksums.** A complete transport checksum is updated by the change of addresses and ports (RFC
//! 1624). An unfinished one (`CHECKSUM_PARTIAL`) holds the pseudo-header's sum without complement:
//! only the change of addresses is added, since ports are summed later by whoever finishes it. ICMPv4
//! has no pseudo-header: addresses do not count. SCTP's CRC32c covers no address, but the ports.

use zerocopy::FromBytes;

use super::{Csum, FlowKey, Fragment, FrameMut, L3, Parsed};
use crate::wire::checksum;
use crate::wire::ethernet::Ethernet;
use crate::wire::icmp::{self, Icmp};
use crate::wire::ipv4::{self, Ipv4};
use crate::wire::ipv6::{self, Ipv6};
use crate::wire::mac::Mac;
use crate::wire::sctp::{self, Sctp};
use crate::wire::tcp::Tcp;
use crate::wire::udp::Udp;

/// Sums by which a translation changes checksums; the other direction's is the complement.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct NatDelta {
    /// Change of both addresses.
    pub addrs: u16,
    /// Change of both ports.
    pub ports: u16,
}

impl NatDelta {
    /// The change when packets keyed `from` leave with the addresses and ports of `to`.
    pub fn between(from: &FlowKey, to: &FlowKey) -> Self {
        let addrs =
            |k: &FlowKey| checksum::add(checksum::sum_addr(k.src), checksum::sum_addr(k.dst));
        let ports = |k: &FlowKey| checksum::add(k.src_port, k.dst_port);
        Self {
            addrs: checksum::delta(addrs(from), addrs(to)),
            ports: checksum::delta(ports(from), ports(to)),
        }
    }

    /// The change in the opposite direction.
    #[must_use]
    pub fn inverse(self) -> Self {
        Self { addrs: !self.addrs, ports: !self.ports }
    }
}

/// What happens to a packet on its way out. Both fields may be absent: then it passes untouched.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Rewrite {
    /// Translation: addresses and ports the packet leaves with (only `src`, `dst` and the ports of the
    /// key count), and what that does to sums.
    pub nat: Option<(FlowKey, NatDelta)>,
    /// Routing: destination and source MAC, and one hop off the TTL.
    pub route: Option<(Mac, Mac)>,
}

impl Rewrite {
    /// Applies the change. The frame has been parsed as `parsed` and not been changed since.
    #[inline]
    pub fn apply(&self, frame: &mut FrameMut<'_>, parsed: &Parsed) {
        let csum = frame.offload().csum;
        let bytes = frame.bytes_mut();
        if let Some((to, delta)) = &self.nat {
            translate_l4(bytes, parsed, csum, to, *delta);
            translate_l3(bytes, parsed, to, *delta);
        }
        if let Some((dst, src)) = self.route {
            route(bytes, parsed, dst, src);
        }
    }
}

/// Whether a frame is an IPv4 datagram that may be cut on its way, or has been: its number counts (RFC
/// 6864 4).
#[inline]
pub fn is_numbered(parsed: &Parsed, frame: &[u8]) -> bool {
    parsed.l3 == L3::V4
        && Ipv4::ref_from_prefix(&frame[super::parse::L3_OFFSET..])
            .is_ok_and(|(ip, _)| ip.flags_offset.get() & ipv4::DF == 0)
}

/// Gives an IPv4 datagram another number.
pub fn renumber(frame: &mut FrameMut<'_>, id: u16) {
    let packet = &mut frame.bytes_mut()[super::parse::L3_OFFSET..];
    let Ok((ip, _)) = Ipv4::mut_from_prefix(packet) else { return };
    let change = checksum::delta(ip.id.get(), id);
    ip.checksum = checksum::update(ip.checksum.get(), change).into();
    ip.id = id.into();
}

#[inline]
fn translate_l3(bytes: &mut [u8], parsed: &Parsed, to: &FlowKey, delta: NatDelta) {
    let packet = &mut bytes[super::parse::L3_OFFSET..];
    match parsed.l3 {
        L3::V4 => {
            let Ok((ip, _)) = Ipv4::mut_from_prefix(packet) else { return };
            ip.src = ipv4::v4_bytes(to.src);
            ip.dst = ipv4::v4_bytes(to.dst);
            ip.checksum = checksum::update(ip.checksum.get(), delta.addrs).into();
        }
        L3::V6 => {
            let Ok((ip, _)) = Ipv6::mut_from_prefix(packet) else { return };
            ip.src = to.src.bytes();
            ip.dst = to.dst.bytes();
        }
        L3::Arp | L3::Other(_) => {}
    }
}

#[inline]
fn translate_l4(bytes: &mut [u8], parsed: &Parsed, csum: Csum, to: &FlowKey, delta: NatDelta) {
    if parsed.fragment == Fragment::Later {
        return;
    }
    let at = usize::from(parsed.l4);
    let partial = matches!(csum, Csum::Partial { start, .. } if start == parsed.l4);
    let Some(payload) = bytes.get_mut(at..) else { return };
    match parsed.proto {
        ipv6::TCP => {
            let Ok((tcp, _)) = Tcp::mut_from_prefix(payload) else { return };
            tcp.src_port = to.src_port.into();
            tcp.dst_port = to.dst_port.into();
            tcp.checksum = changed(tcp.checksum.get(), partial, delta).into();
        }
        ipv6::UDP => {
            let Ok((udp, _)) = Udp::mut_from_prefix(payload) else { return };
            udp.src_port = to.src_port.into();
            udp.dst_port = to.dst_port.into();
            if udp.checksum != 0 || partial {
                let sum = changed(udp.checksum.get(), partial, delta);
                // RFC 768: a computed zero is sent as all ones, since zero means "none".
                udp.checksum = if sum == 0 && !partial { 0xffff } else { sum }.into();
            }
        }
        ipv6::ICMP if parsed.l3 == L3::V4 => {
            translate_icmp(payload, parsed.l3, to, partial, 0);
        }
        ipv6::ICMPV6 if parsed.l3 == L3::V6 => {
            translate_icmp(payload, parsed.l3, to, partial, delta.addrs);
        }
        ipv6::SCTP => translate_sctp(payload, parsed, to),
        // Tracked by addresses only, but their checksums cover them.
        ipv6::DCCP | ipv6::UDP_LITE => {
            let Ok((header, _)) = Udp::mut_from_prefix(payload) else { return };
            let sum = changed(header.checksum.get(), partial, NatDelta { ports: 0, ..delta });
            header.checksum = if sum == 0 && !partial { 0xffff } else { sum }.into();
        }
        _ => {}
    }
}

/// Queries have an identifier to translate; of other messages only the checksum changes, in IPv6,
/// where it covers the addresses.
fn translate_icmp(payload: &mut [u8], l3: L3, to: &FlowKey, partial: bool, addrs: u16) {
    let Ok((icmp, _)) = Icmp::mut_from_prefix(payload) else { return };
    let old = icmp.id;
    match icmp::Query::of(l3 == L3::V6, icmp.kind) {
        Some(icmp::Query::Request) => icmp.id = to.src_port.into(),
        Some(icmp::Query::Reply) => icmp.id = to.dst_port.into(),
        None => {}
    }
    let delta = NatDelta { addrs, ports: checksum::delta(old.get(), icmp.id.get()) };
    icmp.checksum = changed(icmp.checksum.get(), partial, delta).into();
}

/// The CRC32c of a first fragment covers bytes that are not here, and how many is not known either: it
/// stays, and the receiver drops the datagram. SCTP finds the path's MTU itself, so this is theory.
fn translate_sctp(payload: &mut [u8], parsed: &Parsed, to: &FlowKey) {
    let Ok((header, _)) = Sctp::mut_from_prefix(payload) else { return };
    let old = [header.src_port, header.dst_port];
    let new = [to.src_port.into(), to.dst_port.into()];
    if old == new {
        return;
    }
    [header.src_port, header.dst_port] = new;
    if parsed.fragment == Fragment::Whole {
        header.checksum = sctp::update(header.checksum, old, new, parsed.l4_len());
    }
}

#[inline]
fn changed(field: u16, partial: bool, delta: NatDelta) -> u16 {
    if partial {
        checksum::update_partial(field, delta.addrs)
    } else {
        checksum::update(field, checksum::add(delta.addrs, delta.ports))
    }
}

#[inline]
fn route(bytes: &mut [u8], parsed: &Parsed, dst: Mac, src: Mac) {
    let Ok((eth, packet)) = Ethernet::mut_from_prefix(bytes) else { return };
    eth.dst = dst;
    eth.src = src;
    match parsed.l3 {
        L3::V4 => {
            let Ok((ip, _)) = Ipv4::mut_from_prefix(packet) else { return };
            if ip.ttl == 0 {
                return; // Never forwarded: the caller answers with "time exceeded".
            }
            ip.ttl -= 1;
            // TTL is the high byte of its word: one less is 0x0100 less.
            ip.checksum = checksum::update(ip.checksum.get(), !0x0100).into();
        }
        L3::V6 => {
            let Ok((ip, _)) = Ipv6::mut_from_prefix(packet) else { return };
            ip.hop_limit = ip.hop_limit.saturating_sub(1);
        }
        L3::Arp | L3::Other(_) => {}
    }
}
