use proptest::prelude::*;

use super::super::testing::{addr, ip_frame_between, ip_packet, masqueraded, outside};
use super::Direction::{Initiator, Responder};
use super::*;
use crate::base::ids::PortId;
use crate::base::time::Time;
use crate::packet::{Offload, PacketBuf, Rewrite};
use crate::wire::ipv6::{ICMP, ICMPV6, SCTP, TCP, UDP};

const PROTOS: [u8; 4] = [TCP, UDP, ICMP, SCTP];

/// ICMP means each family's own.
fn flow(v6: bool, proto: u8) -> Flow {
    let mut keys = masqueraded(v6, if proto == ICMP && v6 { ICMPV6 } else { proto }, 7);
    if proto == ICMP {
        keys[0].dst_port = 0;
        keys[1].src_port = 0;
    }
    Flow::new(Time::ZERO, keys, [PortId(1), PortId(2)])
}

fn router(v6: bool) -> Addr {
    addr(v6, 0x0099_0000)
}

/// A packet of `flow` in `dir` as its sender sends it, checksums right.
fn packet(flow: &Flow, dir: Direction) -> Vec<u8> {
    let key = flow.key(dir);
    let mut l4 = vec![0; 60];
    l4.iter_mut().enumerate().for_each(|(n, byte)| *byte = n as u8);
    put(&mut l4, 0, key.src_port);
    put(&mut l4, 2, key.dst_port);
    let field = match key.proto {
        TCP => {
            l4[12] = 0x50;
            16
        }
        UDP => {
            put(&mut l4, 4, 60);
            6
        }
        SCTP => return ip_packet(key.src, key.dst, key.proto, &l4),
        _ => {
            let request = if key.proto == ICMP { 8 } else { 128 };
            let reply = if key.proto == ICMP { 0 } else { 129 };
            l4[0] = if dir == Initiator { request } else { reply };
            l4[1] = 0;
            put(&mut l4, 4, key.src_port.max(key.dst_port));
            2
        }
    };
    put(&mut l4, field, 0);
    let pseudo = if key.proto == ICMP {
        0
    } else {
        checksum::pseudo_header(key.src, key.dst, key.proto, 60)
    };
    let sum = checksum::add(checksum::sum(&l4), pseudo);
    put(&mut l4, field, !sum);
    ip_packet(key.src, key.dst, key.proto, &l4)
}

fn frame_of(packet: &[u8]) -> Vec<u8> {
    let ethertype = if packet[0] >> 4 == 4 { [0x08, 0x00] } else { [0x86, 0xdd] };
    [&[2; 12], &ethertype[..], packet].concat()
}

/// How that packet leaves us.
fn translated(flow: &Flow, dir: Direction) -> Vec<u8> {
    let frame = frame_of(&packet(flow, dir));
    let parsed = Parsed::new(&frame).unwrap();
    let mut buf = PacketBuf::new(&frame, Offload::NONE);
    Rewrite { nat: flow.rewrite(dir), route: None }.apply(&mut buf.frame(), &parsed);
    buf.bytes()[14..].to_vec()
}

/// An error from `from` about a packet; `body` is the quote and what follows, `length` its attribute.
fn error(from: Addr, to: Addr, length: u8, body: &[u8]) -> Vec<u8> {
    let v4 = from.is_v4();
    let mut icmp =
        if v4 { vec![3, 4, 0, 0, 0, length, 5, 0] } else { vec![1, 4, 0, 0, length, 0, 0, 0] };
    icmp.extend(body);
    let proto = if v4 { ICMP } else { ICMPV6 };
    let pseudo = checksum::pseudo_header(from, to, proto, icmp.len() as u32);
    let sum = checksum::add(checksum::sum(&icmp), if v4 { 0 } else { pseudo });
    put(&mut icmp, 2, !sum);
    ip_frame_between(from, to, proto, &icmp)
}

fn find(frame: &[u8], flow: &Flow, dir: Direction) -> Result<Option<EmbeddedKey>, DropReason> {
    let key = flow.key(dir);
    related(frame, &Parsed::new(frame).unwrap(), Csum::Unverified, key.domain, key.scope)
}

/// Finds the flow of an error that travels in `dir`, translates it, and gives the frame.
fn through(frame: &[u8], flow: &Flow, dir: Direction) -> Vec<u8> {
    let embedded = find(frame, flow, dir).unwrap().expect("an error");
    assert_eq!(&embedded.lookup_key(), flow.key(dir));
    let parsed = Parsed::new(frame).unwrap();
    let mut buf = PacketBuf::new(frame, Offload::NONE);
    translate_error(&mut buf.frame(), &parsed, &embedded, flow, dir);
    assert_checksums(buf.bytes());
    buf.bytes().to_vec()
}

fn assert_checksums(frame: &[u8]) {
    let parsed = Parsed::new(frame).unwrap();
    assert!(checksum_is_right(frame, &parsed, Csum::Unverified), "outer ICMP");
    if parsed.l3 == L3::V4 {
        assert_eq!(checksum::sum(&frame[14..usize::from(parsed.l4)]), 0xffff, "outer IPv4");
    }
}

fn body(frame: &[u8]) -> &[u8] {
    &frame[usize::from(Parsed::new(frame).unwrap().l4) + 8..]
}

#[test]
fn an_error_from_outside_reaches_the_inside_quoting_what_it_sent() {
    for v6 in [false, true] {
        for proto in PROTOS {
            let flow = flow(v6, proto);
            let (sent, left) = (packet(&flow, Initiator), translated(&flow, Initiator));
            assert_ne!(sent, left);
            let got = through(&error(router(v6), outside(v6), 0, &left), &flow, Responder);
            let parsed = Parsed::new(&got).unwrap();
            assert_eq!((parsed.src, parsed.dst), (router(v6), addr(v6, 7)));
            if proto == SCTP {
                // The CRC cannot be restored from a quote.
                assert_eq!(body(&got)[..sent.len() - 52], sent[..sent.len() - 52]);
            } else {
                assert_eq!(body(&got), sent, "{proto} {v6}");
            }
        }
    }
}

#[test]
fn an_error_from_the_remote_host_itself_keeps_its_source() {
    for v6 in [false, true] {
        let flow = flow(v6, UDP);
        let remote = flow.key(Responder).src;
        let left = translated(&flow, Initiator);
        let got = through(&error(remote, outside(v6), 0, &left), &flow, Responder);
        assert_eq!(Parsed::new(&got).unwrap().src, remote);
    }
}

#[test]
fn an_error_from_inside_leaves_with_the_outside_address_whoever_made_it() {
    for v6 in [false, true] {
        for proto in [TCP, UDP, ICMP] {
            let flow = flow(v6, proto);
            let (sent, arrived) = (packet(&flow, Responder), translated(&flow, Responder));
            let remote = flow.key(Responder).src;
            for from in [addr(v6, 7), router(v6)] {
                let got = through(&error(from, remote, 0, &arrived), &flow, Initiator);
                let parsed = Parsed::new(&got).unwrap();
                assert_eq!((parsed.src, parsed.dst), (outside(v6), remote));
                assert_eq!(body(&got), sent);
            }
        }
    }
}

#[test]
fn a_hairpinned_error_is_translated_on_both_sides() {
    for v6 in [false, true] {
        // Both ends inside: each knows the other by an outside endpoint.
        let mut keys = masqueraded(v6, UDP, 7);
        keys[0].dst = outside(v6);
        keys[0].dst_port = 9_999;
        keys[1].src = addr(v6, 8);
        let flow = Flow::new(Time::ZERO, keys, [PortId(1), PortId(2)]);
        let (sent, arrived) = (packet(&flow, Initiator), translated(&flow, Initiator));
        let got = through(&error(addr(v6, 8), outside(v6), 0, &arrived), &flow, Responder);
        let parsed = Parsed::new(&got).unwrap();
        assert_eq!((parsed.src, parsed.dst), (outside(v6), addr(v6, 7)));
        assert_eq!(body(&got), sent);
    }
}

#[test]
fn quotes_of_eight_bytes_and_any_other_length_are_translated() {
    for v6 in [false, true] {
        for proto in [TCP, UDP, ICMP] {
            let flow = flow(v6, proto);
            let (sent, left) = (packet(&flow, Initiator), translated(&flow, Initiator));
            for len in sent.len() - 52..sent.len() {
                let got =
                    through(&error(router(v6), outside(v6), 0, &left[..len]), &flow, Responder);
                // Of half a checksum nothing can be said.
                let known = if proto == TCP && len == sent.len() - 60 + 17 { len - 1 } else { len };
                assert_eq!(&body(&got)[..known], &sent[..known], "{proto} {v6} {len}");
            }
        }
    }
}

#[test]
fn a_quote_without_ports_belongs_to_nothing() {
    for v6 in [false, true] {
        let flow = flow(v6, UDP);
        let left = translated(&flow, Initiator);
        let short = error(router(v6), outside(v6), 0, &left[..left.len() - 57]);
        assert_eq!(find(&short, &flow, Responder), Err(DropReason::IcmpUnrelated));
        let shorter = error(router(v6), outside(v6), 0, &left[..19]);
        assert_eq!(find(&shorter, &flow, Responder), Err(DropReason::IcmpBad));
    }
}

#[test]
fn extensions_after_the_quote_stay_as_they_are() {
    for v6 in [false, true] {
        let flow = flow(v6, TCP);
        let (sent, left) = (packet(&flow, Initiator), translated(&flow, Initiator));
        // Padded to 128 bytes, then an extension header with one object that looks like ports.
        let extension = [0x20, 0, 0xaa, 0xbb, 0, 8, 1, 1, 0x9c, 0x40, 0, 80];
        let mut quoted = left.clone();
        quoted.resize(128, 0);
        quoted.extend(extension);
        let length = if v6 { 128 / 8 } else { 128 / 4 };
        let got = through(&error(router(v6), outside(v6), length, &quoted), &flow, Responder);
        let mut expected = sent.clone();
        expected.resize(128, 0);
        expected.extend(extension);
        assert_eq!(body(&got), expected);
        // A quote that the attribute ends before the checksum: what follows is not its checksum.
        let mut cut = left[..sent.len() - 52].to_vec();
        cut.resize(cut.len().next_multiple_of(8), 0);
        let length = (cut.len() / if v6 { 8 } else { 4 }) as u8;
        cut.extend(extension);
        let got = through(&error(router(v6), outside(v6), length, &cut), &flow, Responder);
        assert_eq!(&body(&got)[cut.len() - 12..], extension);
    }
}

#[test]
fn options_in_the_quoted_header_are_skipped() {
    let flow = flow(false, UDP);
    let left = translated(&flow, Initiator);
    let mut quoted = left[..20].to_vec();
    quoted[0] = 0x46;
    put(&mut quoted, 2, left.len() as u16 + 4);
    quoted.extend([1, 1, 1, 0]);
    put(&mut quoted, 10, 0);
    let sum = checksum::sum(&quoted);
    put(&mut quoted, 10, !sum);
    quoted.extend(&left[20..]);
    let got = through(&error(router(false), outside(false), 0, &quoted), &flow, Responder);
    assert_eq!(checksum::sum(&body(&got)[..24]), 0xffff);
    assert_eq!(body(&got)[24..], packet(&flow, Initiator)[20..]);
}

#[test]
fn extension_headers_in_the_quote_are_skipped() {
    let flow = flow(true, UDP);
    let left = translated(&flow, Initiator);
    let mut quoted = left[..40].to_vec();
    quoted[6] = ipv6::DEST_OPTIONS;
    put(&mut quoted, 4, 60 + 8 + 8);
    quoted.extend([ipv6::FRAGMENT, 0, 1, 4, 0, 0, 0, 0]);
    quoted.extend([UDP, 0, 0, 1, 9, 9, 9, 9]);
    quoted.extend(&left[40..]);
    let got = through(&error(router(true), outside(true), 0, &quoted), &flow, Responder);
    assert_eq!(body(&got)[56..], packet(&flow, Initiator)[40..]);
    quoted[51] = 8;
    let later = error(router(true), outside(true), 0, &quoted);
    assert_eq!(find(&later, &flow, Responder), Err(DropReason::IcmpUnrelated));
}

#[test]
fn wrong_checksums_are_dropped_but_the_quoted_transports_is_not_looked_at() {
    for v6 in [false, true] {
        let flow = flow(v6, UDP);
        let mut left = translated(&flow, Initiator);
        let mut bad = error(router(v6), outside(v6), 0, &left);
        *bad.last_mut().unwrap() ^= 1;
        assert_eq!(find(&bad, &flow, Responder), Err(DropReason::IcmpBad), "outer");
        let parsed = Parsed::new(&bad).unwrap();
        let key = flow.key(Responder);
        let trusted = related(&bad, &parsed, Csum::Complete, key.domain, key.scope);
        assert!(trusted.unwrap().is_some(), "somebody has verified it already");
        let at = left.len() - 54;
        left[at] ^= 0x55;
        assert!(find(&error(router(v6), outside(v6), 0, &left), &flow, Responder).is_ok());
        if !v6 {
            left[8] ^= 1;
            let bad = error(router(v6), outside(v6), 0, &left);
            assert_eq!(
                find(&bad, &flow, Responder),
                Err(DropReason::IcmpBad),
                "quoted IPv4 header"
            );
        }
    }
}

#[test]
fn an_error_that_is_not_addressed_to_the_quoted_sender_is_forged() {
    for v6 in [false, true] {
        let flow = flow(v6, TCP);
        let left = translated(&flow, Initiator);
        let forged = error(router(v6), addr(v6, 55), 0, &left);
        assert_eq!(find(&forged, &flow, Responder), Err(DropReason::IcmpUnrelated));
    }
}

#[test]
fn queries_redirects_and_other_protocols_are_not_errors() {
    let flow = flow(false, ICMP);
    let echo = frame_of(&packet(&flow, Initiator));
    assert_eq!(find(&echo, &flow, Initiator), Ok(None));
    let mut redirect = error(router(false), outside(false), 0, &translated(&flow, Initiator));
    redirect[34] = icmp::v4::REDIRECT;
    assert_eq!(find(&redirect, &flow, Responder), Ok(None));
    let udp = frame_of(&packet(&self::flow(true, UDP), Initiator));
    assert_eq!(find(&udp, &flow, Initiator), Ok(None));
}

#[test]
fn the_sequence_number_of_a_quoted_segment_is_told() {
    let flow = flow(false, TCP);
    let frame = error(router(false), outside(false), 0, &translated(&flow, Initiator)[..28]);
    assert_eq!(find(&frame, &flow, Responder).unwrap().unwrap().tcp_seq, Some(0x0405_0607));
}

#[test]
fn an_unfinished_checksum_takes_only_the_change_of_addresses() {
    let flow = flow(true, UDP);
    let mut frame = error(router(true), outside(true), 0, &translated(&flow, Initiator));
    let parsed = Parsed::new(&frame).unwrap();
    let len = parsed.l4_len() as u32;
    put(&mut frame, 56, checksum::pseudo_header(parsed.src, parsed.dst, ICMPV6, len));
    let csum = Csum::Partial { start: parsed.l4, offset: 2 };
    let mut buf = PacketBuf::new(&frame, Offload { csum, ..Offload::NONE });
    let key = flow.key(Responder);
    let embedded = related(&frame, &parsed, csum, key.domain, key.scope).unwrap().unwrap();
    translate_error(&mut buf.frame(), &parsed, &embedded, &flow, Responder);
    crate::packet::finish::finish_checksum(&mut buf.frame());
    assert_checksums(buf.bytes());
    assert_eq!(body(buf.bytes()), packet(&flow, Initiator));
}

proptest! {
    #[test]
    fn damaged_errors_never_panic_and_never_grow(
        v6 in any::<bool>(), proto in 0_usize..4, cut in 0_usize..200, length in any::<u8>(),
        damage in prop::collection::vec((0_usize..140, any::<u8>()), 0..6)
    ) {
        let flow = flow(v6, PROTOS[proto]);
        let left = translated(&flow, Initiator);
        let mut frame = error(router(v6), outside(v6), length, &left[..left.len().min(cut)]);
        for (at, value) in damage {
            if let Some(byte) = frame.get_mut(14 + at) {
                *byte = value;
            }
        }
        let Ok(parsed) = Parsed::new(&frame) else { return Ok(()) };
        let key = flow.key(Responder);
        // As if verified, so that the damage is not all found by the checksum.
        if let Ok(Some(embedded)) = related(&frame, &parsed, Csum::Complete, key.domain, key.scope) {
            let mut buf = PacketBuf::new(&frame, Offload::NONE);
            translate_error(&mut buf.frame(), &parsed, &embedded, &flow, Responder);
            prop_assert_eq!(buf.len(), frame.len());
        }
    }
}
