//! Endpoints and what they publish.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::{PortRange, Proto, PublishSpec};
use crate::attach::protocol::RateLimits;
use crate::base::ids::{PortId, PublicationId};
use crate::wire::mac::Mac;

/// What tells one network namespace from another: device and inode of its file.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct NamespaceId {
    /// Device.
    pub dev: u64,
    /// Inode.
    pub ino: u64,
}

/// How an endpoint is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EndpointState {
    /// Its TAP is served.
    Up,
    /// It is known, but its TAP is not there.
    Down,
}

/// An endpoint: one interface of one container.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct EndpointInfo {
    /// Sixteen hexadecimal digits; a unique beginning of it names it, too.
    pub id: String,
    /// Name of the container.
    pub name: String,
    /// Network it is on.
    pub network: String,
    /// Name of the interface in the container.
    pub ifname: String,
    /// Port of the switch.
    pub port: PortId,
    /// MAC of the interface.
    pub mac: Mac,
    /// Its addresses with the prefix lengths of their subnets.
    pub addresses: Vec<IpNet>,
    /// Gateways, one per family.
    pub gateways: Vec<IpAddr>,
    /// Largest IP packet.
    pub mtu: u16,
    /// Labels of the container.
    pub labels: BTreeMap<String, String>,
    /// Further names.
    pub aliases: Vec<String>,
    /// A process in the container, if the attacher named one.
    pub pid: Option<u32>,
    /// Its network namespace, if the attacher named it.
    pub netns: Option<NamespaceId>,
    /// What its container engine calls it, if one attached it.
    pub container_id: Option<String>,
    /// How fast it may receive and send.
    pub rate: RateLimits,
    /// How it is.
    pub state: EndpointState,
    /// What it publishes.
    pub published: Vec<PublicationInfo>,
    /// When it was attached, in milliseconds since 1970.
    pub since_ms: u64,
}

/// A change of a container's endpoints: what is absent stays as it is.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EndpointUpdate {
    /// Name of the container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// All its labels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub labels: Option<BTreeMap<String, String>>,
    /// All its further names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub aliases: Option<Vec<String>>,
}

/// Ports of an endpoint on the host's addresses.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PublicationInfo {
    /// Its number.
    pub id: PublicationId,
    /// Name of the endpoint.
    pub endpoint: String,
    /// Network of the endpoint.
    pub network: String,
    /// The host's address; all of them if none.
    pub host_addr: Option<IpAddr>,
    /// The host's ports.
    pub host_ports: PortRange,
    /// The container's ports, one for each of the host's.
    pub ports: PortRange,
    /// Protocol.
    pub proto: Proto,
}

/// Ports to publish (`wharf publish`).
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PublishRequest {
    /// In Docker's form, each: `8080:80/tcp`.
    pub publish: Vec<PublishSpec>,
}

impl std::fmt::Display for PublicationInfo {
    /// In Docker's form, as [`PublishSpec`] reads it.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (host_addr, ports, proto) = (self.host_addr, self.ports, self.proto);
        PublishSpec { host_addr, host_ports: Some(self.host_ports), ports, proto }.fmt(f)
    }
}
