//! A thousand nodes with a hundred thousand endpoints: what a start costs.
#![allow(clippy::disallowed_methods, reason = "this measures real time")]

use std::time::{Duration, Instant};

use crate::base::time::{Span, Time};
use crate::control::cluster::ask::{Entry, Listing};
use crate::control::cluster::records::{
    self, AliveRecord, EndpointRecord, NodeRecord, PlanRecord, SubnetRecord, VERSION,
};
use crate::control::cluster::settings::Layout;
use crate::control::cluster::{Machine, Me, Plan, Slot, Wish};
use crate::wire::mac::Mac;

const NODES: u32 = 1_000;
const ENDPOINTS: u32 = 100;

fn listing(plan: &Plan) -> Listing {
    let mut listing = Listing { revision: 1, ..Listing::default() };
    let mut put = |key: String, value: String| {
        let entry = Entry { value: value.into_bytes(), revision: 1, lease: 0 };
        listing.entries.insert(key, entry);
    };
    put("plan".into(), records::text(&PlanRecord { v: VERSION, plan: plan.clone() }));
    for n in 0..NODES {
        let (name, subnet) = (format!("node-{n}"), plan.key(Slot(n)));
        let node = NodeRecord { v: VERSION, identity: name.clone(), subnet: Some(subnet.clone()) };
        put(format!("nodes/{name}"), records::text(&node));
        let owned = SubnetRecord::Owned { node: name.clone(), identity: name.clone() };
        put(format!("subnets/{subnet}"), records::text(&owned));
        let alive = AliveRecord {
            v: VERSION,
            identity: name.clone(),
            instance: "1".into(),
            seat: "1".into(),
            addresses: vec![std::net::Ipv4Addr::from(0xc000_0200 + n).into()],
            backend: None,
            program: "0.1.0".into(),
            since_ms: 0,
        };
        put(format!("alive/{name}"), records::text(&alive));
        for e in 0..ENDPOINTS {
            let addr = std::net::Ipv4Addr::from(0x0a00_0000 + n * 256 + e + 2);
            let endpoint = EndpointRecord {
                name: format!("endpoint-{n}-{e}"),
                network: "cluster".into(),
                addresses: vec![addr.into()],
                mac: Mac::from_ipv4(addr),
                labels: [("app".to_owned(), "web".to_owned())].into(),
            };
            put(format!("endpoints/{name}/{:016x}", n * ENDPOINTS + e), records::text(&endpoint));
        }
    }
    listing
}

/// Resident pages, in kilobytes.
fn resident_kb() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4
}

#[test]
fn a_thousand_nodes_and_a_hundred_thousand_endpoints_are_known_in_two_seconds() {
    let plan = Plan::new(&["10.0.0.0/8".parse().unwrap()], &[24], &[]).unwrap();
    let listing = listing(&plan);
    let me =
        Me { name: "me".into(), identity: "me".into(), instance: "1".into(), seat: "1".into() };
    let wish = Wish {
        plan: None,
        subnet: None,
        liveness: Span::from_secs(15),
        quarantine: Span::from_secs(300),
        addresses: Vec::new(),
        backend: None,
        since_ms: 0,
    };
    let mut machine = Machine::new(Layout::Wharf, me, wish, None);
    let before = resident_kb();
    let start = Instant::now();
    machine.listed(Time(1), &listing);
    let peers = machine.moved_peers(Time(1)).unwrap();
    let took = start.elapsed();
    let grown = resident_kb().saturating_sub(before);
    println!(
        "{} nodes, {} endpoints: {took:?}, {grown} kB",
        peers.len(),
        machine.endpoints().len()
    );
    assert_eq!(
        (peers.len(), machine.endpoints().len()),
        (NODES as usize, (NODES * ENDPOINTS) as usize)
    );
    // A debug build parses some ten times slower, and this machine may be busy.
    let bound = if cfg!(debug_assertions) { 40 } else { 2 };
    assert!(took < Duration::from_secs(bound), "{took:?}");
}
