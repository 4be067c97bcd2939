use proptest::prelude::*;

use super::*;
use crate::base::ids::NetworkId;
use crate::wire::ipv6::{TCP, UDP};

fn publication(id: u32, host: Option<&str>, ports: RangeInclusive<u16>) -> Publication {
    Publication {
        id: PublicationId(id),
        proto: TCP,
        host_addr: host.map(|text| text.parse().unwrap()),
        host_ports: ports,
        target_v4: Some("172.17.0.2".parse().unwrap()),
        target_v6: Some("fd00::2".parse().unwrap()),
        target_port: 80,
        domain: NetworkId(0).into(),
        endpoint: PortId(id as u16),
    }
}

fn at(table: &PublishTable, addr: &str, port: u16) -> Option<u32> {
    table.lookup(TCP, addr.parse().unwrap(), port).map(|found| found.id.0)
}

#[test]
fn a_port_published_on_any_address_answers_on_both_families() {
    let mut table = PublishTable::new();
    table.insert(publication(1, None, 8080..=8080)).unwrap();
    assert_eq!(at(&table, "192.0.2.1", 8080), Some(1));
    assert_eq!(at(&table, "2001:db8::1", 8080), Some(1));
    assert_eq!(at(&table, "192.0.2.1", 8081), None);
    assert!(table.lookup(UDP, "192.0.2.1".parse().unwrap(), 8080).is_none());
}

#[test]
fn a_named_address_wins_over_its_family_and_that_over_any() {
    let mut table = PublishTable::new();
    table.insert(publication(1, None, 80..=80)).unwrap();
    table.insert(publication(2, Some("0.0.0.0"), 80..=80)).unwrap();
    table.insert(publication(3, Some("127.0.0.1"), 80..=80)).unwrap();
    table.insert(publication(4, Some("::1"), 80..=80)).unwrap();
    assert_eq!(at(&table, "127.0.0.1", 80), Some(3));
    assert_eq!(at(&table, "192.0.2.1", 80), Some(2));
    assert_eq!(at(&table, "::1", 80), Some(4));
    assert_eq!(at(&table, "2001:db8::1", 80), Some(1));
    table.remove(PublicationId(3));
    assert_eq!(at(&table, "127.0.0.1", 80), Some(2));
}

#[test]
fn a_range_is_one_publication_and_its_ports_follow_one_to_one() {
    let mut table = PublishTable::new();
    table.insert(publication(1, None, 30_000..=41_999)).unwrap();
    assert_eq!(table.len(), 1);
    let found = table.lookup(TCP, "192.0.2.1".parse().unwrap(), 30_500).unwrap();
    assert_eq!(found.target(Family::V4, 30_500), Some(("172.17.0.2".parse().unwrap(), 580)));
    assert_eq!(found.target(Family::V6, 30_500), Some(("fd00::2".parse().unwrap(), 580)));
    assert_eq!(at(&table, "192.0.2.1", 29_999), None);
    assert_eq!(at(&table, "192.0.2.1", 42_000), None);
}

#[test]
fn an_endpoint_without_an_address_of_the_family_has_no_target() {
    let v4_only = Publication { target_v6: None, ..publication(1, None, 80..=80) };
    assert_eq!(v4_only.target(Family::V6, 80), None);
    assert!(v4_only.target(Family::V4, 80).is_some());
}

#[test]
fn an_overlap_names_whom_it_overlaps_and_changes_nothing() {
    let mut table = PublishTable::new();
    table.insert(publication(1, None, 100..=200)).unwrap();
    let error = table.insert(publication(2, None, 50..=100)).unwrap_err();
    assert_eq!(error, PublishError::Conflict { with: PublicationId(1), port: 100 });
    assert_eq!(at(&table, "192.0.2.1", 50), None);
    table.insert(publication(3, Some("192.0.2.1"), 50..=100)).unwrap();
    assert_eq!(at(&table, "192.0.2.1", 100), Some(3));
}

#[test]
fn impossible_ranges_are_refused() {
    let mut table = PublishTable::new();
    #[allow(clippy::reversed_empty_ranges, reason = "that is the test")]
    let reversed = publication(1, None, 200..=100);
    assert_eq!(table.insert(reversed), Err(PublishError::Range));
    let beyond = Publication { target_port: 65_000, ..publication(1, None, 1..=1_000) };
    assert_eq!(table.insert(beyond), Err(PublishError::Range));
    table.insert(publication(1, None, 1..=1)).unwrap();
    assert_eq!(table.insert(publication(1, None, 2..=2)), Err(PublishError::Exists));
}

#[test]
fn twelve_thousand_single_ports_take_less_than_three_megabytes() {
    let mut table = PublishTable::new();
    for n in 0..12_000 {
        let port = 20_000 + n as u16;
        table.insert(publication(n, None, port..=port)).unwrap();
    }
    assert!(table.memory_bytes() < 3_000_000, "{}", table.memory_bytes());
    for n in 0..12_000 {
        table.remove(PublicationId(n)).unwrap();
    }
    assert!(table.is_empty() && table.any.is_empty(), "pages are given back");
}

proptest! {
    #[test]
    fn behaves_as_a_list_searched_from_end_to_end(
        ops in prop::collection::vec((0_u32..12, 0_u8..4, 250_u16..520, 0_u16..300, any::<bool>()), 0..60)
    ) {
        let hosts = [None, Some("0.0.0.0"), Some("192.0.2.1"), Some("2001:db8::1")];
        let mut table = PublishTable::new();
        let mut model: Vec<Publication> = Vec::new();
        for (id, host, first, length, remove) in ops {
            if remove {
                let at = model.iter().position(|p| p.id.0 == id);
                prop_assert_eq!(table.remove(PublicationId(id)), at.map(|at| model.remove(at)));
                continue;
            }
            let new = publication(id, hosts[usize::from(host)], first..=first + length);
            let clash = model.iter().any(|p| {
                p.id == new.id
                    || (p.host_addr == new.host_addr
                        && p.host_ports.start() <= new.host_ports.end()
                        && new.host_ports.start() <= p.host_ports.end())
            });
            prop_assert_eq!(table.insert(new.clone()).is_err(), clash);
            if !clash {
                model.push(new);
            }
        }
        for addr in ["192.0.2.1", "192.0.2.2", "2001:db8::1", "2001:db8::2"] {
            let parsed: Addr = addr.parse().unwrap();
            for port in 240..830 {
                let best = model
                    .iter()
                    .filter(|p| p.host_ports.contains(&port))
                    .filter_map(|p| match p.host_addr {
                        None => Some((0, p.id.0)),
                        Some(host) if host == parsed => Some((2, p.id.0)),
                        Some(host) if host.is_unspecified() && parsed.is_v4() => Some((1, p.id.0)),
                        Some(_) => None,
                    })
                    .max_by_key(|(rank, _)| *rank);
                prop_assert_eq!(at(&table, addr, port), best.map(|(_, id)| id));
            }
        }
    }
}

#[test]
fn an_endpoint_s_own_port_is_found_by_its_publication() {
    let mut table = PublishTable::new();
    let target = |port| ("172.17.0.2".parse().unwrap(), port);
    let of = |table: &PublishTable, endpoint, port| {
        let found = table.of_target(PortId(endpoint), TCP, target(port));
        found.map(|(publication, host_port)| (publication.id.0, host_port))
    };
    table.insert(publication(1, None, 8080..=8089)).unwrap();
    assert_eq!(of(&table, 1, 80), Some((1, 8080)));
    assert_eq!(of(&table, 1, 89), Some((1, 8089)));
    assert_eq!(of(&table, 1, 79), None);
    assert_eq!(of(&table, 1, 90), None);
    assert_eq!(of(&table, 2, 80), None, "another endpoint's");
    assert!(table.of_target(PortId(1), UDP, target(80)).is_none());
    let foreign = ("172.17.0.3".parse().unwrap(), 80);
    assert!(table.of_target(PortId(1), TCP, foreign).is_none());
    // The same ports once more, elsewhere: the younger one, until it goes.
    let again = Publication { endpoint: PortId(1), ..publication(2, None, 9080..=9089) };
    table.insert(again).unwrap();
    assert_eq!(of(&table, 1, 81), Some((2, 9081)));
    table.remove(PublicationId(2)).unwrap();
    assert_eq!(of(&table, 1, 81), Some((1, 8081)));
    table.remove(PublicationId(1)).unwrap();
    assert_eq!(of(&table, 1, 81), None);
}
