//! The start: what the store wants, what still exists, what the config file wants, made one.

use std::collections::BTreeMap;

use super::Control;
use super::compile::{self, DEFAULT};
use super::config::{Config, DefaultUplink};
use super::error::ControlError;
use super::host_port::{host_interface, host_key};
use super::model::{EventKind, NetworkSpec, NetworkUpdate, PacketSpec, UplinkKind, UplinkSpec};
use super::state::UplinkState;
use super::store::record::{
    EndpointRecord, NetworkRecord, PublicationRecord, Record, UplinkRecord,
};
use crate::datapath::Lan;
use crate::io::tap::Tap;

/// What the keeper gave back, by key.
type Kept = BTreeMap<String, Vec<Tap>>;

impl Control {
    pub(super) fn restore(&mut self) -> Result<(), ControlError> {
        let snapshot = self.outside.store.load()?;
        let mut kept = match self.outside.keeper.recover() {
            Ok(kept) => kept.into_iter().collect(),
            Err(error) => {
                tracing::error!(
                    "cannot get TAPs back: {error}; containers have to be attached again"
                );
                Kept::new()
            }
        };
        self.refresh_host_addresses();
        self.refresh_resolvers();
        for record in snapshot.uplinks {
            self.restore_uplink(record);
        }
        // Ports first, so that none of theirs is given to a host's interface that is made anew.
        let endpoints = self.claim_ports(snapshot.endpoints);
        for record in snapshot.networks {
            self.restore_network(record, &mut kept);
        }
        // Before the endpoints, so that none is ever there without its rules.
        self.restore_policies(snapshot.policies, snapshot.namespaces);
        self.restore_endpoints(endpoints, snapshot.publications, &mut kept);
        self.listen_to_all();
        self.restore_services(snapshot.services);
        for key in kept.into_keys() {
            let _ = self.outside.keeper.forget(&key);
        }
        self.apply_config()?;
        self.watch_from_here();
        let text = self.started();
        self.event(EventKind::DaemonStarted, None, None, text);
        Ok(())
    }

    /// In words, with what became of the containers that an earlier daemon had.
    fn started(&self) -> String {
        let count = |wanted| {
            let counted = self.events.counts().find(|(kind, _)| *kind == wanted);
            counted.map_or(0, |(_, count)| count)
        };
        let (back, lost) = (count(EventKind::EndpointRestored), count(EventKind::EndpointLost));
        let version = env!("CARGO_PKG_VERSION");
        match (back, lost) {
            (0, 0) => format!("wharf {version} started"),
            (_, 0) => format!("wharf {version} started again; {back} endpoints are back"),
            _ => {
                format!("wharf {version} started again; {back} endpoints are back, {lost} are lost")
            }
        }
    }

    /// An uplink whose NIC cannot be opened now stays, with the reason: the daemon starts regardless.
    fn restore_uplink(&mut self, record: UplinkRecord) {
        let (id, name) = (record.id, record.spec.name.clone());
        if !self.state.uplink_ids.claim(id.0) || !self.state.ports.claim(record.port.0) {
            tracing::error!("uplink {name} has a number twice in the store; it is left out");
            return;
        }
        match self.open_uplink(record.clone()) {
            Ok((uplink, sockets)) => {
                self.state.uplinks.insert(id, uplink);
                self.serve_uplink(id, sockets);
            }
            Err(error) => {
                let failure = Some(error.to_string());
                let watch = self.watch(&record);
                let lan = Lan::default();
                let uplink =
                    UplinkState { record, failure, mtu: 0, uso: false, lan, share: None, watch };
                self.state.uplinks.insert(id, uplink);
                let text = format!("uplink {name} does not work: {error}");
                self.event(EventKind::UplinkLost, Some(&name), None, text);
            }
        }
    }

    fn claim_ports(&mut self, endpoints: Vec<EndpointRecord>) -> Vec<EndpointRecord> {
        let ports = &mut self.state.ports;
        let (fine, twice): (Vec<_>, Vec<_>) =
            endpoints.into_iter().partition(|e| ports.claim(e.port.0));
        for record in &twice {
            self.lose(record, "its port is somebody else's in the store");
        }
        fine
    }

    fn restore_network(&mut self, mut record: NetworkRecord, kept: &mut Kept) {
        let name = record.name.clone();
        if !self.state.network_ids.claim(record.id.0) {
            tracing::error!("network {name} has a number twice in the store; it is left out");
            return;
        }
        let taps = self.restore_host_port(&mut record, kept);
        if let Err(error) = self.state.insert_network(record.clone()) {
            tracing::error!("network {name} is left out: {error}");
            return;
        }
        self.send_network(record.id);
        if let Some(taps) = taps {
            self.serve_host_port(&record, taps);
        }
    }

    /// The host's interface: the one that was kept, or a new one of the same name.
    fn restore_host_port(
        &mut self,
        record: &mut NetworkRecord,
        kept: &mut Kept,
    ) -> Option<Vec<Tap>> {
        let host = record.host.as_ref()?;
        if !self.state.ports.claim(host.port.0) {
            record.host = None;
            return None;
        }
        if let Some(taps) = kept.remove(&host_key(record)) {
            return Some(taps);
        }
        let wanted = host_interface(record, &host.ifname);
        match self.outside.host.make_interface(&wanted) {
            Ok(taps) => Some(taps),
            Err(error) => {
                let text = format!("the host is not on network {}: {error}", record.name);
                self.event(EventKind::NetworkUpdated, Some(&record.name), None, text);
                None
            }
        }
    }

    fn restore_endpoints(
        &mut self,
        endpoints: Vec<EndpointRecord>,
        publications: Vec<PublicationRecord>,
        kept: &mut Kept,
    ) {
        let mut published: BTreeMap<String, Vec<PublicationRecord>> = BTreeMap::new();
        for publication in publications {
            published.entry(publication.endpoint.clone()).or_default().push(publication);
        }
        let mut lost = Vec::new();
        for record in endpoints {
            let publications = published.remove(&record.id).unwrap_or_default();
            let claimed = match kept.remove(&record.id) {
                Some(taps) => self.claim_addresses(&record).map(|()| taps),
                None => Err("its TAP is gone".to_owned()),
            };
            match claimed {
                Ok(taps) => self.resume(&record, taps, &publications),
                Err(why) => {
                    self.state.ports.give_back(record.port.0);
                    self.lose(&record, &why);
                    lost.push(record.remove());
                    lost.extend(publications.iter().map(Record::remove));
                }
            }
        }
        lost.extend(published.values().flatten().map(Record::remove));
        self.write_fact(&lost);
    }

    fn claim_addresses(&mut self, record: &EndpointRecord) -> Result<(), String> {
        let network = self.state.networks.get_mut(&record.network);
        let network = network.ok_or("its network is gone")?;
        for addr in &record.addrs {
            let range = network.ranges.iter_mut().find(|r| r.subnet().contains(addr));
            let range = range.ok_or_else(|| format!("{addr} lies in no subnet of its network"))?;
            range.reserve(*addr, &format!("`{}`", record.name)).map_err(|e| e.to_string())?;
        }
        Ok(())
    }

    fn resume(
        &mut self,
        record: &EndpointRecord,
        taps: Vec<Tap>,
        publications: &[PublicationRecord],
    ) {
        let uso = taps.first().is_some_and(|t| t.offload().uso);
        self.install_endpoint(record, uso);
        for publication in publications {
            self.state.insert_publication(publication.clone());
        }
        let held = self.held_by(publications);
        self.hold(&held, &[]);
        let deltas = publications.iter().filter_map(|p| compile::publication(&self.state, p));
        self.send_deltas(deltas.collect());
        // The keeper has them already.
        for tap in taps {
            self.outside.dataplane.send(crate::worker::command::Command::AddTap(record.port, tap));
        }
        self.limit(record);
        let network = self.state.network_name(record.network).to_owned();
        let text = format!("{} is back", record.name);
        self.event(EventKind::EndpointRestored, Some(&network), Some(&record.name), text);
    }

    /// Once all endpoints are known: a container's subnets are those of all its networks.
    fn listen_to_all(&mut self) {
        let all: Vec<PublicationRecord> = self.state.publications.values().cloned().collect();
        for record in all {
            if let Some(target) = self.target(&record.endpoint) {
                self.listen_again(&record, &target);
            }
        }
    }

    fn lose(&mut self, record: &EndpointRecord, why: &str) {
        let network = self.state.network_name(record.network).to_owned();
        let text = format!("{} did not survive the restart: {why}", record.name);
        let hint = "start the container anew, or attach its namespace again (`wharf attach`)";
        let about = (Some(&*network), Some(&*record.name));
        self.event_with(EventKind::EndpointLost, about, text, Some(hint.to_owned()));
    }

    /// Takes in a changed config file. Uplinks that did not work are tried again, too.
    pub fn reload(&mut self, config: Config) -> Result<(), ControlError> {
        self.settings.config = config;
        self.tune();
        self.refresh_resolvers();
        let broken = self.state.uplinks.values().filter(|u| u.failure.is_some());
        for record in broken.map(|u| u.record.clone()).collect::<Vec<_>>() {
            let spec = record.spec.clone();
            if let Err(error) = self.replace_uplink(record, spec) {
                tracing::warn!("{error}");
            }
        }
        self.retry_listeners();
        self.apply_config()
    }

    /// The config file was read anew, or could not be used and changed nothing.
    pub fn config_read(&mut self, file: &std::path::Path, read: Result<(), String>) {
        let (kind, text) = match read {
            Ok(()) => (EventKind::ConfigRead, format!("{} was read anew", file.display())),
            Err(error) => {
                (EventKind::ConfigRefused, format!("the configuration stays as it was: {error}"))
            }
        };
        self.event(kind, None, None, text);
    }

    /// What the config file wants, and the default network, exists afterwards.
    fn apply_config(&mut self) -> Result<(), ControlError> {
        let config = self.settings.config.clone();
        if let Some(default) = self.default_uplink(&config) {
            self.ensure_default_uplink(default)?;
        }
        for spec in &config.uplinks {
            self.ensure_uplink(spec)?;
        }
        // Before networks, whose MTU rests on it.
        self.apply_nodes(&config)?;
        for spec in &config.networks {
            self.ensure_network(spec)?;
        }
        if self.state.network(DEFAULT).is_none()
            && let Err(error) = self.create_network(&NetworkSpec::named(DEFAULT))
        {
            // Other networks work without it; whoever names it is told that it is not there.
            let text = format!("there is no network `{DEFAULT}`: {error}");
            self.event(EventKind::NetworkRemoved, Some(DEFAULT), None, text);
        }
        Ok(())
    }

    /// What the default uplink must become: what the config says, else what it is, else sockets, which
    /// need no right.
    fn default_uplink(&self, config: &Config) -> Option<DefaultUplink> {
        let described = config.uplinks.iter().any(|u| u.name == DEFAULT);
        match &config.default_uplink {
            Some(text) => DefaultUplink::parse(text).ok(),
            None if described || self.state.uplink(DEFAULT).is_some() => None,
            None => Some(DefaultUplink::Sockets),
        }
    }

    fn ensure_default_uplink(&mut self, wanted: DefaultUplink) -> Result<(), ControlError> {
        let kind = match wanted {
            DefaultUplink::None => {
                return match self.state.uplink(DEFAULT) {
                    Some(_) => self.remove_uplink(DEFAULT),
                    None => Ok(()),
                };
            }
            DefaultUplink::Sockets => UplinkKind::Sockets,
            DefaultUplink::Packet(interface) => {
                // One that was given an address by hand keeps it.
                let existing = self.state.uplink(DEFAULT).map(|u| &u.record.spec.kind);
                if matches!(existing, Some(UplinkKind::Packet(p)) if p.interface == interface) {
                    return Ok(());
                }
                UplinkKind::Packet(PacketSpec { interface, dhcp: true, ..PacketSpec::default() })
            }
        };
        self.ensure_uplink(&UplinkSpec { name: DEFAULT.to_owned(), kind })
    }

    /// An uplink as the config file has it; one of the same name that differs is replaced.
    fn ensure_uplink(&mut self, spec: &UplinkSpec) -> Result<(), ControlError> {
        let existing = self.state.uplink(&spec.name).map(|u| u.record.clone());
        let Some(existing) = existing else { return self.create_uplink(spec).map(drop) };
        if existing.spec == *spec {
            return Ok(());
        }
        self.replace_uplink(existing, spec.clone())
    }

    /// A network as the config file has it. Its subnets are for life; the rest is changed if need be.
    fn ensure_network(&mut self, spec: &NetworkSpec) -> Result<(), ControlError> {
        let Some(existing) = self.state.network(&spec.name).map(|n| n.record.clone()) else {
            return self.create_network(spec).map(drop);
        };
        if !existing.has_subnets_of(spec) {
            return Err(ControlError::invalid(
                format!("the network `{}` of the config file exists with other subnets", spec.name),
                format!("run `wharf network rm {}` first, or change the file", spec.name),
            ));
        }
        let update = NetworkUpdate {
            internal: Some(spec.internal).filter(|v| *v != existing.internal),
            isolated: Some(spec.isolated).filter(|v| *v != existing.isolated),
            icc: Some(spec.icc).filter(|v| *v != existing.icc),
            icc_except: Some(spec.icc_except.clone().unwrap_or_default())
                .filter(|v| *v != existing.icc_except.clone().unwrap_or_default()),
            guard: Some(spec.guard).filter(|v| *v != existing.guard),
            host: Some(spec.host).filter(|v| *v != existing.host.is_some()),
            uplink: spec.uplink.clone().filter(|v| existing.uplink.as_ref() != Some(v)),
        };
        if update == NetworkUpdate::default() {
            return Ok(());
        }
        self.update_network(&spec.name, &update).map(drop)
    }
}
