//! UDP (RFC 4787).

use std::collections::BTreeSet;

use wharf::base::limits::FRAGMENT_TRAINS_PER_SOURCE_MAX;
use wharf::packet::DropReason;
use wharf::stage::flow::{Class, Filtering};
use wharf::wire::addr::Family;

use crate::nat::*;
use crate::packets::{fragment, fragments, reassembled};
use crate::world::*;

#[test]
pub(crate) fn req_1_one_socket_is_seen_as_one_whatever_it_speaks_to() {
    in_both(|mut nat| {
        let seen: BTreeSet<Socket> = [(1, 53), (1, 54), (2, 53), (3, 9)]
            .map(|(host, port)| nat.out(nat.a, 5_000, nat.other(host), port).src())
            .into();
        assert_eq!(seen.len(), 1, "{seen:?}");
    });
}

#[test]
pub(crate) fn req_2_all_sockets_of_a_container_are_paired_with_one_address() {
    in_both(|mut nat| {
        nat.world.change_uplink(|uplink| {
            for more in ["192.0.2.2", "2001:db8:1::2"] {
                uplink.addrs.push((more.parse().unwrap(), 24));
            }
        });
        for n in 0..50 {
            let sent = nat.out(nat.a, 5_000 + n, nat.other((n % 5) as u8), 53);
            assert_eq!(sent.src().0, nat.own());
        }
    });
}

#[test]
pub(crate) fn req_3_no_two_sockets_share_a_port_and_the_next_one_is_refused() {
    in_both(|mut nat| {
        nat.world.change_uplink(|uplink| uplink.nat_ports = 5_000..=5_009);
        let seen: BTreeSet<u16> =
            (0..10).map(|n| nat.out(nat.a, 7_000 + n, nat.other(n as u8), 53).src().1).collect();
        assert_eq!(seen.len(), 10);
        let frame = udp(&nat.b, nat.b.router, 7_000, nat.at(&nat.other(50), 53), b"out");
        nat.world.refused(nat.b.port, &frame, DropReason::PortsExhausted);
    });
}

#[test]
pub(crate) fn req_3a_well_known_ports_stay_well_known_and_others_others() {
    in_both(|mut nat| {
        for port in [1, 500, 1_023] {
            nat.out(nat.a, port, nat.remote, 9);
            let moved = nat.out(nat.b, port, nat.remote, 9).src().1;
            assert!(moved != port && moved < 1_024, "{port} became {moved}");
        }
        for port in [1_024, 40_000, 65_535] {
            nat.out(nat.a, port, nat.remote, 9);
            let moved = nat.out(nat.b, port, nat.remote, 9).src().1;
            assert!(moved != port && moved >= 1_024, "{port} became {moved}");
        }
    });
}

#[test]
pub(crate) fn req_4_an_even_port_stays_even_and_an_odd_one_odd() {
    in_both(|mut nat| {
        for port in 6_000..6_020 {
            nat.out(nat.a, port, nat.remote, 9);
            let moved = nat.out(nat.b, port, nat.remote, 9).src().1;
            assert!(moved != port && moved % 2 == port % 2, "{port} became {moved}");
        }
    });
}

#[test]
pub(crate) fn req_5_a_mapping_lives_for_two_minutes_at_least() {
    in_both(|mut nat| {
        let seen = nat.out(nat.a, 5_000, nat.remote, 4_000).src();
        nat.wait(secs(121));
        assert!(nat.answer(nat.remote, 4_000, seen).is_some());
    });
}

#[test]
pub(crate) fn req_5a_a_question_to_dns_lives_shorter_and_its_port_is_free_again_sooner() {
    in_both(|mut nat| {
        nat.out(nat.a, 5_000, nat.remote, 53);
        nat.out(nat.a, 5_001, nat.remote, 54);
        assert_eq!(nat.world.dp.footprint().flows, 2);
        nat.wait(secs(40));
        assert_eq!(nat.world.dp.footprint().flows, 1);
        nat.wait(secs(190));
        assert_eq!(nat.world.dp.footprint().mappings, 1);
    });
}

#[test]
pub(crate) fn req_5b_the_time_can_be_configured() {
    in_both(|mut nat| {
        let mut timeouts = wharf::stage::flow::Timeouts::default();
        timeouts.set(Class::UdpSingle, secs(1_000));
        nat.world.dp.set_timeouts(timeouts);
        let seen = nat.out(nat.a, 5_000, nat.remote, 4_000).src();
        nat.wait(secs(999));
        assert!(nat.answer(nat.remote, 4_000, seen).is_some());
    });
}

#[test]
pub(crate) fn req_5c_by_default_a_mapping_lives_for_five_minutes() {
    in_both(|mut nat| {
        // Never answered, and answered.
        let silent = nat.out(nat.a, 5_000, nat.remote, 4_000).src();
        let answered = nat.out(nat.a, 5_001, nat.remote, 4_000).src();
        assert!(nat.answer(nat.remote, 4_000, answered).is_some());
        nat.wait(secs(299));
        assert!(nat.answer(nat.remote, 4_000, answered).is_some());
        assert!(nat.answer(nat.remote, 4_000, silent).is_some());
        nat.wait(secs(900));
        assert!(nat.answer(nat.remote, 4_000, answered).is_none(), "and not for ever");
        assert_eq!(nat.world.dp.footprint().mappings, 0);
    });
}

#[test]
pub(crate) fn req_6_what_goes_out_keeps_a_mapping_alive() {
    in_both(|mut nat| {
        let seen = nat.out(nat.a, 5_000, nat.remote, 4_000).src();
        for _ in 0..10 {
            nat.wait(secs(100));
            assert_eq!(nat.out(nat.a, 5_000, nat.remote, 4_000).src(), seen);
        }
        nat.wait(secs(100));
        assert!(nat.answer(nat.remote, 4_000, seen).is_some());
    });
}

#[test]
pub(crate) fn req_6a_what_comes_in_keeps_it_alive_unless_the_uplink_says_otherwise() {
    for (refresh, lives) in [(true, true), (false, false)] {
        in_both(|mut nat| {
            nat.behave(|behaviour| behaviour.inbound_refresh = refresh);
            let seen = nat.out(nat.a, 5_000, nat.remote, 4_000).src();
            let mut alive = true;
            for _ in 0..10 {
                nat.wait(secs(100));
                alive &= nat.answer(nat.remote, 4_000, seen).is_some();
            }
            assert_eq!(alive, lives);
        });
    }
    in_both(|mut nat| {
        // Whatever began the flow: what goes out on it counts (REQ-6).
        nat.behave(|behaviour| behaviour.inbound_refresh = false);
        let seen = nat.out(nat.a, 5_000, nat.remote, 4_000).src();
        nat.wait(secs(200));
        let came = nat.answer(nat.remote, 4_001, seen).unwrap();
        assert_eq!(came.port, nat.a.port);
        for _ in 0..10 {
            assert_eq!(nat.out(nat.a, 5_000, nat.remote, 4_001).src(), seen);
            nat.wait(secs(200));
        }
        assert!(nat.answer(nat.remote, 4_002, seen).is_some());
    });
}

#[test]
pub(crate) fn req_7_an_address_that_is_inside_and_outside_is_never_mixed_up() {
    in_both(|mut nat| {
        // A LAN that has our subnet's numbers: what comes from there as one of ours is no container.
        let impostor = Host { v4: nat.a.v4, v6: nat.a.v6, ..nat.remote };
        let frame = udp(&impostor, UPLINK_MAC, 1, (nat.own(), 5_000), b"x");
        nat.world.dropped(UPLINK_PORT, &frame, DropReason::SpoofedInside);
        // And what a container sends there stays inside.
        let frame = udp(&nat.a, nat.b.mac, 1, nat.at(&nat.b, 2), b"x");
        assert_eq!(nat.world.pass(nat.a.port, &frame).port, nat.b.port);
    });
}

/// Whether the port's owner is reached by: whom it has sent to, another port of that host, a stranger.
fn filtered(filtering: Filtering, tcp: bool) -> Vec<[bool; 3]> {
    let reached = |family| {
        let mut nat = Nat::new(family);
        nat.behave(|behaviour| behaviour.filtering = filtering);
        let (a, remote, stranger) = (nat.a, nat.remote, nat.other(1));
        if tcp {
            let seen = nat.tcp_out((a, 5_000), (remote, 80), "S", (100, 0)).src();
            let syn = |nat: &mut Nat, from, n| nat.tcp_in(from, seen, "S", (n, 0)).is_some();
            return [
                syn(&mut nat, (remote, 80), 1),
                syn(&mut nat, (remote, 81), 2),
                syn(&mut nat, (stranger, 80), 3),
            ];
        }
        let seen = nat.out(a, 5_000, remote, 80).src();
        let ask = |nat: &mut Nat, from: Host, port| nat.answer(from, port, seen).is_some();
        [ask(&mut nat, remote, 80), ask(&mut nat, remote, 81), ask(&mut nat, stranger, 80)]
    };
    FAMILIES.map(reached).to_vec()
}

/// The three kinds of filtering do what their names say, for UDP or TCP.
pub(crate) fn filtering_is_as_configured(tcp: bool) {
    for (filtering, expected) in [
        (Filtering::EndpointIndependent, [true, true, true]),
        (Filtering::AddressDependent, [true, true, false]),
        (Filtering::AddressAndPortDependent, [true, false, false]),
    ] {
        assert_eq!(filtered(filtering, tcp), [expected, expected], "{filtering:?}");
    }
}

#[test]
pub(crate) fn req_8_filtering_is_address_dependent_or_as_configured() {
    assert_eq!(Filtering::default(), Filtering::AddressDependent);
    filtering_is_as_configured(false);
}

#[test]
pub(crate) fn req_9_two_containers_reach_each_other_by_their_outside_sockets() {
    in_both(|mut nat| {
        let b_seen = nat.out(nat.b, 6_000, nat.remote, 9).src();
        let frame = udp(&nat.a, nat.a.router, 5_000, b_seen, b"hello");
        let there = nat.world.pass(nat.a.port, &frame);
        assert_eq!((there.port, there.dst()), (nat.b.port, nat.at(&nat.b, 6_000)));
        let back = udp(&nat.b, nat.b.router, 6_000, there.src(), b"hello, too");
        let back = nat.world.pass(nat.b.port, &back);
        assert_eq!((back.port, back.dst()), (nat.a.port, nat.at(&nat.a, 5_000)));
        assert_eq!(back.src(), b_seen);
        back.assert_checksums();
    });
}

#[test]
pub(crate) fn req_9a_the_source_of_such_a_packet_is_the_sender_s_outside_socket() {
    in_both(|mut nat| {
        let a_seen = nat.out(nat.a, 5_000, nat.remote, 9).src();
        let b_seen = nat.out(nat.b, 6_000, nat.remote, 9).src();
        let frame = udp(&nat.a, nat.a.router, 5_000, b_seen, b"hello");
        let there = nat.world.pass(nat.a.port, &frame);
        assert_eq!(there.src(), a_seen);
        there.assert_checksums();
    });
}

#[test]
pub(crate) fn req_10_what_a_datagram_carries_is_nobody_s_business() {
    in_both(|mut nat| {
        // Ports of protocols that other NATs look into: SIP, TFTP, NetBIOS, H.323, RTSP.
        for port in [5_060, 69, 137, 1_719, 554] {
            let text = format!("Contact: <sip:a@{}:5000>", nat.a.addr(nat.family));
            let to = nat.at(&nat.remote, port);
            let frame = udp(&nat.a, nat.a.router, 5_000, to, text.as_bytes());
            let sent = nat.world.pass_resolving(nat.a.port, &frame, &nat.remote);
            assert!(sent.bytes.ends_with(text.as_bytes()), "port {port}");
        }
    });
}

#[test]
pub(crate) fn req_11_nothing_changes_under_load_or_after_a_collision() {
    in_both(|mut nat| {
        let before = nat.out(nat.a, 5_000, nat.remote, 9).src();
        for n in 0..2_000 {
            nat.out(nat.b, 10_000 + n, nat.remote, 9);
        }
        // The second socket with that port has another one outside, and everything else is alike.
        let seen: BTreeSet<Socket> =
            (1..4).map(|n| nat.out(nat.b, 5_000, nat.other(n), 9).src()).collect();
        assert_eq!(seen.len(), 1);
        let seen = *seen.iter().next().unwrap();
        assert_ne!(seen, before);
        assert!(nat.answer(nat.other(1), 77, seen).is_some());
        assert!(nat.answer(nat.other(9), 9, seen).is_none());
        assert_eq!(nat.out(nat.a, 5_000, nat.other(5), 9).src(), before);
    });
}

#[test]
pub(crate) fn req_12_no_icmp_message_ends_a_mapping() {
    in_both(|mut nat| {
        let sent = nat.out(nat.a, 5_000, nat.remote, 9);
        for kind in ERRORS {
            let error = nat.error(&nat.remote, kind, &sent.bytes[14..]);
            let told = nat.inside(&error).unwrap();
            assert_eq!(told.icmp(), kind.of(nat.family));
            assert!(nat.answer(nat.remote, 9, sent.src()).is_some(), "{kind:?}");
        }
        assert_eq!(nat.out(nat.a, 5_000, nat.remote, 9).src(), sent.src());
    });
}

#[test]
pub(crate) fn req_12a_icmp_is_not_filtered_by_who_sends_it() {
    in_both(|mut nat| {
        let sent = nat.out(nat.a, 5_000, nat.remote, 9);
        let router = nat.other(77);
        let error = nat.error(&router, TIME_EXCEEDED, &sent.bytes[14..]);
        let told = nat.inside(&error).unwrap();
        assert_eq!(told.src().0, router.addr(nat.family));
    });
}

#[test]
pub(crate) fn req_12b_destination_unreachable_is_translated() {
    in_both(|mut nat| {
        let frame = udp(&nat.a, nat.a.router, 5_000, nat.at(&nat.remote, 9), b"out");
        let sent = nat.world.pass_resolving(nat.a.port, &frame, &nat.remote);
        for kind in &ERRORS[..5] {
            let error = nat.error(&nat.remote, *kind, &sent.bytes[14..]);
            let told = nat.inside(&error).unwrap();
            assert_eq!((told.icmp(), told.dst().0), (kind.of(nat.family), nat.at(&nat.a, 0).0));
            // What it quotes is what was sent, but for the hop that it was further.
            let quote = &told.bytes[nat.l4() + 8..];
            assert_eq!(quote[nat.ip_len()..nat.ip_len() + 8], frame[nat.l4()..nat.l4() + 8]);
        }
    });
}

#[test]
pub(crate) fn req_13_a_packet_too_large_is_answered_with_the_mtu() {
    for family in FAMILIES {
        let mut world = World::new();
        let net = world.network(NetworkOptions::default());
        let (a, remote) = (world.endpoint(net), world.uplink_with_mtu(1_300));
        let to = (remote.addr(family), 9);
        world.pass_resolving(a.port, &udp(&a, a.router, 5_000, to, b"resolve"), &remote);
        let frame = udp(&a, a.router, 5_000, to, &[7; 1_400]);
        let told = world.pass(a.port, &frame);
        assert_eq!(told.icmp(), TOO_BIG.of(family));
        let mtu_at = 14 + if family == Family::V4 { 20 } else { 40 } + 6;
        assert_eq!(told.bytes[mtu_at..mtu_at + 2], 1_300_u16.to_be_bytes());
        told.assert_checksums();
    }
}

#[test]
pub(crate) fn req_13a_without_df_it_leaves_in_fragments_in_order() {
    let mut world = World::new();
    let net = world.network(NetworkOptions::default());
    let (a, remote) = (world.endpoint(net), world.uplink_with_mtu(600));
    let to = (remote.v4.into(), 9);
    world.pass_resolving(a.port, &udp(&a, a.router, 5_000, to, b"resolve"), &remote);
    let mut frame = udp(&a, a.router, 5_000, to, &[7; 1_400]);
    frame[20] = 0;
    frame[24..26].fill(0);
    let sum = etherparse::Ipv4Header::from_slice(&frame[14..]).unwrap().0.calc_header_checksum();
    frame[24..26].copy_from_slice(&sum.to_be_bytes());
    let sent = world.send(a.port, &frame);
    let offset = |sent: &Sent| u16::from_be_bytes([sent.bytes[20], sent.bytes[21]]) & 0x1fff;
    assert!(sent.len() == 3 && sent.is_sorted_by_key(offset));
    reassembled(&sent).assert_checksums();
}

#[test]
pub(crate) fn req_14_fragments_pass_in_any_order() {
    in_both(|mut nat| {
        let sent = nat.out(nat.a, 5_000, nat.remote, 9);
        let whole = udp(&nat.a, nat.a.router, 5_000, nat.at(&nat.remote, 9), &[0x5a; 3_500]);
        let answer = udp_reply(&nat.remote, &sent, &[0x5a; 3_500]);
        let ways = [(nat.a.port, whole, UPLINK_PORT), (UPLINK_PORT, answer, nat.a.port)];
        for (number, order) in [[0, 1, 2], [2, 1, 0], [1, 0, 2], [2, 0, 1]].iter().enumerate() {
            for (from, frame, to) in &ways {
                let pieces = fragments(frame, 7 + number as u16, 1_400);
                let mut sent = Vec::new();
                for n in order {
                    sent.extend(nat.world.send(*from, &pieces[*n]));
                }
                assert!(sent.iter().all(|sent| sent.port == *to));
                reassembled(&sent).assert_checksums();
            }
        }
    });
}

#[test]
pub(crate) fn req_14a_a_flood_of_fragments_does_not_touch_anybody_else() {
    in_both(|mut nat| {
        let seen = nat.out(nat.a, 5_000, nat.remote, 9).src();
        let whole = udp(&nat.remote, UPLINK_MAC, 9, seen, &[1; 3_500]);
        let flooder = nat.other(66);
        let forged = udp(&flooder, UPLINK_MAC, 9, seen, &[1; 3_500]);
        for id in 0..10 * FRAGMENT_TRAINS_PER_SOURCE_MAX as u16 {
            nat.world.send(UPLINK_PORT, &fragment(&forged, id, 1_400, true, &[1; 80]));
        }
        assert!(nat.world.dp.drops(UPLINK_PORT, DropReason::FragmentLimit) > 0);
        assert!(nat.world.dp.footprint().held <= FRAGMENT_TRAINS_PER_SOURCE_MAX);
        let mut sent = Vec::new();
        for piece in fragments(&whole, 9, 1_400).iter().rev() {
            sent.extend(nat.world.send(UPLINK_PORT, piece));
        }
        reassembled(&sent).assert_checksums();
        assert!(nat.answer(nat.remote, 9, seen).is_some());
    });
}
