//! Networks: made, changed, removed, shown.

use std::net::IpAddr;

use ipnet::IpNet;

use super::compile::{self, NO_UPLINK};
use super::error::ControlError;
use super::ipam::mac_for;
use super::ipam::range::AddressRange;
use super::model::{EventKind, NetworkInfo, NetworkSpec, NetworkUpdate, SubnetInfo};
use super::store::record::{NetworkRecord, Record};
use super::{Control, names, policy};
use crate::base::ids::NetworkId;
use crate::base::limits::NETWORKS_MAX;
use crate::config::Delta;
use crate::wire::mac::Mac;

/// The MTU of networks that name none.
const MTU: u16 = 1500;
/// IPv6 wants 1280 (RFC 8200 section 5), IPv4 hosts must take 576 (RFC 791).
const MTU_MIN: u16 = 576;
const MTU_MIN_V6: u16 = 1280;

impl Control {
    /// Makes a network.
    pub fn create_network(&mut self, spec: &NetworkSpec) -> Result<NetworkInfo, ControlError> {
        names::check_network(&spec.name)?;
        if self.state.network(&spec.name).is_some() {
            let (kind, name, holder) = ("network", spec.name.clone(), String::new());
            return Err(ControlError::Exists { kind, name, holder });
        }
        if let Some(uplink) = &spec.uplink {
            self.check_uplink_name(uplink)?;
        }
        not_yet(spec)?;
        let subnets = self.choose_subnets(spec)?;
        let mtu = self.choose_mtu(spec, &subnets)?;
        let gateways: Vec<IpAddr> = subnets.iter().map(|(_, g)| *g).collect();
        let id = self.state.network_ids.take().map(NetworkId);
        let id = id.ok_or(ControlError::Exhausted { what: "networks", limit: NETWORKS_MAX })?;
        let mut record = NetworkRecord {
            id,
            name: spec.name.clone(),
            subnets,
            gateway_mac: mac_for(&gateways).unwrap_or(Mac::ZERO),
            internal: spec.internal,
            isolated: spec.isolated,
            icc: spec.icc,
            icc_except: exempt(spec.icc_except.as_deref())?,
            guard: spec.guard,
            host: None,
            uplink: spec.uplink.clone(),
            mtu,
            host_loopback: spec.host_loopback,
            created_ms: self.now(),
        };
        match self.install_network(&mut record, spec.host) {
            Ok(()) => Ok(self.network(&record.name)?),
            Err(error) => {
                self.state.network_ids.give_back(id.0);
                Err(error)
            }
        }
    }

    fn install_network(
        &mut self,
        record: &mut NetworkRecord,
        host: bool,
    ) -> Result<(), ControlError> {
        let taps = if host { self.make_host_port(record)? } else { Vec::new() };
        if let Err(error) = self.write(&[record.put()]) {
            self.drop_host_port(record);
            return Err(error);
        }
        self.state.insert_network(record.clone())?;
        self.send_network(record.id);
        self.serve_host_port(record, taps);
        let text = format!("network {} with {}", record.name, ranges_in_words(&record.subnets));
        self.event(EventKind::NetworkCreated, Some(&record.name), None, text);
        Ok(())
    }

    /// Changes a network.
    pub fn update_network(
        &mut self,
        name: &str,
        update: &NetworkUpdate,
    ) -> Result<NetworkInfo, ControlError> {
        if let Some(uplink) = &update.uplink {
            self.check_uplink_name(uplink)?;
        }
        let network = self.state.network(name);
        let old = network.ok_or_else(|| ControlError::not_found("network", name))?.record.clone();
        let mut new = old.clone();
        new.internal = update.internal.unwrap_or(old.internal);
        new.isolated = update.isolated.unwrap_or(old.isolated);
        new.icc = update.icc.unwrap_or(old.icc);
        if let Some(except) = &update.icc_except {
            new.icc_except = exempt(Some(except))?;
        }
        new.guard = update.guard.unwrap_or(old.guard);
        new.uplink = update.uplink.clone().or(old.uplink.clone());
        if new.internal && !old.internal {
            self.check_nothing_published(&old)?;
        }
        let joins = update.host == Some(true) && old.host.is_none();
        let taps = if joins { self.make_host_port(&mut new)? } else { Vec::new() };
        if update.host == Some(false) {
            new.host = None;
        }
        if let Err(error) = self.write(&[new.put()]) {
            if joins {
                self.drop_host_port(&new);
            }
            return Err(error);
        }
        if new.host.is_none() && old.host.is_some() {
            self.drop_host_port(&old);
        }
        if let Some(network) = self.state.networks.get_mut(&old.id) {
            network.record = new.clone();
        }
        self.send_network(new.id);
        if joins {
            self.serve_host_port(&new, taps);
        }
        self.event(EventKind::NetworkUpdated, Some(name), None, format!("network {name} changed"));
        self.network(name)
    }

    /// Removes a network; with `force` also what is on it.
    pub fn remove_network(&mut self, name: &str, force: bool) -> Result<(), ControlError> {
        self.check_not_cluster_s(name)?;
        self.remove_any_network(name, force)
    }

    /// The same, also of the cluster's.
    pub(super) fn remove_any_network(
        &mut self,
        name: &str,
        force: bool,
    ) -> Result<(), ControlError> {
        let network = self.state.network(name);
        let id = network.ok_or_else(|| ControlError::not_found("network", name))?.record.id;
        let members: Vec<String> = self.state.members(id).map(|e| e.record.id.clone()).collect();
        if !members.is_empty() && !force {
            let names = self.state.members(id).map(|e| e.record.name.as_str());
            return Err(ControlError::InUse {
                kind: "network",
                name: name.to_owned(),
                users: in_words(names),
                hint: "detach these first, or remove it with --force",
            });
        }
        for endpoint in members {
            self.remove_endpoint(
                &endpoint,
                EventKind::EndpointDetached,
                "its network was removed",
            )?;
        }
        let Some(network) = self.state.networks.get(&id) else { return Ok(()) };
        let record = network.record.clone();
        self.write(&[record.remove()])?;
        self.drop_host_port(&record);
        self.state.remove_network(id);
        self.send_deltas(vec![Delta::RemoveNetwork(id)]);
        self.event(EventKind::NetworkRemoved, Some(name), None, format!("network {name} removed"));
        Ok(())
    }

    /// All networks, by their numbers.
    pub fn networks(&self) -> Vec<NetworkInfo> {
        self.state.networks.keys().filter_map(|id| self.network_info(*id)).collect()
    }

    /// One network.
    pub fn network(&self, name: &str) -> Result<NetworkInfo, ControlError> {
        let network = self.state.network(name);
        network
            .and_then(|n| self.network_info(n.record.id))
            .ok_or_else(|| ControlError::not_found("network", name))
    }

    fn network_info(&self, id: NetworkId) -> Option<NetworkInfo> {
        let network = self.state.networks.get(&id)?;
        let record = &network.record;
        let subnet = |r: &AddressRange| SubnetInfo {
            subnet: r.subnet(),
            gateway: r.gateway(),
            used: r.used(),
            capacity: r.capacity(),
        };
        let mut endpoints: Vec<_> = self.state.members(id).map(|e| e.record.name.clone()).collect();
        endpoints.sort();
        let uplink =
            compile::uplink_of(&self.state, record).and_then(|u| self.state.uplinks.get(&u));
        Some(NetworkInfo {
            id,
            name: record.name.clone(),
            subnets: network.ranges.iter().map(subnet).collect(),
            gateway_mac: record.gateway_mac,
            internal: record.internal,
            isolated: record.isolated,
            icc: record.icc,
            icc_except: record.icc_except.clone(),
            guard: record.guard,
            host: record.host.is_some(),
            host_interface: record.host.as_ref().map(|h| h.ifname.clone()),
            uplink: uplink.map(|u| u.record.spec.name.clone()),
            mtu: record.mtu,
            span: false,
            host_loopback: record.host_loopback,
            endpoints,
            created_ms: record.created_ms,
        })
    }

    /// Sends a network and all ports on it, whose guard and isolation come from it.
    pub(super) fn send_network(&self, id: NetworkId) {
        let Some(network) = self.state.networks.get(&id) else { return };
        let mut deltas = vec![compile::network(&self.state, network, &self.settings.guise)];
        deltas.extend(self.state.members(id).map(|e| compile::endpoint(&network.record, e)));
        self.send_deltas(deltas);
        self.send_names(id);
    }

    fn check_uplink_name(&self, name: &str) -> Result<(), ControlError> {
        if name == NO_UPLINK || name == compile::DEFAULT || self.state.uplink(name).is_some() {
            return Ok(());
        }
        Err(ControlError::not_found("uplink", name))
    }

    fn check_nothing_published(&self, network: &NetworkRecord) -> Result<(), ControlError> {
        let mut publishers =
            self.state.members(network.id).filter(|e| !e.publications.is_empty()).peekable();
        if publishers.peek().is_none() {
            return Ok(());
        }
        Err(ControlError::InUse {
            kind: "network",
            name: network.name.clone(),
            users: in_words(publishers.map(|e| e.record.name.as_str())),
            hint: "nothing can be published on an internal network: unpublish these first",
        })
    }

    fn choose_mtu(
        &self,
        spec: &NetworkSpec,
        subnets: &[(IpNet, IpAddr)],
    ) -> Result<u16, ControlError> {
        let tunnel = self.tunnel_mtu(subnets);
        let usual = self.settings.config.mtu.unwrap_or(MTU);
        let mtu = spec.mtu.unwrap_or_else(|| tunnel.map_or(usual, |tunnel| usual.min(tunnel)));
        let v6 = subnets.iter().any(|(net, _)| net.addr().is_ipv6());
        let least = if v6 { MTU_MIN_V6 } else { MTU_MIN };
        if mtu >= least {
            return Ok(mtu);
        }
        let family = if v6 { "IPv6" } else { "IPv4" };
        Err(ControlError::invalid(
            format!("an MTU of {mtu} is too small for {family}"),
            format!("give at least {least}"),
        ))
    }
}

/// Labels of those that are exempt from `--icc=false`, if they can be read.
fn exempt(text: Option<&str>) -> Result<Option<String>, ControlError> {
    let Some(text) = text.filter(|text| !text.is_empty()) else { return Ok(None) };
    match policy::selector(text) {
        Ok(_) => Ok(Some(text.to_owned())),
        Err(why) => Err(ControlError::invalid(
            format!("`{text}` cannot say who is exempt from --icc=false: {why}"),
            "write labels as kubectl has them: role=server, role in (server, proxy)",
        )),
    }
}

/// What the words allow and this version does not do.
fn not_yet(spec: &NetworkSpec) -> Result<(), ControlError> {
    if spec.span {
        return Err(ControlError::unsupported(
            "networks that span nodes are not part of this version",
            "leave --span out",
        ));
    }
    Ok(())
}

/// `a`, `a and b`, `a, b and c`, and so on, cut off where nobody reads on.
pub(super) fn in_words<T: AsRef<str>>(names: impl Iterator<Item = T>) -> String {
    const NAMED: usize = 8;
    let names: Vec<T> = names.collect();
    let shown = names.iter().take(NAMED).map(AsRef::as_ref).collect::<Vec<_>>();
    match (shown.as_slice(), names.len().saturating_sub(NAMED)) {
        ([], _) => "nobody".to_owned(),
        ([one], 0) => (*one).to_owned(),
        ([first @ .., last], 0) => format!("{} and {last}", first.join(", ")),
        (all, more) => format!("{} and {more} more", all.join(", ")),
    }
}

fn ranges_in_words(subnets: &[(IpNet, IpAddr)]) -> String {
    in_words(subnets.iter().map(|(net, _)| net.to_string()))
}

impl NetworkRecord {
    /// Whether this is what a specification asks for, as far as it cannot be changed later.
    pub(super) fn has_subnets_of(&self, spec: &NetworkSpec) -> bool {
        spec.subnets.iter().all(|s| self.subnets.iter().any(|(net, _)| net == s))
    }
}
