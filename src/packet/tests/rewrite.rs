//! `Rewrite` against checksums computed anew.

use proptest::prelude::*;

use super::super::{Csum, FlowKey, Offload, PacketBuf, Parsed, Rewrite, Scope, rewrite::NatDelta};
use super::{L4, Spec, plain_crc32c, plain_sum, spec};
use crate::base::ids::DomainId;
use crate::wire::addr::Addr;
use crate::wire::mac::Mac;

/// The spec's addresses and ports after translation, as the key that the rewrite is given.
fn key(spec: &Spec) -> FlowKey {
    let addr = |bytes: &[u8; 16]| match bytes {
        _ if spec.v6 => Addr::from_v6_bytes(*bytes),
        [.., a, b, c, d] => Addr::from_v4_bytes([*a, *b, *c, *d]),
    };
    let [src_port, dst_port] = match spec.l4 {
        L4::Tcp(..) | L4::Udp(_) | L4::Sctp => spec.ports,
        L4::Echo(false) => [spec.ports[0], 0],
        L4::Echo(true) => [0, spec.ports[1]],
        L4::IcmpError | L4::Other => [0, 0],
    };
    FlowKey {
        src: addr(&spec.src),
        dst: addr(&spec.dst),
        src_port,
        dst_port,
        domain: DomainId(0),
        proto: spec.proto(),
        scope: Scope::Routed,
    }
}

fn rewrite(from: &Spec, to: &Spec) -> Rewrite {
    let (before, after) = (key(from), key(to));
    Rewrite { nat: Some((after, NatDelta::between(&before, &after))), route: None }
}

fn apply(rewrite: &Rewrite, frame: &[u8], offload: Offload) -> PacketBuf {
    let mut buf = PacketBuf::new(frame, offload);
    let parsed = buf.frame().parse().unwrap();
    rewrite.apply(&mut buf.frame(), &parsed);
    buf
}

/// A packet, and the same one with other addresses and ports.
fn translation() -> impl Strategy<Value = (Spec, Spec)> {
    (spec(), any::<[u8; 15]>(), any::<[u8; 15]>(), any::<[u16; 2]>(), 0_u8..8).prop_map(
        |(from, src, dst, ports, keep)| {
            let mut to = from.clone();
            if keep & 1 == 0 {
                to.src[1..].copy_from_slice(&src);
            }
            if keep & 2 == 0 {
                to.dst[1..].copy_from_slice(&dst);
            }
            if keep & 4 == 0 {
                to.ports = ports;
            }
            (from, to)
        },
    )
}

/// Both zeros are one number in ones' complement.
fn same_sum(a: &[u8], b: &[u8]) -> bool {
    let is_zero = |x: &[u8]| x == [0, 0] || x == [0xff, 0xff];
    a == b || (is_zero(a) && is_zero(b))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn a_translated_packet_is_the_one_its_new_sender_would_have_built((from, to) in translation()) {
        let buf = apply(&rewrite(&from, &to), &from.build(), Offload::NONE);
        prop_assert_eq!(buf.bytes(), to.build());
    }

    #[test]
    fn an_unfinished_checksum_stays_the_pseudo_header_s_sum((from, to) in translation()) {
        prop_assume!(from.checksum_offset().is_some());
        let (frame, offload) = from.build_partial();
        let mut buf = apply(&rewrite(&from, &to), &frame, offload);
        let (expected, _) = to.build_partial();
        let Csum::Partial { start, offset } = offload.csum else { unreachable!() };
        let at = usize::from(start + offset);
        prop_assert!(same_sum(&buf.bytes()[at..at + 2], &expected[at..at + 2]));
        prop_assert_eq!(&buf.bytes()[..at], &expected[..at]);
        prop_assert_eq!(&buf.bytes()[at + 2..], &expected[at + 2..]);

        super::super::finish::finish_checksum(&mut buf.frame());
        let whole = Spec { l4: if to.l4 == L4::Udp(false) { L4::Udp(true) } else { to.l4.clone() }, ..to };
        prop_assert!(same_sum(&buf.bytes()[at..at + 2], &whole.build()[at..at + 2]));
        prop_assert_eq!(buf.offload().csum, Csum::Complete);
    }

    #[test]
    fn the_fragments_of_a_datagram_are_translated_as_one((from, to) in translation(), cut: prop::sample::Index) {
        let len = from.l4_header_len() + from.payload.len();
        let cuts: Vec<usize> = (8..len).step_by(8).filter(|at| *at >= from.l4_header_len()).collect();
        // The CRC32c of SCTP cannot be known from a first fragment.
        if cuts.is_empty() || from.l4 == L4::Sctp {
            return Ok(());
        }
        let at = *cut.get(&cuts);
        let rewrite = rewrite(&from, &to);
        for (before, after) in from.build_fragments(at).iter().zip(to.build_fragments(at)) {
            let buf = apply(&rewrite, before, Offload::NONE);
            prop_assert_eq!(buf.bytes(), after);
        }
    }

    #[test]
    fn the_way_back_undoes_the_way_there((from, to) in translation()) {
        let there = rewrite(&from, &to);
        let (_, delta) = there.nat.unwrap();
        let back = Rewrite { nat: Some((key(&from), delta.inverse())), route: None };
        let buf = apply(&there, &from.build(), Offload::NONE);
        let buf = apply(&back, buf.bytes(), Offload::NONE);
        prop_assert_eq!(buf.bytes(), from.build());
    }

    #[test]
    fn routing_takes_one_hop_and_sets_the_macs(from in spec(), macs in any::<[[u8; 6]; 2]>()) {
        let rewrite = Rewrite { nat: None, route: Some((Mac(macs[0]), Mac(macs[1]))) };
        let buf = apply(&rewrite, &from.build(), Offload::NONE);
        let expected = Spec { ttl: from.ttl - 1, ..from }.build();
        prop_assert_eq!(&buf.bytes()[..6], macs[0]);
        prop_assert_eq!(&buf.bytes()[6..12], macs[1]);
        prop_assert_eq!(&buf.bytes()[12..], &expected[12..]);
    }

    #[test]
    fn a_damaged_checksum_is_not_healed((from, to) in translation(), bit in 0_usize..16) {
        prop_assume!(!matches!(from.l4, L4::Other | L4::Udp(false)));
        let mut frame = from.build();
        let l4 = usize::from(Parsed::new(&frame).unwrap().l4);
        let at = l4 + from.checksum_offset().map_or(8, usize::from);
        frame[at + bit / 8] ^= 1 << (bit % 8);
        // This would be the difference between the two zeros, or "no checksum".
        prop_assume!(frame[at..at + 2] != [0, 0] && frame[at..at + 2] != [0xff, 0xff]);
        let buf = apply(&rewrite(&from, &to), &frame, Offload::NONE);
        let bytes = &buf.bytes()[l4..];
        if from.l4 == L4::Sctp {
            let mut zeroed = bytes.to_vec();
            zeroed[8..12].fill(0);
            prop_assert_ne!(plain_crc32c(&zeroed).to_le_bytes(), &bytes[8..12]);
        } else {
            prop_assert_ne!(plain_sum(&[&to.pseudo_header(bytes.len()), bytes]), 0xffff);
        }
    }
}

#[test]
fn a_udp_checksum_that_becomes_zero_is_sent_as_all_ones() {
    for v6 in [false, true] {
        let mut from = Spec { l4: L4::Udp(true), ports: [1, 2], ..super::example(v6) };
        let at = usize::from(Parsed::new(&from.build()).unwrap().l4) + 6;
        from.payload = vec![0; 32];
        let mut to = from.clone();
        // Find the port that makes the sum all ones and thus the checksum zero.
        to.ports[0] = 0;
        let field = u16::from_be_bytes([to.build()[at], to.build()[at + 1]]);
        to.ports[0] = field;
        assert_eq!(&to.build()[at..at + 2], [0xff, 0xff], "the corner is reached");
        let buf = apply(&rewrite(&from, &to), &from.build(), Offload::NONE);
        assert_eq!(buf.bytes(), to.build());
    }
}

#[test]
fn a_header_checksum_never_becomes_all_ones() {
    // RFC 1624 section 3: RFC 1141's equation would give 0xffff here where 0x0000 is right.
    let mut from = Spec { l4: L4::Other, ..super::example(false) };
    let field = |s: &Spec| u16::from_be_bytes([s.build()[24], s.build()[25]]);
    let mut to = from.clone();
    to.src[12..14].fill(0);
    let [a, b] = field(&to).to_be_bytes();
    to.src[12..14].copy_from_slice(&[a, b]);
    assert_eq!(field(&to), 0, "the corner is reached");
    from.src[12..14].copy_from_slice(&[10, 0]);
    let buf = apply(&rewrite(&from, &to), &from.build(), Offload::NONE);
    assert_eq!(buf.bytes(), to.build());
}

#[test]
fn a_packet_without_hops_left_is_not_sent_round_again() {
    for v6 in [false, true] {
        let frame = Spec { ttl: 0, ..super::example(v6) }.build();
        let route = Rewrite { nat: None, route: Some((Mac::ZERO, Mac::ZERO)) };
        let buf = apply(&route, &frame, Offload::NONE);
        assert_eq!(&buf.bytes()[12..], &frame[12..]);
    }
}
