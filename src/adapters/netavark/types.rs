//! What netavark says, and what it becomes with the daemon.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::attach::protocol::{AttachRequest, RouteSpec};
use crate::control::model::NetworkSpec;
use crate::wire::mac::Mac;

/// A network. Fields that mean nothing to us go back as they came.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[allow(clippy::struct_field_names, reason = "the words of the protocol")]
pub(super) struct Network {
    name: String,
    #[serde(default)]
    pub(super) dns_enabled: bool,
    #[serde(default)]
    internal: bool,
    #[serde(default)]
    pub(super) ipv6_enabled: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) subnets: Option<Vec<Subnet>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    routes: Option<Vec<Route>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    network_dns_servers: Option<Vec<IpAddr>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    options: Option<BTreeMap<String, String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ipam_options: Option<BTreeMap<String, String>>,
    #[serde(flatten)]
    rest: Map<String, Value>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[allow(clippy::struct_field_names, reason = "the words of the protocol")]
pub(super) struct Subnet {
    subnet: IpNet,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    gateway: Option<IpAddr>,
    #[serde(flatten)]
    rest: Map<String, Value>,
}

impl Subnet {
    pub(super) fn new(subnet: IpNet, gateway: IpAddr) -> Self {
        Self { subnet, gateway: Some(gateway), rest: Map::new() }
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Route {
    destination: IpNet,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    gateway: Option<IpAddr>,
    #[serde(flatten)]
    rest: Map<String, Value>,
}

/// The input of `setup` and `teardown`.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Exec {
    pub(super) container_id: String,
    #[serde(default)]
    container_name: String,
    #[serde(default)]
    port_mappings: Option<Vec<PortMapping>>,
    pub(super) network: Network,
    pub(super) network_options: NetworkOptions,
}

#[derive(Clone, Debug, Deserialize)]
struct PortMapping {
    container_port: u16,
    #[serde(default)]
    host_ip: String,
    #[serde(default)]
    host_port: u16,
    #[serde(default)]
    protocol: String,
    #[serde(default)]
    range: u16,
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct NetworkOptions {
    pub(super) interface_name: String,
    #[serde(default)]
    aliases: Option<Vec<String>>,
    #[serde(default)]
    static_ips: Option<Vec<IpAddr>>,
    #[serde(default)]
    static_mac: Option<Mac>,
}

/// One address of an interface, for netavark.
#[derive(Serialize)]
pub(super) struct SubnetOut {
    pub(super) ipnet: IpNet,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) gateway: Option<IpAddr>,
}

impl Network {
    /// The daemon's network.
    pub(super) fn spec(&self) -> Result<NetworkSpec, String> {
        let ipam = self.ipam_options.as_ref().and_then(|options| options.get("driver"));
        if ipam.is_some_and(|driver| driver == "dhcp") {
            return Err(
                "addresses by DHCP are not given on this network; leave the ipam driver out"
                    .to_owned(),
            );
        }
        if self.network_dns_servers.as_ref().is_some_and(|servers| !servers.is_empty()) {
            return Err(
                "a network's own DNS servers are not supported: the daemon asks the host's \
                        (`podman network create` without --dns)"
                    .to_owned(),
            );
        }
        let mut spec = NetworkSpec::named(&self.name);
        for subnet in self.subnets.iter().flatten() {
            spec.subnets.push(subnet.subnet.trunc());
            spec.gateways.extend(subnet.gateway);
        }
        spec.internal = self.internal;
        for (key, value) in self.options.iter().flatten() {
            option(&mut spec, key, value)?;
        }
        Ok(spec)
    }

    /// Further routes of containers.
    pub(super) fn routes(&self) -> Vec<RouteSpec> {
        let routes = self.routes.iter().flatten();
        routes.map(|route| RouteSpec { dst: route.destination, via: route.gateway }).collect()
    }
}

/// `-o KEY=VALUE` of `podman network create`.
fn option(spec: &mut NetworkSpec, key: &str, value: &str) -> Result<(), String> {
    let flag = || match value {
        "true" | "1" | "strict" => Ok(true),
        "false" | "0" => Ok(false),
        _ => Err(format!("option {key}={value}: give true or false")),
    };
    match key {
        "mtu" => {
            let mtu = value.parse().map_err(|_| format!("option mtu={value} is not a number"))?;
            spec.mtu = Some(mtu).filter(|mtu| *mtu > 0);
        }
        "isolate" => spec.isolated = flag()?,
        "icc" => spec.icc = flag()?,
        "guard" => spec.guard = flag()?,
        "host" => spec.host = flag()?,
        "uplink" => spec.uplink = Some(value.to_owned()),
        _ => {
            return Err(format!(
                "the option `{key}` is not known; there are mtu, isolate, icc, guard, host, uplink"
            ));
        }
    }
    Ok(())
}

impl Exec {
    /// The request for the daemon.
    pub(super) fn request(&self) -> Result<AttachRequest, String> {
        let options = &self.network_options;
        let mut request = AttachRequest::new(&self.network.name, &options.interface_name);
        request.name = Some(self.container_name.clone()).filter(|name| !name.is_empty());
        request.container_id = Some(self.container_id.clone());
        request.aliases = options.aliases.clone().unwrap_or_default();
        request.mac = options.static_mac;
        for addr in options.static_ips.iter().flatten() {
            let twice = match addr {
                IpAddr::V4(v4) => request.ip.replace(*v4).is_some(),
                IpAddr::V6(v6) => request.ip6.replace(*v6).is_some(),
            };
            if twice {
                return Err(format!("{addr} is a second address of its family"));
            }
        }
        for mapping in self.port_mappings.iter().flatten() {
            request.publish.extend(mapping.in_words()?);
        }
        Ok(request)
    }
}

impl PortMapping {
    /// One publication for each protocol.
    fn in_words(&self) -> Result<Vec<String>, String> {
        let host_ip = match self.host_ip.parse::<IpAddr>() {
            _ if self.host_ip.is_empty() => String::new(),
            Ok(IpAddr::V4(v4)) => format!("{v4}:"),
            Ok(IpAddr::V6(v6)) => format!("[{v6}]:"),
            Err(_) => return Err(format!("host_ip `{}` is no address", self.host_ip)),
        };
        let more = self.range.max(1) - 1;
        let range = |first: u16| match first.checked_add(more) {
            Some(last) if more > 0 => Ok(format!("{first}-{last}")),
            Some(_) => Ok(first.to_string()),
            None => Err(format!("{} ports from {first} on are too many", self.range)),
        };
        // Without a host port one is chosen for each.
        let host = if self.host_port == 0 { "0".to_owned() } else { range(self.host_port)? };
        let ports = range(self.container_port)?;
        let protocols = if self.protocol.is_empty() { "tcp" } else { &self.protocol };
        let one = |proto: &str| format!("{host_ip}{host}:{ports}/{}", proto.trim());
        Ok(protocols.split(',').map(one).collect())
    }
}

/// Reads anything as each kind of input, for the fuzzer: it must never panic.
#[doc(hidden)]
pub fn fuzz_input(input: &[u8]) {
    if let Ok(network) = serde_json::from_slice::<Network>(input) {
        let _ = network.spec();
        let _ = network.routes();
        let _ = serde_json::to_string(&network);
    }
    if let Ok(exec) = serde_json::from_slice::<Exec>(input) {
        let _ = exec.request();
        let _ = exec.network.spec();
    }
}
