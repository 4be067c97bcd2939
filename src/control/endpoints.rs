//! Endpoints: attached, detached, shown.

use std::net::IpAddr;

use ipnet::IpNet;

use super::error::ControlError;
use super::model::{EndpointInfo, EndpointState as Is, EventKind};
use super::networks::in_words;
use super::state::EndpointState;
use super::store::record::{NetworkRecord, Record};
use super::{Control, advice};
use crate::base::ids::PortId;
use crate::config::Delta;
use crate::packet::DropReason;
use crate::worker::command::Notice;

impl Control {
    /// Detaches a container from one network, or from all. Says what it was.
    pub fn detach(
        &mut self,
        name: &str,
        network: Option<&str>,
        reason: &str,
    ) -> Result<Vec<EndpointInfo>, ControlError> {
        let found = self.find(name, network)?;
        let ids: Vec<String> = found.iter().map(|e| e.record.id.clone()).collect();
        let mut gone = Vec::with_capacity(ids.len());
        for id in ids {
            gone.extend(self.endpoint_info(&id));
            self.remove_endpoint(&id, EventKind::EndpointDetached, reason)?;
        }
        Ok(gone)
    }

    /// What an engine's container has: all of it, or the interface of that name.
    pub fn endpoints_of(&self, container_id: &str, ifname: Option<&str>) -> Vec<EndpointInfo> {
        let all = self.state.endpoints.values().map(|e| &e.record);
        let theirs = all.filter(|r| {
            r.container_id.as_deref() == Some(container_id) && ifname.is_none_or(|n| n == r.ifname)
        });
        theirs.filter_map(|r| self.endpoint_info(&r.id)).collect()
    }

    /// Detaches what an engine's container has. Nothing is no error: engines ask again and again.
    pub fn detach_container(
        &mut self,
        container_id: &str,
        ifname: Option<&str>,
    ) -> Result<Vec<EndpointInfo>, ControlError> {
        let gone = self.endpoints_of(container_id, ifname);
        for endpoint in &gone {
            self.remove_endpoint(&endpoint.id, EventKind::EndpointDetached, "as its engine asked")?;
        }
        Ok(gone)
    }

    /// Removes an endpoint from the store, then from everywhere.
    pub(super) fn remove_endpoint(
        &mut self,
        id: &str,
        kind: EventKind,
        reason: &str,
    ) -> Result<(), ControlError> {
        let changes = self.removal(id);
        self.write(&changes)?;
        self.forget_endpoint(id, kind, reason);
        Ok(())
    }

    fn removal(&self, id: &str) -> Vec<super::store::record::Change> {
        let Some(endpoint) = self.state.endpoints.get(id) else { return Vec::new() };
        let publications = endpoint.publications.iter();
        let publications = publications.filter_map(|p| self.state.publications.get(p));
        publications.map(Record::remove).chain([endpoint.record.remove()]).collect()
    }

    fn forget_endpoint(&mut self, id: &str, kind: EventKind, reason: &str) {
        let Some(endpoint) = self.state.endpoints.get(id) else { return };
        let publications: Vec<_> = endpoint.publications.iter().copied().collect();
        let held = self.held_by(publications.iter().filter_map(|p| self.state.publications.get(p)));
        let unpublish = publications.iter().map(|p| Delta::Unpublish(*p)).collect();
        for publication in publications {
            self.state.remove_publication(publication);
            self.close_listeners(publication);
        }
        let Some(record) = self.state.remove_endpoint(id) else { return };
        // Before anything else: from now on nobody is sent there.
        self.endpoint_changed(&record);
        self.send_deltas(unpublish);
        self.hold(&[], &held);
        self.unplug(id, record.port);
        self.retarget(&record.name);
        self.send_name(&record, false);
        self.tell_nodes(&record, false);
        let network = self.state.network_name(record.network).to_owned();
        let text = format!("{} detached: {reason}", record.name);
        self.event(kind, Some(&network), Some(&record.name), text);
    }

    /// Something a worker noticed.
    pub fn notice(&mut self, notice: Notice) {
        match notice {
            Notice::PortDead(port) => self.port_dead(port),
            Notice::Configured(uplink, lan) => self.configured(uplink, lan),
            Notice::Shortage(port, reason) => self.shortage(port, reason),
            Notice::Denied(denied) => self.flow_denied(&denied),
            Notice::Health(verdict) => self.backend_health(verdict),
            Notice::HostChanged(port, conflicts) => self.host_changed(port, conflicts),
            Notice::Busy => self.look(),
            Notice::Failed(text) => self.event(EventKind::WorkerFailed, None, None, text),
        }
    }

    /// Somebody gets no new connections.
    fn shortage(&mut self, port: PortId, reason: DropReason) {
        let name = self.port_name(port);
        let text =
            format!("new connections of {name} are refused ({reason}): {}", reason.explain());
        let hint = advice::on_shortage(reason, &name);
        let endpoint = self.state.at_port(port).is_some().then_some(name);
        let about = (None, endpoint.as_deref());
        self.event_with(EventKind::FlowsRefused, about, text, Some(hint));
    }

    /// What was plugged in is gone: a container's namespace, or an uplink's NIC.
    pub fn port_dead(&mut self, port: PortId) {
        let Some(id) = self.state.at_port(port).map(|e| e.record.id.clone()) else {
            self.uplink_dead(port);
            return;
        };
        let changes = self.removal(&id);
        self.write_fact(&changes);
        self.forget_endpoint(&id, EventKind::EndpointLost, "its network namespace is gone");
    }

    /// Endpoints of a container by name, or the one of an identity, on a network if one is given.
    pub(super) fn find(
        &self,
        name: &str,
        network: Option<&str>,
    ) -> Result<Vec<&EndpointState>, ControlError> {
        if let Some(network) = network {
            self.network(network)?;
        }
        let mut found = self.state.named(name);
        if found.is_empty() {
            found = self.by_identity(name)?;
        }
        found.retain(|e| network.is_none_or(|n| self.state.network_name(e.record.network) == n));
        if found.is_empty() {
            let name = match network {
                Some(network) => format!("{name}` on network `{network}"),
                None => name.to_owned(),
            };
            return Err(ControlError::NotFound { kind: "endpoint", name });
        }
        Ok(found)
    }

    fn by_identity(&self, start: &str) -> Result<Vec<&EndpointState>, ControlError> {
        // Shorter beginnings would catch names that merely do not exist.
        const LEAST: usize = 4;
        if start.len() < LEAST {
            return Ok(Vec::new());
        }
        let found = self.state.endpoints.range(start.to_owned()..);
        let found: Vec<_> =
            found.take_while(|(id, _)| id.starts_with(start)).map(|(_, e)| e).collect();
        if found.len() > 1 {
            let candidates =
                in_words(found.iter().map(|e| format!("{} ({})", e.record.name, e.record.id)));
            return Err(ControlError::Ambiguous { name: start.to_owned(), candidates });
        }
        Ok(found)
    }

    /// All endpoints, by name and age.
    pub fn endpoints(&self) -> Vec<EndpointInfo> {
        let ids = self.state.endpoints.keys();
        let mut all: Vec<_> = ids.filter_map(|id| self.endpoint_info(id)).collect();
        all.sort_by(|a, b| (&a.name, a.since_ms, a.port).cmp(&(&b.name, b.since_ms, b.port)));
        all
    }

    /// A container's endpoints, oldest first; at least one.
    pub fn endpoint(&self, name: &str) -> Result<Vec<EndpointInfo>, ControlError> {
        let found = self.find(name, None)?;
        Ok(found.into_iter().filter_map(|e| self.endpoint_info(&e.record.id)).collect())
    }

    pub(super) fn endpoint_info(&self, id: &str) -> Option<EndpointInfo> {
        let endpoint = self.state.endpoints.get(id)?;
        let record = &endpoint.record;
        let network = &self.state.networks.get(&record.network)?.record;
        let publications = endpoint.publications.iter();
        let publications = publications.filter_map(|p| self.state.publications.get(p));
        Some(EndpointInfo {
            id: record.id.clone(),
            name: record.name.clone(),
            network: network.name.clone(),
            ifname: record.ifname.clone(),
            port: record.port,
            mac: record.mac,
            addresses: record.addrs.iter().filter_map(|a| with_length(network, *a)).collect(),
            gateways: gateways_for(network, &record.addrs),
            mtu: network.mtu,
            labels: record.labels.clone(),
            aliases: record.aliases.clone(),
            pid: record.pid,
            netns: record.netns,
            container_id: record.container_id.clone(),
            rate: record.rate,
            state: Is::Up,
            published: publications.map(|p| self.publication_info(p)).collect(),
            since_ms: record.since_ms,
        })
    }
}

fn with_length(network: &NetworkRecord, addr: IpAddr) -> Option<IpNet> {
    let (net, _) = network.subnets.iter().find(|(net, _)| net.contains(&addr))?;
    IpNet::new(addr, net.prefix_len()).ok()
}

/// An internal network has no way anywhere, so its gateways are nobody's default route.
fn gateways_for(network: &NetworkRecord, addrs: &[IpAddr]) -> Vec<IpAddr> {
    if network.internal {
        return Vec::new();
    }
    let gateways = network.subnets.iter().map(|(_, gateway)| *gateway);
    gateways.filter(|g| addrs.iter().any(|a| a.is_ipv4() == g.is_ipv4())).collect()
}
