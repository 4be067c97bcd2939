use super::*;
use crate::packet::Offload;

const PORT: PortId = PortId(7);
const MAC: Mac = Mac([2, 0, 0, 0, 0, 1]);
const OTHER: Mac = Mac([2, 0, 0, 0, 0, 2]);

fn both() -> [Addr; 2] {
    ["192.0.2.1", "fe80::1"].map(|text| text.parse().unwrap())
}

fn at(millis: u64) -> Time {
    Time::ZERO + Span::from_millis(millis)
}

fn frame(n: u8) -> PacketBuf {
    PacketBuf::new(&[n; 60], Offload::NONE)
}

fn bytes(frames: &[PacketBuf]) -> Vec<u8> {
    frames.iter().map(|f| f.bytes()[0]).collect()
}

/// A table in which the neighbour answered at `now`.
fn reachable(now: Time, addr: Addr) -> NeighbourTable {
    let mut table = NeighbourTable::new();
    table.resolve(now, PORT, addr, None);
    table.learned(now, PORT, addr, MAC, true);
    table
}

#[test]
fn a_packet_waits_for_the_answer_and_the_next_ones_pass() {
    for addr in both() {
        let mut table = NeighbourTable::new();
        let asked = table.resolve(at(0), PORT, addr, Some(frame(1)));
        assert_eq!(asked, Resolution::Ask { to: None });
        assert_eq!(table.resolve(at(1), PORT, addr, Some(frame(2))), Resolution::Wait);
        let learned = table.learned(at(2), PORT, addr, MAC, true);
        assert_eq!((bytes(&learned.released), learned.changed), (vec![1, 2], false));
        assert_eq!(table.resolve(at(3), PORT, addr, None), Resolution::Reachable(MAC));
        assert!(table.tick(at(60_000)).is_empty(), "and no timer is left");
        assert_eq!(table.next_deadline(), None);
    }
}

#[test]
fn a_question_is_repeated_each_second_and_given_up_after_three() {
    for addr in both() {
        let mut table = NeighbourTable::new();
        table.resolve(at(0), PORT, addr, Some(frame(1)));
        for second in [1000, 2000] {
            assert_eq!(table.next_deadline(), Some(at(second)));
            assert!(table.tick(at(second - 1)).is_empty());
            let actions = table.tick(at(second));
            assert!(matches!(actions[..], [Action::Ask { to: None, .. }]), "{actions:?}");
        }
        let actions = table.tick(at(3000));
        let [Action::Failed { port: PORT, held, .. }] = &actions[..] else { panic!("{actions:?}") };
        assert_eq!(bytes(held), [1]);
        assert_eq!(table.resolve(at(3500), PORT, addr, Some(frame(2))), Resolution::Failed);
        let again = table.resolve(at(4000), PORT, addr, Some(frame(3)));
        assert_eq!(again, Resolution::Ask { to: None }, "after a moment it is asked for anew");
        let late = table.learned(at(4001), PORT, addr, MAC, true);
        assert_eq!(bytes(&late.released), [3]);
    }
}

#[test]
fn a_failure_is_forgotten_by_itself() {
    let [addr, _] = both();
    let mut table = NeighbourTable::new();
    table.resolve(at(0), PORT, addr, None);
    for second in 1..=4 {
        table.tick(at(second * 1000));
    }
    assert!(table.is_empty());
    assert_eq!(table.next_deadline(), None);
}

#[test]
fn a_neighbour_in_use_is_checked_after_its_time_while_packets_pass() {
    for addr in both() {
        let mut table = reachable(at(0), addr);
        assert_eq!(table.resolve(at(29_999), PORT, addr, None), Resolution::Reachable(MAC));
        assert!(table.next_deadline().is_none_or(|t| t <= at(1000)));
        table.tick(at(29_999));
        assert_eq!(table.resolve(at(40_000), PORT, addr, None), Resolution::Reachable(MAC));
        let actions = table.tick(at(45_000));
        assert!(matches!(actions[..], [Action::Ask { to: Some(MAC), .. }]), "{actions:?}");
        assert_eq!(table.resolve(at(45_500), PORT, addr, None), Resolution::Reachable(MAC));
        let learned = table.learned(at(45_600), PORT, addr, MAC, true);
        assert!(!learned.changed);
        assert!(table.tick(at(60_000)).is_empty());
    }
}

#[test]
fn a_neighbour_that_went_away_fails_after_three_checks() {
    let [addr, _] = both();
    let mut table = reachable(at(0), addr);
    table.resolve(at(40_000), PORT, addr, None);
    let asked = [45, 46, 47].map(|s| table.tick(at(s * 1000)).len());
    assert_eq!(asked, [1, 1, 1]);
    let actions = table.tick(at(48_000));
    assert!(matches!(&actions[..], [Action::Failed { held, .. }] if held.is_empty()));
    assert_eq!(table.resolve(at(48_001), PORT, addr, None), Resolution::Failed);
}

#[test]
fn an_idle_table_has_nothing_to_do() {
    let [addr, _] = both();
    let mut table = reachable(at(0), addr);
    table.tick(at(1000));
    assert_eq!(table.next_deadline(), None);
    let state = |now| table.entries(now).next().unwrap().state;
    assert_eq!((state(at(1000)), state(at(100_000))), (State::Reachable, State::Stale));
}

#[test]
fn hearsay_moves_a_neighbour_at_most_once_a_second_and_it_is_checked() {
    let [addr, _] = both();
    let mut table = reachable(at(0), addr);
    assert!(!table.learned(at(500), PORT, addr, OTHER, false).changed, "too soon");
    assert!(table.learned(at(1500), PORT, addr, OTHER, false).changed);
    assert_eq!(table.resolve(at(1600), PORT, addr, None), Resolution::Reachable(OTHER));
    assert!(!table.learned(at(1700), PORT, addr, MAC, false).changed);
    let actions = table.tick(at(6600));
    assert!(matches!(actions[..], [Action::Ask { to: Some(OTHER), .. }]), "{actions:?}");
    assert!(table.learned(at(6700), PORT, addr, MAC, true).changed, "an answer counts at once");
}

#[test]
fn strangers_and_group_addresses_teach_nothing() {
    let [addr, other] = both();
    let mut table = NeighbourTable::new();
    table.learned(at(0), PORT, addr, MAC, true);
    assert!(table.is_empty());
    table.resolve(at(0), PORT, addr, Some(frame(1)));
    assert!(table.learned(at(1), PORT, addr, Mac::BROADCAST, true).released.is_empty());
    assert!(table.learned(at(1), PORT, other, MAC, true).released.is_empty());
    assert!(table.learned(at(1), PortId(8), addr, MAC, true).released.is_empty(), "other port");
}

#[test]
fn waiting_frames_are_bounded_for_one_neighbour_and_in_all() {
    let [addr, _] = both();
    let mut table = NeighbourTable::new();
    let outcomes: Vec<_> =
        (0..20).map(|n| table.resolve(at(0), PORT, addr, Some(frame(n)))).collect();
    let full = outcomes.iter().filter(|o| **o == Resolution::HoldFull).count();
    assert_eq!(full, 20 - NEIGHBOUR_HOLD_FRAMES_MAX);
    for n in 0..300_u32 {
        table.resolve(at(0), PORT, Addr::from_v4_bits(n), Some(frame(0)));
    }
    assert_eq!(table.held, HOLD_FRAMES_MAX);
    table.remove_port(PORT);
    assert_eq!((table.held, table.len()), (0, 0));
}

#[test]
fn a_scan_cannot_push_out_neighbours_that_answer() {
    let [addr, _] = both();
    let mut table = reachable(at(0), addr);
    let asked = |table: &mut NeighbourTable, n: u32| {
        table.resolve(at(0), PORT, Addr::from_v4_bits(n), None)
    };
    let full = (0..5000).filter(|n| asked(&mut table, *n) == Resolution::TableFull).count();
    assert_eq!(full, 5000 - NEIGHBOURS_UNRESOLVED_MAX);
    assert_eq!(table.resolve(at(0), PORT, addr, None), Resolution::Reachable(MAC));
}

#[test]
fn a_full_table_forgets_the_neighbour_unused_for_longest() {
    let mut table = NeighbourTable::new();
    let addr = Addr::from_v4_bits;
    for n in 0..NEIGHBOURS_MAX as u32 {
        table.resolve(at(0), PORT, addr(n), None);
        table.learned(at(0), PORT, addr(n), MAC, true);
    }
    let ask = |table: &mut NeighbourTable, now| table.resolve(now, PORT, addr(1 << 20), None);
    assert_eq!(ask(&mut table, at(10_000)), Resolution::TableFull);
    table.resolve(at(20_000), PORT, addr(0), None);
    assert_eq!(ask(&mut table, at(61_000)), Resolution::Ask { to: None });
    assert_eq!(table.len(), NEIGHBOURS_MAX);
    assert_eq!(table.resolve(at(61_000), PORT, addr(0), None), Resolution::Reachable(MAC));
}

mod random {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Whatever happens: what is held is what was given and not yet returned, the counts agree,
        /// and after enough quiet nothing is pending.
        #[test]
        fn frames_are_never_lost_and_the_table_comes_to_rest(
            ops in prop::collection::vec((0_u8..6, 0_u32..4, 0_u64..3000, any::<bool>()), 0..200)
        ) {
            let mut table = NeighbourTable::new();
            let (mut now, mut inside) = (Time::ZERO, 0_usize);
            for (op, n, pause, solicited) in ops {
                now = now + Span::from_millis(pause);
                let addr = Addr::from_v4_bits(n);
                match op {
                    0..=2 => {
                        let outcome = table.resolve(now, PORT, addr, Some(frame(1)));
                        inside += usize::from(matches!(outcome, Resolution::Ask { .. } | Resolution::Wait));
                    }
                    3 => inside -= table.learned(now, PORT, addr, MAC, solicited).released.len(),
                    _ => for action in table.tick(now) {
                        if let Action::Failed { held, .. } = action {
                            inside -= held.len();
                        }
                    }
                }
                prop_assert_eq!(table.held, inside);
                let with_mac = table.entries(now).filter(|e| e.mac.is_some()).count();
                prop_assert_eq!(with_mac, table.known.len());
            }
            for _ in 0..20 {
                now = now + Span::from_secs(1);
                table.tick(now);
            }
            prop_assert_eq!(table.next_deadline(), None);
            prop_assert_eq!(table.held, 0);
        }
    }
}
