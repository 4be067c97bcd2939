//! TCP (RFC 5382).

use std::collections::BTreeSet;

use wharf::packet::DropReason;
use wharf::stage::flow::{Class, Filtering, Timeouts};

use crate::nat::*;
use crate::rfc4787::filtering_is_as_configured;
use crate::world::*;

#[test]
pub(crate) fn req_1_one_socket_is_seen_as_one_whatever_it_speaks_to() {
    in_both(|mut nat| {
        let seen: BTreeSet<Socket> = [(1, 80), (1, 81), (2, 80)]
            .map(|(host, port)| {
                let to = (nat.other(host), port);
                nat.tcp_out((nat.a, 5_000), to, "S", (100, 0)).src()
            })
            .into();
        assert_eq!(seen.len(), 1);
    });
}

#[test]
pub(crate) fn req_2_connections_begin_from_inside_and_where_permitted_from_outside() {
    in_both(|mut nat| {
        let seen = nat.connected();
        nat.assert_connected(seen);
        nat.behave(|behaviour| behaviour.filtering = Filtering::EndpointIndependent);
        let stranger = (nat.other(3), 4_000);
        let syn = nat.tcp_in(stranger, seen, "S", (1, 0)).unwrap();
        assert_eq!(syn.dst(), nat.at(&nat.a, 5_000));
        nat.tcp_out((nat.a, 5_000), stranger, "SA", (900, 2));
        assert!(nat.tcp_in(stranger, seen, "A", (2, 901)).is_some());
        let flows = nat.world.dp.list_flows(nat.world.now, &Default::default());
        assert!(flows.iter().all(|flow| flow.state == "established") && flows.len() == 2);
    });
}

#[test]
pub(crate) fn req_2a_both_sides_may_begin_at_once() {
    in_both(|mut nat| {
        let (a, remote) = ((nat.a, 5_000), (nat.remote, 80));
        let seen = nat.tcp_out(a, remote, "S", (100, 0)).src();
        assert!(nat.tcp_in(remote, seen, "S", (700, 0)).is_some());
        nat.tcp_out(a, remote, "SA", (100, 701));
        assert!(nat.tcp_in(remote, seen, "SA", (700, 101)).is_some());
        assert_eq!(nat.state(), "established");
        nat.assert_connected(seen);
    });
}

#[test]
pub(crate) fn req_3_filtering_is_address_dependent_or_as_configured() {
    filtering_is_as_configured(true);
}

#[test]
pub(crate) fn req_4_a_syn_nobody_asked_for_is_answered_after_six_seconds() {
    in_both(|mut nat| {
        let syn = tcp(&nat.remote, UPLINK_MAC, 80, (nat.own(), 5_000), "S", (1, 0), b"");
        nat.world.dropped(UPLINK_PORT, &syn, DropReason::NotPublished);
        assert!(nat.world.advance(secs(5)).is_empty(), "no answer before");
        nat.world.dropped(UPLINK_PORT, &syn, DropReason::NotPublished);
        let told = nat.world.advance(secs(1));
        assert_eq!(told.len(), 1, "one answer to both");
        assert_eq!((told[0].port, told[0].icmp()), (UPLINK_PORT, PORT_UNREACHABLE.of(nat.family)));
        assert_eq!(told[0].dst().0, nat.remote.addr(nat.family));
        told[0].assert_checksums();
        assert!(nat.world.advance(secs(60)).is_empty());
    });
}

#[test]
pub(crate) fn req_4_a_syn_whose_connection_begins_meanwhile_is_never_answered() {
    in_both(|mut nat| {
        let (a, remote) = ((nat.a, 5_000), (nat.remote, 80));
        assert!(nat.tcp_in(remote, (nat.own(), 5_000), "S", (700, 0)).is_none());
        nat.world.advance(secs(2));
        let seen = nat.tcp_out(a, remote, "S", (100, 0)).src();
        assert_eq!(seen, (nat.own(), 5_000), "the port that both agreed upon");
        let told = nat.world.advance(secs(10));
        let errors = told.iter().filter(|sent| sent.bytes[12..14] != [8, 6] && is_error(sent));
        assert_eq!(errors.count(), 0, "{told:?}");
        assert!(nat.tcp_in(remote, seen, "S", (700, 0)).is_some(), "sent again, it arrives");
        nat.tcp_out(a, remote, "SA", (100, 701));
        assert!(nat.tcp_in(remote, seen, "SA", (700, 101)).is_some());
        nat.assert_connected(seen);
    });
}

fn is_error(sent: &Sent) -> bool {
    let at = if sent.bytes[12..14] == [8, 0] { 14 + 9 } else { 14 + 6 };
    let l4 = if at == 23 { 34 } else { 54 };
    matches!((sent.bytes[at], sent.bytes[l4]), (1, 3 | 11) | (58, 0..=127))
}

#[test]
pub(crate) fn req_4a_a_flood_of_them_gets_no_answer_beyond_a_bound() {
    in_both(|mut nat| {
        for n in 0..5_000_u16 {
            let syn = tcp(&nat.other(5), UPLINK_MAC, n, (nat.own(), 9), "S", (1, 0), b"");
            assert!(nat.world.send(UPLINK_PORT, &syn).is_empty());
        }
        assert_eq!(nat.world.dp.footprint().held_syns, wharf::base::limits::HELD_SYNS_MAX);
        let told = nat.world.advance(secs(6)).len();
        assert!((1..=200).contains(&told), "{told} answers: errors are limited");
        assert_eq!(nat.world.dp.footprint().held_syns, 0);
    });
}

#[test]
pub(crate) fn req_5_an_idle_connection_lives_for_two_hours_and_four_minutes() {
    in_both(|mut nat| {
        let seen = nat.connected();
        nat.wait(secs(2 * 3_600 + 4 * 60));
        assert_eq!(nat.state(), "established");
        nat.assert_connected(seen);
    });
}

#[test]
pub(crate) fn req_5_one_that_opens_or_closes_lives_for_four_minutes() {
    in_both(|mut nat| {
        let (a, remote) = ((nat.a, 5_000), (nat.remote, 80));
        let seen = nat.tcp_out(a, remote, "S", (100, 0)).src();
        nat.wait(secs(239));
        assert!(nat.tcp_in(remote, seen, "SA", (700, 101)).is_some());
        nat.tcp_out(a, remote, "FA", (101, 701));
        assert!(nat.tcp_in(remote, seen, "FA", (701, 102)).is_some());
        nat.wait(secs(239));
        assert_eq!(nat.state(), "closed");
        nat.tcp_out(a, remote, "A", (102, 702));
        nat.wait(secs(300));
        assert_eq!(nat.world.dp.footprint().flows, 0);
    });
}

#[test]
pub(crate) fn req_5a_the_times_can_be_configured() {
    in_both(|mut nat| {
        let mut timeouts = Timeouts::default();
        timeouts.set(Class::TcpEstablished, secs(9_000));
        timeouts.set(Class::TcpEmbryonic, secs(20));
        nat.world.dp.set_timeouts(timeouts);
        let seen = nat.connected();
        nat.tcp_out((nat.b, 5_000), (nat.remote, 80), "S", (100, 0));
        nat.wait(secs(8_990));
        assert_eq!(nat.state(), "established", "and the other one is gone");
        nat.assert_connected(seen);
    });
}

#[test]
pub(crate) fn req_6_what_a_connection_carries_is_nobody_s_business() {
    in_both(|mut nat| {
        let (a, remote) = ((nat.a, 5_000), (nat.remote, 21));
        let seen = nat.tcp_out(a, remote, "S", (100, 0)).src();
        assert!(nat.tcp_in(remote, seen, "SA", (700, 101)).is_some());
        let text = b"PORT 10,20,0,2,19,136\r\n";
        let to = nat.at(&nat.remote, 21);
        let frame = tcp(&nat.a, nat.a.router, 5_000, to, "A", (101, 701), text);
        assert!(nat.world.pass(nat.a.port, &frame).bytes.ends_with(text));
    });
}

#[test]
pub(crate) fn req_7_no_two_sockets_share_a_port_and_the_next_one_is_refused() {
    in_both(|mut nat| {
        nat.world.change_uplink(|uplink| uplink.nat_ports = 5_000..=5_004);
        let seen: BTreeSet<u16> = (0..5)
            .map(|n| {
                let to = (nat.other(n as u8), 80);
                nat.tcp_out((nat.a, 7_000 + n), to, "S", (100, 0)).src().1
            })
            .collect();
        assert_eq!(seen.len(), 5);
        let to = nat.at(&nat.other(50), 80);
        let frame = tcp(&nat.b, nat.b.router, 7_000, to, "S", (1, 0), b"");
        nat.world.refused(nat.b.port, &frame, DropReason::PortsExhausted);
    });
}

#[test]
pub(crate) fn req_8_two_containers_connect_by_their_outside_sockets() {
    in_both(|mut nat| {
        let a_seen = nat.tcp_out((nat.a, 5_000), (nat.other(1), 80), "S", (1, 0)).src();
        let b_seen = nat.tcp_out((nat.b, 6_000), (nat.other(1), 80), "S", (1, 0)).src();
        let pass = |nat: &mut Nat, from: Host, sport, to, flags, numbers| {
            let frame = tcp(&from, from.router, sport, to, flags, numbers, b"");
            let sent = nat.world.pass(from.port, &frame);
            sent.assert_checksums();
            sent
        };
        let (a, b) = (nat.a, nat.b);
        let syn = pass(&mut nat, a, 5_000, b_seen, "S", (100, 0));
        assert_eq!((syn.port, syn.dst(), syn.src()), (b.port, nat.at(&b, 6_000), a_seen));
        let reply = pass(&mut nat, b, 6_000, a_seen, "SA", (700, 101));
        assert_eq!((reply.port, reply.dst(), reply.src()), (a.port, nat.at(&a, 5_000), b_seen));
        assert_eq!(pass(&mut nat, a, 5_000, b_seen, "A", (101, 701)).port, b.port);
    });
}

#[test]
pub(crate) fn req_9_destination_unreachable_reaches_the_connection_it_is_about() {
    in_both(|mut nat| {
        let seen = nat.connected();
        let sent = nat.tcp_out((nat.a, 5_000), (nat.remote, 80), "A", (101, 701));
        for kind in &ERRORS[..5] {
            let error = nat.error(&nat.other(9), *kind, &sent.bytes[14..]);
            let told = nat.inside(&error).unwrap();
            assert_eq!((told.icmp(), told.dst().0), (kind.of(nat.family), nat.at(&nat.a, 0).0));
            let quote = nat.l4() + 8 + nat.ip_len();
            assert_eq!(told.bytes[quote..quote + 2], 5_000_u16.to_be_bytes());
        }
        nat.assert_connected(seen);
    });
}

#[test]
pub(crate) fn req_10_no_icmp_message_ends_a_connection() {
    in_both(|mut nat| {
        let seen = nat.connected();
        let sent = nat.tcp_out((nat.a, 5_000), (nat.remote, 80), "A", (101, 701));
        for kind in ERRORS {
            let error = nat.error(&nat.remote, kind, &sent.bytes[14..]);
            assert!(nat.inside(&error).is_some());
            nat.assert_connected(seen);
        }
        // Nor one about a handshake that is under way.
        let sent = nat.tcp_out((nat.b, 5_001), (nat.remote, 81), "S", (100, 0));
        let error = nat.error(&nat.remote, HOST_UNREACHABLE, &sent.bytes[14..]);
        assert!(nat.inside(&error).is_some());
        assert!(nat.tcp_in((nat.remote, 81), sent.src(), "SA", (700, 101)).is_some());
    });
}
