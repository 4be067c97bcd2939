//! Services: an address and a name for several backends.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::{HealthSpec, PortRange, Proto};
use crate::base::ids::ServiceId;

/// Kubernetes' time for a client to stay with its backend: three hours.
const AFFINITY_SECONDS: u32 = 10_800;
/// Kubernetes' bound for it: a day.
const AFFINITY_SECONDS_MAX: u32 = 86_400;

/// A service as asked for (`wharf service create`).
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServiceSpec {
    /// Its name.
    pub name: String,
    /// Its virtual addresses, at most one of each family; chosen if none is given.
    #[serde(default)]
    pub vips: Vec<IpAddr>,
    /// No virtual address: its name gives the backends' own.
    #[serde(default)]
    pub headless: bool,
    /// Its ports.
    #[serde(default)]
    pub ports: Vec<ServicePort>,
    /// Ports of the node, one for each of `ports` in their order, 0 to have one chosen.
    #[serde(default)]
    pub node_ports: Vec<u16>,
    /// Backends by name or address.
    #[serde(default)]
    pub backends: Vec<BackendSpec>,
    /// Labels that make a container a backend, all of them.
    #[serde(default)]
    pub selector: BTreeMap<String, String>,
    /// Only containers on this network are backends.
    #[serde(default)]
    pub network: Option<String>,
    /// Weights of backends by name; 1 for others, 0 for no new connection.
    #[serde(default)]
    pub weights: BTreeMap<String, u16>,
    /// A client stays with its backend for so many seconds after its last connection began.
    #[serde(default)]
    pub affinity: Option<Affinity>,
    /// Who serves the virtual address.
    #[serde(default)]
    pub internal_policy: Policy,
    /// Who serves the node ports.
    #[serde(default)]
    pub external_policy: Policy,
    /// How backends are asked whether they serve.
    #[serde(default)]
    pub health: Option<HealthSpec>,
}

/// A change of a service (`wharf service update`): what is absent stays as it is.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServiceUpdate {
    /// All its backends by name or address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backends: Option<Vec<BackendSpec>>,
    /// All its labels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<BTreeMap<String, String>>,
    /// Weights of these backends; others keep theirs.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub weights: BTreeMap<String, u16>,
    /// Seconds of affinity; 0 ends it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub affinity: Option<u32>,
    /// Who serves the virtual address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub internal_policy: Option<Policy>,
    /// Who serves the node ports.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external_policy: Option<Policy>,
    /// How backends are asked whether they serve.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<HealthSpec>,
    /// They are not asked any more.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub no_health: bool,
}

/// Which backends may serve.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Policy {
    /// All.
    #[default]
    Cluster,
    /// Those of the node that the connection came to.
    Local,
}

/// One port: `[NAME=]PORT[:TARGET][/tcp|udp]`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ServicePort {
    /// What `SRV` queries call it.
    pub name: Option<String>,
    /// At the virtual address.
    pub port: u16,
    /// At the backends, unless one names its own.
    pub target: u16,
    /// Protocol.
    pub proto: Proto,
}

/// One backend: `NAME[:PORT]` or `ADDRESS[:PORT]`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct BackendSpec {
    /// Who it is.
    pub host: BackendHost,
    /// Its own port, in place of the service's target.
    pub port: Option<u16>,
}

/// Who a backend is.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum BackendHost {
    /// A container.
    Name(String),
    /// Whoever has this address.
    Addr(IpAddr),
}

/// Seconds that a client stays with its backend.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct Affinity(u32);

/// Why a text is no port, backend or affinity.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ServiceSpecError {
    /// No port.
    #[error("`{0}` is not a service's port; the form is [NAME=]PORT[:TARGET][/tcp|udp]")]
    Port(String),
    /// No backend.
    #[error("`{0}` is not a backend; the form is NAME[:PORT], ADDRESS[:PORT] or [IPv6]:PORT")]
    Backend(String),
    /// No health check.
    #[error("`{0}` is not a health check; use tcp or http:/PATH")]
    Health(String),
    /// No affinity.
    #[error("`{0}` is not an affinity; the form is client-ip[:SECONDS], 1 to 86400")]
    Affinity(String),
}

/// A service as it is.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ServiceInfo {
    /// Its number.
    pub id: ServiceId,
    /// As asked for, with what was chosen.
    #[serde(flatten)]
    pub spec: ServiceSpec,
    /// Its backends now.
    pub members: Vec<BackendInfo>,
    /// What a person should know.
    pub warnings: Vec<String>,
    /// When it was made, in milliseconds since 1970.
    pub created_ms: u64,
}

/// A backend as it is.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct BackendInfo {
    /// Name of the container, or the address.
    pub name: String,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// Its own port, if it has one.
    pub port: Option<u16>,
    /// How much it takes.
    pub weight: u16,
    /// Whether new connections go there.
    pub ready: bool,
    /// Addresses at which it does not serve, and why.
    #[serde(default)]
    pub unready: BTreeMap<IpAddr, String>,
}

impl Affinity {
    /// Kubernetes' default.
    pub const DEFAULT: Self = Self(AFFINITY_SECONDS);

    /// The seconds.
    pub fn seconds(self) -> u32 {
        self.0
    }
}

impl TryFrom<u32> for Affinity {
    type Error = ServiceSpecError;
    fn try_from(seconds: u32) -> Result<Self, ServiceSpecError> {
        let good = (1..=AFFINITY_SECONDS_MAX).contains(&seconds);
        good.then_some(Self(seconds)).ok_or(ServiceSpecError::Affinity(seconds.to_string()))
    }
}

impl From<Affinity> for u32 {
    fn from(affinity: Affinity) -> Self {
        affinity.0
    }
}

impl FromStr for Affinity {
    type Err = ServiceSpecError;
    fn from_str(text: &str) -> Result<Self, ServiceSpecError> {
        let bad = || ServiceSpecError::Affinity(text.to_owned());
        match text.strip_prefix("client-ip").ok_or_else(bad)?.strip_prefix(':') {
            None if text == "client-ip" => Ok(Self::DEFAULT),
            None => Err(bad()),
            Some(seconds) => {
                seconds.parse::<u32>().map_err(|_| bad())?.try_into().map_err(|_| bad())
            }
        }
    }
}

impl FromStr for ServicePort {
    type Err = ServiceSpecError;
    fn from_str(text: &str) -> Result<Self, ServiceSpecError> {
        let bad = || ServiceSpecError::Port(text.to_owned());
        let (name, rest) = match text.split_once('=') {
            Some((name, rest)) => (Some(name.to_owned()), rest),
            None => (None, text),
        };
        let (ports, proto) = rest.split_once('/').unwrap_or((rest, "tcp"));
        let proto: Proto = proto.parse().map_err(|_| bad())?;
        let (port, target) = ports.split_once(':').unwrap_or((ports, ports));
        let number = |text: &str| text.parse::<u16>().ok().filter(|n| *n > 0).ok_or_else(bad);
        let (port, target) = (number(port)?, number(target)?);
        let named = name.as_ref().is_none_or(|name| {
            let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
            !name.is_empty() && name.len() <= 15 && name.bytes().all(plain)
        });
        // An ordinary user's host has no SCTP, and its packets say by nothing else whose they are.
        if !named || proto == Proto::Sctp {
            return Err(bad());
        }
        Ok(Self { name, port, target, proto })
    }
}

impl fmt::Display for ServicePort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(name) = &self.name {
            write!(f, "{name}=")?;
        }
        write!(f, "{}:{}/{}", self.port, self.target, self.proto)
    }
}

impl FromStr for BackendSpec {
    type Err = ServiceSpecError;
    fn from_str(text: &str) -> Result<Self, ServiceSpecError> {
        let bad = || ServiceSpecError::Backend(text.to_owned());
        if let Ok(addr) = text.parse::<IpAddr>() {
            return Ok(Self { host: BackendHost::Addr(addr), port: None });
        }
        if let Ok(addr) = text.parse::<SocketAddr>() {
            let port = Some(addr.port()).filter(|port| *port > 0).ok_or_else(bad)?;
            return Ok(Self { host: BackendHost::Addr(addr.ip()), port: Some(port) });
        }
        let (name, port) = match text.split_once(':') {
            Some((name, port)) => (name, Some(port.parse::<u16>().map_err(|_| bad())?)),
            None => (text, None),
        };
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"_.-".contains(&b);
        if name.is_empty() || port == Some(0) || !name.bytes().all(plain) {
            return Err(bad());
        }
        Ok(Self { host: BackendHost::Name(name.to_owned()), port })
    }
}

impl fmt::Display for BackendSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.host, self.port) {
            (BackendHost::Name(name), None) => f.write_str(name),
            (BackendHost::Name(name), Some(port)) => write!(f, "{name}:{port}"),
            (BackendHost::Addr(addr), None) => write!(f, "{addr}"),
            (BackendHost::Addr(addr), Some(port)) => write!(f, "{}", SocketAddr::new(*addr, port)),
        }
    }
}

impl TryFrom<String> for ServicePort {
    type Error = ServiceSpecError;
    fn try_from(text: String) -> Result<Self, ServiceSpecError> {
        text.parse()
    }
}

impl From<ServicePort> for String {
    fn from(port: ServicePort) -> Self {
        port.to_string()
    }
}

impl TryFrom<String> for BackendSpec {
    type Error = ServiceSpecError;
    fn try_from(text: String) -> Result<Self, ServiceSpecError> {
        text.parse()
    }
}

impl From<BackendSpec> for String {
    fn from(backend: BackendSpec) -> Self {
        backend.to_string()
    }
}

/// The node's ports that services may have: Kubernetes' range.
pub fn node_port_range() -> PortRange {
    PortRange::new(30_000, 32_767).unwrap_or(PortRange::single(30_000))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_backends_and_affinities_are_read_and_written_alike() {
        for (text, shown) in [
            ("80", "80:80/tcp"),
            ("80:8080", "80:8080/tcp"),
            ("53/udp", "53:53/udp"),
            ("http=80:8080/tcp", "http=80:8080/tcp"),
        ] {
            assert_eq!(text.parse::<ServicePort>().unwrap().to_string(), shown);
        }
        for text in ["web", "web:8080", "10.0.0.1", "10.0.0.1:80", "fd00::1", "[fd00::1]:80"] {
            assert_eq!(text.parse::<BackendSpec>().unwrap().to_string(), text);
        }
        assert_eq!("client-ip".parse::<Affinity>().unwrap().seconds(), 10_800);
        assert_eq!("client-ip:60".parse::<Affinity>().unwrap().seconds(), 60);
    }

    #[test]
    fn what_is_none_is_quoted() {
        for text in ["", "0", "80:0", "80/sctp", "80/icmp", "=80", "A=80", "80:81:82", "x"] {
            assert!(text.parse::<ServicePort>().unwrap_err().to_string().contains(text), "{text}");
        }
        for text in ["", ":80", "web:", "web:0", "web:x", "a/b", "10.0.0.1:0", "[fd00::1]"] {
            assert!(text.parse::<BackendSpec>().is_err(), "{text}");
        }
        for text in ["", "client-ipx", "client-ip:", "client-ip:0", "client-ip:86401", "cookie"] {
            assert!(text.parse::<Affinity>().is_err(), "{text}");
        }
    }
}
