//! What is kept: one record per thing, as JSON, so that a person can read a store and a later version
//! can add fields. Fields added within a schema have a default.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::attach::protocol::RateLimits;
use crate::base::ids::{NetworkId, PortId, PublicationId, ServiceId, UplinkId};
use crate::control::model::{NamespaceId, PortRange, Proto, ServiceSpec, UplinkSpec};
use crate::control::policy::{NamespaceRecord, PolicyRecord};
use crate::wire::mac::Mac;

/// A network.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[allow(clippy::struct_excessive_bools, reason = "mirrors the options of `network create`")]
pub struct NetworkRecord {
    /// Its number.
    pub id: NetworkId,
    /// Its name.
    pub name: String,
    /// Its subnets, each with its gateway.
    pub subnets: Vec<(IpNet, IpAddr)>,
    /// The gateway's MAC.
    pub gateway_mac: Mac,
    /// No way out at all.
    pub internal: bool,
    /// Not reachable from other networks.
    pub isolated: bool,
    /// Whether its endpoints may talk to one another.
    pub icc: bool,
    /// Labels of those that are exempt from that.
    #[serde(default)]
    pub icc_except: Option<String>,
    /// Anti-spoofing.
    pub guard: bool,
    /// The host's port, if the host takes part.
    pub host: Option<HostRecord>,
    /// The way out, as asked for: none follows the daemon's default.
    pub uplink: Option<String>,
    /// Largest IP packet.
    pub mtu: u16,
    /// The gateway's address stands for the host's loopback.
    #[serde(default)]
    pub host_loopback: bool,
    /// When it was made.
    pub created_ms: u64,
}

/// The host's interface on a network.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct HostRecord {
    /// Its port.
    pub port: PortId,
    /// Name of the interface.
    pub ifname: String,
}

/// An uplink.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct UplinkRecord {
    /// Its number.
    pub id: UplinkId,
    /// As asked for.
    pub spec: UplinkSpec,
    /// Its port.
    pub port: PortId,
    /// Our MAC there.
    pub mac: Mac,
}

/// An endpoint.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct EndpointRecord {
    /// Its identity.
    pub id: String,
    /// Name of the container.
    pub name: String,
    /// Its network.
    pub network: NetworkId,
    /// Name of the interface.
    pub ifname: String,
    /// Its port.
    pub port: PortId,
    /// MAC.
    pub mac: Mac,
    /// Addresses, one per subnet of the network.
    pub addrs: Vec<IpAddr>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Further names.
    pub aliases: Vec<String>,
    /// A process in the container.
    pub pid: Option<u32>,
    /// Its namespace.
    pub netns: Option<NamespaceId>,
    /// What its engine calls it.
    pub container_id: Option<String>,
    /// How fast it may receive and send.
    #[serde(default)]
    pub rate: RateLimits,
    /// When it was attached.
    pub since_ms: u64,
}

/// A publication.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PublicationRecord {
    /// Its number.
    pub id: PublicationId,
    /// Identity of the endpoint.
    pub endpoint: String,
    /// The host's address; all of them if none.
    pub host_addr: Option<IpAddr>,
    /// The host's ports.
    pub host_ports: PortRange,
    /// The container's ports.
    pub ports: PortRange,
    /// Protocol.
    pub proto: Proto,
}

/// A service.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ServiceRecord {
    /// Its number.
    pub id: ServiceId,
    /// As asked for, with the addresses and ports that were chosen.
    pub spec: ServiceSpec,
    /// When it was made.
    pub created_ms: u64,
}

/// Everything in a store.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Snapshot {
    /// Networks.
    pub networks: Vec<NetworkRecord>,
    /// Uplinks.
    pub uplinks: Vec<UplinkRecord>,
    /// Endpoints.
    pub endpoints: Vec<EndpointRecord>,
    /// Publications.
    pub publications: Vec<PublicationRecord>,
    /// Services.
    pub services: Vec<ServiceRecord>,
    /// Policies.
    pub policies: Vec<PolicyRecord>,
    /// Namespaces that policies look at.
    pub namespaces: Vec<NamespaceRecord>,
}

/// A kind of record.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Kind {
    /// Networks.
    Network,
    /// Uplinks.
    Uplink,
    /// Endpoints.
    Endpoint,
    /// Publications.
    Publication,
    /// Services.
    Service,
    /// Policies.
    Policy,
    /// Namespaces that policies look at.
    Namespace,
}

/// One change of the store.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Change {
    /// What kind of record.
    pub kind: Kind,
    /// Its key.
    pub key: String,
    /// Its new text; none removes it.
    pub json: Option<String>,
}

impl Kind {
    /// All kinds.
    pub const ALL: [Self; 7] = [
        Self::Network,
        Self::Uplink,
        Self::Endpoint,
        Self::Publication,
        Self::Service,
        Self::Policy,
        Self::Namespace,
    ];

    /// Name of its table.
    pub const fn table(self) -> &'static str {
        match self {
            Self::Network => "networks",
            Self::Uplink => "uplinks",
            Self::Endpoint => "endpoints",
            Self::Publication => "publications",
            Self::Service => "services",
            Self::Policy => "policies",
            Self::Namespace => "namespaces",
        }
    }
}

/// A record that a change can carry.
pub trait Record: Serialize {
    /// What kind it is.
    const KIND: Kind;

    /// Its key.
    fn key(&self) -> String;

    /// The change that writes it.
    fn put(&self) -> Change {
        // Plain data with text keys: there is nothing in it that JSON cannot say.
        let json = serde_json::to_string(self).unwrap_or_default();
        Change { kind: Self::KIND, key: self.key(), json: Some(json) }
    }

    /// The change that removes it.
    fn remove(&self) -> Change {
        Change { kind: Self::KIND, key: self.key(), json: None }
    }
}

impl Record for NetworkRecord {
    const KIND: Kind = Kind::Network;
    fn key(&self) -> String {
        self.id.0.to_string()
    }
}

impl Record for UplinkRecord {
    const KIND: Kind = Kind::Uplink;
    fn key(&self) -> String {
        self.id.0.to_string()
    }
}

impl Record for EndpointRecord {
    const KIND: Kind = Kind::Endpoint;
    fn key(&self) -> String {
        self.id.clone()
    }
}

impl Record for PublicationRecord {
    const KIND: Kind = Kind::Publication;
    fn key(&self) -> String {
        self.id.0.to_string()
    }
}

impl Record for ServiceRecord {
    const KIND: Kind = Kind::Service;
    fn key(&self) -> String {
        self.id.0.to_string()
    }
}

impl Snapshot {
    /// Adds one record from its text; the error says which one and why.
    pub fn add(&mut self, kind: Kind, key: &str, json: &str) -> Result<(), String> {
        let parsed = match kind {
            Kind::Network => push(&mut self.networks, json),
            Kind::Uplink => push(&mut self.uplinks, json),
            Kind::Endpoint => push(&mut self.endpoints, json),
            Kind::Publication => push(&mut self.publications, json),
            Kind::Service => push(&mut self.services, json),
            Kind::Policy => push(&mut self.policies, json),
            Kind::Namespace => push(&mut self.namespaces, json),
        };
        parsed.map_err(|e| format!("record {key} of {} does not parse: {e}", kind.table()))
    }
}

fn push<T: DeserializeOwned>(to: &mut Vec<T>, json: &str) -> Result<(), serde_json::Error> {
    to.push(serde_json::from_str(json)?);
    Ok(())
}
