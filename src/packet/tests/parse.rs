//! `Parsed` against etherparse.

use etherparse::{IpNumber, NetSlice, SlicedPacket, TransportSlice};
use proptest::prelude::*;

use super::super::{Csum, DropReason, Fragment, Gso, L3, Offload, Parsed};
use super::{L4, Spec, example, spec};
use crate::wire::addr::Addr;

/// What etherparse says of an IP packet, in our terms.
#[derive(Debug, PartialEq)]
struct Theirs {
    l3: L3,
    src: Addr,
    dst: Addr,
    ttl: u8,
    fragmented: bool,
    proto: u8,
    l4: usize,
    payload_len: usize,
    ports: Option<(u16, u16)>,
}

fn theirs(frame: &[u8]) -> Option<Theirs> {
    let packet = SlicedPacket::from_ethernet(frame).ok()?;
    if !packet.link_exts.is_empty() {
        return None;
    }
    let (l3, src, dst, ttl, has_auth, payload) = match packet.net.as_ref()? {
        NetSlice::Ipv4(ip) => {
            let header = ip.header();
            let (src, dst) = (header.source(), header.destination());
            let has_auth = ip.extensions().auth.is_some();
            (
                L3::V4,
                Addr::from_v4_bytes(src),
                Addr::from_v4_bytes(dst),
                header.ttl(),
                has_auth,
                ip.payload(),
            )
        }
        NetSlice::Ipv6(ip) => {
            let header = ip.header();
            let has_auth = ip
                .extensions()
                .clone()
                .into_iter()
                .any(|e| matches!(e, etherparse::Ipv6ExtensionSlice::Authentication(_)));
            // It takes a length of zero for a jumbogram.
            let jumbo = header.payload_length() == 0;
            (
                L3::V6,
                Addr::from_v6_bytes(header.source()),
                Addr::from_v6_bytes(header.destination()),
                header.hop_limit(),
                has_auth || jumbo,
                ip.payload(),
            )
        }
        NetSlice::Arp(_) => return None,
    };
    if has_auth {
        // An authentication header is an extension to it and a protocol to us.
        return None;
    }
    let ports = match packet.transport {
        Some(TransportSlice::Tcp(tcp)) => Some((tcp.source_port(), tcp.destination_port())),
        Some(TransportSlice::Udp(udp)) if udp.length() >= 8 => {
            Some((udp.source_port(), udp.destination_port()))
        }
        Some(TransportSlice::Udp(_)) => return None, // It takes a length of zero for a jumbogram.
        _ => None,
    };
    Some(Theirs {
        l3,
        src,
        dst,
        ttl,
        fragmented: payload.fragmented,
        proto: payload.ip_number.0,
        l4: payload.payload.as_ptr() as usize - frame.as_ptr() as usize,
        payload_len: payload.payload.len(),
        ports,
    })
}

/// What we refuse and etherparse does not, each for its reason.
fn may_refuse(reason: DropReason, theirs: &Theirs) -> bool {
    match reason {
        DropReason::MartianSource => theirs.src.is_v4(),
        DropReason::MartianDestination => theirs.dst.is_v4(),
        // It does not look at the transport header of a fragment.
        DropReason::FragmentOverlap => theirs.fragmented,
        DropReason::Truncated => {
            theirs.fragmented || (theirs.proto == 132 && theirs.payload_len < 12)
        }
        // Fragments that cannot be, and long or repeating chains of extension headers.
        DropReason::Malformed => theirs.fragmented || theirs.l4 >= 14 + 40 + 16,
        _ => false,
    }
}

fn compare(frame: &[u8]) -> Result<(), TestCaseError> {
    let ours = Parsed::new(frame);
    let Some(theirs) = theirs(frame) else { return Ok(()) };
    let ours = match ours {
        Ok(ours) => ours,
        Err(reason) => {
            prop_assert!(may_refuse(reason, &theirs), "{:?}: {:?}", reason, theirs);
            return Ok(());
        }
    };
    prop_assert_eq!(
        (ours.l3, ours.src, ours.dst, ours.ttl),
        (theirs.l3, theirs.src, theirs.dst, theirs.ttl)
    );
    prop_assert_eq!(ours.fragment != Fragment::Whole, theirs.fragmented);
    if ours.fragment == Fragment::Later && theirs.l3 == L3::V6 {
        return Ok(()); // It goes on to read extension headers where there is payload.
    }
    prop_assert_eq!(ours.proto, theirs.proto);
    prop_assert_eq!(usize::from(ours.l4), theirs.l4);
    prop_assert_eq!(ours.l4_len(), theirs.payload_len);
    prop_assert_eq!(ours.l4_bytes(frame).len(), theirs.payload_len);
    if let Some(ports) = theirs.ports {
        prop_assert_eq!((ours.src_port, ours.dst_port), ports);
    }
    Ok(())
}

fn expected_ports(spec: &Spec) -> (u16, u16) {
    let [src, dst] = spec.ports;
    match spec.l4 {
        L4::Tcp(..) | L4::Udp(_) | L4::Sctp => (src, dst),
        L4::Echo(false) => (src, 0),
        L4::Echo(true) => (0, dst),
        L4::IcmpError | L4::Other => (0, 0),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn valid_packets_are_understood_as_etherparse_does(spec in spec(), padding in 0_usize..20) {
        let mut frame = spec.build();
        let ip_len = frame.len() - 14;
        frame.resize(frame.len() + padding, 0);
        let parsed = Parsed::new(&frame).unwrap();
        prop_assert_eq!(parsed.ip_len as usize, ip_len);
        prop_assert_eq!((parsed.src_port, parsed.dst_port), expected_ports(&spec));
        prop_assert!(parsed.ipv4_checksum_is_right(&frame));
        if spec.payload.len() + spec.l4_header_len() > 0 {
            prop_assert!(theirs(&frame).is_some());
        }
        compare(&frame)?;
    }

    #[test]
    fn fragments_are_told_from_whole_packets(spec in spec(), cut: prop::sample::Index) {
        let len = spec.l4_header_len() + spec.payload.len();
        let cuts: Vec<usize> = (8..len).step_by(8).filter(|at| *at >= spec.l4_header_len()).collect();
        if cuts.is_empty() {
            return Ok(());
        }
        let at = *cut.get(&cuts);
        let [first, later] = spec.build_fragments(at);
        let parsed = [Parsed::new(&first).unwrap(), Parsed::new(&later).unwrap()];
        prop_assert_eq!(parsed.map(|p| p.fragment), [Fragment::First, Fragment::Later]);
        prop_assert_eq!(parsed.map(|p| p.proto), [spec.proto(); 2]);
        prop_assert_eq!(parsed.map(|p| p.l4_len()), [at, len - at]);
        prop_assert_eq!((parsed[0].src_port, parsed[0].dst_port), expected_ports(&spec));
        prop_assert_eq!((parsed[1].src_port, parsed[1].dst_port), (0, 0));
        compare(&first)?;
        compare(&later)?;
    }

    #[test]
    fn damaged_packets_never_panic_and_agree_where_etherparse_accepts(
        spec in spec(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        head in prop::collection::vec((0_usize..70, any::<u8>()), 0..3),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let mut frame = spec.build();
        for (at, value) in damage {
            let at = at.index(frame.len());
            frame[at] = value;
        }
        for (at, value) in head {
            if let Some(byte) = frame.get_mut(at) {
                *byte = value;
            }
        }
        if let Some(cut) = cut {
            frame.truncate(cut.index(frame.len()));
        }
        compare(&frame)?;
    }

    #[test]
    fn random_bytes_never_panic(
        mut frame in prop::collection::vec(any::<u8>(), 0..200),
        kind in 0_usize..4,
    ) {
        if frame.len() > 20 {
            let (ethertype, version) = [([8, 0], 0x45), ([0x86, 0xdd], 0x60), ([8, 6], 0), ([0x81, 0], 0)][kind];
            frame[12..14].copy_from_slice(&ethertype);
            frame[14] = version;
        }
        compare(&frame)?;
    }

    #[test]
    fn whatever_offload_metadata_passes_points_at_no_address_port_or_flag(
        spec in spec(), start: prop::sample::Index, offset in 0_u16..40,
    ) {
        let frame = spec.build();
        let parsed = Parsed::new(&frame).unwrap();
        let start = 34 + start.index((frame.len() - 34).max(1)) as u16;
        let at = usize::from(start + offset);
        let offload = Offload { csum: Csum::Partial { start, offset }, ..Offload::NONE };
        if offload.check(&parsed).is_ok() {
            let l4 = usize::from(parsed.l4);
            let own = spec.checksum_offset().map(|field| l4 + usize::from(field));
            let header_len = spec.l4_header_len().min(20);
            prop_assert!(Some(at) == own || at >= l4 + header_len, "{} in {:?}", at, parsed);
        }
    }
}

#[test]
fn a_mapped_address_on_the_wire_is_dropped() {
    for (at, reason) in [(22, DropReason::MartianSource), (38, DropReason::MartianDestination)] {
        let mut frame = example(true).build();
        frame[at..at + 16].copy_from_slice(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255, 10, 0, 0, 1]);
        assert_eq!(Parsed::new(&frame), Err(reason));
    }
}

#[test]
fn hop_by_hop_options_come_first_or_not_at_all() {
    let with = |extensions| Spec { extensions, ..example(true) }.build();
    assert!(Parsed::new(&with(vec![(0, 0), (60, 0)])).is_ok());
    assert_eq!(Parsed::new(&with(vec![(60, 0), (0, 0)])), Err(DropReason::Malformed));
}

#[test]
fn an_endless_chain_of_extension_headers_is_dropped() {
    let with = |n| Spec { extensions: vec![(60, 0); n], ..example(true) }.build();
    assert_eq!(Parsed::new(&with(8)).unwrap().proto, 6);
    assert_eq!(Parsed::new(&with(9)), Err(DropReason::Malformed));
}

#[test]
fn a_second_fragment_header_is_dropped() {
    let frame =
        Spec { extensions: vec![(44, 0)], ..example(true) }.frame(&[0; 64], Some((0, true)));
    assert_eq!(Parsed::new(&frame), Err(DropReason::Malformed));
}

#[test]
fn an_atomic_fragment_is_a_whole_packet() {
    let spec = example(true);
    let l4 = &spec.build()[54..];
    let parsed = Parsed::new(&spec.frame(l4, Some((0, false)))).unwrap();
    assert_eq!((parsed.fragment, parsed.l4, parsed.dst_port), (Fragment::Whole, 62, 80));
}

#[test]
fn fragments_that_cannot_be_are_dropped() {
    for v6 in [false, true] {
        let spec = example(v6);
        let parse =
            |len: usize, fragment| Parsed::new(&spec.frame(&vec![0x55; len], Some(fragment)));
        assert_eq!(parse(61, (0, true)), Err(DropReason::Malformed), "not a multiple of eight");
        assert_eq!(parse(64, (65520, false)), Err(DropReason::Malformed), "the ping of death");
        assert_eq!(parse(64, (8, true)), Err(DropReason::FragmentOverlap), "over TCP's flags");
        assert_eq!(parse(16, (0, true)), Err(DropReason::Truncated), "a tiny first fragment");
        assert!(parse(64, (24, true)).is_ok());
    }
}

#[test]
fn a_wrong_ipv4_header_checksum_is_seen_options_included() {
    let mut frame = Spec { ip_options: 3, ..example(false) }.build();
    let parsed = Parsed::new(&frame).unwrap();
    assert!(parsed.ipv4_checksum_is_right(&frame));
    frame[14 + 25] ^= 1;
    assert!(!parsed.ipv4_checksum_is_right(&frame));
    let frame = example(true).build();
    assert!(Parsed::new(&frame).unwrap().ipv4_checksum_is_right(&frame), "IPv6 has none");
}

#[test]
fn a_super_frame_must_be_what_it_says() {
    for v6 in [false, true] {
        let (frame, offload) = example(v6).build_partial();
        let parsed = Parsed::new(&frame).unwrap();
        let of = |gso| Offload { gso, gso_size: 10, ..offload }.check(&parsed);
        let (right, wrong) = if v6 { (Gso::TcpV6, Gso::TcpV4) } else { (Gso::TcpV4, Gso::TcpV6) };
        assert_eq!(of(Gso::None), Ok(()));
        assert_eq!(of(right), Ok(()));
        assert_eq!(of(wrong), Err(DropReason::OffloadHeader));
        assert_eq!(of(Gso::UdpL4), Err(DropReason::OffloadHeader));
    }
}

#[test]
fn a_fragment_or_an_arp_packet_with_an_unfinished_checksum_is_refused() {
    let (_, offload) = example(false).build_partial();
    let [first, _] = example(false).build_fragments(40);
    assert_eq!(offload.check(&Parsed::new(&first).unwrap()), Err(DropReason::OffloadHeader));
    let mut arp = vec![0; 60];
    arp[12..14].copy_from_slice(&[8, 6]);
    assert_eq!(offload.check(&Parsed::new(&arp).unwrap()), Err(DropReason::OffloadHeader));
}

#[test]
fn a_tunnel_s_inner_checksum_may_be_unfinished() {
    let spec = Spec { l4: L4::Udp(false), ..example(false) };
    let offload = Offload { csum: Csum::Partial { start: 92, offset: 16 }, ..Offload::NONE };
    assert_eq!(offload.check(&Parsed::new(&spec.build()).unwrap()), Ok(()));
    assert_eq!(IpNumber::UDP.0, spec.proto());
}
