//! Networks.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::yes;
use crate::base::ids::NetworkId;
use crate::wire::mac::Mac;

/// A network as asked for (`wharf network create`, `[[network]]` in the config file).
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(clippy::struct_excessive_bools, reason = "each is an option of `network create`")]
pub struct NetworkSpec {
    /// Its name.
    pub name: String,
    /// Its subnets, at most one of each family; chosen from the pools if none is given.
    #[serde(default)]
    pub subnets: Vec<IpNet>,
    /// The gateway in each subnet; the first address of a subnet for which none is given.
    #[serde(default)]
    pub gateways: Vec<IpAddr>,
    /// No way out at all.
    #[serde(default)]
    pub internal: bool,
    /// Not reachable from other networks, nor they from it.
    #[serde(default = "yes")]
    pub isolated: bool,
    /// Whether its endpoints may talk to one another.
    #[serde(default = "yes")]
    pub icc: bool,
    /// Endpoints with these labels are exempt from that: clients see the server, and not one another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub icc_except: Option<String>,
    /// Anti-spoofing on every port.
    #[serde(default = "yes")]
    pub guard: bool,
    /// The host takes part, with an interface `wharf0`, `wharf1` …
    #[serde(default)]
    pub host: bool,
    /// The way out, by name; the daemon's default if none is given.
    #[serde(default)]
    pub uplink: Option<String>,
    /// Largest IP packet of its endpoints; 1500 if not given.
    #[serde(default)]
    pub mtu: Option<u16>,
    /// Spans all nodes of the cluster.
    #[serde(default)]
    pub span: bool,
    /// What is sent to the gateway reaches the host's loopback.
    #[serde(default)]
    pub host_loopback: bool,
}

impl NetworkSpec {
    /// A network of this name with everything else left to the daemon.
    pub fn named(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            subnets: Vec::new(),
            gateways: Vec::new(),
            internal: false,
            isolated: true,
            icc: true,
            icc_except: None,
            guard: true,
            host: false,
            uplink: None,
            mtu: None,
            span: false,
            host_loopback: false,
        }
    }
}

/// A change of a network (`wharf network update`): what is absent stays as it is.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetworkUpdate {
    /// No way out at all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub internal: Option<bool>,
    /// Not reachable from other networks, nor they from it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub isolated: Option<bool>,
    /// Whether its endpoints may talk to one another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub icc: Option<bool>,
    /// Labels of those that are exempt from that; an empty text: nobody.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub icc_except: Option<String>,
    /// Anti-spoofing on every port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guard: Option<bool>,
    /// The host takes part.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<bool>,
    /// The way out, by name; `none` takes it away.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uplink: Option<String>,
}

/// One subnet of a network, as it is.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SubnetInfo {
    /// The range.
    pub subnet: IpNet,
    /// The gateway's address in it.
    pub gateway: IpAddr,
    /// Addresses that endpoints hold.
    pub used: u64,
    /// Addresses that they can hold.
    pub capacity: u64,
}

/// A network as it is.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[allow(clippy::struct_excessive_bools, reason = "mirrors the options of `network create`")]
pub struct NetworkInfo {
    /// Its number.
    pub id: NetworkId,
    /// Its name.
    pub name: String,
    /// Its subnets.
    pub subnets: Vec<SubnetInfo>,
    /// The gateway's MAC.
    pub gateway_mac: Mac,
    /// No way out at all.
    pub internal: bool,
    /// Not reachable from other networks, nor they from it.
    pub isolated: bool,
    /// Whether its endpoints may talk to one another.
    pub icc: bool,
    /// Labels of those that are exempt from that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub icc_except: Option<String>,
    /// Anti-spoofing on every port.
    pub guard: bool,
    /// The host takes part.
    pub host: bool,
    /// Name of the host's interface on it, if the host takes part.
    pub host_interface: Option<String>,
    /// The way out, by name; none when there is none.
    pub uplink: Option<String>,
    /// Largest IP packet of its endpoints.
    pub mtu: u16,
    /// Spans all nodes of the cluster.
    pub span: bool,
    /// What is sent to the gateway reaches the host's loopback.
    pub host_loopback: bool,
    /// Names of its endpoints.
    pub endpoints: Vec<String>,
    /// When it was made, in milliseconds since 1970.
    pub created_ms: u64,
}
