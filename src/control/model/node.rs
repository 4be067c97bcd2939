//! This node's end of the tunnels to others, and the others.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::base::ids::PortId;
use crate::base::key::PublicKey;
use crate::config::BackendKind;
use crate::datapath::inspect::PeerInfo;
use crate::io::wireguard;
use crate::wire::mac::Mac;
use crate::wire::vxlan;

/// `[node]` of the config file: this node's own end.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeSpec {
    /// The subnets that are this node's: networks inside them are reachable from other nodes.
    pub subnets: Vec<IpNet>,
    /// How packets for other nodes are wrapped: VXLAN if it is not given.
    #[serde(default)]
    pub backend: BackendKind,
    /// VXLAN's network identifier, the same on all nodes; 1 if it is not given, as with Flannel.
    #[serde(default = "vni")]
    pub vni: u32,
    /// UDP port, the same on all nodes: 4789 if it is not given, 51820 with WireGuard; the kernel and Flannel
    /// use 8472.
    #[serde(default)]
    pub port: Option<u16>,
    /// WireGuard: say something every so many seconds, for a node behind a NAT or a firewall.
    #[serde(default)]
    pub keep_alive: Option<u16>,
    /// Own addresses to use, at most one of each family; all if none is given.
    #[serde(default)]
    pub addresses: Vec<IpAddr>,
    /// Send from `port`, too: for a node behind a NAT. Otherwise each flow has one of a few source ports.
    #[serde(default)]
    pub one_port: bool,
    /// MAC of this end; made of the first subnet if it is not given, by the same rule on all nodes.
    #[serde(default)]
    pub mac: Option<Mac>,
    /// MTU of the network between nodes, if it is not the one that the kernel knows of the way to each.
    #[serde(default)]
    pub mtu: Option<u16>,
}

/// `[[peer]]` of the config file: another node.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PeerSpec {
    /// Its name.
    pub name: String,
    /// Its address.
    pub address: IpAddr,
    /// Its UDP port, if that is not the same as ours.
    #[serde(default)]
    pub port: Option<u16>,
    /// The subnets that are its.
    pub subnets: Vec<IpNet>,
    /// MAC of its end, if it is not made of its first subnet.
    #[serde(default)]
    pub mac: Option<Mac>,
    /// VXLAN's network identifier, if it is not ours.
    #[serde(default)]
    pub vni: Option<u32>,
    /// WireGuard: its public key.
    #[serde(default)]
    pub key: Option<PublicKey>,
}

impl NodeSpec {
    /// The port that tunnels to this node end at.
    pub fn port(&self) -> u16 {
        self.port.unwrap_or(match self.backend {
            BackendKind::Vxlan => vxlan::PORT,
            BackendKind::Wireguard => wireguard::PORT,
        })
    }
}

/// Another node and what passes to and from it.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct PeerView {
    /// Its name.
    pub name: String,
    /// Its address.
    pub address: IpAddr,
    /// Its UDP port.
    pub port: u16,
    /// The subnets that are its.
    pub subnets: Vec<IpNet>,
    /// MAC of its end.
    pub mac: Mac,
    /// How packets are wrapped.
    pub backend: BackendKind,
    /// Its public key, with WireGuard.
    pub key: Option<PublicKey>,
    /// Its port of the switch.
    pub switch_port: PortId,
    /// Its tunnel.
    #[serde(flatten)]
    pub info: PeerInfo,
}

fn vni() -> u32 {
    1
}
