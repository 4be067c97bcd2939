//! This node's part of a cluster: its network, its endpoints' records, and what is known of other nodes.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;

use super::cluster::records::{Backend, EndpointRecord as Told};
use super::cluster::{
    Beginning, Cluster, ErrandError, Machine, Reachable, Removed, identity, subnet_env,
};
use super::error::ControlError;
use super::model::{
    EventKind, NetworkSpec, NodeEndpoint, NodeInfo, NodeRemoved, NodeSpec, PeerSpec,
};
use super::networks::in_words;
use super::store::record::EndpointRecord;
use super::{Control, node_key};
use crate::base::limits::CLUSTER_RECORD_BYTES_MAX;
use crate::config::BackendKind;

/// This node in its cluster.
#[derive(Debug)]
pub(super) struct Joined {
    cluster: Cluster,
    /// What keeps it out.
    trouble: Option<String>,
    /// The nodes that can be reached.
    reached: BTreeMap<String, Reachable>,
    /// Nodes to which there is no route all the same, and why.
    refused: BTreeMap<String, String>,
}

impl Control {
    /// Prepares to join the cluster of the config file, if there is one. The caller starts what this gives.
    pub fn join(&mut self) -> Result<Option<Cluster>, ControlError> {
        let Some(config) = self.settings.config.cluster.clone() else { return Ok(None) };
        let me = identity::of(&self.settings.paths.state_dir, &config.node_name())?;
        let held = self.state.network(config.network_name());
        let held = held.map(|n| n.record.subnets.iter().map(|(net, _)| *net).collect());
        let addresses = self.outside.host.addresses().unwrap_or_default();
        let key = match config.backend {
            BackendKind::Wireguard => Some(node_key::of(&self.settings.paths.state_dir)?.public()),
            BackendKind::Vxlan => None,
        };
        let beginning = Beginning { me, held, addresses, since_ms: self.started_ms, key };
        let cluster = Cluster::new(&config, beginning)
            .map_err(|why| ControlError::invalid(why, "change `[cluster]` in the config file"))?;
        self.joined = Some(Joined {
            cluster: cluster.clone(),
            trouble: None,
            reached: BTreeMap::new(),
            refused: BTreeMap::new(),
        });
        for endpoint in self.state.endpoints.values() {
            self.tell_nodes(&endpoint.record, true);
        }
        Ok(Some(cluster))
    }

    /// The cluster, to do what takes time without holding control up.
    pub fn cluster(&self) -> Result<Cluster, ControlError> {
        let none = || {
            ControlError::invalid(
                "this node is in no cluster",
                "name the members of etcd in `[cluster]` of the config file",
            )
        };
        self.joined.as_ref().map(|joined| joined.cluster.clone()).ok_or_else(none)
    }

    /// This node owns these subnets: they become its cluster network. Gives what that network has.
    pub fn cluster_owned(&mut self, subnets: &[IpNet]) -> Option<Vec<IpNet>> {
        let name = self.joined.as_ref()?.cluster.config().network_name().to_owned();
        let network = self.state.network(&name).map(|n| n.record.clone());
        let held =
            network.map(|record| record.subnets.iter().map(|(net, _)| *net).collect::<Vec<_>>());
        if held.as_deref() == Some(subnets) {
            if let Err(error) = self.open_end(subnets) {
                let text = format!("this node has no end of a tunnel: {error}");
                self.cluster_trouble(Some(&text));
            }
            let mtu = self.state.network(&name).map_or(0, |n| n.record.mtu);
            self.write_subnet_env(subnets, mtu);
            return held;
        }
        if let Some(held) = self.cluster_homeless() {
            return Some(held);
        }
        let spec = NetworkSpec { subnets: subnets.to_vec(), ..NetworkSpec::named(&name) };
        // The tunnels first: the network's MTU is what fits through them.
        match self.open_end(subnets).and_then(|()| self.create_network(&spec)) {
            Ok(made) => {
                self.write_subnet_env(subnets, made.mtu);
                Some(subnets.to_vec())
            }
            Err(error) => {
                let words = in_words(subnets.iter().map(IpNet::to_string));
                let text = format!("this node owns {words} and cannot use it: {error}");
                self.cluster_trouble(Some(&text));
                None
            }
        }
    }

    /// Opens this node's end of the tunnels, with a route to every node that is known already.
    fn open_end(&mut self, subnets: &[IpNet]) -> Result<(), ControlError> {
        let cluster = self.cluster()?;
        if let Some(end) = cluster.look(|m| m.end().cloned()) {
            let config = cluster.config();
            let (backend, vni, port, mac) = match end {
                Backend::Vxlan { vni, port, mac } => (BackendKind::Vxlan, vni, port, Some(mac)),
                Backend::Wireguard { port, .. } => (BackendKind::Wireguard, 1, port, None),
            };
            self.set_node(&NodeSpec {
                subnets: subnets.to_vec(),
                backend,
                vni,
                port: Some(port),
                keep_alive: config.keep_alive,
                addresses: config.addresses.clone(),
                one_port: false,
                mac,
                mtu: None,
            })?;
        }
        let known = self.joined.as_ref().map(|joined| joined.reached.clone()).unwrap_or_default();
        self.route_to(&known);
        Ok(())
    }

    /// Routes to these nodes; what cannot be is told with the node.
    fn route_to(&mut self, nodes: &BTreeMap<String, Reachable>) {
        for (name, node) in nodes {
            let Some(end) = node.alive.backend.clone() else { continue };
            let Some(address) = node.alive.addresses.first().copied() else { continue };
            let (port, mac, vni, key) = match end {
                Backend::Vxlan { vni, port, mac } => (port, Some(mac), Some(vni), None),
                Backend::Wireguard { key, port } => (port, None, None, Some(key)),
            };
            let (subnets, name) = (node.subnets.clone(), name.clone());
            let spec = PeerSpec { name, address, port: Some(port), subnets, mac, vni, key };
            let routed = self.put_peer(&spec);
            let Some(joined) = &mut self.joined else { return };
            match routed {
                Ok(()) => drop(joined.refused.remove(&spec.name)),
                Err(error) => {
                    let text = format!("there is no route to it: {error}");
                    tracing::warn!(node = spec.name, "{text}");
                    joined.refused.insert(spec.name, text);
                }
            }
        }
    }

    /// What Flannel's CNI plugin wants to know, if it was asked for.
    fn write_subnet_env(&self, subnets: &[IpNet], mtu: u16) {
        let Some(joined) = &self.joined else { return };
        let path = joined.cluster.config().subnet_env.as_ref();
        let Some((path, plan)) = path.zip(joined.cluster.look(Machine::plan)) else { return };
        if let Err(error) = subnet_env::write(path, &plan, subnets, mtu) {
            tracing::error!("cannot write {}: {error}", path.display());
        }
    }

    /// The cluster network has subnets that are not this node's (any more). It goes, unless containers have
    /// addresses of it: these never move. Gives what it has then.
    pub fn cluster_homeless(&mut self) -> Option<Vec<IpNet>> {
        let name = self.joined.as_ref()?.cluster.config().network_name().to_owned();
        let record = &self.state.network(&name)?.record;
        let held = record.subnets.iter().map(|(net, _)| *net).collect();
        if self.state.members(record.id).next().is_some() {
            return Some(held);
        }
        let removed = self.remove_any_network(&name, false);
        removed.err().map(|error| {
            tracing::error!("{error}");
            held
        })
    }

    /// Other nodes that can be reached, from now on.
    pub fn cluster_peers(&mut self, peers: &BTreeMap<String, Reachable>) {
        let Some(joined) = &mut self.joined else { return };
        let changed: BTreeMap<String, Reachable> = peers
            .iter()
            .filter(|(name, node)| joined.reached.get(*name) != Some(*node))
            .map(|(name, node)| (name.clone(), node.clone()))
            .collect();
        let before = std::mem::replace(&mut joined.reached, peers.clone());
        let before: BTreeSet<String> = before.into_keys().collect();
        let now: BTreeSet<String> = peers.keys().cloned().collect();
        // Those who go first: a subnet may have passed from one to another.
        for name in before.difference(&now) {
            if let Some(joined) = &mut self.joined {
                joined.refused.remove(name);
            }
            // One that was refused has no route to be withdrawn.
            let _ = self.remove_peer(name);
        }
        self.route_to(&changed);
        for name in now.difference(&before) {
            let subnets = peers.get(name).map(|peer| &peer.subnets);
            let subnets = in_words(subnets.into_iter().flatten().map(IpNet::to_string));
            self.event(EventKind::NodeJoined, None, None, format!("node {name} with {subnets}"));
        }
        for name in before.difference(&now) {
            let text = format!("node {name} is silent; there are no routes to it any more");
            self.event(EventKind::NodeLost, None, None, text);
        }
    }

    /// What keeps this node out of its cluster, or that nothing does any more.
    pub fn cluster_trouble(&mut self, words: Option<&str>) {
        let Some(joined) = &mut self.joined else { return };
        joined.trouble = words.map(str::to_owned);
        if let Some(words) = words {
            self.event(EventKind::ClusterTrouble, None, None, words.to_owned());
        }
    }

    /// Tells other nodes of an endpoint, or that it is gone.
    pub(super) fn tell_nodes(&self, record: &EndpointRecord, is_there: bool) {
        let Some(joined) = &self.joined else { return };
        let network = self.state.network_name(record.network).to_owned();
        let told = is_there.then(|| {
            let size = |(k, v): (&String, &String)| k.len() + v.len() + 8;
            let labels = &record.labels;
            // Labels beyond any use do not keep the address from being known.
            let fits = labels.iter().map(size).sum::<usize>() < CLUSTER_RECORD_BYTES_MAX / 2;
            Told {
                name: record.name.clone(),
                network,
                addresses: record.addrs.clone(),
                mac: record.mac,
                labels: if fits { labels.clone() } else { BTreeMap::new() },
            }
        });
        joined.cluster.endpoint(&record.id, told);
    }

    /// Whether a network is the cluster's, which nobody else may remove.
    pub(super) fn check_not_cluster_s(&self, network: &str) -> Result<(), ControlError> {
        match &self.joined {
            Some(joined) if joined.cluster.config().network_name() == network => {
                Err(ControlError::InUse {
                    kind: "network",
                    name: network.to_owned(),
                    users: "the cluster".to_owned(),
                    hint: "`wharf node rm` with this node's own name leaves the cluster, and removes it",
                })
            }
            _ => Ok(()),
        }
    }

    /// What `wharf status` should say about the cluster.
    pub(super) fn cluster_notes(&self) -> Vec<String> {
        let Some(joined) = &self.joined else { return Vec::new() };
        let mut notes: Vec<String> =
            joined.trouble.iter().map(|words| format!("cluster: {words}")).collect();
        let store = joined.cluster.store();
        if store.member.is_none() {
            let why = store.failure.unwrap_or_else(|| "not asked yet".to_owned());
            notes.push(format!("the cluster's store is away, and what is known of other nodes stays as it was: {why}"));
        }
        let faults = joined.cluster.look(|member| member.faults().len());
        if faults > 0 {
            notes.push(format!("{faults} keys of the cluster's store cannot be read; `wharf node inspect` says which"));
        }
        notes
    }

    /// All nodes, by name.
    pub fn nodes(&self) -> Result<Vec<NodeInfo>, ControlError> {
        let cluster = self.cluster()?;
        let mut nodes = cluster.look(Machine::nodes);
        for node in &mut nodes {
            let refused = self.joined.as_ref().and_then(|joined| joined.refused.get(&node.name));
            node.notes.extend(refused.cloned());
        }
        if let Some(this) = nodes.iter_mut().find(|node| node.this) {
            this.notes.extend(self.cluster_notes());
        }
        Ok(nodes)
    }

    /// One node.
    pub fn node(&self, name: &str) -> Result<NodeInfo, ControlError> {
        let found = self.nodes()?.into_iter().find(|node| node.name == name);
        found.ok_or_else(|| ControlError::not_found("node", name))
    }

    /// All endpoints of all nodes.
    pub fn node_endpoints(&self) -> Result<Vec<NodeEndpoint>, ControlError> {
        Ok(self.cluster()?.look(Machine::endpoints))
    }

    /// Whether a node may be removed, as far as this one can say.
    pub fn check_removal(&self, name: &str) -> Result<(), ControlError> {
        let cluster = self.cluster()?;
        let own = cluster.look(|member| member.me().name == name);
        let network = self.state.network(cluster.config().network_name()).filter(|_| own);
        let Some(network) = network else { return Ok(()) };
        let members = self.state.members(network.record.id).map(|e| e.record.name.as_str());
        if self.state.members(network.record.id).next().is_none() {
            return Ok(());
        }
        Err(ControlError::InUse {
            kind: "node",
            name: name.to_owned(),
            users: in_words(members),
            hint: "detach these from the cluster network first",
        })
    }

    /// A node was removed: if it was this one, its network goes.
    pub fn node_removed(&mut self, removed: &Removed) -> Result<NodeRemoved, ControlError> {
        let cluster = self.cluster()?;
        let subnets = in_words(removed.subnets.iter().map(IpNet::to_string));
        let secs = removed.quarantine.as_millis() / 1_000;
        let text =
            format!("node {} was removed; {subnets} is given to nobody for {secs} s", removed.name);
        self.event(EventKind::NodeRemoved, None, None, text);
        if cluster.look(|member| member.me().name == removed.name) {
            let name = cluster.config().network_name().to_owned();
            if self.state.network(&name).is_some() {
                self.remove_any_network(&name, false)?;
            }
            cluster.hold(None);
        }
        Ok(NodeRemoved {
            name: removed.name.clone(),
            subnets: removed.subnets.clone(),
            quarantine_secs: secs,
        })
    }
}

/// What became of a removal, as an answer.
pub fn removal_failed(name: &str, error: &ErrandError) -> ControlError {
    match error {
        ErrandError::NoNode => ControlError::not_found("node", name),
        ErrandError::Alive => ControlError::InUse {
            kind: "node",
            name: name.to_owned(),
            users: "its own daemon: it is alive".to_owned(),
            hint: "stop the daemon there, wait until the node is silent, and try again",
        },
        ErrandError::Flannel => ControlError::unsupported(
            "nodes are not removed in Flannel's layout",
            "wait until its lease ends, a day after it was last renewed",
        ),
        ErrandError::Lost | ErrandError::Busy => {
            ControlError::Cluster(format!("the node `{name}` could not be removed: {error}"))
        }
    }
}
