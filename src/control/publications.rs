//! Published ports: which ports of the host lead to which endpoint.

use std::net::IpAddr;

use super::Control;
use super::compile;
use super::error::ControlError;
use super::listeners::Planned;
use super::model::{EventKind, PortRange, PublicationInfo, PublishSpec};
use super::networks::in_words;
use super::state::EndpointState;
use super::store::record::{EndpointRecord, PublicationRecord, Record};
use crate::base::limits::PUBLICATIONS_MAX;
use crate::config::Delta;

impl Control {
    /// Publishes ports of an endpoint.
    pub fn publish(
        &mut self,
        name: &str,
        network: Option<&str>,
        specs: &[PublishSpec],
    ) -> Result<Vec<PublicationInfo>, ControlError> {
        let record = self.publisher(name, network)?.record.clone();
        let planned = self.plan_publications(&record, specs)?;
        let changes: Vec<_> = planned.iter().map(|p| p.record.put()).collect();
        self.write(&changes).inspect_err(|_| self.unplan(&planned))?;
        let infos: Vec<_> = planned.iter().map(|p| self.publication_info(&p.record)).collect();
        self.install_publications(planned);
        self.refresh_host_addresses();
        self.publication_event(EventKind::PortPublished, &record, "publishes", &infos);
        Ok(infos)
    }

    /// Takes stored publications of endpoints in and tells the workers.
    pub(super) fn install_publications(&mut self, planned: Vec<Planned>) {
        for Planned { record, .. } in &planned {
            self.state.insert_publication(record.clone());
        }
        let deltas = planned.iter().filter_map(|p| compile::publication(&self.state, &p.record));
        let deltas = deltas.collect();
        let held = self.held_by(planned.iter().map(|p| &p.record));
        self.hold(&held, &[]);
        self.send_deltas(deltas);
        let target = planned.first().and_then(|p| self.target(&p.record.endpoint));
        let Some(target) = target else { return };
        for Planned { record, sockets } in planned {
            self.serve_listeners(&record, sockets, &target);
        }
    }

    /// Ends publications of an endpoint.
    pub fn unpublish(
        &mut self,
        name: &str,
        network: Option<&str>,
        specs: &[PublishSpec],
    ) -> Result<Vec<PublicationInfo>, ControlError> {
        let mut gone: Vec<PublicationRecord> = Vec::new();
        for spec in specs {
            let found = self.published_as(name, network, spec)?;
            gone.extend(
                found.into_iter().filter(|p| gone.iter().all(|g| g.id != p.id)).collect::<Vec<_>>(),
            );
        }
        let infos: Vec<_> = gone.iter().map(|p| self.publication_info(p)).collect();
        let changes: Vec<_> = gone.iter().map(Record::remove).collect();
        self.write(&changes)?;
        let held = self.held_by(&gone);
        for publication in &gone {
            self.state.remove_publication(publication.id);
            self.close_listeners(publication.id);
        }
        self.send_deltas(gone.iter().map(|p| Delta::Unpublish(p.id)).collect());
        self.hold(&[], &held);
        let endpoint = gone.first().and_then(|p| self.state.endpoints.get(&p.endpoint));
        if let Some(record) = endpoint.map(|e| e.record.clone()) {
            self.publication_event(
                EventKind::PortUnpublished,
                &record,
                "no longer publishes",
                &infos,
            );
        }
        Ok(infos)
    }

    /// All publications, or one endpoint's.
    pub fn ports(&self, name: Option<&str>) -> Result<Vec<PublicationInfo>, ControlError> {
        let Some(name) = name else {
            return Ok(self
                .state
                .publications
                .values()
                .map(|p| self.publication_info(p))
                .collect());
        };
        let found = self.find(name, None)?;
        let ids = found.into_iter().flat_map(|e| &e.publications);
        let records = ids.filter_map(|id| self.state.publications.get(id));
        Ok(records.map(|p| self.publication_info(p)).collect())
    }

    /// The endpoint whose ports are meant: of a container on several networks the oldest that may
    /// publish anything.
    fn publisher(&self, name: &str, network: Option<&str>) -> Result<&EndpointState, ControlError> {
        let found = self.find(name, network)?;
        let first = found[0];
        Ok(found.into_iter().find(|e| !self.is_internal(&e.record)).unwrap_or(first))
    }

    fn is_internal(&self, endpoint: &EndpointRecord) -> bool {
        self.state.networks.get(&endpoint.network).is_some_and(|n| n.record.internal)
    }

    /// Chooses, reserves and binds host ports for `specs`. [`unplan`](Self::unplan) lets go of them again.
    pub(super) fn plan_publications(
        &mut self,
        endpoint: &EndpointRecord,
        specs: &[PublishSpec],
    ) -> Result<Vec<Planned>, ControlError> {
        let limit = self.settings.config.limits.publications.min(PUBLICATIONS_MAX);
        if self.state.publications.len() + specs.len() > limit {
            return Err(ControlError::Exhausted { what: "publications", limit });
        }
        if !specs.is_empty() && self.is_internal(endpoint) {
            let network = self.state.network_name(endpoint.network);
            return Err(ControlError::invalid(
                format!("nothing can be published on `{network}`: it is internal"),
                "attach the container to another network as well, and publish there",
            ));
        }
        let mut planned = Vec::with_capacity(specs.len());
        for spec in specs {
            match self.plan_publication(endpoint, spec, &planned) {
                Ok(record) => planned.push(record),
                Err(error) => {
                    self.unplan(&planned);
                    return Err(error);
                }
            }
        }
        Ok(planned)
    }

    fn plan_publication(
        &mut self,
        endpoint: &EndpointRecord,
        spec: &PublishSpec,
        planned: &[Planned],
    ) -> Result<Planned, ControlError> {
        check_family(endpoint, spec)?;
        let (host_ports, sockets) = match spec.host_ports {
            Some(ports) if ports.count() == spec.ports.count() => {
                if let Some(id) = self.state.host_ports.holder(spec.proto, spec.host_addr, ports) {
                    let holder = self.state.publications.get(&id);
                    let planned = || planned.iter().map(|p| &p.record).find(|p| p.id == id);
                    let holder = holder.or_else(planned);
                    return Err(self.port_taken(spec, ports, endpoint, holder));
                }
                (ports, self.bind(spec.host_addr, ports, spec.proto)?)
            }
            wanted => {
                let from = wanted.unwrap_or(self.settings.config.published_from());
                self.bind_free(spec, from)?
            }
        };
        let record = PublicationRecord {
            id: self.state.publication_id(),
            endpoint: endpoint.id.clone(),
            host_addr: spec.host_addr,
            host_ports,
            ports: spec.ports,
            proto: spec.proto,
        };
        self.state.host_ports.insert(record.proto, record.host_addr, host_ports, record.id);
        Ok(Planned { record, sockets })
    }

    /// Lets host ports go that were reserved and are not to be published after all.
    pub(super) fn unplan(&mut self, planned: &[Planned]) {
        for Planned { record, .. } in planned {
            self.state.host_ports.remove(record.proto, record.host_addr, record.host_ports);
        }
    }

    fn port_taken(
        &self,
        spec: &PublishSpec,
        ports: PortRange,
        asking: &EndpointRecord,
        holder: Option<&PublicationRecord>,
    ) -> ControlError {
        let owner = holder.and_then(|p| self.state.endpoints.get(&p.endpoint));
        let id = self.state.host_ports.holder(spec.proto, spec.host_addr, ports);
        if let Some(service) = id.and_then(|id| self.node_port_holder(id)) {
            return ControlError::PortTaken {
                ports: ports.to_string(),
                proto: spec.proto,
                host: address_in_words(spec.host_addr),
                holder: format!("the service {service}"),
                published: "its node port".to_owned(),
            };
        }
        ControlError::PortTaken {
            ports: ports.to_string(),
            proto: spec.proto,
            host: address_in_words(spec.host_addr),
            holder: owner.map_or(&asking.name, |e| &e.record.name).clone(),
            published: holder
                .map_or_else(String::new, |p| format!("{}->{}", p.host_ports, p.ports)),
        }
    }

    /// Publications that a specification means; host address and port narrow it down if given.
    fn published_as(
        &self,
        name: &str,
        network: Option<&str>,
        spec: &PublishSpec,
    ) -> Result<Vec<PublicationRecord>, ControlError> {
        let found = self.find(name, network)?;
        let ids = found.iter().flat_map(|e| &e.publications);
        let all: Vec<_> = ids.filter_map(|id| self.state.publications.get(id)).collect();
        let meant = |p: &&PublicationRecord| {
            p.proto == spec.proto
                && p.ports == spec.ports
                && spec.host_ports.is_none_or(|h| h == p.host_ports)
                && spec.host_addr.is_none_or(|a| p.host_addr == Some(a))
        };
        let matching: Vec<PublicationRecord> = all.iter().copied().filter(meant).cloned().collect();
        if !matching.is_empty() {
            return Ok(matching);
        }
        let published = all.iter().map(|p| self.publication_info(p).to_string());
        Err(ControlError::invalid(
            format!("`{name}` does not publish {spec}"),
            if all.is_empty() {
                "it publishes nothing".to_owned()
            } else {
                format!("it publishes {}", in_words(published))
            },
        ))
    }

    pub(super) fn publication_info(&self, record: &PublicationRecord) -> PublicationInfo {
        let endpoint = self.state.endpoints.get(&record.endpoint);
        let network = endpoint.map_or("?", |e| self.state.network_name(e.record.network));
        PublicationInfo {
            id: record.id,
            endpoint: endpoint.map_or_else(|| "?".to_owned(), |e| e.record.name.clone()),
            network: network.to_owned(),
            host_addr: record.host_addr,
            host_ports: record.host_ports,
            ports: record.ports,
            proto: record.proto,
        }
    }

    fn publication_event(
        &mut self,
        kind: EventKind,
        record: &EndpointRecord,
        verb: &str,
        infos: &[PublicationInfo],
    ) {
        let network = self.state.network_name(record.network).to_owned();
        let text =
            format!("{} {verb} {}", record.name, in_words(infos.iter().map(ToString::to_string)));
        self.event(kind, Some(&network), Some(&record.name), text);
    }
}

/// An address of one family leads to an endpoint that has an address of it.
fn check_family(endpoint: &EndpointRecord, spec: &PublishSpec) -> Result<(), ControlError> {
    let Some(addr) = spec.host_addr else { return Ok(()) };
    if addr.is_multicast() {
        return Err(ControlError::invalid(
            format!("{addr} is a multicast address, at which nothing can be published"),
            "give one of the host's own addresses, or none for all of them",
        ));
    }
    if endpoint.addrs.iter().any(|a| a.is_ipv6() == addr.is_ipv6()) {
        return Ok(());
    }
    let family = if addr.is_ipv6() { "IPv6" } else { "IPv4" };
    Err(ControlError::invalid(
        format!("`{}` has no {family} address, so {spec} cannot lead to it", endpoint.name),
        "publish at an address of the other family, or give its network a subnet of this one",
    ))
}

fn address_in_words(addr: Option<IpAddr>) -> String {
    addr.map_or_else(|| "the host's addresses".to_owned(), |a| a.to_string())
}
