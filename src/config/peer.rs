//! Other nodes, and our own end of the tunnels to them.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::base::ids::{PeerId, PortId};
use crate::base::key::PublicKey;
use crate::wire::addr::Addr;
use crate::wire::mac::Mac;

/// A range of addresses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Prefix {
    /// Its first address.
    pub addr: Addr,
    /// Its length, counted within the family.
    pub len: u8,
}

/// How packets between nodes are wrapped.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BackendKind {
    /// VXLAN, for networks that one owns: nothing is encrypted.
    #[default]
    Vxlan,
    /// WireGuard.
    Wireguard,
}

/// How packets for a peer are wrapped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Backend {
    /// VXLAN (RFC 7348) with this network identifier.
    Vxlan {
        /// Twenty-four bits.
        vni: u32,
    },
    /// WireGuard: each packet is encrypted, and its sender is known by its key.
    Wireguard {
        /// The node's.
        key: PublicKey,
    },
}

/// Another node. It is a port of the switch: what it sends and what is dropped of that is counted there.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Its number.
    pub id: PeerId,
    /// Its port; `Tables` makes the object.
    pub port: PortId,
    /// Its name.
    pub name: Arc<str>,
    /// Address and UDP port of its end of the tunnel.
    pub endpoint: (Addr, u16),
    /// What is behind it. Nothing else is taken for coming from there.
    pub subnets: Vec<Prefix>,
    /// MAC of its end of the tunnel.
    pub mac: Mac,
    /// How packets for it are wrapped.
    pub backend: Backend,
    /// Largest IP packet that fits through the tunnel.
    pub mtu: u16,
}

/// Our own end of all tunnels.
#[derive(Clone, Debug)]
pub struct Tunnel {
    /// The port on which datagrams are counted that no peer sent.
    pub port: PortId,
    /// This node's subnets: networks inside them are reachable for peers, with their own addresses.
    pub subnets: Vec<Prefix>,
    /// Our MAC, to which peers address inner frames.
    pub mac: Mac,
}

impl Backend {
    /// Its kind.
    pub fn kind(self) -> BackendKind {
        match self {
            Self::Vxlan { .. } => BackendKind::Vxlan,
            Self::Wireguard { .. } => BackendKind::Wireguard,
        }
    }
}

impl Prefix {
    /// Whether `addr` lies in it.
    pub fn contains(self, addr: Addr) -> bool {
        let subnet = super::Subnet { prefix: self.addr, len: self.len, gateway: self.addr };
        subnet.contains(addr)
    }
}

impl Peer {
    /// Whether `addr` is behind this peer.
    pub fn owns(&self, addr: Addr) -> bool {
        self.subnets.iter().any(|subnet| subnet.contains(addr))
    }
}

impl Tunnel {
    /// Whether `addr` is this node's.
    pub fn owns(&self, addr: Addr) -> bool {
        self.subnets.iter().any(|subnet| subnet.contains(addr))
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Delta, RouteTarget, Tables};
    use super::*;

    fn peer(id: u16, subnet: &str) -> Arc<Peer> {
        Arc::new(Peer {
            id: PeerId(id),
            port: PortId(100 + id),
            name: format!("node{id}").into(),
            endpoint: (Addr::from_v4_bytes([192, 0, 2, id as u8]), 4789),
            subnets: vec![Prefix { addr: subnet.parse().unwrap(), len: 24 }],
            mac: Mac([2, 0x57, 0, 0, 0, id as u8]),
            backend: Backend::Vxlan { vni: 1 },
            mtu: 1450,
        })
    }

    fn route(tables: &Tables) -> Option<RouteTarget> {
        tables.route("10.244.2.9".parse().unwrap())
    }

    #[test]
    fn what_is_behind_a_peer_is_routed_to_it_until_it_goes() {
        let mut tables = Tables::default();
        tables.apply(&Delta::Peer(peer(2, "10.244.2.0")));
        assert_eq!(route(&tables), Some(RouteTarget::Peer(PeerId(2))));
        assert_eq!(tables.peer_at(PortId(102)).unwrap().id, PeerId(2));
        tables.apply(&Delta::RemovePeer(PeerId(2)));
        assert_eq!(route(&tables), None);
        assert!(tables.port(PortId(102)).is_none() && tables.peer_at(PortId(102)).is_none());
    }

    #[test]
    fn a_subnet_that_has_passed_to_another_node_stays_there_when_the_old_one_goes() {
        let mut tables = Tables::default();
        tables.apply(&Delta::Peer(peer(2, "10.244.2.0")));
        tables.apply(&Delta::Peer(peer(3, "10.244.2.0")));
        tables.apply(&Delta::RemovePeer(PeerId(2)));
        assert_eq!(route(&tables), Some(RouteTarget::Peer(PeerId(3))));
    }

    #[test]
    fn a_node_that_changes_has_only_what_it_has_now() {
        let mut tables = Tables::default();
        tables.apply(&Delta::Peer(peer(2, "10.244.2.0")));
        tables.apply(&Delta::Peer(peer(2, "10.244.7.0")));
        assert_eq!(route(&tables), None);
        assert!(tables.peer(PeerId(2)).unwrap().owns("10.244.7.1".parse().unwrap()));
    }
}
