use etherparse::{
    Icmpv4Type, Icmpv6Type, NetSlice, PacketBuilder, SlicedPacket, TransportSlice, icmpv4, icmpv6,
};

use super::*;
use crate::packet::{Csum, PacketBuf};

const A: Mac = Mac([2, 0, 0, 0, 0, 1]);
const GATEWAY: Mac = Mac([2, 0, 0, 0, 0, 2]);
const ALL: [IcmpError; 8] = [
    IcmpError::NetUnreachable,
    IcmpError::HostUnreachable,
    IcmpError::PortUnreachable,
    IcmpError::ProtocolUnreachable,
    IcmpError::Prohibited,
    IcmpError::TimeExceeded,
    IcmpError::TooBig(1400),
    IcmpError::FragmentReassemblyTimeout,
];

fn addr(text: &str) -> Addr {
    text.parse().unwrap()
}

fn from(v6: bool) -> Addr {
    addr(if v6 { "fd00::1" } else { "172.17.0.1" })
}

fn udp(v6: bool, len: usize) -> Vec<u8> {
    let link = PacketBuilder::ethernet2(A.0, GATEWAY.0);
    let ip = if v6 {
        link.ipv6(addr("fd00::2").bytes(), addr("2001:db8::7").bytes(), 1)
    } else {
        link.ipv4([172, 17, 0, 2], [192, 0, 2, 7], 1)
    };
    let mut frame = Vec::new();
    ip.udp(4000, 53).write(&mut frame, &vec![0xa5; len]).unwrap();
    frame
}

fn turned(frame: &[u8], offload: Offload, error: IcmpError, v6: bool) -> PacketBuf {
    let parsed = Parsed::new(frame).unwrap();
    let mut buf = PacketBuf::new(frame, offload);
    assert!(turn_into_error(&mut buf.frame(), &parsed, error, from(v6), GATEWAY));
    assert_eq!(buf.offload(), Offload::NONE);
    buf
}

/// Checks addresses, lengths and checksums with an independent parser; returns the quoted bytes.
fn quoted(error: &[u8], v6: bool) -> Vec<u8> {
    assert_eq!((&error[..6], &error[6..12]), (&A.0[..], &GATEWAY.0[..]));
    let sliced = SlicedPacket::from_ethernet(error).unwrap();
    let ip_bytes = match sliced.net.unwrap() {
        NetSlice::Ipv4(ip) => {
            let header = ip.header().to_header();
            assert_eq!((header.source, header.destination), ([172, 17, 0, 1], [172, 17, 0, 2]));
            assert_eq!(header.header_checksum, header.calc_header_checksum());
            usize::from(header.total_len)
        }
        NetSlice::Ipv6(ip) => {
            let header = ip.header().to_header();
            assert_eq!(
                (header.source, header.destination),
                (from(true).bytes(), addr("fd00::2").bytes())
            );
            40 + usize::from(header.payload_length)
        }
        NetSlice::Arp(_) => panic!("an ARP packet"),
    };
    assert_eq!(ip_bytes, error.len() - 14, "no byte beyond the packet");
    match sliced.transport.unwrap() {
        TransportSlice::Icmpv4(icmp) => {
            assert!(!v6);
            assert_eq!(checksum::sum(icmp.slice()), 0xffff);
            icmp.payload().to_vec()
        }
        TransportSlice::Icmpv6(icmp) => {
            assert!(v6 && icmp.is_checksum_valid(from(true).bytes(), addr("fd00::2").bytes()));
            icmp.payload().to_vec()
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn every_error_is_whole_and_right_and_quotes_the_packet_in_both_families() {
    for v6 in [false, true] {
        for error in ALL {
            for len in [0, 1, 11, 500, 1400] {
                let frame = udp(v6, len);
                let turned = turned(&frame, Offload::NONE, error, v6);
                let quoted = quoted(turned.bytes(), v6);
                let most = if v6 { 1280 - 48 } else { 576 - 28 };
                assert_eq!(quoted, frame[14..][..(frame.len() - 14).min(most)], "{error:?} {len}");
            }
        }
    }
}

#[test]
fn types_and_codes_are_the_ones_other_stacks_read() {
    use icmpv4::DestUnreachableHeader as V4;
    use icmpv6::DestUnreachableCode as V6;
    let v4 = [
        Icmpv4Type::DestinationUnreachable(V4::Network),
        Icmpv4Type::DestinationUnreachable(V4::Host),
        Icmpv4Type::DestinationUnreachable(V4::Port),
        Icmpv4Type::DestinationUnreachable(V4::Protocol),
        Icmpv4Type::DestinationUnreachable(V4::FilterProhibited),
        Icmpv4Type::TimeExceeded(icmpv4::TimeExceededCode::TtlExceededInTransit),
        Icmpv4Type::DestinationUnreachable(V4::FragmentationNeeded { next_hop_mtu: 1400 }),
        Icmpv4Type::TimeExceeded(icmpv4::TimeExceededCode::FragmentReassemblyTimeExceeded),
    ];
    let v6 = [
        Icmpv6Type::DestinationUnreachable(V6::NoRoute),
        Icmpv6Type::DestinationUnreachable(V6::Address),
        Icmpv6Type::DestinationUnreachable(V6::Port),
        Icmpv6Type::ParameterProblem(icmpv6::ParameterProblemHeader {
            code: icmpv6::ParameterProblemCode::UnrecognizedNextHeader,
            pointer: 6,
        }),
        Icmpv6Type::DestinationUnreachable(V6::Prohibited),
        Icmpv6Type::TimeExceeded(icmpv6::TimeExceededCode::HopLimitExceeded),
        Icmpv6Type::PacketTooBig { mtu: 1400 },
        Icmpv6Type::TimeExceeded(icmpv6::TimeExceededCode::FragmentReassemblyTimeExceeded),
    ];
    for ((error, v4), v6) in ALL.into_iter().zip(v4).zip(v6) {
        let frame = turned(&udp(false, 8), Offload::NONE, error, false);
        match SlicedPacket::from_ethernet(frame.bytes()).unwrap().transport {
            Some(TransportSlice::Icmpv4(icmp)) => assert_eq!(icmp.icmp_type(), v4),
            other => panic!("{other:?}"),
        }
        let frame = turned(&udp(true, 8), Offload::NONE, error, true);
        match SlicedPacket::from_ethernet(frame.bytes()).unwrap().transport {
            Some(TransportSlice::Icmpv6(icmp)) => assert_eq!(icmp.icmp_type(), v6),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn an_unfinished_checksum_is_finished_before_it_is_quoted() {
    for v6 in [false, true] {
        let finished = udp(v6, 32);
        let mut frame = finished.clone();
        let parsed = Parsed::new(&frame).unwrap();
        let at = usize::from(parsed.l4) + 6;
        let len = parsed.l4_len() as u32;
        let pseudo = checksum::pseudo_header(parsed.src, parsed.dst, ipv6::UDP, len);
        frame[at..at + 2].copy_from_slice(&pseudo.to_be_bytes());
        let csum = Csum::Partial { start: parsed.l4, offset: 6 };
        let offload = Offload { csum, ..Offload::NONE };
        let error = turned(&frame, offload, IcmpError::PortUnreachable, v6);
        assert_eq!(quoted(error.bytes(), v6), finished[14..]);
    }
}

#[test]
fn a_super_frame_and_padding_are_quoted_to_the_limit_only() {
    let offload = Offload {
        gso: Gso::UdpL4,
        gso_size: 1400,
        csum: Csum::Partial { start: 34, offset: 6 },
        ..Offload::NONE
    };
    let error = turned(&udp(false, 60_000), offload, IcmpError::TooBig(1400), false);
    assert_eq!(error.len(), 14 + 576);
    let mut padded = udp(false, 0);
    padded.resize(60, 0xee);
    let error = turned(&padded, Offload::NONE, IcmpError::PortUnreachable, false);
    assert_eq!(quoted(error.bytes(), false), padded[14..42]);
}

#[test]
fn the_pointer_finds_the_next_header_behind_extensions() {
    let mut frame = udp(true, 8);
    // Hop-by-hop options of 16 bytes, then destination options of 8, then an unknown protocol.
    frame[20] = ipv6::HOP_BY_HOP;
    let options = [
        [ipv6::DEST_OPTIONS, 1, 1, 4, 0, 0, 0, 0],
        [1, 6, 0, 0, 0, 0, 0, 0],
        [253, 0, 1, 4, 0, 0, 0, 0],
    ];
    frame.splice(54..54, options.concat());
    frame[18..20].copy_from_slice(&40_u16.to_be_bytes());
    let error = turned(&frame, Offload::NONE, IcmpError::ProtocolUnreachable, true);
    assert_eq!(error.bytes()[58..62], 56_u32.to_be_bytes());
    quoted(error.bytes(), true);
}

#[test]
fn an_address_of_the_other_family_cannot_send_an_error() {
    for v6 in [false, true] {
        let frame = udp(v6, 8);
        let parsed = Parsed::new(&frame).unwrap();
        let mut buf = PacketBuf::new(&frame, Offload::NONE);
        let error = IcmpError::HostUnreachable;
        assert!(!turn_into_error(&mut buf.frame(), &parsed, error, from(!v6), GATEWAY));
        assert_eq!(buf.bytes(), frame);
    }
}

fn may(frame: &[u8]) -> bool {
    may_answer(&Parsed::new(frame).unwrap(), frame)
}

#[test]
fn errors_are_never_sent_about_errors_groups_nobody_or_later_fragments() {
    for v6 in [false, true] {
        let plain = udp(v6, 64);
        assert!(may(&plain));
        let error = turned(&plain, Offload::NONE, IcmpError::HostUnreachable, v6);
        assert!(!may(error.bytes()), "about an error");
        let (src, dst) = if v6 { (22..38, 38..54) } else { (26..30, 30..34) };
        let with = |range: std::ops::Range<usize>, text: &str| {
            let addr = addr(text);
            let bytes = addr.v4().map_or(addr.bytes().to_vec(), |a| a.octets().to_vec());
            let mut frame = plain.clone();
            frame[range].copy_from_slice(&bytes);
            frame
        };
        for text in
            if v6 { ["::", "ff02::1", "::1"] } else { ["0.0.0.0", "224.0.0.1", "127.0.0.1"] }
        {
            assert!(!may(&with(src.clone(), text)), "to {text}");
        }
        assert!(!may(&with(dst, if v6 { "ff02::1" } else { "255.255.255.255" })));
        let mut broadcast = plain.clone();
        broadcast[..6].fill(0xff);
        assert!(!may(&broadcast));
    }
    let mut fragment = udp(false, 64);
    fragment[20] = 0x20;
    assert!(may(&fragment), "the first one");
    fragment[21] = 4;
    assert!(!may(&fragment), "a later one");
}

#[test]
fn an_error_may_be_sent_about_an_echo_request_but_not_about_a_redirect() {
    let mut frame = Vec::new();
    let link = PacketBuilder::ethernet2(A.0, GATEWAY.0);
    let ip = link.ipv4([172, 17, 0, 2], [192, 0, 2, 7], 1);
    ip.icmpv4_echo_request(1, 1).write(&mut frame, b"x").unwrap();
    assert!(may(&frame));
    frame[34] = v4::REDIRECT;
    assert!(!may(&frame));
    frame[34] = 42;
    assert!(!may(&frame), "an unknown type may be an error");
}

#[test]
fn errors_are_limited_to_the_rate() {
    let mut limit = ErrorLimit::new();
    let sent = (0..1000).filter(|_| limit.allow(Time(1))).count();
    assert_eq!(sent, ICMP_ERRORS_PER_SECOND as usize);
}
