//! Names: what each network's name server knows, and whom it asks about the rest.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use super::Control;
use super::attaching::SHORT_ID;
use super::state::State;
use super::store::record::{EndpointRecord, NetworkRecord};
use crate::base::ids::NetworkId;
use crate::config::Delta;
use crate::stage::dns::{Named, Zone};
use crate::wire::addr::Addr;

/// What the host is called where containers may reach its loopback: our own word, and those that
/// users of Docker and of Podman know.
const HOST_NAMES: [&str; 3] =
    ["host.wharf.internal", "host.docker.internal", "host.containers.internal"];

impl Control {
    /// Tells the workers all that is called how on a network.
    pub(super) fn send_names(&self, id: NetworkId) {
        let Some(network) = self.state.networks.get(&id) else { return };
        let zone = zone(&self.state, &network.record);
        self.send_deltas(vec![Delta::Names(id, Arc::new(zone))]);
    }

    /// Tells the workers what an endpoint is called, or that it is gone.
    pub(super) fn send_name(&self, record: &EndpointRecord, is_there: bool) {
        let Some(network) = self.state.networks.get(&record.network) else { return };
        let named = is_there.then(|| Arc::new(named(record, &network.record.name)));
        self.send_deltas(vec![Delta::Name(record.network, record.port, named)]);
    }

    /// Tells the workers whom to ask, if that has changed: the config file's name servers, else the
    /// host's, and after these the ones that a LAN named to an uplink. Containers are told the gateway in any
    /// case: a LAN's server knows no container.
    pub fn refresh_resolvers(&mut self) {
        let configured = &self.settings.config.dns;
        let mut resolvers: Vec<IpAddr> = if configured.is_empty() {
            let leased = self.state.uplinks.values().flat_map(|uplink| &uplink.lan.dns);
            let leased = leased.map(|addr| addr.ip());
            self.outside.host.name_servers().into_iter().chain(leased).collect()
        } else {
            configured.clone()
        };
        // A gateway of ours would be asked by itself; and each is asked once.
        let mut seen = BTreeSet::new();
        resolvers.retain(|addr| !self.is_gateway(*addr) && seen.insert(*addr));
        if resolvers == self.resolvers {
            return;
        }
        tracing::info!(?resolvers, "names are asked of");
        let told = resolvers.iter().copied().map(Addr::from).collect();
        self.resolvers = resolvers;
        self.send_deltas(vec![Delta::Resolvers(told)]);
    }

    /// Domains in which an endpoint's short names are looked for beside its own network: the host's, if
    /// it may ask about them at all.
    pub(super) fn search_domains(&self, record: &EndpointRecord) -> Vec<String> {
        let network = self.state.networks.get(&record.network);
        let internal = network.is_none_or(|n| n.record.internal);
        if internal { Vec::new() } else { self.outside.host.search_domains() }
    }

    fn is_gateway(&self, addr: IpAddr) -> bool {
        let ours = !self.settings.guise.transparent;
        let mut networks = self.state.networks.values().filter(|_| ours);
        networks.any(|n| n.record.subnets.iter().any(|(_, gateway)| *gateway == addr))
    }
}

fn zone(state: &State, network: &NetworkRecord) -> Zone {
    let subnets = network.subnets.iter();
    let mut zone = Zone::new(subnets.map(|(n, _)| (n.network().into(), n.prefix_len())).collect());
    for endpoint in state.members(network.id) {
        let named = named(&endpoint.record, &network.name);
        zone.put(endpoint.record.port, Some(named.into()));
    }
    if network.host_loopback {
        for (_, gateway) in &network.subnets {
            for name in HOST_NAMES {
                zone.add(name, (*gateway).into());
            }
        }
    }
    zone
}

/// An endpoint's name, alone and with its network's, its aliases, and the short forms of its own
/// identity and of the one that its engine gave it.
fn named(record: &EndpointRecord, network: &str) -> Named {
    let whole = format!("{}.{network}", record.name);
    let ids = [Some(record.id.as_str()), record.container_id.as_deref()];
    let ids = ids.into_iter().flatten().filter_map(|id| id.get(..SHORT_ID));
    let names = record.aliases.iter().map(String::as_str).chain(ids);
    let names = names.chain([record.name.as_str(), &whole]).map(str::to_ascii_lowercase);
    Named {
        names: names.collect(),
        whole: whole.to_ascii_lowercase(),
        addrs: record.addrs.iter().copied().map(Addr::from).collect(),
        ..Named::default()
    }
}
