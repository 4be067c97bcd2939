//! What `-p` takes: Docker's forms `[[hostIP:]hostPort[-end]:]port[-end][/tcp|udp|sctp]`.
//!
//! An IPv6 host address stands in brackets. A host port of 0, or none, lets the daemon choose. Two
//! ranges of one length map one to one; a range of host ports with one container port means "one of
//! these". Everything else is an error that quotes the part it is about.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A transport protocol with ports.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Proto {
    /// TCP.
    #[default]
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

/// Ports from `first` to `last`, at least one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PortRange {
    first: u16,
    last: u16,
}

/// One publication as asked for.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PublishSpec {
    /// The host's address to answer on; all of them if none.
    pub host_addr: Option<IpAddr>,
    /// The host's ports; chosen by the daemon if none.
    pub host_ports: Option<PortRange>,
    /// The container's ports.
    pub ports: PortRange,
    /// Protocol.
    pub proto: Proto,
}

/// Why a text is no publication.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PublishSpecError {
    /// No container port.
    #[error("`{0}` names no container port; the form is [[hostIP:]hostPort:]port[/tcp|udp|sctp]")]
    NoPort(String),
    /// Not a number between 1 and 65535.
    #[error("`{part}` in `{spec}` is not a port (1 to 65535) or a range such as 8000-8010")]
    BadPort {
        /// The whole text.
        spec: String,
        /// The part that is wrong.
        part: String,
    },
    /// An address where a host port belongs.
    #[error("`{0}` gives an address without a host port; write `ADDRESS::PORT` to have one chosen")]
    AddressWithoutPort(String),
    /// The end of a range lies before its start.
    #[error("the range `{0}` ends before it starts")]
    Backwards(String),
    /// Host ports and container ports that do not pair.
    #[error(
        "`{spec}` pairs {host} host ports with {container} container ports; both ranges must be of \
         one length, or the container port a single one"
    )]
    Lengths {
        /// The whole text.
        spec: String,
        /// How many host ports.
        host: u32,
        /// How many container ports.
        container: u32,
    },
    /// A protocol that has no ports to publish.
    #[error("`{0}` is not a protocol that can be published; use tcp, udp or sctp")]
    BadProto(String),
    /// Not an address.
    #[error("`{0}` is not a host address; an IPv6 address stands in brackets, as in [::1]:8080:80")]
    BadAddress(String),
}

impl Proto {
    /// IANA's number.
    pub const fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Sctp => 132,
        }
    }
}

impl fmt::Display for Proto {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        })
    }
}

impl FromStr for Proto {
    type Err = PublishSpecError;
    fn from_str(text: &str) -> Result<Self, PublishSpecError> {
        match text.to_ascii_lowercase().as_str() {
            "tcp" => Ok(Self::Tcp),
            "udp" => Ok(Self::Udp),
            "sctp" => Ok(Self::Sctp),
            _ => Err(PublishSpecError::BadProto(text.to_owned())),
        }
    }
}

impl PortRange {
    /// One port.
    pub const fn single(port: u16) -> Self {
        Self { first: port, last: port }
    }

    /// From `first` to `last`; none if that is empty or begins at 0.
    pub const fn new(first: u16, last: u16) -> Option<Self> {
        if first == 0 || last < first { None } else { Some(Self { first, last }) }
    }

    /// The first port.
    pub const fn first(self) -> u16 {
        self.first
    }

    /// The last port.
    pub const fn last(self) -> u16 {
        self.last
    }

    /// How many ports.
    pub const fn count(self) -> u32 {
        self.last as u32 - self.first as u32 + 1
    }

    /// Whether the two share a port.
    pub const fn overlaps(self, other: Self) -> bool {
        self.first <= other.last && other.first <= self.last
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last {
            write!(f, "{}", self.first)
        } else {
            write!(f, "{}-{}", self.first, self.last)
        }
    }
}

impl FromStr for PortRange {
    type Err = PublishSpecError;
    fn from_str(text: &str) -> Result<Self, PublishSpecError> {
        parse_range(text, text)
    }
}

fn parse_range(part: &str, spec: &str) -> Result<PortRange, PublishSpecError> {
    let bad = || PublishSpecError::BadPort { spec: spec.to_owned(), part: part.to_owned() };
    // `u16::from_str` takes a leading `+`, which no port has.
    let number = |text: &str| match text.parse::<u16>() {
        Ok(n) if n != 0 && text.starts_with(|c: char| c.is_ascii_digit()) => Ok(n),
        _ => Err(bad()),
    };
    let Some((first, last)) = part.split_once('-') else {
        return number(part).map(PortRange::single);
    };
    let (first, last) = (number(first)?, number(last)?);
    PortRange::new(first, last).ok_or_else(|| PublishSpecError::Backwards(part.to_owned()))
}

impl FromStr for PublishSpec {
    type Err = PublishSpecError;

    fn from_str(spec: &str) -> Result<Self, PublishSpecError> {
        let (rest, proto) = match spec.rsplit_once('/') {
            Some((rest, proto)) => (rest, proto.parse()?),
            None => (spec, Proto::Tcp),
        };
        let (host, port) = rest.rsplit_once(':').map_or((None, rest), |(h, p)| (Some(h), p));
        if port.is_empty() {
            return Err(PublishSpecError::NoPort(spec.to_owned()));
        }
        let ports = parse_range(port, spec)?;
        let (host_addr, host_ports) = match host {
            Some(host) => parse_host(host, spec)?,
            None => (None, None),
        };
        if let Some(host) = host_ports
            && ports.count() != 1
            && host.count() != ports.count()
        {
            let (host, container) = (host.count(), ports.count());
            return Err(PublishSpecError::Lengths { spec: spec.to_owned(), host, container });
        }
        Ok(Self { host_addr, host_ports, ports, proto })
    }
}

/// The part before the container port: `[hostIP:]hostPort[-end]`, either of which may be empty.
fn parse_host(
    host: &str,
    spec: &str,
) -> Result<(Option<IpAddr>, Option<PortRange>), PublishSpecError> {
    if host.ends_with(']') || host.parse::<Ipv4Addr>().is_ok() {
        return Err(PublishSpecError::AddressWithoutPort(spec.to_owned()));
    }
    let (addr, port) = match host.rsplit_once(':') {
        Some((addr, port)) => (Some(parse_address(addr)?), port),
        None => (None, host),
    };
    let ports = match port {
        "" | "0" => None,
        _ => Some(parse_range(port, spec)?),
    };
    Ok((addr.flatten(), ports))
}

/// `1.2.3.4`, `[::1]`, or nothing, which means every address.
fn parse_address(text: &str) -> Result<Option<IpAddr>, PublishSpecError> {
    let bad = || PublishSpecError::BadAddress(text.to_owned());
    if text.is_empty() {
        return Ok(None);
    }
    if let Some(inner) = text.strip_prefix('[').and_then(|t| t.strip_suffix(']')) {
        return inner.parse().map(|ip| Some(IpAddr::V6(ip))).map_err(|_| bad());
    }
    text.parse().map(|ip| Some(IpAddr::V4(ip))).map_err(|_| bad())
}

impl fmt::Display for PublishSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host_addr {
            Some(IpAddr::V4(ip)) => write!(f, "{ip}:")?,
            Some(IpAddr::V6(ip)) => write!(f, "[{ip}]:")?,
            None => {}
        }
        match self.host_ports {
            Some(ports) => write!(f, "{ports}:")?,
            None if self.host_addr.is_some() => write!(f, ":")?,
            None => {}
        }
        write!(f, "{}/{}", self.ports, self.proto)
    }
}

impl TryFrom<String> for PublishSpec {
    type Error = PublishSpecError;
    fn try_from(text: String) -> Result<Self, PublishSpecError> {
        text.parse()
    }
}

impl From<PublishSpec> for String {
    fn from(spec: PublishSpec) -> Self {
        spec.to_string()
    }
}

impl TryFrom<String> for PortRange {
    type Error = PublishSpecError;
    fn try_from(text: String) -> Result<Self, PublishSpecError> {
        text.parse()
    }
}

impl From<PortRange> for String {
    fn from(range: PortRange) -> Self {
        range.to_string()
    }
}

#[cfg(test)]
#[path = "publish_spec_tests.rs"]
mod tests;
