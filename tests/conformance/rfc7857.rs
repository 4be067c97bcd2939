//! Updates to all three (RFC 7857).

use std::collections::BTreeSet;

use wharf::packet::DropReason;
use wharf::stage::flow::{Binding, Class, Filtering, Timeouts};

use crate::nat::*;
use crate::world::*;

#[test]
pub(crate) fn sec_2_a_connection_goes_through_the_states_of_rfc_6146() {
    in_both(|mut nat| {
        let (a, remote) = ((nat.a, 5_000), (nat.remote, 80));
        let seen = nat.tcp_out(a, remote, "S", (100, 0)).src();
        assert_eq!(nat.state(), "syn-sent");
        assert!(nat.tcp_in(remote, seen, "SA", (700, 101)).is_some());
        assert_eq!(nat.state(), "syn-received");
        nat.tcp_out(a, remote, "A", (101, 701));
        assert_eq!(nat.state(), "established");
        assert!(nat.tcp_in(remote, seen, "FA", (701, 101)).is_some());
        assert_eq!(nat.state(), "fin-responder");
        nat.tcp_out(a, remote, "FA", (101, 702));
        assert_eq!(nat.state(), "closed");
        // The other side first, and a new connection between the same ports.
        nat.tcp_out(a, remote, "S", (5_000, 0));
        assert!(nat.tcp_in(remote, seen, "SA", (9_000, 5_001)).is_some());
        nat.tcp_out(a, remote, "A", (5_001, 9_001));
        nat.tcp_out(a, remote, "FA", (5_001, 9_001));
        assert_eq!(nat.state(), "fin-initiator");
        nat.wait(secs(3_600));
        assert_eq!(nat.state(), "fin-initiator", "half closed is not closed");
    });
}

#[test]
pub(crate) fn sec_2_1_opening_and_closing_have_times_of_their_own() {
    in_both(|mut nat| {
        let defaults = Timeouts::default();
        assert!(defaults.get(Class::TcpEmbryonic) >= secs(240));
        assert!(defaults.get(Class::TcpTransitory) >= secs(240));
        let mut timeouts = Timeouts::default();
        timeouts.set(Class::TcpEmbryonic, secs(30));
        timeouts.set(Class::TcpTransitory, secs(60));
        nat.world.dp.set_timeouts(timeouts);
        let seen = nat.connected();
        nat.tcp_out((nat.b, 5_000), (nat.remote, 80), "S", (1, 0));
        nat.tcp_out((nat.a, 5_000), (nat.remote, 80), "FA", (101, 701));
        assert!(nat.tcp_in((nat.remote, 80), seen, "FA", (701, 102)).is_some());
        nat.wait(secs(32));
        assert_eq!(nat.world.dp.footprint().flows, 1);
        nat.wait(secs(32));
        assert_eq!(nat.world.dp.footprint().flows, 0);
    });
}

#[test]
pub(crate) fn sec_2_2_a_reset_is_translated_and_its_connection_lingers_for_four_minutes() {
    in_both(|mut nat| {
        let seen = nat.connected();
        let reset = nat.tcp_in((nat.remote, 80), seen, "R", (701, 0)).unwrap();
        assert_eq!(reset.dst(), nat.at(&nat.a, 5_000));
        assert_eq!(nat.state(), "reset");
        nat.wait(secs(239));
        assert_eq!(nat.state(), "reset");
        // A packet of the side that is said to have reset shows that it has not.
        nat.assert_connected(seen);
        nat.wait(secs(3_600));
        nat.assert_connected(seen);
    });
}

#[test]
pub(crate) fn sec_2_2_a_blind_reset_or_segment_changes_nothing() {
    in_both(|mut nat| {
        let seen = nat.connected();
        let remote = nat.remote;
        for seq in [100_000_u32, 2_000_000, 3_000_000_000] {
            for flags in ["R", "A", "FA"] {
                let forged = tcp(&remote, UPLINK_MAC, 80, seen, flags, (seq, 101), b"evil");
                nat.world.dropped(UPLINK_PORT, &forged, DropReason::TcpWindow);
            }
        }
        // One in the window is the receiver's to challenge (RFC 5961), and does not count here.
        assert!(nat.tcp_in((remote, 80), seen, "R", (30_000, 0)).is_some());
        assert!(nat.tcp_in((remote, 80), seen, "S", (30_000, 0)).is_some());
        nat.assert_connected(seen);
    });
}

#[test]
pub(crate) fn sec_3_ports_overlap_where_that_was_chosen() {
    in_both(|mut nat| {
        nat.world.change_uplink(|uplink| uplink.nat_ports = 5_000..=5_001);
        nat.behave(|behaviour| behaviour.mapping = Binding::AddressAndPortDependent);
        let (a, b) = (nat.a, nat.b);
        // Hundreds of connections behind two ports, no two of one destination behind one.
        let mut seen = BTreeSet::new();
        for n in 0..40 {
            for (host, port) in [(a, 80), (b, 80), (a, 81), (b, 81)] {
                let sent = nat.out(host, 7_000 + u16::from(n), nat.other(n), port);
                assert!(seen.insert((sent.src().1, sent.dst())), "told apart");
                let back = nat.answer(nat.other(n), port, sent.src()).unwrap();
                assert_eq!(back.port, host.port);
            }
        }
        assert_eq!(seen.iter().map(|(port, _)| port).collect::<BTreeSet<_>>().len(), 2);
        // A third one to the same destination is refused, and strangers reach nobody.
        let frame = udp(&a, a.router, 9_000, nat.at(&nat.other(0), 80), b"x");
        nat.world.refused(a.port, &frame, DropReason::PortsExhausted);
        assert!(nat.answer(nat.other(99), 80, (nat.own(), 5_000)).is_none());
        assert_eq!(nat.world.dp.footprint().mappings, 0);
    });
}

#[test]
pub(crate) fn sec_4_a_container_stays_with_its_address_when_that_has_no_ports_left() {
    in_both(|mut nat| {
        nat.world.change_uplink(|uplink| {
            for more in ["192.0.2.2", "2001:db8:1::2"] {
                uplink.addrs.push((more.parse().unwrap(), 24));
            }
            uplink.nat_ports = 5_000..=5_000;
        });
        assert_eq!(nat.out(nat.a, 5_000, nat.remote, 9).src(), (nat.own(), 5_000));
        let frame = udp(&nat.a, nat.a.router, 5_001, nat.at(&nat.remote, 9), b"x");
        nat.world.refused(nat.a.port, &frame, DropReason::PortsExhausted);
    });
}

#[test]
pub(crate) fn sec_5_a_mapping_is_one_protocol_s() {
    in_both(|mut nat| {
        // A UDP socket of one and a TCP socket of another container behind one port number.
        let udp = nat.out(nat.a, 5_000, nat.remote, 9).src();
        let tcp = nat.tcp_out((nat.b, 5_000), (nat.remote, 9), "S", (1, 0)).src();
        assert_eq!((udp.1, tcp.1), (5_000, 5_000));
        assert_eq!(nat.answer(nat.remote, 9, udp).unwrap().port, nat.a.port);
        assert_eq!(nat.tcp_in((nat.remote, 9), tcp, "SA", (7, 2)).unwrap().port, nat.b.port);
    });
}

#[test]
pub(crate) fn sec_6_so_is_what_it_lets_in() {
    in_both(|mut nat| {
        nat.behave(|behaviour| behaviour.filtering = Filtering::EndpointIndependent);
        let seen = nat.out(nat.a, 5_000, nat.remote, 9).src();
        assert!(nat.answer(nat.other(1), 9, seen).is_some());
        assert!(nat.tcp_in((nat.other(1), 9), seen, "S", (1, 0)).is_none());
        // And a contact made by UDP is none of TCP's.
        nat.behave(|behaviour| behaviour.filtering = Filtering::AddressDependent);
        let seen = nat.tcp_out((nat.a, 5_000), (nat.other(5), 80), "S", (1, 0)).src();
        assert!(nat.tcp_in((nat.remote, 9), seen, "S", (1, 0)).is_none());
    });
}

#[test]
pub(crate) fn sec_7_whether_strangers_keep_a_mapping_alive_is_configurable() {
    for (refresh, lives) in [(true, true), (false, false)] {
        in_both(|mut nat| {
            nat.behave(|behaviour| {
                behaviour.filtering = Filtering::EndpointIndependent;
                behaviour.inbound_refresh = refresh;
            });
            let seen = nat.out(nat.a, 5_000, nat.remote, 9).src();
            let mut alive = true;
            for _ in 0..20 {
                nat.wait(secs(100));
                alive &= nat.answer(nat.other(1), 9, seen).is_some();
            }
            assert_eq!(alive, lives);
        });
    }
}

#[test]
pub(crate) fn sec_7_1_errors_and_resets_sent_in_answer_do_not_keep_it_alive() {
    in_both(|mut nat| {
        nat.behave(|behaviour| behaviour.inbound_refresh = false);
        let seen = nat.out(nat.a, 5_000, nat.remote, 9).src();
        let mut alive = true;
        for _ in 0..10 {
            nat.wait(secs(100));
            let Some(came) = nat.answer(nat.remote, 9, seen) else {
                alive = false;
                break;
            };
            let via = (&nat.a, nat.a.router, nat.remote.addr(nat.family));
            let error = icmp_error(nat.family, via, PORT_UNREACHABLE, &came.bytes[14..]);
            assert_eq!(nat.world.send(nat.a.port, &error).len(), 1);
        }
        assert!(!alive, "an attacker cannot keep a port open by provoking errors");
    });
    in_both(|mut nat| {
        let seen = nat.connected();
        nat.tcp_out((nat.a, 5_000), (nat.remote, 80), "R", (101, 701));
        assert_eq!(nat.state(), "reset");
        for _ in 0..3 {
            nat.wait(secs(100));
            nat.tcp_in((nat.remote, 80), seen, "A", (701, 101));
            let frame = nat.at(&nat.remote, 80);
            let frame = tcp(&nat.a, nat.a.router, 5_000, frame, "R", (101, 0), b"");
            nat.world.send(nat.a.port, &frame);
        }
        assert_eq!(nat.state(), "", "it has ended in its time");
    });
}

#[test]
pub(crate) fn sec_8_parity_is_kept_for_mappings_that_come_by_themselves_too() {
    in_both(|mut nat| {
        nat.out(nat.a, 5_001, nat.remote, 9);
        let moved = nat.out(nat.b, 5_001, nat.remote, 9).src().1;
        assert!(moved % 2 == 1 && moved != 5_001);
    });
}

#[test]
pub(crate) fn sec_9_a_port_that_cannot_be_kept_is_a_random_one() {
    in_both(|mut nat| {
        nat.out(nat.a, 5_000, nat.remote, 9);
        let ports: Vec<u16> = (0..40)
            .map(|_| {
                let host = nat.world.endpoint(nat.net);
                nat.out(host, 5_000, nat.remote, 9).src().1
            })
            .collect();
        let steps: BTreeSet<i32> =
            ports.windows(2).map(|two| i32::from(two[1]) - i32::from(two[0])).collect();
        assert!(steps.len() > 30, "no one can guess the next one: {ports:?}");
        let spread = ports.iter().max().unwrap() - ports.iter().min().unwrap();
        assert!(spread > 20_000, "over the whole range: {ports:?}");
    });
}

/// The identification of an IPv4 packet.
fn identification(sent: &Sent) -> u16 {
    u16::from_be_bytes([sent.bytes[18], sent.bytes[19]])
}

#[test]
pub(crate) fn sec_10_datagrams_of_two_containers_never_have_one_identification() {
    in_v4(|mut nat| {
        let mut seen = BTreeSet::new();
        nat.out(nat.a, 5_000, nat.remote, 9);
        nat.out(nat.b, 5_001, nat.remote, 9);
        for id in 0..50 {
            // Both number theirs alike: whole ones that may be cut, and such as come in fragments.
            for (host, port) in [(nat.a, 5_000), (nat.b, 5_001)] {
                let frame = udp(&host, host.router, port, nat.at(&nat.remote, 9), &[7; 1_000]);
                let whole = crate::packets::fragment(&frame, id, 0, false, &frame[34..]);
                let sent = nat.world.pass(host.port, &whole);
                assert!(seen.insert(identification(&sent)), "{id}");
                let mut pieces = crate::packets::fragments(&frame, id, 400);
                pieces.rotate_left(usize::from(id) % 3);
                let mut sent = Vec::new();
                for piece in &pieces {
                    sent.extend(nat.world.send(host.port, piece));
                }
                let numbers: BTreeSet<u16> = sent.iter().map(identification).collect();
                assert_eq!((sent.len(), numbers.len()), (3, 1), "one number for one datagram");
                assert!(seen.insert(*numbers.iter().next().unwrap()), "{id}");
                crate::packets::reassembled(&sent).assert_checksums();
            }
        }
        // One that must not be cut needs no number and keeps what it has.
        let frame = udp(&nat.a, nat.a.router, 5_000, nat.at(&nat.remote, 9), b"x");
        assert_eq!(identification(&nat.world.pass(nat.a.port, &frame)), 0);
    });
}

#[test]
pub(crate) fn sec_11_an_identifier_lingers_when_its_last_query_is_over_and_then_ends() {
    in_both(|mut nat| {
        nat.ping_out(nat.a, nat.remote, 7);
        nat.wait(secs(62));
        assert_eq!((nat.world.dp.footprint().flows, nat.world.dp.footprint().mappings), (0, 1));
        nat.wait(secs(180));
        assert_eq!(nat.world.dp.footprint().mappings, 0);
    });
}

#[test]
pub(crate) fn sec_12_a_ping_between_two_containers_by_their_outside_address_passes() {
    in_both(|mut nat| {
        let sent = nat.ping_out(nat.b, nat.remote, 9);
        let id = nat.id(&sent);
        let frame = ping(&nat.a, nat.a.router, nat.own(), id, b"hello");
        let there = nat.world.pass(nat.a.port, &frame);
        assert_eq!((there.port, there.dst().0), (nat.b.port, nat.b.addr(nat.family)));
        assert_eq!(there.src().0, nat.own());
        there.assert_checksums();
    });
}
