//! The tables of one worker: indexes over shared, immutable objects.

use std::sync::Arc;

use hashbrown::HashMap;

use super::{Delta, Network, Peer, PolicyTables, Port, PortKind, Tunnel, Uplink};
use crate::base::ids::{DomainId, Generation, NetworkId, PeerId, PortId, UplinkId};
use crate::stage::bridge::guard::Guard;
use crate::stage::dns::Zone;
use crate::stage::route::lpm::RouteTable;
use crate::stage::service::{PublishTable, ServiceTable};
use crate::wire::addr::{Addr, Family};
use crate::wire::mac::Mac;

/// Where a route leads.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RouteTarget {
    /// On the link of a network.
    Network(NetworkId),
    /// Behind another node.
    Peer(PeerId),
}

/// A port with what is derived from it once.
#[derive(Debug)]
pub(crate) struct PortEntry {
    pub(crate) port: Arc<Port>,
    pub(crate) guard: Option<Guard>,
    /// What a frame to be routed is addressed to here: the gateway's MAC, or our own on an uplink.
    pub(crate) router_mac: Mac,
    /// The gateway's addresses here, IPv4 first: ICMP errors come from them.
    pub(crate) gateways: [Option<Addr>; 2],
    /// Addresses of the gateway that stand for one of the host's, mostly none.
    pub(crate) redirects: Box<[(Addr, Addr)]>,
}

/// Everything the data path reads.
#[derive(Debug, Default)]
pub struct Tables {
    ports: Vec<Option<PortEntry>>,
    networks: HashMap<NetworkId, Arc<Network>>,
    uplinks: HashMap<UplinkId, Arc<Uplink>>,
    tunnel: Option<Arc<Tunnel>>,
    peers: HashMap<PeerId, Arc<Peer>>,
    by_vtep: HashMap<Mac, PeerId>,
    by_addr: HashMap<(DomainId, Addr), PortId>,
    by_mac: HashMap<(DomainId, Mac), PortId>,
    members: HashMap<DomainId, Vec<PortId>>,
    routes: RouteTable<RouteTarget>,
    publications: PublishTable,
    host_addrs: Arc<[Addr]>,
    zones: HashMap<NetworkId, Zone>,
    no_zone: Zone,
    services: ServiceTable,
    /// Services by name, which every network's name server knows.
    service_names: Zone,
    policy: PolicyTables,
    generation: Generation,
}

impl Tables {
    /// The current generation.
    #[inline]
    pub fn generation(&self) -> Generation {
        self.generation
    }

    /// Makes every flow be judged again.
    fn bump(&mut self) {
        self.generation = self.generation.next();
    }

    /// A port.
    #[inline]
    pub fn port(&self, id: PortId) -> Option<&Arc<Port>> {
        self.entry(id).map(|e| &e.port)
    }

    #[inline]
    pub(crate) fn entry(&self, id: PortId) -> Option<&PortEntry> {
        self.ports.get(usize::from(id.0))?.as_ref()
    }

    /// All ports.
    pub fn ports(&self) -> impl Iterator<Item = &Arc<Port>> {
        self.ports.iter().flatten().map(|e| &e.port)
    }

    /// A network.
    pub fn network(&self, id: NetworkId) -> Option<&Arc<Network>> {
        self.networks.get(&id)
    }

    /// The network of a domain, unless it is an uplink's.
    pub fn network_of(&self, domain: DomainId) -> Option<&Arc<Network>> {
        if domain.is_uplink() { None } else { self.networks.get(&NetworkId(domain.0)) }
    }

    /// All networks.
    pub fn networks(&self) -> impl Iterator<Item = &Arc<Network>> {
        self.networks.values()
    }

    /// An uplink.
    pub fn uplink(&self, id: UplinkId) -> Option<&Arc<Uplink>> {
        self.uplinks.get(&id)
    }

    /// The uplink of a domain, unless it is a network's.
    pub fn uplink_of(&self, domain: DomainId) -> Option<&Arc<Uplink>> {
        self.uplinks.values().find(|u| DomainId::from(u.id) == domain)
    }

    /// All uplinks.
    pub fn uplinks(&self) -> impl Iterator<Item = &Arc<Uplink>> {
        self.uplinks.values()
    }

    /// Our end of the tunnels to other nodes.
    pub fn tunnel(&self) -> Option<&Arc<Tunnel>> {
        self.tunnel.as_ref()
    }

    /// Another node.
    pub fn peer(&self, id: PeerId) -> Option<&Arc<Peer>> {
        self.peers.get(&id)
    }

    /// All other nodes.
    pub fn peers(&self) -> impl Iterator<Item = &Arc<Peer>> {
        self.peers.values()
    }

    /// The node whose end of the tunnel has this MAC.
    pub fn peer_by_mac(&self, mac: Mac) -> Option<&Arc<Peer>> {
        self.peers.get(self.by_vtep.get(&mac)?)
    }

    /// The node behind a port.
    pub fn peer_at(&self, port: PortId) -> Option<&Arc<Peer>> {
        let port = self.port(port).filter(|port| port.kind == PortKind::Tunnel)?;
        self.peer_by_mac(port.mac)
    }

    /// The port of a known station, by address.
    pub fn port_by_addr(&self, domain: DomainId, addr: Addr) -> Option<PortId> {
        self.by_addr.get(&(domain, addr)).copied()
    }

    /// The port of a known station, by MAC.
    pub fn port_by_mac(&self, domain: DomainId, mac: Mac) -> Option<PortId> {
        self.by_mac.get(&(domain, mac)).copied()
    }

    /// Ports of a domain, in no order.
    pub fn members(&self, domain: DomainId) -> &[PortId] {
        self.members.get(&domain).map_or(&[], Vec::as_slice)
    }

    /// The longest matching route.
    pub fn route(&self, dst: Addr) -> Option<RouteTarget> {
        self.routes.lookup(dst).copied()
    }

    /// All routes with their prefixes.
    pub fn routes(&self) -> &RouteTable<RouteTarget> {
        &self.routes
    }

    /// Publications.
    pub fn publications(&self) -> &PublishTable {
        &self.publications
    }

    /// Services.
    pub fn services(&self) -> &ServiceTable {
        &self.services
    }

    /// Services, to remember whom they served.
    pub(crate) fn services_mut(&mut self) -> &mut ServiceTable {
        &mut self.services
    }

    /// What every network's name server knows about services.
    pub fn service_names(&self) -> &Zone {
        &self.service_names
    }

    /// What a network's name server knows.
    pub fn zone(&self, id: NetworkId) -> &Zone {
        self.zones.get(&id).unwrap_or(&self.no_zone)
    }

    /// Network policy.
    pub fn policy(&self) -> &PolicyTables {
        &self.policy
    }

    /// Whether `addr` is one at which published ports answer: the host's, or ours on an uplink.
    pub fn is_host_addr(&self, addr: Addr) -> bool {
        self.host_addrs.contains(&addr) || self.uplinks.values().any(|u| u.is_ours(addr))
    }

    /// Whether `addr` is the gateway's in one of its networks.
    pub fn is_gateway(&self, addr: Addr) -> bool {
        let Some(RouteTarget::Network(id)) = self.route(addr) else { return false };
        self.network(id).is_some_and(|network| network.is_gateway(addr))
    }

    /// Whether `addr` is the host's and not ours alone: what is sent there may go to the host's own port.
    pub fn is_host_only(&self, addr: Addr) -> bool {
        let taken = |uplink: &Uplink| !uplink.shared && uplink.is_ours(addr);
        self.host_addrs.contains(&addr) && !self.uplinks.values().any(|u| taken(u))
    }

    /// Applies one change.
    pub fn apply(&mut self, delta: &Delta) {
        match delta {
            Delta::Network(network) => self.put_network(network),
            Delta::RemoveNetwork(id) => {
                self.remove_network(*id);
                self.zones.remove(id);
            }
            Delta::Port(port) => self.put_port(port),
            Delta::RemovePort(id) => {
                self.remove_port(*id);
                self.policy.put(*id, None);
            }
            Delta::Uplink(uplink) => {
                self.uplinks.insert(uplink.id, Arc::clone(uplink));
            }
            Delta::RemoveUplink(id) => {
                self.uplinks.remove(id);
            }
            Delta::Tunnel(tunnel) => self.put_tunnel(tunnel),
            Delta::Peer(peer) => self.put_peer(peer),
            Delta::RemovePeer(id) => self.remove_peer(*id),
            Delta::Publish(publication) => {
                // Control has checked for conflicts; one that slipped through keeps the older one.
                let _ = self.publications.insert(publication.clone());
            }
            Delta::Unpublish(id) => {
                self.publications.remove(*id);
            }
            Delta::Service(service, named) => {
                self.services.put(service);
                self.service_names.put_service(service.id, Some(Arc::clone(named)));
            }
            Delta::RemoveService(id) => {
                self.services.remove(*id);
                self.service_names.put_service(*id, None);
            }
            Delta::HostAddresses(addrs) => self.host_addrs = Arc::clone(addrs),
            Delta::Policy(tables) => self.policy = PolicyTables::clone(tables),
            Delta::Subject(port, subject) => self.policy.put(*port, subject.as_ref()),
            // No flow rests on these.
            Delta::Names(id, zone) => {
                self.zones.insert(*id, Zone::clone(zone));
                return;
            }
            Delta::Name(id, endpoint, named) => {
                self.zones.entry(*id).or_default().put(*endpoint, named.clone());
                return;
            }
            Delta::Resolvers(_) => return,
        }
        self.bump();
    }

    fn put_network(&mut self, network: &Arc<Network>) {
        self.remove_network(network.id);
        for subnet in &network.subnets {
            self.routes.insert(subnet.prefix, subnet.len, RouteTarget::Network(network.id));
        }
        self.networks.insert(network.id, Arc::clone(network));
        for id in self.members(network.id.into()).to_vec() {
            if let Some(port) = self.port(id).cloned() {
                self.put_port(&port);
            }
        }
    }

    fn remove_network(&mut self, id: NetworkId) {
        let Some(network) = self.networks.remove(&id) else { return };
        for subnet in &network.subnets {
            self.routes.remove(subnet.prefix, subnet.len);
        }
    }

    fn put_port(&mut self, port: &Arc<Port>) {
        self.remove_port(port.id);
        let router_mac = match port.kind {
            PortKind::Endpoint | PortKind::Host => {
                self.network_of(port.domain).map_or(Mac::ZERO, |n| n.gateway_mac)
            }
            PortKind::PacketUplink | PortKind::SocketUplink => port.mac,
            PortKind::Tunnel => self.tunnel.as_ref().map_or(Mac::ZERO, |tunnel| tunnel.mac),
        };
        if port.kind == PortKind::Endpoint {
            self.by_mac.insert((port.domain, port.mac), port.id);
            for addr in &port.addrs {
                self.by_addr.insert((port.domain, *addr), port.id);
            }
        }
        self.members.entry(port.domain).or_default().push(port.id);
        let guard = port.guard.then(|| Guard { mac: port.mac, addrs: port.addrs.clone() });
        let at = usize::from(port.id.0);
        if self.ports.len() <= at {
            self.ports.resize_with(at + 1, || None);
        }
        let network = self.network_of(port.domain);
        let gateways = [Family::V4, Family::V6].map(|family| network?.gateway(family));
        let redirects = network.map(|network| network.redirects()).unwrap_or_default();
        let port = Arc::clone(port);
        self.ports[at] = Some(PortEntry { port, guard, router_mac, gateways, redirects });
    }

    fn put_tunnel(&mut self, tunnel: &Arc<Tunnel>) {
        self.tunnel = Some(Arc::clone(tunnel));
        self.put_port(&Arc::new(tunnel_port(tunnel.port, "tunnel", Mac::ZERO, u16::MAX)));
        for peer in self.peers.values().cloned().collect::<Vec<_>>() {
            self.put_peer_port(&peer);
        }
    }

    fn put_peer(&mut self, peer: &Arc<Peer>) {
        self.remove_peer(peer.id);
        for subnet in &peer.subnets {
            self.routes.insert(subnet.addr, subnet.len, RouteTarget::Peer(peer.id));
        }
        self.by_vtep.insert(peer.mac, peer.id);
        self.peers.insert(peer.id, Arc::clone(peer));
        self.put_peer_port(peer);
    }

    fn put_peer_port(&mut self, peer: &Peer) {
        self.put_port(&Arc::new(tunnel_port(peer.port, &peer.name, peer.mac, peer.mtu)));
    }

    fn remove_peer(&mut self, id: PeerId) {
        let Some(peer) = self.peers.remove(&id) else { return };
        for subnet in &peer.subnets {
            // A subnet may have passed to another node meanwhile.
            if self.routes.get(subnet.addr, subnet.len) == Some(&RouteTarget::Peer(id)) {
                self.routes.remove(subnet.addr, subnet.len);
            }
        }
        if self.by_vtep.get(&peer.mac) == Some(&id) {
            self.by_vtep.remove(&peer.mac);
        }
        self.remove_port(peer.port);
    }

    fn remove_port(&mut self, id: PortId) {
        let Some(entry) = self.ports.get_mut(usize::from(id.0)).and_then(Option::take) else {
            return;
        };
        let port = entry.port;
        self.by_mac.retain_if(&(port.domain, port.mac), id);
        for addr in &port.addrs {
            self.by_addr.retain_if(&(port.domain, *addr), id);
        }
        if let Some(members) = self.members.get_mut(&port.domain) {
            members.retain(|member| *member != id);
        }
    }
}

/// The port of another node: the station behind it is that node's end of the tunnel.
fn tunnel_port(id: PortId, name: &str, mac: Mac, mtu: u16) -> Port {
    Port {
        id,
        name: name.into(),
        kind: PortKind::Tunnel,
        domain: DomainId::TUNNEL,
        mac,
        addrs: Vec::new(),
        guard: false,
        isolated: false,
        mtu,
        // A tunnel cuts whatever it must.
        uso: true,
    }
}

/// Removal of an index entry that may have passed to another port meanwhile.
trait RetainIf<K> {
    fn retain_if(&mut self, key: &K, owner: PortId);
}

impl<K: std::hash::Hash + Eq> RetainIf<K> for HashMap<K, PortId> {
    fn retain_if(&mut self, key: &K, owner: PortId) {
        if self.get(key) == Some(&owner) {
            self.remove(key);
        }
    }
}
