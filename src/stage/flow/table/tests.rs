use std::collections::{HashMap, HashSet};

use proptest::prelude::*;

use super::super::testing::{keys, masqueraded};
use super::*;
use crate::base::ids::NetworkId;
use crate::packet::Scope;
use crate::wire::ipv6::{ICMP, TCP, UDP};

const PORTS: [PortId; 2] = [PortId(1), PortId(2)];
const START: Time = Time(1_000_000_000_000);

fn after(secs: u64) -> Time {
    START + Span::from_secs(secs)
}

fn find(table: &FlowTable, key: &FlowKey) -> Option<(FlowIndex, Direction)> {
    table.lookup(key, key.hash(table.seed()))
}

fn add(table: &mut FlowTable, now: Time, proto: u8, n: u32) -> FlowIndex {
    table.insert(Flow::new(now, masqueraded(n.is_multiple_of(2), proto, n), PORTS)).unwrap()
}

fn expired(table: &mut FlowTable, now: Time) -> usize {
    table.expire(now, usize::MAX, |_| {})
}

#[test]
fn both_directions_find_the_same_flow() {
    let mut table = FlowTable::new(Seed(1), 16);
    for n in [1, 2] {
        let index = add(&mut table, START, TCP, n);
        let [there, back] = masqueraded(n % 2 == 0, TCP, n);
        assert_eq!(find(&table, &there), Some((index, Direction::Initiator)));
        assert_eq!(find(&table, &back), Some((index, Direction::Responder)));
        let untranslated = there.reversed(back.domain, back.scope);
        assert_eq!(find(&table, &untranslated), None, "inside addresses mean nothing outside");
    }
}

#[test]
fn the_same_addresses_in_another_domain_or_scope_are_another_flow() {
    let mut table = FlowTable::new(Seed(1), 16);
    let [there, back] = keys(false, TCP, 1);
    table.insert(Flow::new(START, [there, back], PORTS)).unwrap();
    let elsewhere = FlowKey { domain: NetworkId(2).into(), ..there };
    let routed = FlowKey { scope: Scope::Routed, ..there };
    assert_eq!(find(&table, &elsewhere), None);
    assert_eq!(find(&table, &routed), None);
}

#[test]
fn a_host_that_talks_to_itself_over_one_port_has_one_entry() {
    let mut table = FlowTable::new(Seed(1), 16);
    let mut key = keys(false, UDP, 1)[0];
    key.dst = key.src;
    key.dst_port = key.src_port;
    let index = table.insert(Flow::new(START, [key, key], PORTS)).unwrap();
    assert_eq!(find(&table, &key), Some((index, Direction::Initiator)));
    table.remove(index);
    assert_eq!(find(&table, &key), None);
    assert!(table.is_empty());
}

#[test]
fn a_second_flow_with_the_same_answers_is_refused() {
    let mut table = FlowTable::new(Seed(1), 16);
    let [there, back] = masqueraded(false, TCP, 1);
    table.insert(Flow::new(START, [there, back], PORTS)).unwrap();
    let other = FlowKey { src_port: 1, ..there };
    let clash = table.insert(Flow::new(START, [other, back], PORTS));
    assert_eq!(clash, Err(DropReason::PortsExhausted));
    assert_eq!((table.len(), find(&table, &other)), (1, None));
}

#[test]
fn a_port_gets_no_more_than_its_share() {
    let mut table = FlowTable::new(Seed(1), 16);
    table.set_share(PORTS[0], 2);
    let first = add(&mut table, START, UDP, 1);
    add(&mut table, START, UDP, 2);
    let third = Flow::new(START, masqueraded(false, UDP, 3), PORTS);
    assert_eq!(table.insert(third), Err(DropReason::FlowShare));
    let other = Flow::new(START, masqueraded(false, UDP, 4), [PORTS[1], PORTS[0]]);
    assert!(table.insert(other).is_ok(), "another port is not concerned");
    table.remove(first);
    assert_eq!(table.count_of_port(PORTS[0]), 1);
    assert!(table.insert(third).is_ok());
}

#[test]
fn a_full_table_ends_unanswered_flows_first_the_oldest_before_the_others() {
    let mut table = FlowTable::new(Seed(1), 3);
    let udp = add(&mut table, START, UDP, 1);
    table.touch(START, udp, Class::UdpStream);
    add(&mut table, after(1), TCP, 2);
    add(&mut table, after(2), TCP, 3);
    let refused = table.insert(Flow::new(after(3), masqueraded(false, TCP, 4), PORTS));
    assert_eq!(refused, Err(DropReason::FlowTableFull));
    let ended = table.make_room(after(3)).unwrap();
    assert_eq!(ended.keys(), &masqueraded(true, TCP, 2));
    assert!(table.make_room(after(3)).is_none(), "there is room");
}

#[test]
fn a_full_table_ends_answered_flows_only_when_idle_for_half_of_their_time() {
    let mut table = FlowTable::new(Seed(1), 2);
    let udp = add(&mut table, START, UDP, 1);
    let tcp = add(&mut table, START, TCP, 2);
    table.touch(START, udp, Class::UdpStream);
    table.touch(START, tcp, Class::TcpEstablished);
    assert!(table.make_room(after(149)).is_none(), "nobody is idle enough");
    assert_eq!(table.make_room(after(150)).unwrap().key(Direction::Initiator).proto, UDP);
    add(&mut table, after(150), UDP, 3);
    assert_eq!(table.make_room(after(4_000)).unwrap().key(Direction::Initiator).proto, UDP);
    let last = add(&mut table, after(4_000), ICMP, 4);
    assert_eq!(table.make_room(after(4_001)).unwrap().key(Direction::Initiator).proto, TCP);
    assert!(find(&table, table.get(last).key(Direction::Initiator)).is_some());
}

#[test]
fn a_flow_lives_for_its_timeout_after_its_last_packet_and_little_longer() {
    let mut table = FlowTable::new(Seed(1), 16);
    let index = add(&mut table, START, UDP, 1);
    assert_eq!(table.next_deadline(START), Some(after(121)));
    table.touch(after(100), index, Class::UdpSingle);
    assert_eq!(expired(&mut table, after(220)), 0);
    assert_eq!(table.next_deadline(after(220)), Some(after(221)));
    assert_eq!(expired(&mut table, after(221)), 1);
    assert_eq!(table.next_deadline(after(221)), None);
}

#[test]
fn a_packet_within_the_granularity_does_not_shorten_a_flows_life() {
    let mut table = FlowTable::new(Seed(1), 16);
    let index = add(&mut table, START, UDP, 1);
    let last = START + Span::from_millis(999);
    table.touch(last, index, Class::UdpSingle);
    assert_eq!(expired(&mut table, last + Span::from_secs(120)), 0);
}

#[test]
fn a_change_of_class_changes_the_timeout() {
    let mut table = FlowTable::new(Seed(1), 16);
    let index = add(&mut table, START, TCP, 1);
    table.touch(START, index, Class::TcpEstablished);
    assert_eq!(table.count_of_class(Class::TcpEmbryonic), 0);
    assert_eq!(table.count_of_class(Class::TcpEstablished), 1);
    assert_eq!(expired(&mut table, after(7_440)), 0);
    assert_eq!(expired(&mut table, after(7_441)), 1);
}

#[test]
fn new_timeouts_hold_for_flows_that_exist() {
    let mut table = FlowTable::new(Seed(1), 16);
    add(&mut table, START, UDP, 1);
    let mut timeouts = Timeouts::default();
    timeouts.set(Class::UdpSingle, Span::from_secs(10));
    table.set_timeouts(timeouts);
    assert_eq!(expired(&mut table, after(11)), 1);
}

#[test]
fn expiry_keeps_to_its_budget() {
    let mut table = FlowTable::new(Seed(1), 100);
    for n in 0..100 {
        add(&mut table, START, UDP, n);
    }
    let mut ended = 0;
    assert_eq!(table.expire(after(500), 30, |_| ended += 1), 30);
    assert_eq!((ended, table.len()), (30, 70));
    assert_eq!(table.next_deadline(after(500)), Some(after(500)), "the rest is due now");
}

#[test]
fn flows_expire_in_order_although_the_millisecond_clock_wraps() {
    // 2³² ms after the origin.
    let wrap = Time(4_294_967_296_000_000);
    let before = Time(wrap.0 - 60_000_000_000);
    let mut table = FlowTable::new(Seed(1), 16);
    add(&mut table, before, UDP, 1);
    assert_eq!(expired(&mut table, wrap + Span::from_secs(60)), 0);
    assert_eq!(expired(&mut table, wrap + Span::from_secs(61)), 1);
}

#[test]
fn a_listing_goes_on_from_the_place_where_it_stopped() {
    let mut table = FlowTable::new(Seed(1), 100);
    let places: Vec<FlowIndex> = (0..50).map(|n| add(&mut table, START, UDP, n)).collect();
    table.remove(places[20]);
    let first: Vec<FlowIndex> = table.iter().take(30).map(|(at, _)| at).collect();
    let next = FlowIndex(first.last().unwrap().0 + 1);
    let rest = table.iter_from(next).map(|(at, _)| at);
    let all: HashSet<FlowIndex> = first.iter().copied().chain(rest).collect();
    assert_eq!(all.len(), 49);
    assert!(!all.contains(&places[20]));
}

#[test]
fn places_are_used_again_and_memory_does_not_grow_with_turnover() {
    let mut table = FlowTable::new(Seed(1), 5_000);
    for n in 0..5_000 {
        add(&mut table, START, UDP, n);
    }
    let before = table.memory_bytes();
    for round in 1..10 {
        expired(&mut table, after(1_000 * round));
        assert!(table.is_empty());
        for n in 0..5_000 {
            add(&mut table, after(1_000 * round), UDP, n);
        }
    }
    // The allocation of an index table may double when its entries fall together.
    assert!(table.memory_bytes() < before + before / 10);
}

/// What the table is, plainly.
#[derive(Default)]
struct Model {
    flows: HashMap<u32, (Time, Class)>,
}

impl Model {
    fn expire(&mut self, now: Time, timeouts: &Timeouts) -> Vec<u32> {
        let over =
            |seen: Time, class| now.since(seen) >= Span(timeouts.get(class).0 + GRANULARITY.0);
        let mut ended: Vec<u32> = Vec::new();
        self.flows.retain(|n, (seen, class)| {
            let ends = over(*seen, *class);
            if ends {
                ended.push(*n);
            }
            !ends
        });
        ended.sort_unstable();
        ended
    }
}

fn proto_of(n: u32) -> u8 {
    [TCP, UDP, ICMP, 47][n as usize % 4]
}

/// Steps of 100 ms, so that seconds are crossed at different moments.
fn run(ops: Vec<(u8, u32, u8, u64)>) {
    let mut table = FlowTable::new(Seed(9), 1_000);
    let mut model = Model::default();
    let mut now = START;
    for (op, n, class, step) in ops {
        now = now + Span::from_millis(step * 100);
        let keys = masqueraded(n % 3 == 0, proto_of(n), n);
        let hit = find(&table, &keys[0]);
        assert_eq!(hit.is_some(), model.flows.contains_key(&n));
        assert_eq!(find(&table, &keys[1]).map(|(at, _)| at), hit.map(|(at, _)| at));
        match (op, hit) {
            (0, None) => {
                let index = table.insert(Flow::new(now, keys, PORTS)).unwrap();
                model.flows.insert(n, (now, table.get(index).class()));
            }
            (1, Some((index, _))) => {
                assert_eq!(table.remove(index).keys(), &keys);
                model.flows.remove(&n);
            }
            (2, Some((index, _))) => {
                let class = Class::ALL[usize::from(class) % Class::COUNT];
                let (seen, old) = model.flows[&n];
                if old != class || now.since(seen) >= GRANULARITY {
                    model.flows.insert(n, (now, class));
                }
                table.touch(now, index, class);
            }
            (3, _) => {
                let mut ended = Vec::new();
                table.expire(now, usize::MAX, |flow| {
                    ended.push(u32::from(flow.key(Direction::Responder).dst_port) - 1_024);
                });
                ended.sort_unstable();
                assert_eq!(ended, model.expire(now, table.timeouts()));
            }
            _ => {}
        }
        assert_eq!(table.len(), model.flows.len());
        let listed: HashSet<FlowKey> = table.iter().map(|(_, flow)| flow.keys()[0]).collect();
        assert_eq!(listed.len(), model.flows.len());
        let counted: usize = Class::ALL.iter().map(|class| table.count_of_class(*class)).sum();
        assert_eq!(counted, table.count_of_port(PORTS[0]));
    }
}

proptest! {
    #[test]
    fn behaves_as_a_map_with_timestamps(
        ops in prop::collection::vec((0_u8..4, 0_u32..24, 0_u8..9, 0_u64..900), 0..150)
    ) {
        run(ops);
    }
}
