//! Echo (RFC 792, RFC 4443 4.1): the request becomes the reply in place.
//!
//! Only a plain request is answered: whole, without IP options or extension headers (whose routes
//! would have to be reversed), from one station to one station.

use zerocopy::FromBytes;

use crate::packet::parse::L3_OFFSET;
use crate::packet::{Csum, Fragment, FrameMut, Gso, L3, Parsed};
use crate::wire::checksum;
use crate::wire::ethernet::Ethernet;
use crate::wire::icmp::{self, Icmp};
use crate::wire::ipv4::{self, Ipv4};
use crate::wire::ipv6::{self, Ipv6};

/// Turns an echo request into its reply; `false` (and the frame as it was) if it is none.
pub fn answer(frame: &mut FrameMut<'_>, parsed: &Parsed) -> bool {
    if !is_plain_request(parsed, frame) {
        return false;
    }
    let partial = matches!(frame.offload().csum, Csum::Partial { .. });
    let bytes = frame.bytes_mut();
    let Some((front, message)) = bytes.split_at_mut_checked(usize::from(parsed.l4)) else {
        return false;
    };
    let Ok((eth, packet)) = Ethernet::mut_from_prefix(front) else { return false };
    let Ok((icmp, _)) = Icmp::mut_from_prefix(message) else { return false };
    let reply = if parsed.l3 == L3::V4 {
        let Ok((ip, _)) = Ipv4::mut_from_prefix(packet) else { return false };
        turn_v4(ip);
        icmp::v4::ECHO_REPLY
    } else {
        let Ok((ip, _)) = Ipv6::mut_from_prefix(packet) else { return false };
        std::mem::swap(&mut ip.src, &mut ip.dst);
        ip.hop_limit = ipv6::DEFAULT_HOP_LIMIT;
        icmp::v6::ECHO_REPLY
    };
    std::mem::swap(&mut eth.dst, &mut eth.src);
    if !partial {
        // An unfinished sum holds the addresses only, and swapping them changes nothing.
        let change = checksum::delta(u16::from(icmp.kind) << 8, u16::from(reply) << 8);
        icmp.checksum = checksum::update(icmp.checksum.get(), change).into();
    }
    icmp.kind = reply;
    true
}

fn is_plain_request(parsed: &Parsed, frame: &FrameMut<'_>) -> bool {
    let offload = frame.offload();
    let expected = match (parsed.l3, parsed.proto) {
        (L3::V4, ipv6::ICMP) => (icmp::v4::ECHO_REQUEST, L3_OFFSET + ipv4::HEADER_LEN),
        (L3::V6, ipv6::ICMPV6) => (icmp::v6::ECHO_REQUEST, L3_OFFSET + ipv6::HEADER_LEN),
        _ => return false,
    };
    let header = parsed.l4_bytes(frame.bytes());
    let unfinished_elsewhere = matches!(offload.csum, Csum::Partial { start, offset }
        if start != parsed.l4 || offset != 2);
    parsed.fragment == Fragment::Whole
        && (header.first().copied(), usize::from(parsed.l4)) == (Some(expected.0), expected.1)
        && header.get(1) == Some(&0)
        && header.len() >= icmp::HEADER_LEN
        && offload.gso == Gso::None
        && !unfinished_elsewhere
        // RFC 1122 3.2.2.6: who answers a group helps whoever forges its sender.
        && !parsed.dst.is_multicast_or_broadcast()
        && !parsed.src.is_multicast_or_broadcast()
        && !parsed.src.is_unspecified()
        && !parsed.dst_mac.is_group()
}

fn turn_v4(ip: &mut Ipv4) {
    std::mem::swap(&mut ip.src, &mut ip.dst);
    let word = |ttl: u8| u16::from(ttl) << 8;
    let change = checksum::delta(word(ip.ttl), word(ipv6::DEFAULT_HOP_LIMIT));
    ip.ttl = ipv6::DEFAULT_HOP_LIMIT;
    ip.checksum = checksum::update(ip.checksum.get(), change).into();
}

#[cfg(test)]
mod tests {
    use etherparse::{Icmpv4Header, Icmpv6Header, PacketBuilder, SlicedPacket, TransportSlice};

    use super::*;
    use crate::packet::{Offload, PacketBuf, finish};

    const A: [u8; 6] = [2, 0, 0, 0, 0, 1];
    const B: [u8; 6] = [2, 0, 0, 0, 0, 2];
    const SRC6: [u8; 16] = [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2];
    const DST6: [u8; 16] = [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];

    fn request(v6: bool, payload: &[u8]) -> Vec<u8> {
        let link = PacketBuilder::ethernet2(A, B);
        let mut frame = Vec::new();
        if v6 {
            let ip = link.ipv6(SRC6, DST6, 3);
            ip.icmpv6_echo_request(7, 9).write(&mut frame, payload).unwrap();
        } else {
            let ip = link.ipv4([172, 17, 0, 2], [172, 17, 0, 1], 3);
            ip.icmpv4_echo_request(7, 9).write(&mut frame, payload).unwrap();
        }
        frame
    }

    fn answered(frame: &[u8], offload: Offload) -> Option<PacketBuf> {
        let mut buf = PacketBuf::new(frame, offload);
        let parsed = Parsed::new(frame).unwrap();
        answer(&mut buf.frame(), &parsed).then_some(buf)
    }

    /// Everything a receiver checks, with an independent parser.
    fn assert_is_reply(reply: &[u8], v6: bool, payload: &[u8]) {
        assert_eq!((&reply[..6], &reply[6..12]), (&A[..], &B[..]));
        let sliced = SlicedPacket::from_ethernet(reply).unwrap();
        match sliced.net.unwrap() {
            etherparse::NetSlice::Ipv4(ip) => {
                let header = ip.header().to_header();
                assert_eq!((header.source, header.destination), ([172, 17, 0, 1], [172, 17, 0, 2]));
                assert_eq!(header.header_checksum, header.calc_header_checksum());
                assert_eq!(header.time_to_live, 64);
            }
            etherparse::NetSlice::Ipv6(ip) => {
                let header = ip.header().to_header();
                assert_eq!((header.source, header.destination), (DST6, SRC6));
                assert_eq!(header.hop_limit, 64);
            }
            etherparse::NetSlice::Arp(_) => panic!("an ARP packet"),
        }
        match sliced.transport.unwrap() {
            TransportSlice::Icmpv4(icmp) => {
                assert!(!v6);
                let header = icmp.header();
                let wanted = Icmpv4Header::with_checksum(header.icmp_type.clone(), payload);
                assert_eq!(header, wanted);
                assert_eq!(icmp.type_u8(), 0);
            }
            TransportSlice::Icmpv6(icmp) => {
                assert!(v6);
                let header = icmp.header();
                let kind = header.icmp_type;
                let wanted = Icmpv6Header::with_checksum(kind, DST6, SRC6, payload).unwrap();
                assert_eq!(header, wanted);
                assert_eq!(icmp.type_u8(), 129);
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_request_becomes_a_reply_with_right_checksums_in_both_families() {
        for v6 in [false, true] {
            for payload in [&b""[..], b"odd", &[0xff; 56], &[0; 1400]] {
                let reply = answered(&request(v6, payload), Offload::NONE).unwrap();
                assert_is_reply(reply.bytes(), v6, payload);
            }
        }
    }

    #[test]
    fn an_unfinished_checksum_stays_unfinished_and_is_right_when_finished() {
        for v6 in [false, true] {
            let mut frame = request(v6, b"payload");
            let parsed = Parsed::new(&frame).unwrap();
            let at = usize::from(parsed.l4) + 2;
            let len = parsed.l4_len() as u32;
            let pseudo = checksum::pseudo_header(parsed.src, parsed.dst, parsed.proto, len);
            let field = if v6 { pseudo } else { 0 };
            frame[at..at + 2].copy_from_slice(&field.to_be_bytes());
            let csum = Csum::Partial { start: parsed.l4, offset: 2 };
            let mut reply = answered(&frame, Offload { csum, ..Offload::NONE }).unwrap();
            assert_eq!(reply.offload().csum, csum);
            finish::finish_checksum(&mut reply.frame());
            assert_is_reply(reply.bytes(), v6, b"payload");
        }
    }

    #[test]
    fn padding_after_the_packet_is_not_summed() {
        let mut frame = request(false, b"");
        frame.resize(60, 0xee);
        assert_is_reply(&answered(&frame, Offload::NONE).unwrap().bytes()[..42], false, b"");
    }

    #[test]
    fn fragments_groups_replies_and_options_are_left_alone() {
        let plain = request(false, b"payload!");
        let changed = |at: usize, value: u8| {
            let mut frame = plain.clone();
            frame[at] = value;
            frame
        };
        for (frame, why) in [
            (changed(20, 0x20), "more fragments"),
            (changed(34, 0), "a reply"),
            (changed(35, 1), "a code"),
            (changed(14, 0x46), "options"),
            (changed(30, 224), "to a group"),
            (changed(26, 224), "from a group"),
            (changed(0, 3), "to a group of stations"),
        ] {
            assert!(answered(&frame, Offload::NONE).is_none(), "{why}");
        }
        let csum = Csum::Partial { start: 38, offset: 2 };
        assert!(answered(&plain, Offload { csum, ..Offload::NONE }).is_none());
    }
}
