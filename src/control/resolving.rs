//! Names: what each network's name server knows, and whom it asks about the rest.

use std::net::IpAddr;
use std::sync::Arc;

use super::Control;
use super::state::State;
use super::store::record::NetworkRecord;
use crate::base::ids::NetworkId;
use crate::config::Delta;
use crate::stage::dns::Zone;
use crate::wire::addr::Addr;

/// What the host is called where containers may reach its loopback: our own word, and those that
/// users of Docker and of Podman know.
const HOST_NAMES: [&str; 3] =
    ["host.wharf.internal", "host.docker.internal", "host.containers.internal"];

impl Control {
    /// Tells the workers what is called how on a network.
    pub(super) fn send_names(&self, id: NetworkId) {
        let Some(network) = self.state.networks.get(&id) else { return };
        let zone = zone(&self.state, &network.record);
        self.send_deltas(vec![Delta::Names(id, Arc::new(zone))]);
    }

    /// Tells the workers whom to ask, if that has changed: the config file's name servers, else the
    /// host's.
    pub fn refresh_resolvers(&mut self) {
        let configured = &self.settings.config.dns;
        let mut resolvers = if configured.is_empty() {
            self.outside.host.name_servers()
        } else {
            configured.clone()
        };
        // A gateway of ours would be asked by itself.
        resolvers.retain(|addr| !self.is_gateway(*addr));
        if resolvers == self.resolvers {
            return;
        }
        tracing::info!(?resolvers, "names are asked of");
        let told = resolvers.iter().copied().map(Addr::from).collect();
        self.resolvers = resolvers;
        self.send_deltas(vec![Delta::Resolvers(told)]);
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
        let record = &endpoint.record;
        let whole = format!("{}.{}", record.name, network.name);
        for addr in record.addrs.iter().copied().map(Addr::from) {
            let names = record.aliases.iter().map(String::as_str);
            names.chain([record.name.as_str(), &whole]).for_each(|name| zone.add(name, addr));
            zone.add_reverse(addr, &whole);
        }
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
