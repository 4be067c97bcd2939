//! Who serves a service now.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::super::Control;
use super::super::model::{BackendHost, BackendSpec, ServiceSpec};
use super::super::state::EndpointState;
use super::super::store::record::EndpointRecord;
use crate::base::ids::PortId;
use crate::base::limits::SERVICE_BACKENDS_MAX;

/// One that serves.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(in crate::control) struct Member {
    /// Name of the container, or the address.
    pub(super) name: String,
    /// Identity of the endpoint.
    pub(super) endpoint: Option<String>,
    /// Where it is plugged in.
    pub(super) plug: Option<PortId>,
    pub(super) addrs: Vec<IpAddr>,
    /// Its own port.
    pub(super) port: Option<u16>,
    pub(super) weight: u16,
    /// Found by its labels.
    pub(super) selected: bool,
    /// Whether new connections go there.
    pub(super) ready: bool,
    /// Addresses at which it does not serve, and why.
    pub(super) unready: BTreeMap<IpAddr, String>,
}

/// Whether an endpoint would be one of a service's backends.
pub(super) fn may_serve(spec: &ServiceSpec, record: &EndpointRecord) -> bool {
    let named = |backend: &BackendSpec| match &backend.host {
        BackendHost::Name(name) => *name == record.name,
        BackendHost::Addr(addr) => record.addrs.contains(addr),
    };
    is_selected(spec, record) || spec.backends.iter().any(named)
}

fn is_selected(spec: &ServiceSpec, record: &EndpointRecord) -> bool {
    let has = |(key, value): (&String, &String)| record.labels.get(key) == Some(value);
    !spec.selector.is_empty() && spec.selector.iter().all(has)
}

impl Control {
    /// A service's backends, each once, in the order of their names.
    pub(super) fn members_of(&self, spec: &ServiceSpec) -> Vec<Member> {
        let mut members: Vec<Member> = Vec::new();
        for backend in &spec.backends {
            members.extend(self.named_member(spec, backend));
        }
        if !spec.selector.is_empty() {
            let selected = self.state.endpoints.values().filter(|e| is_selected(spec, &e.record));
            let mut selected: Vec<_> = selected.filter(|e| self.is_on(spec, e)).collect();
            // Of a container on several networks, the oldest endpoint serves.
            selected.sort_by_key(|e| (e.record.since_ms, e.record.port));
            for endpoint in selected {
                if members.iter().all(|m| m.name != endpoint.record.name) {
                    members.push(member(endpoint, None, true));
                }
            }
        }
        members.sort_by(|a, b| (&a.name, a.port).cmp(&(&b.name, b.port)));
        members.dedup_by(|a, b| (&a.name, a.port) == (&b.name, b.port));
        for member in &mut members {
            member.weight = spec.weights.get(&member.name).copied().unwrap_or(1);
        }
        if members.len() > SERVICE_BACKENDS_MAX {
            tracing::warn!("service {} has more than {SERVICE_BACKENDS_MAX} backends", spec.name);
            members.truncate(SERVICE_BACKENDS_MAX);
        }
        members
    }

    fn named_member(&self, spec: &ServiceSpec, backend: &BackendSpec) -> Option<Member> {
        match &backend.host {
            BackendHost::Name(name) => {
                let found = self.state.named(name);
                let endpoint = found.into_iter().find(|e| self.is_on(spec, e))?;
                Some(member(endpoint, backend.port, false))
            }
            BackendHost::Addr(addr) => {
                let at = self.state.endpoints.values().find(|e| e.record.addrs.contains(addr));
                Some(Member {
                    name: addr.to_string(),
                    endpoint: at.map(|e| e.record.id.clone()),
                    plug: at.map(|e| e.record.port),
                    addrs: vec![*addr],
                    port: backend.port,
                    weight: 1,
                    selected: false,
                    ready: at.is_some() || !self.is_inside(*addr),
                    unready: BTreeMap::new(),
                })
            }
        }
    }

    /// Whether an address lies in a network of ours.
    fn is_inside(&self, addr: IpAddr) -> bool {
        let mut networks = self.state.networks.values();
        networks.any(|n| n.record.subnets.iter().any(|(net, _)| net.contains(&addr)))
    }

    fn is_on(&self, spec: &ServiceSpec, endpoint: &EndpointState) -> bool {
        let network = self.state.network_name(endpoint.record.network);
        spec.network.as_ref().is_none_or(|wanted| wanted == network)
    }

    /// Whether a backend is named that is not there.
    pub(super) fn backend_is_missing(&self, backend: &BackendSpec) -> bool {
        match &backend.host {
            BackendHost::Name(name) => self.state.named(name).is_empty(),
            BackendHost::Addr(addr) => {
                let mut endpoints = self.state.endpoints.values();
                self.is_inside(*addr) && !endpoints.any(|e| e.record.addrs.contains(addr))
            }
        }
    }
}

impl Member {
    /// Where it serves.
    pub(super) fn serving(&self) -> impl Iterator<Item = IpAddr> {
        let addrs = self.addrs.iter().filter(|addr| self.ready && !self.unready.contains_key(addr));
        addrs.copied()
    }
}

fn member(endpoint: &EndpointState, port: Option<u16>, selected: bool) -> Member {
    let record = &endpoint.record;
    Member {
        name: record.name.clone(),
        endpoint: Some(record.id.clone()),
        plug: Some(record.port),
        addrs: record.addrs.clone(),
        port,
        weight: 1,
        selected,
        ready: true,
        unready: BTreeMap::new(),
    }
}
