//! Our views against smoltcp's representations: two readings of one RFC.

use std::net::{Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    ArpOperation, ArpPacket, ArpRepr, EthernetAddress, Icmpv4Message, Icmpv4Packet, Icmpv4Repr,
    Icmpv6Packet, Icmpv6Repr, IpAddress, NdiscNeighborFlags, NdiscRepr, TcpControl,
    TcpOption as TheirOption, TcpPacket, TcpRepr, TcpSeqNumber, TcpTimestampRepr,
};
use zerocopy::{FromBytes, IntoBytes};

use super::addr::Addr;
use super::arp::{self, Arp};
use super::icmp::{self, Icmp};
use super::mac::Mac;
use super::tcp::{self, Tcp, TcpOption};
use super::{checksum, ipv6, ndp};

fn icmpv6(repr: &Icmpv6Repr<'_>, src: Ipv6Addr, dst: Ipv6Addr) -> Vec<u8> {
    let mut bytes = vec![0; repr.buffer_len()];
    let mut packet = Icmpv6Packet::new_unchecked(&mut bytes);
    repr.emit(&src, &dst, &mut packet, &ChecksumCapabilities::default());
    bytes
}

/// What smoltcp's walk finds before the end or the first malformed option.
fn their_options(mut bytes: &[u8]) -> Vec<TcpOption> {
    let mut found = Vec::new();
    while let Ok((rest, option)) = TheirOption::parse(bytes) {
        bytes = rest;
        found.push(match option {
            TheirOption::EndOfList => break,
            TheirOption::NoOperation => continue,
            TheirOption::MaxSegmentSize(size) => TcpOption::Mss(size),
            TheirOption::WindowScale(shift) => TcpOption::WindowScale(shift),
            TheirOption::SackPermitted => TcpOption::SackPermitted,
            TheirOption::SackRange(_) => TcpOption::Other(5),
            TheirOption::TimeStamp { tsval, tsecr } => TcpOption::Timestamps(tsval, tsecr),
            TheirOption::Unknown { kind, .. } => TcpOption::Other(kind),
        });
    }
    found
}

proptest! {
    #[test]
    fn an_arp_packet_reads_the_same(request: bool, macs: [[u8; 6]; 2], addrs: [[u8; 4]; 2]) {
        let [spa, tpa] = addrs.map(Ipv4Addr::from);
        let oper = if request { arp::REQUEST } else { arp::REPLY };
        let ours = Arp::new(oper, (Mac(macs[0]), spa), (Mac(macs[1]), tpa));
        prop_assert!(ours.is_valid());
        let repr = ArpRepr::EthernetIpv4 {
            operation: if request { ArpOperation::Request } else { ArpOperation::Reply },
            source_hardware_addr: EthernetAddress(macs[0]),
            source_protocol_addr: spa,
            target_hardware_addr: EthernetAddress(macs[1]),
            target_protocol_addr: tpa,
        };
        let theirs = ArpRepr::parse(&ArpPacket::new_checked(ours.as_bytes()).unwrap()).unwrap();
        prop_assert_eq!(theirs, repr);
        let mut emitted = [0; 28];
        repr.emit(&mut ArpPacket::new_unchecked(&mut emitted[..]));
        prop_assert_eq!(emitted.as_slice(), ours.as_bytes());
    }

    #[test]
    fn a_damaged_arp_packet_is_valid_to_both_or_none(at in 0_usize..8, value: u8) {
        let none = (Mac::ZERO, Ipv4Addr::UNSPECIFIED);
        let mut bytes = Arp::new(arp::REQUEST, none, none).as_bytes().to_vec();
        bytes[at] = value;
        let theirs = ArpPacket::new_checked(&bytes[..])
            .and_then(|packet| ArpRepr::parse(&packet))
            .is_ok_and(|repr| match repr {
                ArpRepr::EthernetIpv4 { operation, .. } => {
                    !matches!(operation, ArpOperation::Unknown(_))
                }
                _ => false,
            });
        prop_assert_eq!(Arp::read_from_bytes(&bytes).unwrap().is_valid(), theirs);
    }

    #[test]
    fn neighbour_discovery_reads_the_same(
        solicitation: bool, src: u128, dst: u128, target: u128, flags in 0_u8..8,
        mac: Option<[u8; 6]>,
    ) {
        let [src, dst, target] = [src, dst, target].map(Ipv6Addr::from);
        let lladdr = mac.map(|mac| EthernetAddress(mac).into());
        let flags = NdiscNeighborFlags::from_bits_truncate(flags << 5);
        let repr = if solicitation {
            NdiscRepr::NeighborSolicit { target_addr: target, lladdr }
        } else {
            NdiscRepr::NeighborAdvert { flags, target_addr: target, lladdr }
        };
        let bytes = icmpv6(&Icmpv6Repr::Ndisc(repr), src, dst);

        let (header, _) = Icmp::ref_from_prefix(&bytes).unwrap();
        let kinds = [icmp::v6::NEIGHBOUR_ADVERTISEMENT, icmp::v6::NEIGHBOUR_SOLICITATION];
        prop_assert_eq!(header.kind, kinds[usize::from(solicitation)]);
        let (neighbour, options) = ndp::Neighbour::ref_from_prefix(&bytes[4..]).unwrap();
        prop_assert_eq!(neighbour.target_addr(), Addr::from_v6_bytes(target.octets()));
        if !solicitation {
            let theirs = [
                (NdiscNeighborFlags::ROUTER, ndp::ROUTER),
                (NdiscNeighborFlags::SOLICITED, ndp::SOLICITED),
                (NdiscNeighborFlags::OVERRIDE, ndp::OVERRIDE),
            ];
            for (their_flag, our_flag) in theirs {
                prop_assert_eq!(flags.contains(their_flag), neighbour.flags.get() & our_flag != 0);
            }
        }
        prop_assert!(ndp::options_are_valid(options));
        let kind = if solicitation { ndp::SOURCE_LINK_LAYER } else { ndp::TARGET_LINK_LAYER };
        prop_assert_eq!(ndp::link_layer_option(options, kind), mac.map(Mac));

        let addr = |ip: Ipv6Addr| Addr::from_v6_bytes(ip.octets());
        let pseudo =
            checksum::pseudo_header(addr(src), addr(dst), ipv6::ICMPV6, bytes.len() as u32);
        prop_assert_eq!(checksum::add(pseudo, checksum::sum(&bytes)), 0xffff);
    }

    #[test]
    fn an_echo_reads_the_same_in_both_families(
        id: u16, seq: u16, reply: bool, data in prop::collection::vec(any::<u8>(), 0..64),
    ) {
        let (ident, seq_no, data) = (id, seq, &data[..]);
        let v4 = if reply {
            Icmpv4Repr::EchoReply { ident, seq_no, data }
        } else {
            Icmpv4Repr::EchoRequest { ident, seq_no, data }
        };
        let mut bytes = vec![0; v4.buffer_len()];
        v4.emit(&mut Icmpv4Packet::new_unchecked(&mut bytes), &ChecksumCapabilities::default());
        let (header, _) = Icmp::ref_from_prefix(&bytes).unwrap();
        let kinds = [icmp::v4::ECHO_REQUEST, icmp::v4::ECHO_REPLY];
        prop_assert_eq!(
            (header.kind, header.id.get(), header.seq.get()),
            (kinds[usize::from(reply)], id, seq)
        );
        prop_assert_eq!(checksum::sum(&bytes), 0xffff);

        let v6 = if reply {
            Icmpv6Repr::EchoReply { ident, seq_no, data }
        } else {
            Icmpv6Repr::EchoRequest { ident, seq_no, data }
        };
        let bytes = icmpv6(&v6, Ipv6Addr::LOCALHOST, Ipv6Addr::LOCALHOST);
        let (header, _) = Icmp::ref_from_prefix(&bytes).unwrap();
        let kinds = [icmp::v6::ECHO_REQUEST, icmp::v6::ECHO_REPLY];
        prop_assert_eq!(
            (header.kind, header.id.get(), header.seq.get()),
            (kinds[usize::from(reply)], id, seq)
        );
    }

    #[test]
    fn the_options_of_a_syn_read_the_same(
        ports: [u16; 2], seq: i32, window: u16, mss: Option<u16>,
        scale in prop::option::of(0_u8..15), sack: bool, stamps: Option<(u32, u32)>,
    ) {
        let repr = TcpRepr {
            src_port: ports[0], dst_port: ports[1], control: TcpControl::Syn,
            seq_number: TcpSeqNumber(seq), ack_number: None, window_len: window,
            window_scale: scale, max_seg_size: mss, sack_permitted: sack,
            sack_ranges: [None; 3], payload: &[],
            timestamp: stamps.map(|(value, echo)| TcpTimestampRepr::new(value, echo)),
        };
        let [src, dst] = [Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(10, 0, 0, 2)];
        let mut bytes = vec![0; repr.buffer_len()];
        repr.emit(
            &mut TcpPacket::new_unchecked(&mut bytes),
            &IpAddress::Ipv4(src),
            &IpAddress::Ipv4(dst),
            &ChecksumCapabilities::default(),
        );
        let (header, _) = Tcp::ref_from_prefix(&bytes).unwrap();
        prop_assert_eq!([header.src_port.get(), header.dst_port.get()], ports);
        prop_assert_eq!((header.seq.get(), header.window.get()), (seq as u32, window));
        prop_assert!(header.has(tcp::SYN) && !header.has(tcp::ACK));
        let options: Vec<_> =
            tcp::Options::new(&bytes[tcp::HEADER_LEN..header.header_len()]).collect();
        let mut expected = Vec::new();
        expected.extend(mss.map(TcpOption::Mss));
        expected.extend(scale.map(TcpOption::WindowScale));
        expected.extend(sack.then_some(TcpOption::SackPermitted));
        expected.extend(stamps.map(|(value, echo)| TcpOption::Timestamps(value, echo)));
        prop_assert_eq!(options, expected);
        let pseudo = checksum::pseudo_header(src.into(), dst.into(), ipv6::TCP, bytes.len() as u32);
        prop_assert_eq!(checksum::add(pseudo, checksum::sum(&bytes)), 0xffff);
    }

    #[test]
    fn any_options_read_the_same_up_to_the_first_malformed_one(
        bytes in prop::collection::vec(prop_oneof![0_u8..12, any::<u8>()], 0..40),
    ) {
        let theirs = their_options(&bytes);
        let ours: Vec<_> = tcp::Options::new(&bytes).collect();
        // An option of a known kind and a wrong length ends smoltcp's walk; we pass over it.
        prop_assert_eq!(&ours[..theirs.len()], &theirs[..]);
        let known = |kind: &TcpOption| matches!(kind, TcpOption::Other(2..=5));
        prop_assert!(ours.get(theirs.len()).is_none_or(known), "{:?} {:?}", ours, theirs);
    }

    #[test]
    fn any_neighbour_options_end(bytes in prop::collection::vec(prop_oneof![0_u8..4, any::<u8>()], 0..64)) {
        let walked: usize = ndp::Options::new(&bytes).map(|(_, body)| body.len() + 2).sum();
        prop_assert!(walked <= bytes.len());
        prop_assert_eq!(ndp::options_are_valid(&bytes), walked == bytes.len());
    }
}

#[test]
fn the_numbers_of_icmp_are_smoltcp_s() {
    for (ours, theirs) in [
        (icmp::v4::UNREACHABLE, Icmpv4Message::DstUnreachable),
        (icmp::v4::REDIRECT, Icmpv4Message::Redirect),
        (icmp::v4::TIME_EXCEEDED, Icmpv4Message::TimeExceeded),
        (icmp::v4::PARAMETER_PROBLEM, Icmpv4Message::ParamProblem),
        (icmp::v4::TIMESTAMP_REQUEST, Icmpv4Message::Timestamp),
        (icmp::v4::TIMESTAMP_REPLY, Icmpv4Message::TimestampReply),
    ] {
        assert_eq!(Icmpv4Message::from(ours), theirs);
    }
}
