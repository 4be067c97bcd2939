//! What a new service takes, checked against everything else: its name, addresses and node ports.

use std::net::IpAddr;

use super::super::error::ControlError;
use super::super::ipam::range::AddressRange;
use super::super::ipam::{Claim, IpamError};
use super::super::model::{
    BackendHost, BackendSpec, PortRange, Proto, ServiceSpec, node_port_range,
};
use super::super::store::record::ServiceRecord;
use super::super::{Control, names};
use super::health;
use crate::base::ids::{PublicationId, ServiceId};
use crate::base::limits::{
    LABELS_MAX, SERVICE_BACKENDS_MAX, SERVICE_PORTS_MAX, SERVICE_WEIGHT_MAX, SERVICES_MAX,
};

impl Control {
    /// Checks a new service, and chooses and reserves what it left open.
    pub(super) fn plan_service(
        &mut self,
        spec: &ServiceSpec,
    ) -> Result<ServiceRecord, ControlError> {
        names::check("a service", &spec.name)?;
        if self.services.named(&spec.name).is_ok() {
            let (kind, name, holder) = ("service", spec.name.clone(), String::new());
            return Err(ControlError::Exists { kind, name, holder });
        }
        if self.services.len() >= SERVICES_MAX {
            return Err(ControlError::Exhausted { what: "services", limit: SERVICES_MAX });
        }
        self.check_service(spec)?;
        let mut record = ServiceRecord {
            id: ServiceId(self.services.next),
            spec: spec.clone(),
            created_ms: self.now(),
        };
        record.spec.vips = self.take_vips(spec)?;
        match self.take_node_ports(&record) {
            Ok(ports) => record.spec.node_ports = ports,
            Err(error) => {
                self.give_vips_back(&record.spec.vips);
                return Err(error);
            }
        }
        Ok(record)
    }

    /// What can be wrong about a service by itself.
    pub(super) fn check_service(&self, spec: &ServiceSpec) -> Result<(), ControlError> {
        let invalid = |what: String, hint: &str| Err(ControlError::invalid(what, hint));
        if spec.ports.is_empty() && !spec.headless {
            return invalid(
                format!("the service `{}` has no port", spec.name),
                "name at least one: `--port 80:8080/tcp`",
            );
        }
        if spec.headless && (!spec.vips.is_empty() || !spec.node_ports.is_empty()) {
            return invalid(
                format!("`{}` is to have no address and yet an address or a node port", spec.name),
                "leave out either",
            );
        }
        for (n, port) in spec.ports.iter().enumerate() {
            if spec.ports[..n].iter().any(|p| (p.port, p.proto) == (port.port, port.proto)) {
                return invalid(
                    format!("the port {}/{} is named twice", port.port, port.proto),
                    "",
                );
            }
        }
        if spec.ports.len() > SERVICE_PORTS_MAX || spec.backends.len() > SERVICE_BACKENDS_MAX {
            return invalid(
                format!("`{}` has too many ports or backends", spec.name),
                "at most 64 ports and 1000 backends",
            );
        }
        if spec.selector.len() > LABELS_MAX || spec.weights.len() > SERVICE_BACKENDS_MAX {
            return invalid(format!("`{}` has too many labels or weights", spec.name), "use fewer");
        }
        if let Some((name, _)) = spec.weights.iter().find(|(_, w)| **w > SERVICE_WEIGHT_MAX) {
            return invalid(format!("the weight of `{name}` is too large"), "use 0 to 100");
        }
        health::check(spec)?;
        if let Some(network) = &spec.network {
            self.network(network)?;
        }
        spec.backends.iter().try_for_each(|backend| self.check_backend(spec, backend))
    }

    /// A backend's address must be one that somebody can have.
    fn check_backend(&self, spec: &ServiceSpec, backend: &BackendSpec) -> Result<(), ControlError> {
        let BackendHost::Addr(addr) = backend.host else { return Ok(()) };
        let virtual_one = |vips: &[IpAddr]| vips.contains(&addr);
        let mut others = self.services.all.values();
        let other = others.find(|s| virtual_one(&s.record.spec.vips));
        let holder = other.map(|s| s.record.spec.name.as_str());
        let itself = virtual_one(&spec.vips).then_some(spec.name.as_str());
        if let Some(name) = itself.or(holder) {
            return Err(ControlError::invalid(
                format!("the backend {addr} is the address of the service `{name}` itself"),
                "name containers, or the addresses that they have",
            ));
        }
        if addr.is_loopback() || addr.is_multicast() || addr.is_unspecified() {
            return Err(ControlError::invalid(
                format!("{addr} cannot be a backend's address"),
                "name a container, or an address that containers can reach",
            ));
        }
        Ok(())
    }

    fn take_vips(&mut self, spec: &ServiceSpec) -> Result<Vec<IpAddr>, ControlError> {
        if spec.headless {
            return Ok(Vec::new());
        }
        self.make_vip_pools()?;
        let holder = format!("the service `{}`", spec.name);
        if !spec.vips.is_empty() {
            for (n, vip) in spec.vips.iter().enumerate() {
                self.check_vip(*vip)?;
                if spec.vips[..n].iter().any(|other| other.is_ipv4() == vip.is_ipv4()) {
                    return Err(ControlError::invalid(
                        "a service has at most one address of each family",
                        "make a second service for the other one",
                    ));
                }
            }
            self.claim_vips(&spec.vips, &holder)?;
            return Ok(spec.vips.clone());
        }
        let mut taken = Vec::new();
        for pool in 0..self.services.pools.len() {
            match self.services.pools[pool].allocate(&holder) {
                Ok(vip) => taken.push(vip),
                Err(error) => {
                    self.give_vips_back(&taken);
                    return Err(error.into());
                }
            }
        }
        Ok(taken)
    }

    /// An address asked for by name may lie outside the pools, but not where a network is.
    fn check_vip(&self, vip: IpAddr) -> Result<(), ControlError> {
        let host = ipnet::IpNet::from(vip);
        if let Some(claim) = self.claims().iter().find(|c| c.net.contains(&vip)) {
            let (other, holder) = (claim.net, claim.holder.clone());
            return Err(IpamError::Overlap { subnet: host, other, holder }.into());
        }
        let taken = self.services.all.values().find(|s| s.record.spec.vips.contains(&vip));
        if let Some(state) = taken {
            let holder = format!("the service `{}`", state.record.spec.name);
            return Err(IpamError::Taken { addr: vip, holder }.into());
        }
        let link_local = match vip {
            IpAddr::V4(ip) => ip.is_link_local() || ip.is_broadcast(),
            IpAddr::V6(ip) => ip.is_unicast_link_local(),
        };
        if vip.is_loopback() || vip.is_multicast() || vip.is_unspecified() || link_local {
            return Err(ControlError::invalid(
                format!("{vip} cannot be the address of a service"),
                "use `--vip auto`, or an address that no host has",
            ));
        }
        Ok(())
    }

    fn claim_vips(&mut self, vips: &[IpAddr], holder: &str) -> Result<(), IpamError> {
        for (n, vip) in vips.iter().enumerate() {
            let mut pools = self.services.pools.iter_mut();
            let Some(pool) = pools.find(|pool| pool.subnet().contains(vip)) else { continue };
            if let Err(error) = pool.reserve(*vip, holder) {
                self.give_vips_back(&vips[..n]);
                return Err(error);
            }
        }
        Ok(())
    }

    fn give_vips_back(&mut self, vips: &[IpAddr]) {
        for pool in &mut self.services.pools {
            for vip in vips {
                if pool.subnet().contains(vip) {
                    pool.release(*vip);
                }
            }
        }
    }

    /// The pools begin to exist with the first service: who has none may use their ranges for networks.
    fn make_vip_pools(&mut self) -> Result<(), ControlError> {
        if !self.services.pools.is_empty() {
            return Ok(());
        }
        let pools = self.settings.config.service_pools();
        for pool in &pools {
            let claim =
                self.claims().into_iter().find(|c| super::super::ipam::overlaps(&c.net, pool));
            if let Some(Claim { net: other, holder }) = claim {
                return Err(IpamError::Overlap { subnet: *pool, other, holder }.into());
            }
        }
        let ranges: Result<_, _> =
            pools.iter().map(|pool| AddressRange::new(*pool, None)).collect();
        self.services.pools = ranges?;
        Ok(())
    }

    /// The ranges of services' addresses, once there are services.
    pub(in crate::control) fn vip_claims(&self) -> impl Iterator<Item = Claim> {
        let pools = self.services.pools.iter().map(|pool| {
            let holder = "the addresses of services".to_owned();
            Claim { net: pool.subnet(), holder }
        });
        let single = self.services.all.values().flat_map(|state| {
            let holder = format!("the service {}", state.record.spec.name);
            let vips = state.record.spec.vips.iter();
            vips.map(move |vip| Claim { net: (*vip).into(), holder: holder.clone() })
        });
        pools.chain(single)
    }

    /// Chooses and reserves node ports.
    fn take_node_ports(&mut self, record: &ServiceRecord) -> Result<Vec<u16>, ControlError> {
        let spec = &record.spec;
        if spec.node_ports.len() > spec.ports.len() {
            return Err(ControlError::invalid(
                format!(
                    "`{}` has {} ports and {} node ports",
                    spec.name,
                    spec.ports.len(),
                    spec.node_ports.len()
                ),
                "name one node port for each port, in their order",
            ));
        }
        let mut taken: Vec<(Proto, u16)> = Vec::new();
        for (wanted, port) in spec.node_ports.iter().zip(&spec.ports) {
            match self.take_node_port(record.id, *wanted, port.proto) {
                Ok(number) => taken.push((port.proto, number)),
                Err(error) => {
                    self.give_node_ports_back(&taken);
                    return Err(error);
                }
            }
        }
        Ok(taken.into_iter().map(|(_, number)| number).collect())
    }

    fn take_node_port(
        &mut self,
        service: ServiceId,
        wanted: u16,
        proto: Proto,
    ) -> Result<u16, ControlError> {
        let range = node_port_range();
        let ports = if wanted == 0 {
            let free = self.state.host_ports.choose(proto, None, 1, range);
            free.ok_or_else(|| ControlError::NoPortFree { from: range.to_string(), proto })?
        } else {
            if !(range.first()..=range.last()).contains(&wanted) {
                return Err(ControlError::invalid(
                    format!("{wanted} is not a node port"),
                    format!("node ports lie within {range}; `auto` has one chosen"),
                ));
            }
            let ports = PortRange::single(wanted);
            if let Some(id) = self.state.host_ports.holder(proto, None, ports) {
                return Err(self.node_port_taken(wanted, proto, id));
            }
            ports
        };
        let id = self.state.publication_id();
        self.services.node_ports.insert(id, service);
        self.state.host_ports.insert(proto, None, ports, id);
        Ok(ports.first())
    }

    fn node_port_taken(&self, port: u16, proto: Proto, id: PublicationId) -> ControlError {
        let service = self.node_port_holder(id).map(|name| format!("the service {name}"));
        let published = self.state.publications.get(&id).map(|p| self.publication_info(p));
        let endpoint = published.as_ref().map(|info| info.endpoint.clone());
        ControlError::PortTaken {
            ports: port.to_string(),
            proto,
            host: "the host's addresses".to_owned(),
            holder: service.or(endpoint).unwrap_or_default(),
            published: published.map_or_else(|| port.to_string(), |info| info.to_string()),
        }
    }

    /// Name of the service that has a node port.
    pub(in crate::control) fn node_port_holder(&self, id: PublicationId) -> Option<String> {
        let service = self.services.all.get(self.services.node_ports.get(&id)?)?;
        Some(service.record.spec.name.clone())
    }

    fn give_node_ports_back(&mut self, taken: &[(Proto, u16)]) {
        for (proto, number) in taken {
            let ports = PortRange::single(*number);
            if let Some(id) = self.state.host_ports.holder(*proto, None, ports) {
                self.services.node_ports.remove(&id);
            }
            self.state.host_ports.remove(*proto, None, ports);
        }
    }

    /// Lets go of what was reserved for a service.
    pub(super) fn unplan_service(&mut self, record: &ServiceRecord) {
        self.give_vips_back(&record.spec.vips);
        let ports = record.spec.node_ports.iter().zip(&record.spec.ports);
        let taken: Vec<_> = ports.map(|(number, port)| (port.proto, *number)).collect();
        self.give_node_ports_back(&taken);
    }

    /// Reserves what a stored service has.
    pub(super) fn claim_service(&mut self, record: &ServiceRecord) -> Result<(), ControlError> {
        self.make_vip_pools()?;
        self.claim_vips(&record.spec.vips, &format!("the service `{}`", record.spec.name))?;
        if let Err(error) = self.take_node_ports(record) {
            self.give_vips_back(&record.spec.vips);
            return Err(error);
        }
        Ok(())
    }
}
