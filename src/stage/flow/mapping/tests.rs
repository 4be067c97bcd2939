use std::collections::HashMap as Map;

use proptest::prelude::*;

use super::super::testing::{addr, outside as outside_addr};
use super::*;
use crate::base::ids::{NetworkId, UplinkId};
use crate::wire::ipv6::{ICMP, TCP, UDP};

const NOW: Time = Time(5_000_000_000_000);

fn inside(v6: bool, host: u32, port: u16, proto: u8) -> Endpoint {
    Endpoint { addr: addr(v6, host), domain: NetworkId(1).into(), port, proto }
}

fn wanted(inside: Endpoint) -> Wanted {
    Wanted {
        inside,
        payer: PortId(1),
        domain: UplinkId(0).into(),
        addr: outside_addr(!inside.addr.is_v4()),
    }
}

fn space(v6: bool, proto: u8) -> Endpoint {
    Endpoint { addr: outside_addr(v6), domain: UplinkId(0).into(), port: 0, proto }
}

fn only_ports(table: &mut MappingTable, range: RangeInclusive<u16>) {
    table.set_policy(UplinkId(0).into(), PortPolicy { range, ..PortPolicy::default() });
}

fn table() -> MappingTable {
    MappingTable::new(Seed(3))
}

#[test]
fn one_inside_socket_has_one_outside_port_in_both_families() {
    for v6 in [false, true] {
        let mut table = table();
        let want = wanted(inside(v6, 1, 40_000, UDP));
        let first = table.acquire(&want).unwrap();
        assert_eq!(table.acquire(&want).unwrap(), first);
        let mapping = table.get(first);
        assert_eq!((mapping.flows(), mapping.outside.port), (2, 40_000));
        assert_eq!(mapping.outside.addr, outside_addr(v6));
        let at = Endpoint { port: 40_000, ..space(v6, UDP) };
        assert_eq!(table.by_outside(&at).unwrap().0, first);
        assert!(table.by_outside(&Endpoint { proto: TCP, ..at }).is_none(), "protocols are apart");
        assert!(table.by_outside(&Endpoint { domain: UplinkId(1).into(), ..at }).is_none());
    }
}

#[test]
fn two_hosts_with_the_same_port_get_different_ones_of_the_same_parity() {
    let mut table = table();
    let first = table.acquire(&wanted(inside(false, 1, 40_001, UDP))).unwrap();
    let second = table.acquire(&wanted(inside(false, 2, 40_001, UDP))).unwrap();
    assert_eq!(table.get(first).outside.port, 40_001);
    let port = table.get(second).outside.port;
    assert!(port != 40_001 && port % 2 == 1 && port >= 1_024, "{port}");
}

#[test]
fn another_uplink_is_another_mapping() {
    let mut table = table();
    let want = wanted(inside(false, 1, 40_000, TCP));
    let first = table.acquire(&want).unwrap();
    let other = table.acquire(&Wanted { domain: UplinkId(1).into(), ..want }).unwrap();
    assert_ne!(first, other);
    assert_eq!(table.get(other).outside.port, 40_000);
}

#[test]
fn a_mapping_lingers_after_its_last_flow_and_is_found_again() {
    let mut table = table();
    let want = wanted(inside(true, 1, 40_000, UDP));
    let id = table.acquire(&want).unwrap();
    table.release(NOW, id);
    assert_eq!(table.next_deadline(NOW), Some(NOW + LINGER));
    let almost = Time(NOW.0 + LINGER.0 - 1_000_000);
    assert_eq!(table.expire(almost, 10, |_| {}), 0);
    assert_eq!(table.acquire(&want).unwrap(), id, "the same inside socket");
    assert_eq!(table.expire(NOW + LINGER, 10, |_| {}), 0, "it is in use again");
    table.release(NOW + LINGER, id);
    let mut ended = Vec::new();
    let later = NOW + LINGER + LINGER;
    assert_eq!(table.expire(later, 10, |mapping| ended.push(mapping.inside)), 1);
    assert_eq!(ended, [want.inside]);
    assert!(table.is_empty() && table.next_deadline(later).is_none());
    assert!(table.by_outside(&Endpoint { port: 40_000, ..space(true, UDP) }).is_none());
}

#[test]
fn a_port_that_lingers_is_not_given_to_another_unless_ports_run_out() {
    let mut table = table();
    only_ports(&mut table, 50_000..=50_001);
    let first = table.acquire(&wanted(inside(false, 1, 50_000, UDP))).unwrap();
    table.release(NOW, first);
    let second = table.acquire(&wanted(inside(false, 2, 50_000, UDP))).unwrap();
    assert_eq!(table.get(second).outside.port, 50_001);
    let third = table.acquire(&wanted(inside(false, 3, 50_000, UDP))).unwrap();
    assert_eq!(table.get(third).outside.port, 50_000, "the idle one gave way");
    let fourth = table.acquire(&wanted(inside(false, 4, 50_000, UDP)));
    assert_eq!(fourth, Err(DropReason::PortsExhausted));
    assert!(table.acquire(&wanted(inside(false, 4, 50_000, TCP))).is_ok(), "TCP has its own");
    assert!(table.acquire(&wanted(inside(true, 4, 50_000, UDP))).is_ok(), "and so has IPv6");
}

#[test]
fn without_lingering_a_port_is_free_at_once() {
    let mut table = table();
    table.set_linger(Span::ZERO);
    let id = table.acquire(&wanted(inside(false, 1, 50_000, UDP))).unwrap();
    table.release(NOW, id);
    assert!(table.is_empty());
}

#[test]
fn a_published_port_is_never_chosen_until_its_last_reservation_is_taken_back() {
    let mut table = table();
    only_ports(&mut table, 8_000..=8_003);
    table.reserve(&space(false, TCP), 8_000..=8_002).unwrap();
    table.reserve(&space(false, TCP), 8_001..=8_001).unwrap();
    let id = table.acquire(&wanted(inside(false, 1, 8_001, TCP))).unwrap();
    assert_eq!(table.get(id).outside.port, 8_003);
    table.unreserve(&space(false, TCP), 8_000..=8_002);
    let mut ports = Vec::new();
    for host in 2..4 {
        let id = table.acquire(&wanted(inside(false, host, 8_001, TCP))).unwrap();
        ports.push(table.get(id).outside.port);
    }
    ports.sort_unstable();
    assert_eq!(ports, [8_000, 8_002]);
    table.unreserve(&space(false, TCP), 8_001..=8_001);
    let id = table.acquire(&wanted(inside(false, 4, 8_001, TCP))).unwrap();
    assert_eq!(table.get(id).outside.port, 8_001);
}

#[test]
fn a_reservation_leaves_an_existing_mapping_and_outlives_it() {
    let mut table = table();
    table.set_linger(Span::ZERO);
    let id = table.acquire(&wanted(inside(false, 1, 8_080, TCP))).unwrap();
    table.reserve(&space(false, TCP), 8_080..=8_080).unwrap();
    assert!(table.by_outside(&Endpoint { port: 8_080, ..space(false, TCP) }).is_some());
    table.release(NOW, id);
    let id = table.acquire(&wanted(inside(false, 1, 8_080, TCP))).unwrap();
    assert_ne!(table.get(id).outside.port, 8_080);
}

#[test]
fn filtering_remembers_to_whom_the_inside_has_spoken() {
    let mut table = table();
    let id = table.acquire(&wanted(inside(false, 1, 40_000, UDP))).unwrap();
    let remote = |n: u32| addr(n.is_multiple_of(2), 0x0020_0000 + n);
    for n in 0..100 {
        table.add_contact(id, remote(n), None);
        table.add_contact(id, remote(n), None);
    }
    assert!((0..100).all(|n| table.has_contact(id, remote(n), None)));
    assert!((100..10_000).all(|n| !table.has_contact(id, remote(n), None)));
    assert_eq!(table.get(id).contacts.len(), 100, "each once");
}

#[test]
fn contacts_are_bounded_and_the_earliest_is_forgotten_first() {
    let mut table = table();
    let id = table.acquire(&wanted(inside(false, 1, 40_000, UDP))).unwrap();
    let last = MAPPING_CONTACTS_MAX as u32;
    (0..=last).for_each(|n| table.add_contact(id, addr(true, n), None));
    assert!(!table.has_contact(id, addr(true, 0), None));
    assert!(
        table.has_contact(id, addr(true, 1), None) && table.has_contact(id, addr(true, last), None)
    );
}

#[test]
fn contacts_do_not_outlive_the_mapping() {
    let mut table = table();
    table.set_linger(Span::ZERO);
    let want = wanted(inside(false, 1, 40_000, UDP));
    let id = table.acquire(&want).unwrap();
    table.add_contact(id, addr(false, 9), None);
    table.release(NOW, id);
    let id = table.acquire(&want).unwrap();
    assert!(!table.has_contact(id, addr(false, 9), None));
}

#[test]
fn a_new_uplink_address_gives_new_mappings_while_flows_keep_the_old() {
    let mut table = table();
    let want = wanted(inside(false, 1, 40_000, UDP));
    let old = table.acquire(&want).unwrap();
    let moved = Wanted { addr: "198.51.100.7".parse().unwrap(), ..want };
    let new = table.acquire(&moved).unwrap();
    assert_ne!(old, new);
    assert_eq!(table.acquire(&moved).unwrap(), new);
    assert!(table.by_outside(&Endpoint { port: 40_000, ..space(false, UDP) }).is_some());
    table.release(NOW, old);
    table.expire(NOW + LINGER, 10, |_| {});
    assert_eq!(table.len(), 1);
    assert_eq!(table.acquire(&moved).unwrap(), new, "still found by its inside");
}

#[test]
fn a_payer_gets_no_more_mappings_than_its_share() {
    let mut table = table();
    table.set_share(PortId(1), 1);
    let id = table.acquire(&wanted(inside(false, 1, 1_000, UDP))).unwrap();
    let want = wanted(inside(false, 1, 1_001, UDP));
    assert_eq!(table.acquire(&want), Err(DropReason::FlowShare));
    assert!(table.acquire(&Wanted { payer: PortId(2), ..want }).is_ok());
    table.set_linger(Span::ZERO);
    table.release(NOW, id);
    assert_eq!(table.count_of_port(PortId(1)), 0);
}

#[test]
fn outside_addresses_come_and_go_within_the_bound() {
    let mut table = table();
    table.set_linger(Span::ZERO);
    let want = |n: u32| Wanted { addr: addr(true, n), ..wanted(inside(true, 1, 1_000, UDP)) };
    for n in 0..2 * PORT_SPACES_MAX as u32 {
        let id = table.acquire(&want(n)).unwrap();
        table.release(NOW, id);
    }
    let held: Vec<_> =
        (0..PORT_SPACES_MAX as u32).map(|n| table.acquire(&want(n)).unwrap()).collect();
    assert_eq!(table.acquire(&want(9_999)), Err(DropReason::PortsExhausted));
    table.release(NOW, held[7]);
    assert!(table.acquire(&want(9_999)).is_ok());
}

/// Plainly: which inside socket has which port, and how many references.
fn run(ops: Vec<(u8, u8, u8, u64)>) {
    let mut table = table();
    only_ports(&mut table, 5_000..=5_011);
    let mut model: Map<Endpoint, (u16, u32, Time)> = Map::new();
    let mut now = NOW;
    for (op, host, proto, step) in ops {
        now = now + Span::from_secs(step);
        let v6 = host % 2 == 0;
        let socket = inside(v6, u32::from(host), 5_000, [TCP, UDP, ICMP][usize::from(proto)]);
        let spaces = |other: &Endpoint| other.proto == socket.proto && other.addr.is_v4() != v6;
        match op {
            0 | 1 => match table.acquire(&wanted(socket)) {
                Ok(id) => {
                    let port = table.get(id).outside.port;
                    if let Some((known, flows, _)) = model.get_mut(&socket) {
                        assert_eq!(*known, port);
                        *flows += 1;
                    } else {
                        // What had the port may only have been idle.
                        let before = model.iter().find(|(e, m)| spaces(e) && m.0 == port);
                        if let Some((victim, (_, flows, _))) = before.map(|(e, m)| (*e, *m)) {
                            assert_eq!(flows, 0);
                            model.remove(&victim);
                        }
                        model.retain(|e, (_, flows, _)| {
                            *flows > 0 || !spaces(e) || table.iter().any(|(_, m)| m.inside == *e)
                        });
                        model.insert(socket, (port, 1, now));
                    }
                }
                Err(error) => {
                    assert_eq!(error, DropReason::PortsExhausted);
                    let busy = model.iter().filter(|(e, m)| spaces(e) && m.1 > 0).count();
                    assert_eq!(busy, 12);
                }
            },
            2 => {
                if let Some((port, flows, released)) = model.get_mut(&socket)
                    && *flows > 0
                {
                    let at = Endpoint { port: *port, ..space(v6, socket.proto) };
                    let id = table.by_outside(&at).unwrap().0;
                    table.release(now, id);
                    *flows -= 1;
                    *released = now;
                }
            }
            _ => {
                table.expire(now, usize::MAX, |mapping| {
                    let (_, flows, released) = model.remove(&mapping.inside).unwrap();
                    assert!(flows == 0 && now.since(released) >= LINGER);
                });
                assert!(model.values().all(|(_, f, at)| *f > 0 || now.since(*at) < LINGER));
            }
        }
        assert_eq!(table.len(), model.len());
        for (socket, (port, flows, _)) in &model {
            let at = Endpoint { port: *port, ..space(!socket.addr.is_v4(), socket.proto) };
            let (_, mapping) = table.by_outside(&at).unwrap();
            assert_eq!((mapping.inside, mapping.flows()), (*socket, *flows));
        }
        assert_eq!(table.count_of_port(PortId(1)), model.len());
    }
}

/// Sockets of four payers on 64 ports of one address, as they come and go.
fn share(ops: Vec<(bool, u16, u16)>) {
    let (mut table, all) = (table(), 64);
    only_ports(&mut table, 5_000..=5_063);
    // Of each socket: its mapping, and whether a flow has it or it lingers.
    let mut model: Map<(u16, u16), (MappingId, bool)> = Map::new();
    for (comes, payer, port) in ops {
        let socket = (payer, port);
        let known = model.get(&socket).copied();
        if let (false, Some((id, true))) = (comes, known) {
            table.release(NOW, id);
            model.insert(socket, (id, false));
        }
        if !comes || known.is_some_and(|(_, busy)| busy) {
            continue;
        }
        let held = model.keys().filter(|(other, _)| *other == payer).count();
        let left = all - model.values().filter(|(_, busy)| *busy).count();
        let want = wanted(inside(false, payer.into(), port, UDP));
        let got = table.acquire(&Wanted { payer: PortId(payer), ..want });
        let over = known.is_none() && held > all / 4 && left < all / 4;
        match got {
            Ok(id) => {
                assert!(!over, "{held} held, {left} left");
                model.insert(socket, (id, true));
                // What lingered may have had to go.
                model.retain(|(payer, port), _| {
                    let inside = inside(false, u32::from(*payer), *port, UDP);
                    table.iter().any(|(_, mapping)| mapping.inside == inside)
                });
            }
            Err(DropReason::PortShare) => assert!(over, "{held} held, {left} left"),
            Err(error) => {
                assert_eq!((error, left), (DropReason::PortsExhausted, 0));
                assert!(held <= all / 4, "there is always something for who has little");
            }
        }
        assert_eq!(table.len(), model.len());
    }
}

proptest! {
    #[test]
    fn who_has_over_a_quarter_gets_no_more_of_the_last_quarter_and_others_do(
        ops in prop::collection::vec((prop::bool::weighted(0.7), 1_u16..5, 5_000_u16..5_064), 0..400)
    ) {
        share(ops);
    }

    #[test]
    fn behaves_as_a_map_from_sockets_to_ports(
        ops in prop::collection::vec((0_u8..4, 0_u8..30, 0_u8..3, 0_u64..50), 0..200)
    ) {
        run(ops);
    }
}
