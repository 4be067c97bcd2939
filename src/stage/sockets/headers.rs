//! Headers of the frames that socket flows send towards containers, and ICMP errors about theirs.
//!
//! TCP and UDP checksums are left unfinished (`Csum::Partial`): what came out of a host socket has been
//! verified by the host's kernel, and what we made ourselves has not been anywhere yet.

use zerocopy::IntoBytes;

use super::events::SocketError;
use super::output::SmallFrame;
use crate::packet::{Csum, FlowKey, Gso, Offload};
use crate::wire::addr::Addr;
use crate::wire::ethernet::{self, Ethernet};
use crate::wire::icmp::{self, Icmp};
use crate::wire::ipv4::{self, Ipv4};
use crate::wire::ipv6::{self, Ipv6};
use crate::wire::mac::Mac;
use crate::wire::tcp::{self, Tcp};
use crate::wire::udp::{self, Udp};
use crate::wire::{checksum, icmp::v4 as icmp4, icmp::v6 as icmp6};

/// The two stations of a flow's inside.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Link {
    /// The container's MAC.
    pub inside: Mac,
    /// The gateway's.
    pub gateway: Mac,
}

/// Length of Ethernet and IP header before a transport header.
pub(super) const fn l4_at(v4: bool) -> usize {
    ethernet::HEADER_LEN + if v4 { ipv4::HEADER_LEN } else { ipv6::HEADER_LEN }
}

/// Room before a TCP flow's bytes.
pub(super) const fn tcp_headers(v4: bool) -> usize {
    l4_at(v4) + tcp::HEADER_LEN
}

/// Room before a UDP flow's bytes.
pub(super) const fn udp_headers(v4: bool) -> usize {
    l4_at(v4) + udp::HEADER_LEN
}

fn put(bytes: &mut [u8], at: usize, header: &[u8]) {
    if let Some(room) = bytes.get_mut(at..at + header.len()) {
        room.copy_from_slice(header);
    }
}

/// Writes the IP header at `at`.
fn write_ip(bytes: &mut [u8], at: usize, src: Addr, dst: Addr, proto: u8, payload: usize) {
    if dst.is_v4() {
        let mut ip = Ipv4::new(src, dst, proto, payload as u16);
        ip.fill_checksum();
        put(bytes, at, ip.as_bytes());
    } else {
        put(bytes, at, Ipv6::new(src, dst, proto, payload as u16).as_bytes());
    }
}

/// Writes Ethernet and IP headers from `src` to the container at `dst`.
fn write_l3(bytes: &mut [u8], link: Link, src: Addr, dst: Addr, proto: u8, payload: usize) {
    let ethertype = if dst.is_v4() { ethernet::IPV4 } else { ethernet::IPV6 };
    let header = Ethernet { dst: link.inside, src: link.gateway, ethertype: ethertype.into() };
    put(bytes, 0, header.as_bytes());
    write_ip(bytes, ethernet::HEADER_LEN, src, dst, proto, payload);
}

/// What varies in a TCP header.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct TcpFields {
    pub(super) seq: u32,
    pub(super) ack: u32,
    pub(super) flags: u8,
    pub(super) window: u16,
}

/// Writes all headers of a segment towards the container; `key` is keyed as the container's packets
/// are. `options` and payload are in the frame already or follow by `options_len` bytes.
pub(super) fn write_tcp(
    bytes: &mut [u8],
    link: Link,
    key: &FlowKey,
    fields: TcpFields,
    options_len: usize,
    gso_size: u16,
) -> Offload {
    let v4 = key.src.is_v4();
    let at = l4_at(v4);
    let l4_len = bytes.len().saturating_sub(at);
    write_l3(bytes, link, key.dst, key.src, ipv6::TCP, l4_len);
    let sum = checksum::pseudo_header(key.dst, key.src, ipv6::TCP, l4_len as u32);
    let header = Tcp {
        src_port: key.dst_port.into(),
        dst_port: key.src_port.into(),
        seq: fields.seq.into(),
        ack: fields.ack.into(),
        data_offset: (((tcp::HEADER_LEN + options_len) / 4) << 4) as u8,
        flags: fields.flags,
        window: fields.window.into(),
        checksum: sum.into(),
        urgent: 0.into(),
    };
    put(bytes, at, header.as_bytes());
    let payload = l4_len.saturating_sub(tcp::HEADER_LEN + options_len);
    let large = gso_size != 0 && payload > usize::from(gso_size);
    let kind = if v4 { Gso::TcpV4 } else { Gso::TcpV6 };
    Offload {
        gso: if large { kind } else { Gso::None },
        ecn: false,
        gso_size: if large { gso_size } else { 0 },
        csum: Csum::Partial { start: at as u16, offset: tcp::CHECKSUM_OFFSET },
    }
}

/// Writes all headers of a datagram, or a train of `segment` bytes each, towards the container.
pub(super) fn write_udp(
    bytes: &mut [u8],
    link: Link,
    key: &FlowKey,
    segment: Option<u16>,
) -> Offload {
    let at = l4_at(key.src.is_v4());
    let l4_len = bytes.len().saturating_sub(at);
    write_l3(bytes, link, key.dst, key.src, ipv6::UDP, l4_len);
    let sum = checksum::pseudo_header(key.dst, key.src, ipv6::UDP, l4_len as u32);
    let header = Udp {
        src_port: key.dst_port.into(),
        dst_port: key.src_port.into(),
        len: (l4_len as u16).into(),
        checksum: sum.into(),
    };
    put(bytes, at, header.as_bytes());
    let payload = l4_len.saturating_sub(udp::HEADER_LEN);
    let train = segment.filter(|size| *size != 0 && payload > usize::from(*size));
    Offload {
        gso: if train.is_some() { Gso::UdpL4 } else { Gso::None },
        ecn: false,
        gso_size: train.unwrap_or(0),
        csum: Csum::Partial { start: at as u16, offset: udp::CHECKSUM_OFFSET },
    }
}

/// Writes Ethernet and IP headers before an echo reply whose ICMP header is in the frame already, gives
/// it the container's identifier, and finishes its checksum.
pub(super) fn write_echo_reply(bytes: &mut [u8], link: Link, from: Addr, to: Addr, id: u16) {
    let v4 = to.is_v4();
    let at = l4_at(v4);
    let len = bytes.len().saturating_sub(at);
    let proto = if v4 { ipv6::ICMP } else { ipv6::ICMPV6 };
    write_l3(bytes, link, from, to, proto, len);
    put(bytes, at + 4, &id.to_be_bytes());
    finish_icmp(bytes, at, v4, from, to);
}

fn finish_icmp(bytes: &mut [u8], at: usize, v4: bool, from: Addr, to: Addr) {
    put(bytes, at + 2, &[0, 0]);
    let body = bytes.get(at..).unwrap_or_default();
    // ICMPv4 has no pseudo-header (RFC 792), ICMPv6 has one (RFC 4443 2.3).
    let pseudo =
        if v4 { 0 } else { checksum::pseudo_header(from, to, ipv6::ICMPV6, body.len() as u32) };
    let sum = !checksum::add(pseudo, checksum::sum(body));
    put(bytes, at + 2, &sum.to_be_bytes());
}

/// The ICMP type, code and MTU that tell a container what its host socket met.
fn icmp_code(error: SocketError, v4: bool) -> (u8, u8, u16) {
    let mtu = if let SocketError::TooBig(mtu) = error { mtu } else { 0 };
    match (error, v4) {
        (SocketError::TooBig(_), true) => (icmp4::UNREACHABLE, icmp4::CODE_TOO_BIG, mtu),
        (SocketError::TooBig(_), false) => (icmp6::TOO_BIG, 0, mtu),
        (SocketError::TimeExceeded, true) => (icmp4::TIME_EXCEEDED, 0, 0),
        (SocketError::TimeExceeded, false) => (icmp6::TIME_EXCEEDED, 0, 0),
        (SocketError::NetUnreachable, true) => (icmp4::UNREACHABLE, icmp4::CODE_NET, 0),
        (SocketError::NetUnreachable, false) => (icmp6::UNREACHABLE, icmp6::CODE_NO_ROUTE, 0),
        (SocketError::Refused, true) => (icmp4::UNREACHABLE, icmp4::CODE_PORT, 0),
        (SocketError::Refused, false) => (icmp6::UNREACHABLE, icmp6::CODE_PORT, 0),
        (SocketError::Prohibited | SocketError::Limit, true) => {
            (icmp4::UNREACHABLE, icmp4::CODE_PROHIBITED, 0)
        }
        (SocketError::Prohibited | SocketError::Limit, false) => {
            (icmp6::UNREACHABLE, icmp6::CODE_PROHIBITED, 0)
        }
        (_, true) => (icmp4::UNREACHABLE, icmp4::CODE_HOST, 0),
        (_, false) => (icmp6::UNREACHABLE, icmp6::CODE_ADDRESS, 0),
    }
}

/// The first bytes of the transport header of a packet we no longer have.
pub(super) enum Quote {
    /// A connection attempt: the kernel checks the sequence number before it believes the error.
    Syn { seq: u32 },
    /// A datagram.
    Udp,
    /// An echo request with this sequence number.
    Echo { seq: u16 },
}

/// An ICMP error from `from` about a packet keyed `key`, which is rebuilt as far as errors quote it.
pub(super) fn icmp_error(
    link: Link,
    key: &FlowKey,
    quote: &Quote,
    error: SocketError,
    from: Addr,
) -> SmallFrame {
    let v4 = key.src.is_v4();
    let at = l4_at(v4);
    let (transport, used) = quoted(key, quote);
    let quoted_at = at + icmp::HEADER_LEN;
    let quoted_l4 = quoted_at + l4_at(v4) - ethernet::HEADER_LEN;
    let mut frame = SmallFrame::zeroed(quoted_l4 + used);
    let bytes = frame.bytes_mut();
    let len = bytes.len() - at;
    write_l3(bytes, link, from, key.src, if v4 { ipv6::ICMP } else { ipv6::ICMPV6 }, len);
    let (kind, code, mtu) = icmp_code(error, v4);
    // The MTU is the second half-word in ICMP (RFC 1191), the low half of a word in ICMPv6.
    let header = Icmp { kind, code, checksum: 0.into(), id: 0.into(), seq: mtu.into() };
    put(bytes, at, header.as_bytes());
    write_ip(bytes, quoted_at, key.src, key.dst, key.proto, used);
    // The quoted packet went from the container outwards, so its family is the destination's too.
    put(bytes, quoted_l4, &transport[..used]);
    finish_icmp(bytes, at, v4, from, key.src);
    frame
}

fn quoted(key: &FlowKey, quote: &Quote) -> ([u8; 20], usize) {
    let mut bytes = [0; 20];
    let used = match quote {
        Quote::Syn { seq } => {
            put(&mut bytes, 4, &seq.to_be_bytes());
            bytes[12] = 5 << 4;
            bytes[13] = tcp::SYN;
            20
        }
        Quote::Udp => 8,
        Quote::Echo { seq } => {
            bytes[0] = if key.src.is_v4() { icmp4::ECHO_REQUEST } else { icmp6::ECHO_REQUEST };
            put(&mut bytes, 4, &key.src_port.to_be_bytes());
            put(&mut bytes, 6, &seq.to_be_bytes());
            return (bytes, 8);
        }
    };
    put(&mut bytes, 0, &key.src_port.to_be_bytes());
    put(&mut bytes, 2, &key.dst_port.to_be_bytes());
    if matches!(quote, Quote::Udp) {
        // The length is unknown by now; a header alone is the least that is a datagram.
        put(&mut bytes, 4, &8_u16.to_be_bytes());
    }
    (bytes, used)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::ids::DomainId;
    use crate::packet::{Parsed, Scope};

    fn key(v4: bool, proto: u8) -> FlowKey {
        let (src, dst) = if v4 { ("172.17.0.2", "192.0.2.7") } else { ("fd00::2", "2001:db8::7") };
        FlowKey {
            src: src.parse().unwrap(),
            dst: dst.parse().unwrap(),
            src_port: 40_000,
            dst_port: 443,
            domain: DomainId(1),
            proto,
            scope: Scope::Routed,
        }
    }

    const LINK: Link =
        Link { inside: Mac([2, 66, 172, 17, 0, 2]), gateway: Mac([2, 66, 172, 17, 0, 1]) };

    #[test]
    fn an_icmp_error_quotes_what_the_container_sent_with_right_checksums() {
        for v4 in [true, false] {
            let key = key(v4, ipv6::TCP);
            let from = key.dst;
            let error = SocketError::HostUnreachable;
            let frame = icmp_error(LINK, &key, &Quote::Syn { seq: 0x0102_0304 }, error, from);
            let bytes = frame.bytes();
            let parsed = Parsed::new(bytes).unwrap();
            assert_eq!((parsed.dst, parsed.src, parsed.dst_mac), (key.src, from, LINK.inside));
            let body = parsed.l4_bytes(bytes);
            let pseudo = checksum::pseudo_header(from, key.src, ipv6::ICMPV6, body.len() as u32);
            let sum = checksum::add(checksum::sum(body), if v4 { 0 } else { pseudo });
            assert_eq!(sum, 0xffff, "checksum, v4 {v4}");
            let mut quoted = vec![0; 14];
            quoted[12..14].copy_from_slice(&if v4 { [8, 0] } else { [0x86, 0xdd] });
            quoted.extend_from_slice(&body[8..]);
            let inner = Parsed::new(&quoted).unwrap();
            assert_eq!(FlowKey::new(&inner, key.domain, key.scope), key);
            assert_eq!(quoted[usize::from(inner.l4) + 4..][..4], [1, 2, 3, 4]);
        }
    }

    #[test]
    fn a_large_payload_becomes_one_super_frame_with_the_pseudo_header_s_sum() {
        for v4 in [true, false] {
            let mut bytes = vec![7; tcp_headers(v4) + 30_000];
            let fields = TcpFields { seq: 9, ack: 10, flags: tcp::ACK, window: 11 };
            let offload = write_tcp(&mut bytes, LINK, &key(v4, ipv6::TCP), fields, 0, 1440);
            assert_eq!(offload.gso, if v4 { Gso::TcpV4 } else { Gso::TcpV6 });
            assert_eq!(offload.gso_size, 1440);
            let parsed = Parsed::new(&bytes).unwrap();
            assert_eq!(parsed.l4_len(), 20 + 30_000);
            // Only an ordinary frame is finished; of a super-frame each segment would be.
            let whole = Offload { gso: Gso::None, ..offload };
            let mut buf = crate::packet::PacketBuf::new(&bytes, whole);
            crate::packet::finish::finish_checksum(&mut buf.frame());
            let l4 = parsed.l4_bytes(buf.bytes());
            let pseudo =
                checksum::pseudo_header(parsed.src, parsed.dst, ipv6::TCP, l4.len() as u32);
            assert_eq!(checksum::add(pseudo, checksum::sum(l4)), 0xffff);
            bytes.truncate(tcp_headers(v4) + 100);
            let offload = write_tcp(&mut bytes, LINK, &key(v4, ipv6::TCP), fields, 0, 1440);
            assert_eq!(offload.gso, Gso::None);
        }
    }
}
