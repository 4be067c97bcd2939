//! ICMP and ICMPv6 (RFC 5508; for IPv6 by analogy).

use std::net::IpAddr;

use wharf::base::limits::ICMP_ERRORS_PER_SECOND;
use wharf::packet::DropReason;
use wharf::stage::flow::{Class, Timeouts};
use wharf::wire::addr::Family;
use wharf::wire::mac::Mac;

use crate::nat::*;
use crate::packets::fragments;
use crate::world::*;

#[test]
pub(crate) fn req_1_pings_go_out_and_their_answers_come_back() {
    in_both(|mut nat| {
        for (host, id) in [(nat.a, 7), (nat.b, 7)] {
            let sent = nat.ping_out(host, nat.remote, id);
            assert_eq!(sent.src().0, nat.own());
            let back = nat.pong(nat.remote, nat.id(&sent)).unwrap();
            assert_eq!((back.port, nat.id(&back)), (host.port, id));
        }
    });
}

#[test]
pub(crate) fn req_1a_an_identifier_is_the_same_for_every_host() {
    in_both(|mut nat| {
        nat.ping_out(nat.a, nat.remote, 7);
        let first = nat.ping_out(nat.b, nat.remote, 7);
        let second = nat.ping_out(nat.b, nat.other(1), 7);
        assert_eq!(nat.id(&first), nat.id(&second));
        assert_ne!(nat.id(&first), 7, "that one is taken");
    });
}

#[test]
pub(crate) fn req_2_a_query_lives_for_a_minute_and_that_can_be_configured() {
    in_both(|mut nat| {
        let id = nat.ping_out(nat.a, nat.remote, 7);
        let id = nat.id(&id);
        nat.wait(secs(60));
        assert!(nat.pong(nat.remote, id).is_some());
        let mut timeouts = Timeouts::default();
        timeouts.set(Class::Icmp, secs(500));
        nat.world.dp.set_timeouts(timeouts);
        nat.wait(secs(499));
        assert_eq!(nat.world.dp.footprint().flows, 1);
        assert!(nat.pong(nat.remote, id).is_some());
    });
}

/// An error about a datagram of `a`, and where in the frame the quoted IP header begins.
fn error_about_udp(nat: &mut Nat) -> (Vec<u8>, usize, Socket) {
    let sent = nat.out(nat.a, 5_000, nat.remote, 9);
    let error = nat.error(&nat.remote, PORT_UNREACHABLE, &sent.bytes[14..]);
    (error, nat.l4() + 8, sent.src())
}

/// Puts the right checksum into an ICMP message.
fn seal(nat: &Nat, frame: &mut [u8]) {
    let l4 = nat.l4();
    frame[l4 + 2..l4 + 4].fill(0);
    let sum = match nat.family {
        Family::V4 => wharf::wire::checksum::sum(&frame[l4..]),
        Family::V6 => {
            let (from, to) = (nat.remote.addr(nat.family).into(), nat.own().into());
            let len = (frame.len() - l4) as u32;
            let pseudo = wharf::wire::checksum::pseudo_header(from, to, 58, len);
            wharf::wire::checksum::add(wharf::wire::checksum::sum(&frame[l4..]), pseudo)
        }
    };
    frame[l4 + 2..l4 + 4].copy_from_slice(&(!sum).to_be_bytes());
}

#[test]
pub(crate) fn req_3_an_error_with_a_wrong_checksum_is_dropped() {
    in_both(|mut nat| {
        let (mut error, ..) = error_about_udp(&mut nat);
        let l4 = nat.l4();
        error[l4 + 2] ^= 1;
        nat.world.dropped(UPLINK_PORT, &error, DropReason::IcmpBad);
    });
}

#[test]
pub(crate) fn req_3a_so_is_one_whose_quoted_header_has_a_wrong_checksum() {
    in_v4(|mut nat| {
        let (mut error, quote, _) = error_about_udp(&mut nat);
        error[quote + 10] ^= 1;
        seal(&nat, &mut error);
        nat.world.dropped(UPLINK_PORT, &error, DropReason::IcmpBad);
    });
}

#[test]
pub(crate) fn req_3b_options_of_the_quoted_packet_are_stepped_over() {
    in_both(|mut nat| {
        let sent = nat.out(nat.a, 5_000, nat.remote, 9);
        let mut quote = sent.bytes[14..].to_vec();
        let added = if nat.family == Family::V4 {
            // Four bytes of "no operation", and the header's length and sum with them.
            quote[0] = 0x46;
            let total = u16::from_be_bytes([quote[2], quote[3]]) + 4;
            quote[2..4].copy_from_slice(&total.to_be_bytes());
            quote.splice(20..20, [1, 1, 1, 1]);
            quote[10..12].fill(0);
            let sum = !wharf::wire::checksum::sum(&quote[..24]);
            quote[10..12].copy_from_slice(&sum.to_be_bytes());
            4
        } else {
            // Destination options that pad.
            let next = std::mem::replace(&mut quote[6], 60);
            let len = u16::from_be_bytes([quote[4], quote[5]]) + 8;
            quote[4..6].copy_from_slice(&len.to_be_bytes());
            quote.splice(40..40, [next, 0, 1, 4, 0, 0, 0, 0]);
            8
        };
        let error = nat.error(&nat.remote, PORT_UNREACHABLE, &quote);
        let told = nat.inside(&error).unwrap();
        let ports = nat.l4() + 8 + nat.ip_len() + added;
        assert_eq!(told.bytes[ports..ports + 2], 5_000_u16.to_be_bytes());
    });
}

#[test]
pub(crate) fn req_3c_the_checksum_of_the_quoted_transport_is_not_verified() {
    in_both(|mut nat| {
        let (mut error, quote, _) = error_about_udp(&mut nat);
        error[quote + nat.ip_len() + 6] ^= 0x55;
        seal(&nat, &mut error);
        assert!(nat.inside(&error).is_some());
    });
}

#[test]
pub(crate) fn req_3d_extensions_pass_as_they_are_and_truncated_quotes_too() {
    in_both(|mut nat| {
        let sent = nat.out(nat.a, 5_000, nat.remote, 9);
        // RFC 4884: padded to 128 bytes, the length in words of 4 or 8 bytes, an extension behind.
        let mut quote = sent.bytes[14..].to_vec();
        quote.resize(128, 0);
        let extension = [0x20, 0, 0xd5, 0xff, 0, 8, 1, 1, 0x12, 0x34, 0x56, 0x78];
        quote.extend_from_slice(&extension);
        let length = if nat.family == Family::V4 { [0, 32, 0, 0] } else { [16, 0, 0, 0] };
        let kind = Kind { rest: length, ..TIME_EXCEEDED };
        let error = nat.error(&nat.remote, kind, &quote);
        let sent = nat.world.send(UPLINK_PORT, &error);
        let told = &sent[0];
        assert_eq!(told.port, nat.a.port);
        // Our own sum: the other implementation forgets the length when it computes one.
        let l4 = &told.bytes[nat.l4()..];
        let mut sum = wharf::wire::checksum::sum(l4);
        if nat.family == Family::V6 {
            let (from, to) = (nat.remote.addr(nat.family).into(), nat.a.addr(nat.family).into());
            let pseudo = wharf::wire::checksum::pseudo_header(from, to, 58, l4.len() as u32);
            sum = wharf::wire::checksum::add(sum, pseudo);
        }
        assert_eq!(sum, 0xffff);
        assert!(told.bytes.ends_with(&extension));
        assert_eq!(told.bytes.len(), error.len());
        let sent = nat.out(nat.a, 5_000, nat.remote, 9);
        // No more than RFC 792 asks for: the header and eight bytes.
        let short = &sent.bytes[14..14 + nat.ip_len() + 8];
        let error = nat.error(&nat.remote, TIME_EXCEEDED, short);
        let told = nat.inside(&error).unwrap();
        let ports = nat.l4() + 8 + nat.ip_len();
        assert_eq!(told.bytes[ports..ports + 2], 5_000_u16.to_be_bytes());
    });
}

#[test]
pub(crate) fn req_4_an_error_from_outside_about_nothing_is_dropped() {
    in_both(|mut nat| {
        nat.out(nat.a, 5_000, nat.remote, 9);
        let stray = udp(&nat.a, nat.a.router, 5_001, nat.at(&nat.remote, 9), b"x");
        let mut quote = stray[14..].to_vec();
        let (own, src) = (nat.own(), if nat.family == Family::V4 { 12 } else { 8 });
        match own {
            IpAddr::V4(own) => quote[src..src + 4].copy_from_slice(&own.octets()),
            IpAddr::V6(own) => quote[src..src + 16].copy_from_slice(&own.octets()),
        }
        if nat.family == Family::V4 {
            quote[10..12].fill(0);
            let sum = !wharf::wire::checksum::sum(&quote[..20]);
            quote[10..12].copy_from_slice(&sum.to_be_bytes());
        }
        let error = nat.error(&nat.remote, PORT_UNREACHABLE, &quote);
        nat.world.dropped(UPLINK_PORT, &error, DropReason::IcmpUnrelated);
    });
}

#[test]
pub(crate) fn req_4a_to_c_others_arrive_as_if_there_were_no_translation() {
    in_both(|mut nat| {
        nat.out(nat.a, 5_000, nat.remote, 9);
        let frame = udp(&nat.b, nat.b.router, 5_000, nat.at(&nat.remote, 9), b"probe");
        let sent = nat.world.pass_resolving(nat.b.port, &frame, &nat.remote);
        assert_ne!(sent.src().1, 5_000, "the port is another");
        for kind in ERRORS {
            let error = nat.error(&nat.remote, kind, &sent.bytes[14..]);
            let told = nat.inside(&error).unwrap();
            assert_eq!((told.port, told.dst().0), (nat.b.port, nat.b.addr(nat.family)));
            assert_eq!(told.icmp(), kind.of(nat.family));
            // The quote is the packet that was sent, one hop later: TTL and header sum differ.
            let mut quote = told.bytes[nat.l4() + 8..].to_vec();
            if nat.family == Family::V4 {
                assert_eq!(wharf::wire::checksum::sum(&quote[..20]), 0xffff);
                quote[8] += 1;
                quote[10..12].copy_from_slice(&frame[24..26]);
            } else {
                quote[7] += 1;
            }
            assert_eq!(quote, frame[14..]);
        }
    });
}

#[test]
pub(crate) fn req_5_an_error_from_inside_leaves_under_our_address() {
    in_both(|mut nat| {
        let seen = nat.out(nat.a, 5_000, nat.remote, 9).src();
        let came = nat.answer(nat.remote, 9, seen).unwrap();
        let via = (&nat.a, nat.a.router, nat.remote.addr(nat.family));
        let error = icmp_error(nat.family, via, PORT_UNREACHABLE, &came.bytes[14..]);
        let told = nat.world.pass(nat.a.port, &error);
        assert_eq!((told.port, told.icmp()), (UPLINK_PORT, PORT_UNREACHABLE.of(nat.family)));
        assert_eq!((told.src().0, told.dst().0), (nat.own(), nat.remote.addr(nat.family)));
        told.assert_checksums();
        let at = nat.l4() + 8;
        let quoted = &told.bytes[at..];
        let dst = if nat.family == Family::V4 { 16..20 } else { 24..40 };
        let own: Vec<u8> = match nat.own() {
            IpAddr::V4(own) => own.octets().into(),
            IpAddr::V6(own) => own.octets().into(),
        };
        assert_eq!(quoted[dst], own, "it quotes what the remote host sent");
        assert_eq!(quoted[nat.ip_len() + 2..nat.ip_len() + 4], seen.1.to_be_bytes());
    });
}

#[test]
pub(crate) fn req_5_one_about_nothing_goes_nowhere() {
    in_both(|mut nat| {
        let never = udp(&nat.remote, nat.a.mac, 9, nat.at(&nat.a, 5_000), b"never came");
        let via = (&nat.a, nat.a.router, nat.remote.addr(nat.family));
        let error = icmp_error(nat.family, via, PORT_UNREACHABLE, &never[14..]);
        nat.world.dropped(nat.a.port, &error, DropReason::IcmpUnrelated);
    });
}

#[test]
pub(crate) fn req_6_an_error_about_a_query_neither_keeps_nor_ends_it() {
    in_both(|mut nat| {
        let sent = nat.ping_out(nat.a, nat.remote, 7);
        nat.wait(secs(59));
        let error = nat.error(&nat.remote, HOST_UNREACHABLE, &sent.bytes[14..]);
        assert!(nat.inside(&error).is_some());
        assert_eq!(nat.world.dp.footprint().flows, 1, "not ended");
        nat.wait(secs(3));
        assert_eq!(nat.world.dp.footprint().flows, 0, "nor kept");
    });
}

#[test]
pub(crate) fn req_7_an_error_between_two_containers_is_translated_both_ways() {
    in_both(|mut nat| {
        let a_seen = nat.out(nat.a, 5_000, nat.remote, 9).src();
        let b_seen = nat.out(nat.b, 6_000, nat.remote, 9).src();
        let frame = udp(&nat.a, nat.a.router, 5_000, b_seen, b"hello");
        let there = nat.world.pass(nat.a.port, &frame);
        let via = (&nat.b, nat.b.router, a_seen.0);
        let error = icmp_error(nat.family, via, PORT_UNREACHABLE, &there.bytes[14..]);
        let told = nat.world.pass(nat.b.port, &error);
        assert_eq!((told.port, told.dst().0), (nat.a.port, nat.a.addr(nat.family)));
        told.assert_checksums();
        let quote = nat.l4() + 8;
        let ports = quote + nat.ip_len();
        assert_eq!(told.bytes[ports..ports + 4], frame[nat.l4()..nat.l4() + 4]);
        let addrs = if nat.family == Family::V4 { 12..20 } else { 8..40 };
        let quoted = &told.bytes[quote..][addrs.clone()];
        assert_eq!(quoted, &frame[14..][addrs], "addresses as they were sent");
    });
}

#[test]
pub(crate) fn req_8_who_gets_no_session_is_told_that_it_is_prohibited() {
    in_both(|mut nat| {
        nat.world.change_uplink(|uplink| uplink.nat_ports = 5_000..=5_000);
        nat.out(nat.a, 5_000, nat.remote, 9);
        nat.tcp_out((nat.a, 5_000), (nat.remote, 80), "S", (1, 0));
        nat.ping_out(nat.a, nat.remote, 5_000);
        let (b, remote) = (nat.b, nat.remote);
        let to = |port| (remote.addr(nat.family), port);
        for frame in [
            udp(&b, b.router, 5_000, to(9), b"x"),
            tcp(&b, b.router, 5_000, to(80), "S", (1, 0), b""),
            ping(&b, b.router, to(0).0, 5_000, b"x"),
        ] {
            let told = nat.world.refused(b.port, &frame, DropReason::PortsExhausted);
            assert_eq!(told.icmp(), PROHIBITED.of(nat.family));
        }
    });
}

#[test]
pub(crate) fn req_10a_unreachable_exceeded_and_echo_are_spoken() {
    in_both(|mut nat| {
        let asked = ping(&nat.a, nat.a.router, gateway(nat.net, nat.family), 7, b"hello");
        let answer = if nat.family == Family::V4 { (0, 0) } else { (129, 0) };
        assert_eq!(nat.world.pass(nat.a.port, &asked).icmp(), answer);
        let to = nat.at(&nat.remote, 33_434);
        let probe = udp_ttl(&nat.a, nat.a.router, 5_000, to, b"traceroute", 1);
        let told = nat.world.pass(nat.a.port, &probe);
        assert_eq!(told.icmp(), TIME_EXCEEDED.of(nat.family));
        assert_eq!(told.src().0, gateway(nat.net, nat.family));
        let asked = ping(&nat.remote, UPLINK_MAC, nat.own(), 7, b"hello");
        assert_eq!(nat.world.pass(UPLINK_PORT, &asked).icmp(), answer, "and from outside");
    });
}

#[test]
pub(crate) fn req_10b_parameter_problems_and_timestamps_pass() {
    in_both(|mut nat| {
        let sent = nat.out(nat.a, 5_000, nat.remote, 9);
        let problem = Kind { v4: (12, 0), v6: (4, 0), rest: [20, 0, 0, 0] };
        let error = nat.error(&nat.remote, problem, &sent.bytes[14..]);
        assert_eq!(nat.inside(&error).unwrap().icmp(), problem.of(nat.family));
    });
    in_v4(|mut nat| {
        let to = nat.remote.addr(nat.family);
        let ask = |from: &Host, via, src, kind: u8, id: u16, to| {
            let mut frame = Vec::new();
            let [high, low] = id.to_be_bytes();
            let builder = ip(from, via, src, to, 64).icmpv4_raw(kind, 0, [high, low, 0, 1]);
            builder.write(&mut frame, &[0; 12]).unwrap();
            frame
        };
        let frame = ask(&nat.a, nat.a.router, nat.a.v4.into(), 13, 7, to);
        let sent = nat.world.pass_resolving(nat.a.port, &frame, &nat.remote);
        let back = ask(&nat.remote, UPLINK_MAC, to, 14, nat.id(&sent), nat.own());
        assert_eq!(nat.inside(&back).unwrap().port, nat.a.port);
    });
}

/// A message of ICMP for IPv4 with four bytes after the checksum.
fn raw_v4(from: &Host, (via, src, to): (Mac, IpAddr, IpAddr), kind: u8, quote: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    ip(from, via, src, to, 64).icmpv4_raw(kind, 0, [0, 7, 0, 1]).write(&mut frame, quote).unwrap();
    frame
}

#[test]
pub(crate) fn req_10c_source_quench_and_information_requests_go_nowhere() {
    const SOURCE_QUENCH: u8 = 4;
    const INFORMATION: [u8; 2] = [15, 16];
    in_v4(|mut nat| {
        let sent = nat.out(nat.a, 5_000, nat.remote, 9);
        let came = nat.answer(nat.remote, 9, sent.src()).unwrap();
        let (a, remote) = (nat.a, nat.remote);
        let (inside, outside) = (nat.at(&a, 0).0, nat.at(&remote, 0).0);
        let quench = |from, way, quote: &Sent| raw_v4(from, way, SOURCE_QUENCH, &quote.bytes[14..]);
        let from_outside = quench(&remote, (UPLINK_MAC, outside, nat.own()), &sent);
        assert!(nat.world.send(UPLINK_PORT, &from_outside).is_empty());
        let from_inside = quench(&a, (a.router, inside, outside), &came);
        assert!(nat.world.send(a.port, &from_inside).is_empty());
        for kind in INFORMATION {
            for to in [outside, gateway(nat.net, nat.family)] {
                let asked = raw_v4(&a, (a.router, inside, to), kind, &[]);
                assert!(nat.world.send(a.port, &asked).is_empty(), "{kind} to {to}");
            }
            let asked = raw_v4(&remote, (UPLINK_MAC, outside, nat.own()), kind, &[]);
            assert!(nat.world.send(UPLINK_PORT, &asked).is_empty(), "{kind} from outside");
        }
        assert_eq!(nat.world.dp.footprint().flows, 1, "and leave nothing");
        assert!(nat.answer(nat.remote, 9, sent.src()).is_some());
    });
}

/// Where the type of service of an IPv4 frame lies.
const TOS: usize = 15;

#[test]
pub(crate) fn req_10d_errors_have_the_precedence_of_network_control() {
    in_v4(|mut nat| {
        let to = nat.at(&nat.remote, 33_434);
        let mut probe = udp_ttl(&nat.a, nat.a.router, 5_000, to, b"traceroute", 1);
        retag(&mut probe, 0x28);
        let told = nat.world.pass(nat.a.port, &probe);
        assert_eq!(told.icmp(), TIME_EXCEEDED.of(nat.family));
        assert_eq!(
            told.bytes[TOS], 0xc0,
            "six of eight, whatever the packet had (RFC 1812 4.3.2.5)"
        );
        assert_eq!(told.bytes[42 + 1], 0x28, "which is quoted");
        // What others send keeps what it has.
        let sent = nat.out(nat.a, 5_000, nat.remote, 9);
        let mut error = nat.error(&nat.remote, PORT_UNREACHABLE, &sent.bytes[14..]);
        retag(&mut error, 0xe0);
        assert_eq!(nat.inside(&error).unwrap().bytes[TOS], 0xe0);
    });
}

/// Gives an IPv4 frame another type of service.
fn retag(frame: &mut [u8], tos: u8) {
    frame[TOS] = tos;
    frame[24..26].fill(0);
    let sum = !wharf::wire::checksum::sum(&frame[14..34]);
    frame[24..26].copy_from_slice(&sum.to_be_bytes());
}

#[test]
pub(crate) fn req_10e_there_are_packets_that_no_error_is_sent_about() {
    in_both(|mut nat| {
        let dying = |nat: &Nat, to| udp_ttl(&nat.a, nat.a.router, 5_000, to, &[7; 1_000], 1);
        let to = nat.at(&nat.remote, 33_434);
        let frame = dying(&nat, to);
        let told = nat.world.pass(nat.a.port, &frame);
        assert_eq!(told.icmp(), TIME_EXCEEDED.of(nat.family), "about an ordinary one it is");
        // About an error.
        let sent = nat.out(nat.a, 5_000, nat.remote, 9);
        let came = nat.answer(nat.remote, 9, sent.src()).unwrap();
        let via = (&nat.a, nat.a.router, to.0);
        let mut error = icmp_error(nat.family, via, PORT_UNREACHABLE, &came.bytes[14..]);
        dies(&nat, &mut error);
        assert!(nat.world.send(nat.a.port, &error).is_empty(), "{:?}", nat.family);
        // About a later fragment, whose first one is alive.
        let whole = udp(&nat.a, nat.a.router, 5_000, to, &[7; 1_000]);
        let mut pieces = fragments(&whole, 77, 800);
        dies(&nat, &mut pieces[1]);
        let first = nat.world.pass(nat.a.port, &pieces[0]);
        assert_eq!(first.port, UPLINK_PORT);
        assert!(nat.world.send(nat.a.port, &pieces[1]).iter().all(|sent| sent.port != nat.a.port));
        // To a group, whose members would all be told.
        let group: IpAddr = match nat.family {
            Family::V4 => [224, 0, 0, 251].into(),
            Family::V6 => "ff02::fb".parse().unwrap(),
        };
        let frame = dying(&nat, (group, 5_353));
        assert!(nat.world.send(nat.a.port, &frame).is_empty(), "{:?}", nat.family);
        // From nobody who could be told.
        let nobody = Host { v4: [0; 4].into(), v6: [0; 16].into(), ..nat.a };
        let frame = udp_ttl(&nobody, nat.a.router, 5_000, to, b"x", 1);
        assert!(nat.world.send(nat.a.port, &frame).is_empty(), "{:?}", nat.family);
    });
}

/// The next router is the last one.
fn dies(nat: &Nat, frame: &mut [u8]) {
    if nat.family == Family::V6 {
        frame[21] = 1;
        return;
    }
    frame[22] = 1;
    let tos = frame[TOS];
    retag(frame, tos);
}

#[test]
pub(crate) fn req_10f_errors_are_limited_in_rate() {
    in_both(|mut nat| {
        let probe = udp_ttl(&nat.a, nat.a.router, 5_000, nat.at(&nat.remote, 9), b"x", 1);
        let told = |nat: &mut Nat| {
            let sent = (0..1_000).flat_map(|_| nat.world.send(nat.a.port, &probe));
            sent.filter(|sent| sent.icmp() == TIME_EXCEEDED.of(nat.family)).count()
        };
        let limit = ICMP_ERRORS_PER_SECOND as usize;
        assert_eq!(told(&mut nat), limit);
        nat.wait(secs(1));
        assert_eq!(told(&mut nat), limit, "and again a second later");
        let probe = udp_ttl(&nat.b, nat.b.router, 5_000, nat.at(&nat.remote, 9), b"x", 1);
        let told = nat.world.pass(nat.b.port, &probe);
        assert_eq!(told.icmp(), TIME_EXCEEDED.of(nat.family), "others have what is theirs");
    });
}

#[test]
pub(crate) fn req_11_messages_that_are_neither_query_nor_error_go_nowhere() {
    in_both(|mut nat| {
        nat.out(nat.a, 5_000, nat.remote, 9);
        // A redirect, which concerns one link, and an obsolete or unassigned type.
        for kind in [
            Kind { v4: (5, 1), v6: (137, 0), rest: [0; 4] },
            Kind { v4: (30, 0), v6: (200, 0), rest: [0; 4] },
        ] {
            let frame = nat.error(&nat.remote, kind, &[0; 40]);
            assert!(nat.inside(&frame).is_none(), "{kind:?}");
        }
    });
}
