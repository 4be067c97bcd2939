//! This node's end of the tunnels to others, and the others.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::base::ids::PortId;
use crate::datapath::inspect::PeerInfo;
use crate::wire::mac::Mac;
use crate::wire::vxlan;

/// `[node]` of the config file: this node's own end.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeSpec {
    /// The subnets that are this node's: networks inside them are reachable from other nodes.
    pub subnets: Vec<IpNet>,
    /// VXLAN's network identifier, the same on all nodes; 1 if it is not given, as with Flannel.
    #[serde(default = "vni")]
    pub vni: u32,
    /// UDP port, the same on all nodes: 4789 if it is not given; the kernel and Flannel use 8472.
    #[serde(default = "port")]
    pub port: u16,
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
    pub backend: String,
    /// Its port of the switch.
    pub switch_port: PortId,
    /// Its tunnel.
    #[serde(flatten)]
    pub info: PeerInfo,
}

fn vni() -> u32 {
    1
}

fn port() -> u16 {
    vxlan::PORT
}
