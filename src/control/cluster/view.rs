//! What is known of a cluster, for people.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::flannel::Flannel;
use super::mirror::Mirror;
use super::records::EndpointRecord;
use crate::control::model::{NodeEndpoint, NodeInfo, NodeState};
use crate::control::networks::in_words;

/// All nodes of our own layout.
pub(super) fn nodes(mirror: &Mirror, me: &str) -> Vec<NodeInfo> {
    mirror.nodes().map(|(name, _)| node_info(mirror, name, me)).collect()
}

/// All endpoints.
pub(super) fn endpoints(mirror: &Mirror) -> Vec<NodeEndpoint> {
    let endpoint = |(node, id, told): (&String, &String, &EndpointRecord)| NodeEndpoint {
        node: node.clone(),
        state: state(mirror, node),
        id: id.clone(),
        name: told.name.clone(),
        network: told.network.clone(),
        addresses: told.addresses.clone(),
        mac: told.mac,
        labels: told.labels.clone(),
    };
    mirror.endpoints().map(endpoint).collect()
}

/// All nodes of Flannel's.
pub(super) fn leases(flannel: &Flannel) -> Vec<NodeInfo> {
    let info =
        |(subnets, name, addresses, this): (&Vec<ipnet::IpNet>, String, Vec<IpAddr>, bool)| {
            NodeInfo {
                name,
                this,
                state: NodeState::Alive,
                subnets: subnets.clone(),
                addresses,
                endpoints: 0,
                program: None,
                since_ms: None,
                notes: Vec::new(),
            }
        };
    flannel.leases().map(info).collect()
}

fn state(mirror: &Mirror, name: &str) -> NodeState {
    match (mirror.alive(name), mirror.owned_by(name)) {
        _ if mirror.is_lingering(name) => NodeState::Unsure,
        (Some(_), Some(_)) => NodeState::Alive,
        (None, Some(_)) => NodeState::Silent,
        (_, None) => NodeState::Joining,
    }
}

fn node_info(mirror: &Mirror, name: &str, me: &str) -> NodeInfo {
    let alive = mirror.alive(name).map(|kept| &kept.record);
    let mut notes = Vec::new();
    if let Some(alive) = alive {
        let same: Vec<&str> = twins(mirror, name, &alive.addresses);
        if !same.is_empty() {
            notes.push(format!("its address is also that of {}", in_words(same.into_iter())));
        }
    }
    let faults = mirror.faults().iter().filter(|(key, _)| key.split('/').nth(1) == Some(name));
    notes.extend(
        faults.map(|(key, why)| format!("the key `{key}` of the store cannot be read: {why}")),
    );
    NodeInfo {
        name: name.to_owned(),
        this: name == me,
        state: state(mirror, name),
        subnets: mirror.owned_by(name).unwrap_or_default(),
        addresses: alive.map(|alive| alive.addresses.clone()).unwrap_or_default(),
        endpoints: mirror.endpoints_of(name).map_or(0, BTreeMap::len),
        program: alive.map(|alive| alive.program.clone()),
        since_ms: alive.map(|alive| alive.since_ms),
        notes,
    }
}

/// Other nodes that say they are reached where this one is.
fn twins<'a>(mirror: &'a Mirror, name: &str, addresses: &[IpAddr]) -> Vec<&'a str> {
    let first = addresses.first();
    let same = |other: &&String| {
        let alive = mirror.alive(other).map(|kept| &kept.record);
        *other != name
            && first.is_some()
            && alive.is_some_and(|alive| alive.addresses.first() == first)
    };
    mirror.nodes().map(|(other, _)| other).filter(same).map(String::as_str).collect()
}
