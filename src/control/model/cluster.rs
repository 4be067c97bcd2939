//! Nodes of a cluster.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::wire::mac::Mac;

/// How a node is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NodeState {
    /// It can be reached.
    Alive,
    /// It was alive when the store was last seen, and has not been heard of since.
    Unsure,
    /// It is not heard of; its subnet stays its own.
    Silent,
    /// It owns no subnet yet.
    Joining,
}

/// A node of the cluster.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct NodeInfo {
    /// Its name.
    pub name: String,
    /// Whether it is the one that answers.
    pub this: bool,
    /// How it is.
    pub state: NodeState,
    /// What it owns.
    pub subnets: Vec<IpNet>,
    /// Where tunnels to it end.
    pub addresses: Vec<IpAddr>,
    /// How many endpoints it has.
    pub endpoints: usize,
    /// Version of its program, when it is alive.
    pub program: Option<String>,
    /// When its daemon started, by its own clock, in milliseconds since 1970.
    pub since_ms: Option<u64>,
    /// What a person should know, one sentence each.
    pub notes: Vec<String>,
}

/// A node that was removed.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct NodeRemoved {
    /// Its name.
    pub name: String,
    /// What it owned.
    pub subnets: Vec<IpNet>,
    /// For how many seconds that is given to nobody.
    pub quarantine_secs: u64,
}

/// An endpoint of any node.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct NodeEndpoint {
    /// Its node.
    pub node: String,
    /// Whether that can be reached.
    pub state: NodeState,
    /// Its identity.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Its network.
    pub network: String,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// Its MAC.
    pub mac: Mac,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
}
