//! Desired state in memory, with the indexes that requests need. Records go in and out whole; what can
//! be derived from them (who holds which address, port and number) is kept in step here and nowhere
//! else.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;

use super::host_ports::HostPorts;
use super::ipam::IpamError;
use super::ipam::range::AddressRange;
use super::numbers::Numbers;
use super::outside::HostWatch;
use super::share::Share;
use super::store::record::{EndpointRecord, NetworkRecord, PublicationRecord, UplinkRecord};
use crate::base::ids::{NetworkId, PortId, PublicationId, UplinkId};
use crate::base::limits::{NETWORKS_MAX, PORTS_MAX, UPLINKS_MAX};
use crate::datapath::Lan;

/// A network and who has its addresses.
#[derive(Debug)]
pub(super) struct NetworkState {
    pub(super) record: NetworkRecord,
    pub(super) ranges: Vec<AddressRange>,
}

/// An uplink and how it is.
#[derive(Debug)]
pub(super) struct UplinkState {
    pub(super) record: UplinkRecord,
    /// Why it does not work, if it does not.
    pub(super) failure: Option<String>,
    /// The NIC's MTU.
    pub(super) mtu: u16,
    /// Whether UDP super-frames may be sent.
    pub(super) uso: bool,
    /// What the LAN gave us, by family: IPv4 by DHCP, IPv6 by router advertisements.
    pub(super) lan: Lan,
    /// What sharing the host's address takes, while it does.
    pub(super) share: Option<Share>,
    /// Tells of changes of the host that an uplink which shares its address must know, working or not.
    #[allow(dead_code, reason = "held for its drop")]
    pub(super) watch: Option<Box<dyn HostWatch>>,
}

/// An endpoint and how it is.
#[derive(Debug)]
pub(super) struct EndpointState {
    pub(super) record: EndpointRecord,
    /// Whether its TAP takes UDP super-frames.
    pub(super) uso: bool,
    pub(super) publications: BTreeSet<PublicationId>,
}

/// All of it.
#[derive(Debug)]
pub(super) struct State {
    pub(super) networks: BTreeMap<NetworkId, NetworkState>,
    pub(super) uplinks: BTreeMap<UplinkId, UplinkState>,
    pub(super) endpoints: BTreeMap<String, EndpointState>,
    pub(super) publications: BTreeMap<PublicationId, PublicationRecord>,
    pub(super) host_ports: HostPorts,
    pub(super) ports: Numbers,
    pub(super) network_ids: Numbers,
    pub(super) uplink_ids: Numbers,
    by_name: BTreeMap<String, BTreeSet<String>>,
    by_port: BTreeMap<PortId, String>,
    members: BTreeMap<NetworkId, BTreeSet<String>>,
    next_publication: u32,
}

impl State {
    pub(super) fn new() -> Self {
        Self {
            networks: BTreeMap::new(),
            uplinks: BTreeMap::new(),
            endpoints: BTreeMap::new(),
            publications: BTreeMap::new(),
            host_ports: HostPorts::default(),
            ports: Numbers::below(PORTS_MAX as u16),
            network_ids: Numbers::below(NETWORKS_MAX as u16),
            uplink_ids: Numbers::below(UPLINKS_MAX as u16),
            by_name: BTreeMap::new(),
            by_port: BTreeMap::new(),
            members: BTreeMap::new(),
            next_publication: 1,
        }
    }

    pub(super) fn network(&self, name: &str) -> Option<&NetworkState> {
        self.networks.values().find(|n| n.record.name == name)
    }

    pub(super) fn uplink(&self, name: &str) -> Option<&UplinkState> {
        self.uplinks.values().find(|u| u.record.spec.name == name)
    }

    /// Endpoints of one container, oldest first.
    pub(super) fn named(&self, name: &str) -> Vec<&EndpointState> {
        let ids = self.by_name.get(name).into_iter().flatten();
        let mut found: Vec<_> = ids.filter_map(|id| self.endpoints.get(id)).collect();
        found.sort_by_key(|e| (e.record.since_ms, e.record.port));
        found
    }

    pub(super) fn at_port(&self, port: PortId) -> Option<&EndpointState> {
        self.endpoints.get(self.by_port.get(&port)?)
    }

    /// Endpoints of a network, in the order of their identities.
    pub(super) fn members(&self, network: NetworkId) -> impl Iterator<Item = &EndpointState> {
        let ids = self.members.get(&network).into_iter().flatten();
        ids.filter_map(|id| self.endpoints.get(id))
    }

    pub(super) fn network_name(&self, id: NetworkId) -> &str {
        self.networks.get(&id).map_or("?", |n| &n.record.name)
    }

    /// Takes in a network whose number is claimed.
    pub(super) fn insert_network(&mut self, record: NetworkRecord) -> Result<(), IpamError> {
        let ranges = ranges_of(&record.subnets)?;
        self.networks.insert(record.id, NetworkState { record, ranges });
        Ok(())
    }

    pub(super) fn remove_network(&mut self, id: NetworkId) -> Option<NetworkRecord> {
        let network = self.networks.remove(&id)?;
        self.members.remove(&id);
        self.network_ids.give_back(id.0);
        if let Some(host) = &network.record.host {
            self.ports.give_back(host.port.0);
        }
        Some(network.record)
    }

    pub(super) fn remove_uplink(&mut self, id: UplinkId) -> Option<UplinkState> {
        let uplink = self.uplinks.remove(&id)?;
        self.uplink_ids.give_back(id.0);
        self.ports.give_back(uplink.record.port.0);
        Some(uplink)
    }

    /// Takes in an endpoint whose number and addresses are claimed.
    pub(super) fn insert_endpoint(&mut self, record: EndpointRecord, uso: bool) {
        let id = record.id.clone();
        self.by_name.entry(record.name.clone()).or_default().insert(id.clone());
        self.by_port.insert(record.port, id.clone());
        self.members.entry(record.network).or_default().insert(id.clone());
        let publications = BTreeSet::new();
        self.endpoints.insert(id, EndpointState { record, uso, publications });
    }

    /// Takes in what has changed of an endpoint's record: nothing but its name, labels and aliases.
    pub(super) fn rename_endpoint(&mut self, record: EndpointRecord) {
        let Some(endpoint) = self.endpoints.get_mut(&record.id) else { return };
        if let Some(ids) = self.by_name.get_mut(&endpoint.record.name) {
            ids.remove(&record.id);
            if ids.is_empty() {
                self.by_name.remove(&endpoint.record.name);
            }
        }
        self.by_name.entry(record.name.clone()).or_default().insert(record.id.clone());
        endpoint.record = record;
    }

    /// Lets an endpoint and all it holds go; its publications must have gone before.
    pub(super) fn remove_endpoint(&mut self, id: &str) -> Option<EndpointRecord> {
        let record = self.endpoints.remove(id)?.record;
        if let Some(ids) = self.by_name.get_mut(&record.name) {
            ids.remove(id);
            if ids.is_empty() {
                self.by_name.remove(&record.name);
            }
        }
        self.by_port.remove(&record.port);
        self.ports.give_back(record.port.0);
        if let Some(ids) = self.members.get_mut(&record.network) {
            ids.remove(id);
        }
        self.release(record.network, &record.addrs);
        Some(record)
    }

    /// Gives addresses of a network back.
    pub(super) fn release(&mut self, network: NetworkId, addrs: &[IpAddr]) {
        let Some(network) = self.networks.get_mut(&network) else { return };
        for range in &mut network.ranges {
            for addr in addrs {
                range.release(*addr);
            }
        }
    }

    /// Takes in a publication of an endpoint that exists.
    pub(super) fn insert_publication(&mut self, record: PublicationRecord) {
        let (proto, addr, ports) = (record.proto, record.host_addr, record.host_ports);
        self.host_ports.insert(proto, addr, ports, record.id);
        self.next_publication = self.next_publication.max(record.id.0.saturating_add(1));
        if let Some(endpoint) = self.endpoints.get_mut(&record.endpoint) {
            endpoint.publications.insert(record.id);
        }
        self.publications.insert(record.id, record);
    }

    pub(super) fn remove_publication(&mut self, id: PublicationId) -> Option<PublicationRecord> {
        let record = self.publications.remove(&id)?;
        self.host_ports.remove(record.proto, record.host_addr, record.host_ports);
        if let Some(endpoint) = self.endpoints.get_mut(&record.endpoint) {
            endpoint.publications.remove(&id);
        }
        Some(record)
    }

    /// A number no publication has. Four thousand million publications wrap it.
    pub(super) fn publication_id(&mut self) -> PublicationId {
        while self.publications.contains_key(&PublicationId(self.next_publication)) {
            self.next_publication = self.next_publication.wrapping_add(1);
        }
        let id = PublicationId(self.next_publication);
        self.next_publication = self.next_publication.wrapping_add(1);
        id
    }
}

/// The address ranges of a network's subnets.
pub(super) fn ranges_of(subnets: &[(IpNet, IpAddr)]) -> Result<Vec<AddressRange>, IpamError> {
    subnets.iter().map(|(net, gateway)| AddressRange::new(*net, Some(*gateway))).collect()
}

impl EndpointState {
    /// Its address of a family.
    pub(super) fn addr(&self, v6: bool) -> Option<IpAddr> {
        self.record.addrs.iter().copied().find(|a| a.is_ipv6() == v6)
    }
}
