//! Other nodes: our end of the tunnels, and who is at theirs.
//!
//! Who they are is told by the config file, or by whoever watches a cluster; nothing of it is stored here.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use super::config::Config;
use super::error::ControlError;
use super::ipam::{Claim, check_subnet, overlaps};
use super::model::{NodeSpec, PeerSpec, PeerView};
use super::numbers::Numbers;
use super::{Control, names, node_key};
use crate::base::ids::{PeerId, PortId};
use crate::base::limits::PEERS_MAX;
use crate::config::{Backend, BackendKind, Delta, Peer, Prefix, Tunnel};
use crate::datapath::nodes::overhead;
use crate::io::wireguard::Identity;
use crate::wire::addr::Addr;
use crate::wire::mac::Mac;
use crate::wire::vxlan::VNI_MAX;
use crate::worker::command::{Answer, Command, Query};

/// MTU of a way of which nothing else is known.
const PATH_MTU: u16 = 1500;

/// This node's end of the tunnels, and the others.
#[derive(Debug)]
pub(super) struct Nodes {
    own: Option<(NodeSpec, Arc<Tunnel>)>,
    peers: BTreeMap<String, (PeerSpec, Arc<Peer>)>,
    ids: Numbers,
    /// Those that the config file names.
    configured: BTreeSet<String>,
}

impl Default for Nodes {
    fn default() -> Self {
        let (own, peers, configured) = (None, BTreeMap::new(), BTreeSet::new());
        Self { own, peers, ids: Numbers::below(PEERS_MAX as u16), configured }
    }
}

impl Nodes {
    /// Ranges that other nodes have.
    pub(super) fn claims(&self) -> impl Iterator<Item = Claim> {
        self.peers.values().flat_map(|(spec, _)| {
            let holder = format!("node {}", spec.name);
            spec.subnets.iter().map(move |net| Claim { net: *net, holder: holder.clone() })
        })
    }

    /// The name of what is at a port.
    pub(super) fn port_name(&self, port: PortId) -> Option<&str> {
        if self.own.as_ref().is_some_and(|(_, tunnel)| tunnel.port == port) {
            return Some("tunnel");
        }
        let peer = self.peers.values().find(|(_, peer)| peer.port == port);
        peer.map(|(spec, _)| spec.name.as_str())
    }
}

impl Control {
    /// Opens this node's end of the tunnels, or changes it.
    pub fn set_node(&mut self, spec: &NodeSpec) -> Result<(), ControlError> {
        check_node(spec)?;
        let old = self.nodes.own.as_ref();
        if old.is_some_and(|(old, _)| old == spec) {
            return Ok(());
        }
        if let Some(claim) = self.nodes.claims().find(|c| any_overlap(&spec.subnets, c.net)) {
            return Err(taken("this node", &claim));
        }
        let (open, encrypted, other, port) = match old {
            Some((old, tunnel)) => {
                let other = old.backend != spec.backend;
                (
                    sockets_of(old) == sockets_of(spec),
                    !other && old.keep_alive == spec.keep_alive,
                    other,
                    tunnel.port,
                )
            }
            None => (false, false, false, self.take_port()?),
        };
        let identity = self.identity(spec)?;
        if !open {
            let (addresses, at, one_port) = sockets_of(spec);
            match self.outside.host.open_tunnels(addresses, at, one_port) {
                Ok(sockets) => self.outside.dataplane.send(Command::Tunnels(sockets)),
                Err(error) => {
                    if self.nodes.own.is_none() {
                        self.state.ports.give_back(port.0);
                    }
                    return Err(error.into());
                }
            }
        }
        if other {
            // They are told of anew by whoever knows how they are reached now.
            for name in self.nodes.peers.keys().cloned().collect::<Vec<_>>() {
                self.remove_peer(&name)?;
            }
        }
        if !encrypted {
            self.outside.dataplane.send(Command::Encrypt(identity));
        }
        let mac = spec.mac.unwrap_or_else(|| mac_of(&spec.subnets));
        let tunnel = Arc::new(Tunnel { port, subnets: prefixes(&spec.subnets), mac });
        self.send_deltas(vec![Delta::Tunnel(Arc::clone(&tunnel))]);
        self.nodes.own = Some((spec.clone(), tunnel));
        // What peers leave open is as ours is.
        let peers: Vec<PeerSpec> =
            self.nodes.peers.values().map(|(spec, _)| spec.clone()).collect();
        for peer in peers {
            self.install_peer(&peer)?;
        }
        Ok(())
    }

    /// Who this node is to WireGuard.
    fn identity(&self, spec: &NodeSpec) -> Result<Option<Identity>, ControlError> {
        if spec.backend != BackendKind::Wireguard {
            return Ok(None);
        }
        let secret = node_key::of(&self.settings.paths.state_dir)?;
        Ok(Some(Identity { secret, keep_alive: spec.keep_alive.filter(|secs| *secs > 0) }))
    }

    /// Another node appears or changes.
    pub fn put_peer(&mut self, spec: &PeerSpec) -> Result<(), ControlError> {
        self.check_peer(spec)?;
        if self.nodes.peers.get(&spec.name).is_some_and(|(old, _)| old == spec) {
            return Ok(());
        }
        self.install_peer(spec)
    }

    fn install_peer(&mut self, spec: &PeerSpec) -> Result<(), ControlError> {
        let Some((own, _)) = self.nodes.own.clone() else { return Err(no_node(&spec.name)) };
        let backend = backend(&own, spec)?;
        let (id, port) = match self.nodes.peers.get(&spec.name) {
            Some((_, old)) => (old.id, old.port),
            None => {
                let id = self.nodes.ids.take().map(PeerId);
                let id = id.ok_or(ControlError::Exhausted { what: "peers", limit: PEERS_MAX })?;
                (id, self.take_port()?)
            }
        };
        let endpoint = (Addr::from(spec.address), spec.port.unwrap_or(own.port()));
        let host = &self.outside.host;
        let path = own.mtu.or_else(|| host.path_mtu(spec.address, endpoint.1)).unwrap_or(PATH_MTU);
        let peer = Arc::new(Peer {
            id,
            port,
            name: spec.name.as_str().into(),
            endpoint,
            subnets: prefixes(&spec.subnets),
            mac: spec.mac.unwrap_or_else(|| mac_of(&spec.subnets)),
            backend,
            mtu: path.saturating_sub(overhead(endpoint.0, own.backend)),
        });
        self.send_deltas(vec![Delta::Peer(Arc::clone(&peer))]);
        self.nodes.peers.insert(spec.name.clone(), (spec.clone(), peer));
        Ok(())
    }

    /// Another node goes.
    pub fn remove_peer(&mut self, name: &str) -> Result<(), ControlError> {
        let Some((_, peer)) = self.nodes.peers.remove(name) else {
            return Err(ControlError::not_found("peer", name));
        };
        self.nodes.ids.give_back(peer.id.0);
        self.state.ports.give_back(peer.port.0);
        self.send_deltas(vec![Delta::RemovePeer(peer.id)]);
        Ok(())
    }

    /// Other nodes and what passes to and from them, by name.
    pub fn peers(&self) -> Result<Vec<PeerView>, ControlError> {
        let answer = self.outside.dataplane.query(Query::Peers)?.into_iter().next();
        let Some(Answer::Peers(infos)) = answer else { return Ok(Vec::new()) };
        let view = |(spec, peer): &(PeerSpec, Arc<Peer>)| {
            let info = infos.iter().find(|info| info.id == peer.id)?.clone();
            Some(PeerView {
                name: spec.name.clone(),
                address: spec.address,
                port: peer.endpoint.1,
                subnets: spec.subnets.clone(),
                mac: peer.mac,
                backend: peer.backend.kind(),
                key: spec.key,
                switch_port: peer.port,
                info,
            })
        };
        Ok(self.nodes.peers.values().filter_map(view).collect())
    }

    /// Whether there is no other node.
    pub(super) fn has_no_peers(&self) -> bool {
        self.nodes.peers.is_empty()
    }

    /// What the config file says of nodes is so afterwards. What somebody else said of them stays.
    pub(super) fn apply_nodes(&mut self, config: &Config) -> Result<(), ControlError> {
        if let Some(node) = &config.node {
            self.set_node(node)?;
        }
        let wanted: BTreeSet<String> = config.peers.iter().map(|p| p.name.clone()).collect();
        let gone = self.nodes.configured.difference(&wanted);
        let gone = gone.filter(|name| self.nodes.peers.contains_key(*name)).cloned();
        for gone in gone.collect::<Vec<_>>() {
            self.remove_peer(&gone)?;
        }
        for peer in &config.peers {
            self.put_peer(peer)?;
        }
        self.nodes.configured = wanted;
        Ok(())
    }

    /// MTU of a network whose packets go through tunnels; `None` if they do not.
    pub(super) fn tunnel_mtu(&self, subnets: &[(IpNet, IpAddr)]) -> Option<u16> {
        let (own, tunnel) = self.nodes.own.as_ref()?;
        subnets.iter().find(|(net, _)| tunnel.owns(net.network().into()))?;
        let v6_only = !own.addresses.is_empty() && own.addresses.iter().all(IpAddr::is_ipv6);
        let outer = if v6_only { Addr::UNSPECIFIED } else { Addr::from_v4_bits(0) };
        let unknown = own.mtu.unwrap_or(PATH_MTU).saturating_sub(overhead(outer, own.backend));
        let known = self.nodes.peers.values().map(|(_, peer)| peer.mtu).min();
        Some(known.unwrap_or(unknown).min(unknown))
    }

    fn check_peer(&self, spec: &PeerSpec) -> Result<(), ControlError> {
        let name = &spec.name;
        names::check_node(name)?;
        let Some((own, tunnel)) = &self.nodes.own else { return Err(no_node(name)) };
        check_subnets(&format!("node {name}"), &spec.subnets)?;
        check_vni(spec.vni.unwrap_or(own.vni))?;
        if spec.address.is_unspecified() || spec.address.is_multicast() {
            let message = format!("node {name} cannot have the address {}", spec.address);
            return Err(ControlError::invalid(message, "give the address that it is reached at"));
        }
        let mine =
            own.subnets.iter().map(|net| Claim { net: *net, holder: "this node".to_owned() });
        let others = self.nodes.claims().filter(|c| c.holder != format!("node {name}"));
        let networks = self.state.networks.values().flat_map(|n| {
            let holder = format!("network {}", n.record.name);
            n.record.subnets.iter().map(move |(net, _)| Claim { net: *net, holder: holder.clone() })
        });
        let mut claims = mine.chain(others).chain(networks);
        if let Some(claim) = claims.find(|claim| any_overlap(&spec.subnets, claim.net)) {
            return Err(taken(&format!("node {name}"), &claim));
        }
        let backend = backend(own, spec)?;
        let mac = spec.mac.unwrap_or_else(|| mac_of(&spec.subnets));
        let at = (Addr::from(spec.address), spec.port.unwrap_or(own.port()));
        let others = self.nodes.peers.values().filter(|(other, _)| other.name != *name);
        // WireGuard knows nodes by their keys: behind one NAT several may have one address.
        if let Some((other, _)) = others.clone().find(|(_, peer)| same_end(peer, at, backend)) {
            if spec.key.is_some() {
                let message = format!("nodes {name} and {} have the same key", other.name);
                return Err(ControlError::invalid(message, "give each the key that it has itself"));
            }
            let message = format!("nodes {name} and {} are both at {}", other.name, spec.address);
            return Err(ControlError::invalid(message, "give each its own address"));
        }
        let holder = others.clone().find(|(_, peer)| peer.mac == mac).map(|(o, _)| o.name.clone());
        let holder = holder.or((tunnel.mac == mac).then(|| "this node".to_owned()));
        holder.map_or(Ok(()), |holder| Err(ControlError::MacTaken { mac, holder }))
    }
}

/// What the sockets of the tunnels are: addresses, port, and whether everything leaves by that port. With
/// WireGuard it does, since a peer answers where it is spoken to from.
fn sockets_of(spec: &NodeSpec) -> (&[IpAddr], u16, bool) {
    let one_port = spec.one_port || spec.backend == BackendKind::Wireguard;
    (&spec.addresses, spec.port(), one_port)
}

/// Whether a peer is where, or who, another one would be.
fn same_end(peer: &Peer, at: (Addr, u16), backend: Backend) -> bool {
    match backend {
        Backend::Vxlan { .. } => peer.endpoint == at,
        Backend::Wireguard { .. } => peer.backend == backend,
    }
}

fn backend(own: &NodeSpec, spec: &PeerSpec) -> Result<Backend, ControlError> {
    let name = &spec.name;
    match (own.backend, spec.key) {
        (BackendKind::Vxlan, None) => Ok(Backend::Vxlan { vni: spec.vni.unwrap_or(own.vni) }),
        (BackendKind::Wireguard, Some(key)) => Ok(Backend::Wireguard { key }),
        (BackendKind::Wireguard, None) => Err(ControlError::invalid(
            format!(
                "node {name} has no key, and this node speaks to nobody without: it encrypts with WireGuard"
            ),
            "give the key that `wharf node key` prints there",
        )),
        (BackendKind::Vxlan, Some(_)) => Err(ControlError::invalid(
            format!("node {name} has a key, and this node encrypts nothing: it speaks VXLAN"),
            "say `backend = \"wireguard\"` in [node], or leave the key out",
        )),
    }
}

fn no_node(peer: &str) -> ControlError {
    ControlError::invalid(
        format!("there is a node {peer}, but this one has no end of a tunnel"),
        "say in [node] which subnets are this node's",
    )
}

fn taken(who: &str, claim: &Claim) -> ControlError {
    ControlError::invalid(
        format!("a subnet of {who} overlaps {}, which {} has", claim.net, claim.holder),
        "give every node and network subnets of its own",
    )
}

fn check_node(spec: &NodeSpec) -> Result<(), ControlError> {
    check_subnets("this node", &spec.subnets)?;
    check_vni(spec.vni)?;
    for (n, addr) in spec.addresses.iter().enumerate() {
        if spec.addresses[..n].iter().any(|other| other.is_ipv4() == addr.is_ipv4()) {
            return Err(ControlError::invalid(
                "this node was given two addresses of one family",
                "give at most one of each",
            ));
        }
    }
    Ok(())
}

fn check_subnets(who: &str, subnets: &[IpNet]) -> Result<(), ControlError> {
    if subnets.is_empty() {
        let message = format!("{who} has no subnet");
        return Err(ControlError::invalid(message, "give it one of each family, or of one"));
    }
    for subnet in subnets {
        check_subnet(*subnet)?;
    }
    Ok(())
}

fn check_vni(vni: u32) -> Result<(), ControlError> {
    if vni <= VNI_MAX {
        return Ok(());
    }
    let message = format!("{vni} is no VXLAN network identifier");
    Err(ControlError::invalid(message, format!("give a number up to {VNI_MAX}")))
}

fn any_overlap(subnets: &[IpNet], net: IpNet) -> bool {
    subnets.iter().any(|subnet| overlaps(subnet, &net))
}

fn prefixes(subnets: &[IpNet]) -> Vec<Prefix> {
    subnets.iter().map(|n| Prefix { addr: n.network().into(), len: n.prefix_len() }).collect()
}

/// The MAC of a node's end of the tunnel, so that static peers need not write it down: a locally
/// administered one with four bytes of the first subnet, as Docker does it with a container's address.
pub(super) fn mac_of(subnets: &[IpNet]) -> Mac {
    let [a, b, c, d] = match subnets.first().map(IpNet::network) {
        Some(IpAddr::V4(ip)) => ip.octets(),
        // The last four bytes before the host's part of a /64.
        Some(IpAddr::V6(ip)) => {
            u32::try_from(ip.to_bits() >> 64 & 0xffff_ffff).unwrap_or(0).to_be_bytes()
        }
        None => [0; 4],
    };
    Mac([0x02, 0x57, a, b, c, d])
}
