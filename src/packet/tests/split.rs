//! `Segments` against the frames that the same sender would have built one by one.

use etherparse::{NetSlice, SlicedPacket, TransportSlice};
use proptest::prelude::*;

use super::super::split::{Cut, Segments, segment_count};
use super::super::{Csum, DropReason, Gso, Offload, PacketBuf, Parsed};
use super::{L4, Spec, example, spec};
use crate::base::limits::{HEADROOM, SEGMENTS_MAX};
use crate::wire::tcp::{CWR, FIN, PSH};
use crate::wire::vnet::HEADER_LEN as VNET_LEN;

/// A super-frame of this packet.
fn super_frame(spec: &Spec, gso_size: u16) -> (Vec<u8>, Offload) {
    let (frame, offload) = spec.build_partial();
    let gso = match (&spec.l4, spec.v6) {
        (L4::Udp(_), _) => Gso::UdpL4,
        (_, false) => Gso::TcpV4,
        (_, true) => Gso::TcpV6,
    };
    (frame, Offload { gso, gso_size, ..offload })
}

/// The plain copying splitter: every segment built from nothing.
fn expected(spec: &Spec, gso_size: usize) -> Vec<Vec<u8>> {
    let mut chunks: Vec<&[u8]> = spec.payload.chunks(gso_size).collect();
    if chunks.is_empty() {
        chunks.push(&[]);
    }
    let last = chunks.len() - 1;
    let segment = |(index, chunk): (usize, &&[u8])| {
        let l4 = match &spec.l4 {
            L4::Tcp(flags, options) => {
                let mut flags = *flags;
                if index > 0 {
                    flags &= !CWR;
                }
                if index < last {
                    flags &= !(FIN | PSH);
                }
                L4::Tcp(flags, options.clone())
            }
            _ => L4::Udp(true),
        };
        let segment = Spec {
            l4,
            payload: chunk.to_vec(),
            id: spec.id.wrapping_add(index as u16),
            seq: spec.seq.wrapping_add((index * gso_size) as u32),
            ..spec.clone()
        };
        segment.build()
    };
    chunks.iter().enumerate().map(segment).collect()
}

fn segments(buf: &mut PacketBuf) -> Vec<Vec<u8>> {
    let parsed = buf.frame().parse().unwrap();
    let mut segments = Segments::new(buf.frame(), &parsed).unwrap();
    let mut found = Vec::new();
    while let Some(segment) = segments.next() {
        assert_eq!(segment.offload(), Offload { csum: Csum::Complete, ..Offload::NONE });
        found.push(segment.bytes().to_vec());
    }
    found
}

/// Etherparse's judgement of lengths and checksums; gives the payload.
fn judge(frame: &[u8]) -> Vec<u8> {
    let packet = SlicedPacket::from_ethernet(frame).unwrap();
    match packet.net.unwrap() {
        NetSlice::Ipv4(ip) => {
            let header = ip.header();
            assert_eq!(header.header_checksum(), header.to_header().calc_header_checksum());
            assert_eq!(usize::from(header.total_len()), frame.len() - 14);
            let (src, dst) = (header.source(), header.destination());
            match packet.transport.unwrap() {
                TransportSlice::Tcp(tcp) => {
                    assert_eq!(tcp.checksum(), tcp.calc_checksum_ipv4(src, dst).unwrap());
                    tcp.payload().to_vec()
                }
                TransportSlice::Udp(udp) => {
                    let sum = udp.to_header().calc_checksum_ipv4_raw(src, dst, udp.payload());
                    assert_eq!(udp.checksum(), sum.unwrap());
                    udp.payload().to_vec()
                }
                other => panic!("{other:?}"),
            }
        }
        NetSlice::Ipv6(ip) => {
            assert_eq!(usize::from(ip.header().payload_length()), frame.len() - 54);
            let (src, dst) = (ip.header().source(), ip.header().destination());
            match packet.transport.unwrap() {
                TransportSlice::Tcp(tcp) => {
                    assert_eq!(tcp.checksum(), tcp.calc_checksum_ipv6(src, dst).unwrap());
                    tcp.payload().to_vec()
                }
                TransportSlice::Udp(udp) => {
                    let sum = udp.to_header().calc_checksum_ipv6_raw(src, dst, udp.payload());
                    assert_eq!(udp.checksum(), sum.unwrap());
                    udp.payload().to_vec()
                }
                other => panic!("{other:?}"),
            }
        }
        NetSlice::Arp(arp) => panic!("{arp:?}"),
    }
}

/// TCP or UDP with more payload, and a size that makes no more segments than are allowed.
fn splittable() -> impl Strategy<Value = (Spec, u16)> {
    // Bytes from a generator of our own: proptest would shrink each of 64,000 by itself.
    let payload =
        (prop_oneof![0_usize..600, 10_000_usize..64_000], any::<u32>()).prop_map(|(len, seed)| {
            (0..len as u32).map(move |n| n.wrapping_mul(seed) as u8 ^ (n >> 8) as u8)
        });
    (spec(), payload, any::<bool>(), 1_u16..3000).prop_map(|(mut spec, payload, udp, size)| {
        spec.l4 = match spec.l4 {
            L4::Tcp(flags, options) if !udp => L4::Tcp(flags, options),
            _ if udp => L4::Udp(true),
            _ => L4::Tcp(FIN | PSH | CWR, vec![1; 12]),
        };
        let payload: Vec<u8> = payload.collect();
        let at_least = payload.len().div_ceil(SEGMENTS_MAX).max(1) as u16;
        spec.payload = payload;
        (spec, size.max(at_least))
    })
}

proptest! {
    #[test]
    fn segments_are_the_frames_that_the_sender_would_have_built((spec, size) in splittable()) {
        let (frame, offload) = super_frame(&spec, size);
        let expected = expected(&spec, usize::from(size));
        let parsed = Parsed::new(&frame).unwrap();
        prop_assert_eq!(segment_count(&parsed, offload, &frame), expected.len());

        let found = segments(&mut PacketBuf::new(&frame, offload));
        prop_assert_eq!(&found, &expected);
        let payload: Vec<u8> = found.iter().flat_map(|frame| judge(frame)).collect();
        prop_assert_eq!(payload, spec.payload);
    }

    #[test]
    fn headers_put_before_one_segment_do_not_reach_the_next((spec, size) in splittable()) {
        let (frame, offload) = super_frame(&spec, size);
        let mut buf = PacketBuf::new(&frame, offload);
        let parsed = buf.frame().parse().unwrap();
        let mut segments = Segments::new(buf.frame(), &parsed).unwrap();
        for expected in expected(&spec, usize::from(size)) {
            let mut segment = segments.next().unwrap();
            segment.prepend(HEADROOM - VNET_LEN).unwrap().fill(0xee);
            prop_assert_eq!(&segment.bytes()[HEADROOM - VNET_LEN..], &expected[..]);
            prop_assert_eq!(&segment.with_vnet_header()[HEADROOM..], &expected[..]);
        }
        prop_assert!(segments.next().is_none());
    }

    #[test]
    fn a_train_s_headers_and_payloads_make_the_same_segments((spec, size) in splittable()) {
        let (frame, offload) = super_frame(&spec, size);
        let mut cut = Cut::new(&frame, &Parsed::new(&frame).unwrap(), offload).unwrap();
        let train: Vec<Vec<u8>> = (0..cut.count())
            .map(|index| {
                let payload = &frame[cut.payload(index)];
                [cut.headers(index, payload), payload].concat()
            })
            .collect();
        prop_assert_eq!(train, expected(&spec, usize::from(size)));
    }
}

fn refuse(frame: &[u8], offload: Offload) {
    let mut buf = PacketBuf::new(frame, offload);
    let parsed = Parsed::new(frame).unwrap();
    assert_eq!(Segments::new(buf.frame(), &parsed).unwrap_err(), DropReason::CannotSplit);
}

#[test]
fn one_byte_a_segment_is_refused() {
    for v6 in [false, true] {
        let spec = Spec { payload: vec![0; SEGMENTS_MAX + 1], ..example(v6) };
        let (frame, offload) = super_frame(&spec, 1);
        refuse(&frame, offload);
        assert_eq!(
            segments(&mut PacketBuf::new(&frame, Offload { gso_size: 2, ..offload })).len(),
            129
        );
    }
}

#[test]
fn what_is_no_super_frame_or_contradicts_itself_is_refused() {
    let (frame, offload) = super_frame(&example(false), 10);
    refuse(&frame, Offload { gso: Gso::None, ..offload });
    refuse(&frame, Offload { gso: Gso::TcpV6, ..offload });
    refuse(&frame, Offload { gso: Gso::UdpL4, ..offload });
    refuse(&frame, Offload { csum: Csum::Complete, ..offload });
    refuse(&frame, Offload { csum: Csum::Partial { start: 40, offset: 16 }, ..offload });
    refuse(&example(false).build_fragments(40)[0], offload);
}

#[test]
fn headers_that_are_repeated_without_measure_are_refused() {
    let spec = Spec { extensions: vec![(60, 21)], ..example(true) };
    let (frame, offload) = super_frame(&spec, 10);
    refuse(&frame, offload);
}

#[test]
fn padding_behind_the_packet_is_no_payload() {
    let (mut frame, offload) = super_frame(&example(false), 40);
    frame.resize(frame.len() + 10, 0xaa);
    assert_eq!(segments(&mut PacketBuf::new(&frame, offload)), expected(&example(false), 40));
}

#[test]
fn the_largest_frame_is_cut() {
    for v6 in [false, true] {
        let spec = Spec { payload: vec![0x5a; 65_535 - 72], ..example(v6) };
        let (frame, offload) = super_frame(&spec, 1448);
        assert_eq!(segments(&mut PacketBuf::new(&frame, offload)).len(), 46);
    }
}
