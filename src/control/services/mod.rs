//! Services: made, changed, removed, shown, and kept in step with the endpoints that are their backends.

mod backends;
mod compile;
mod health;
mod plan;

use std::collections::BTreeMap;

use super::Control;
use super::error::ControlError;
use super::ipam::range::AddressRange;
use super::model::{
    BackendInfo, EventKind, ServiceInfo, ServicePort, ServiceSpec, ServiceUpdate, UplinkKind,
};
use super::networks::in_words;
use super::store::record::{EndpointRecord, Record, ServiceRecord};
use crate::base::ids::{PublicationId, ServiceId};
use crate::config::Delta;
use crate::io::netfilter::table::Held;

use self::health::Conditions;

pub(super) use self::backends::Member;

/// All services and what they hold.
#[derive(Debug, Default)]
pub(super) struct Services {
    all: BTreeMap<ServiceId, ServiceState>,
    /// Where virtual addresses are chosen from, one range of each family.
    pools: Vec<AddressRange>,
    /// Whose the node ports are, by the number under which they are reserved.
    node_ports: BTreeMap<PublicationId, ServiceId>,
    next: u32,
}

/// A service and who serves it.
#[derive(Debug)]
struct ServiceState {
    record: ServiceRecord,
    members: Vec<Member>,
    /// How those are that are asked.
    conditions: Conditions,
}

impl Services {
    fn named(&self, name: &str) -> Result<&ServiceState, ControlError> {
        let found = self.all.values().find(|s| s.record.spec.name == name);
        found.ok_or_else(|| ControlError::not_found("service", name))
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.all.len()
    }
}

impl Control {
    /// Makes a service.
    pub fn create_service(&mut self, spec: &ServiceSpec) -> Result<ServiceInfo, ControlError> {
        let record = self.plan_service(spec)?;
        if let Err(error) = self.write(&[record.put()]) {
            self.unplan_service(&record);
            return Err(error);
        }
        let text = if record.spec.headless {
            format!("service {} without an address", record.spec.name)
        } else {
            let vips = in_words(record.spec.vips.iter().map(ToString::to_string));
            format!("service {} at {vips}", record.spec.name)
        };
        let name = record.spec.name.clone();
        self.install_service(record, false);
        self.refresh_host_addresses();
        self.event(EventKind::ServiceCreated, None, None, text);
        self.service(&name)
    }

    /// Changes a service.
    pub fn update_service(
        &mut self,
        name: &str,
        update: &ServiceUpdate,
    ) -> Result<ServiceInfo, ControlError> {
        let mut record = self.services.named(name)?.record.clone();
        let spec = &mut record.spec;
        if let Some(backends) = &update.backends {
            spec.backends.clone_from(backends);
        }
        if let Some(selector) = &update.selector {
            spec.selector.clone_from(selector);
        }
        spec.weights.extend(update.weights.clone());
        spec.weights.retain(|_, weight| *weight != 1);
        match update.affinity {
            None => {}
            Some(0) => spec.affinity = None,
            Some(seconds) => spec.affinity = Some(seconds.try_into()?),
        }
        spec.internal_policy = update.internal_policy.unwrap_or(spec.internal_policy);
        spec.external_policy = update.external_policy.unwrap_or(spec.external_policy);
        if update.health.is_some() || update.no_health {
            spec.health.clone_from(&update.health);
        }
        self.check_service(&record.spec)?;
        self.write(&[record.put()])?;
        if let Some(state) = self.services.all.get_mut(&record.id) {
            state.record = record.clone();
        }
        self.send_service(record.id);
        self.event(EventKind::ServiceUpdated, None, None, format!("service {name} changed"));
        self.service(name)
    }

    /// Removes a service.
    pub fn remove_service(&mut self, name: &str) -> Result<(), ControlError> {
        let record = self.services.named(name)?.record.clone();
        self.write(&[record.remove()])?;
        self.services.all.remove(&record.id);
        self.send_deltas(vec![Delta::RemoveService(record.id)]);
        self.hold(&[], &held_by(&record));
        self.unplan_service(&record);
        self.event(EventKind::ServiceRemoved, None, None, format!("service {name} removed"));
        Ok(())
    }

    /// All services, by name.
    pub fn services(&self) -> Vec<ServiceInfo> {
        let mut all: Vec<_> = self.services.all.values().map(|s| self.service_info(s)).collect();
        all.sort_by(|a, b| a.spec.name.cmp(&b.spec.name));
        all
    }

    /// One service.
    pub fn service(&self, name: &str) -> Result<ServiceInfo, ControlError> {
        Ok(self.service_info(self.services.named(name)?))
    }

    fn service_info(&self, state: &ServiceState) -> ServiceInfo {
        let info = |member: &Member| BackendInfo {
            name: member.name.clone(),
            addresses: member.addrs.clone(),
            port: member.port,
            weight: member.weight,
            ready: member.serving().next().is_some() && member.weight > 0,
            unready: member.unready.clone(),
        };
        ServiceInfo {
            id: state.record.id,
            spec: state.record.spec.clone(),
            members: state.members.iter().map(info).collect(),
            warnings: self.service_warnings(state),
            created_ms: state.record.created_ms,
        }
    }

    fn service_warnings(&self, state: &ServiceState) -> Vec<String> {
        let spec = &state.record.spec;
        let mut warnings = Vec::new();
        if spec.backends.is_empty() && spec.selector.is_empty() {
            warnings.push("it has neither backends nor a selector".to_owned());
        }
        if !spec.selector.is_empty() && !state.members.iter().any(|m| m.selected) {
            let labels = spec.selector.iter().map(|(key, value)| format!("{key}={value}"));
            let labels = labels.collect::<Vec<_>>().join(",");
            warnings.push(format!("no container has the labels {labels}"));
        }
        let missing = spec.backends.iter().filter(|b| self.backend_is_missing(b));
        warnings.extend(missing.map(|b| format!("there is no container for the backend `{b}`")));
        let is_packet = |kind: &UplinkKind| matches!(kind, UplinkKind::Packet(_));
        let mut uplinks = self.state.uplinks.values();
        if !spec.node_ports.is_empty() && !uplinks.any(|u| is_packet(&u.record.spec.kind)) {
            let text = "its node ports answer containers only: there is no packet uplink";
            warnings.push(text.to_owned());
        }
        let routes = self.outside.host.routes().unwrap_or_default();
        for vip in &spec.vips {
            let hidden = |c: &&super::ipam::Claim| {
                !super::ipam::pools::is_catch_all(c) && c.net.contains(vip)
            };
            warnings.extend(routes.iter().find(hidden).map(|claim| {
                format!("{vip} hides what {} leads to from containers", claim.holder)
            }));
        }
        warnings
    }

    /// Takes a stored service in and tells the workers. Backends that are there already are `trusted` to
    /// serve until they are found not to, if they did so for an earlier daemon: its connections go on.
    fn install_service(&mut self, record: ServiceRecord, trusted: bool) {
        let id = record.id;
        self.hold(&held_by(&record), &[]);
        self.services.next = self.services.next.max(id.0.saturating_add(1));
        let (members, conditions) = (Vec::new(), Conditions::new());
        self.services.all.insert(id, ServiceState { record, members, conditions });
        self.compile_service(id, trusted);
    }

    /// What node ports take of the host's addresses.
    pub(super) fn held_by_services(&self) -> impl Iterator<Item = Held> {
        self.services.all.values().flat_map(|state| held_by(&state.record))
    }

    /// Services that the store has, once endpoints are there.
    pub(super) fn restore_services(&mut self, records: Vec<ServiceRecord>) {
        for record in records {
            if let Err(error) = self.claim_service(&record) {
                let name = &record.spec.name;
                let text = format!("service {name} did not survive the restart: {error}");
                self.event(EventKind::ServiceRemoved, None, None, text);
                continue;
            }
            self.install_service(record, true);
        }
    }

    /// An endpoint came, or went: those that may have it for a backend are looked at anew.
    pub(super) fn endpoint_changed(&mut self, record: &EndpointRecord) {
        let concerned = self.services.all.values().filter(|state| {
            let is_member = state.members.iter().any(|m| m.endpoint.as_ref() == Some(&record.id));
            is_member || backends::may_serve(&state.record.spec, record)
        });
        let ids: Vec<ServiceId> = concerned.map(|state| state.record.id).collect();
        for id in ids {
            self.send_service(id);
        }
    }

    /// Finds a service's backends and tells the workers of them.
    fn send_service(&mut self, id: ServiceId) {
        self.compile_service(id, false);
    }

    fn compile_service(&mut self, id: ServiceId, trusted: bool) {
        let Some(state) = self.services.all.get(&id) else { return };
        let spec = &state.record.spec;
        let mut members = self.members_of(spec);
        let conditions = health::apply(spec, &state.conditions, &mut members, trusted);
        let delta = compile::service(&state.record, &members, &conditions);
        if let Some(state) = self.services.all.get_mut(&id) {
            (state.members, state.conditions) = (members, conditions);
        }
        self.send_deltas(vec![delta]);
    }
}

fn held_by(record: &ServiceRecord) -> Vec<Held> {
    let ports = record.spec.node_ports.iter().zip(&record.spec.ports);
    let of = |(number, port): (&u16, &ServicePort)| {
        let proto = port.proto.number();
        [false, true].map(|v6| Held::Port { v6, proto, port: *number })
    };
    ports.flat_map(of).collect()
}
