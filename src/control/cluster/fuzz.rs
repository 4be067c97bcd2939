//! Fuzzing of what others write into the store: a list and changes of arbitrary keys and values, and lines
//! of a watch. Whatever they are, no two nodes are given one address.

use std::net::IpAddr;

use ipnet::IpNet;

use super::ask::{Change, Entry, Listing};
use super::member::{Me, Wish};
use super::settings::Layout;
use super::{Machine, Plan};
use crate::base::limits::CLUSTER_FAULTS_MAX;
use crate::base::time::{Span, Time};
use crate::control::store::etcd;

/// One input: its first byte says what it is, the rest is `KEY\nVALUE\n` again and again.
pub fn fuzz(data: &[u8]) {
    let Some((kind, rest)) = data.split_first() else { return };
    let lines: Vec<&[u8]> = rest.split(|b| *b == b'\n').collect();
    if kind & 1 == 1 {
        for line in lines {
            for change in etcd::read_line("/wharf/", line) {
                drive(Layout::Wharf, &Listing::default(), &[change]);
            }
        }
        return;
    }
    let mut listing = Listing { revision: 1, ..Listing::default() };
    let mut changes = Vec::new();
    for (n, pair) in lines.chunks(2).enumerate() {
        let key = String::from_utf8_lossy(pair[0]).into_owned();
        let revision = n as u64 / 2 + 1;
        let entry = pair.get(1).map(|value| Entry { value: value.to_vec(), revision, lease: 0 });
        match entry {
            Some(entry) if kind & 2 == 0 => drop(listing.entries.insert(key, entry)),
            now => changes.push(Change { key, revision, now }),
        }
    }
    let layout = if kind & 4 == 0 { Layout::Wharf } else { Layout::Flannel };
    drive(layout, &listing, &changes);
}

fn drive(layout: Layout, listing: &Listing, changes: &[Change]) {
    let me = Me { name: "a".into(), identity: "1".into(), instance: "1".into(), seat: "1".into() };
    let plan: Option<IpNet> = "10.244.0.0/16".parse().ok();
    let wish = Wish {
        plan: plan.and_then(|net| Plan::new(&[net], &[24], &[]).ok()),
        subnet: None,
        liveness: Span::from_secs(15),
        quarantine: Span::from_secs(300),
        addresses: vec![IpAddr::from([192, 0, 2, 1])],
        backend: None,
        since_ms: 0,
    };
    let now = Time(1_000_000_000);
    let mut machine = Machine::new(layout, me, wish, None);
    machine.listed(now, listing);
    for change in changes {
        machine.changed(now, change);
        machine.hold(machine.owned());
        let _ = machine.next(now);
    }
    check(layout, &mut machine, now);
    machine.lost();
    machine.listed(now, listing);
    check(layout, &mut machine, now);
}

fn check(layout: Layout, machine: &mut Machine, now: Time) {
    assert!(machine.faults().len() <= CLUSTER_FAULTS_MAX + 1);
    let nodes = machine.nodes();
    let endpoints = machine.endpoints();
    assert!(endpoints.iter().all(|endpoint| !endpoint.node.is_empty()));
    let Some(peers) = machine.moved_peers(now) else { return };
    assert!(peers.len() <= nodes.len());
    if layout == Layout::Flannel {
        return; // whose leases may overlap, as they are in the store
    }
    let plan = machine.plan();
    let subnets: Vec<IpNet> = peers.values().flat_map(|peer| peer.subnets.clone()).collect();
    let own = machine.owned().unwrap_or_default();
    for (n, net) in subnets.iter().enumerate() {
        assert!(
            plan.as_ref().is_some_and(|plan| plan.slot_of(*net).is_some()),
            "{net} is not in the plan"
        );
        let others = subnets[..n].iter().chain(&own);
        assert!(others.into_iter().all(|other| other != net), "{net} has two owners");
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn two_ways_to_write_a_subnet_are_not_two_owners() {
        let plan = "plan\n{\"v\":1,\"network\":[\"fd00::/48\"]}\n";
        let node = |name: &str, subnet: &str| {
            format!(
                "nodes/{name}\n{{\"v\":1,\"identity\":\"{name}\",\"subnet\":\"{subnet}\"}}\n\
                 subnets/{subnet}\n{{\"state\":\"owned\",\"node\":\"{name}\",\"identity\":\"{name}\"}}\n\
                 alive/{name}\n{{\"v\":1,\"identity\":\"{name}\",\"instance\":\"1\",\"seat\":\"\",\"addresses\":[]}}\n"
            )
        };
        let text = format!(
            "\0{plan}{}{}",
            node("b", "fd00:0:0:1::-64"),
            node("c", "fd00:0::1:0:0:0:0-64")
        );
        super::fuzz(text.as_bytes());
    }
}
