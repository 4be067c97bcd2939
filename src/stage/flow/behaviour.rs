//! How translation treats destinations and strangers (RFC 4787 4.1 and 5): chosen for each uplink.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// When one inside socket has one outside port.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Binding {
    /// Always, whatever it speaks to (RFC 4787 REQ-1).
    #[default]
    EndpointIndependent,
    /// For each destination anew, and many destinations share a port (RFC 7857 3): a port is spent
    /// once for each remote socket, and nobody else can be reached through it.
    AddressAndPortDependent,
}

/// Who outside may send to an outside port (RFC 4787 REQ-8).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Filtering {
    /// Everybody.
    EndpointIndependent,
    /// Hosts that its owner has sent to.
    #[default]
    AddressDependent,
    /// Sockets that its owner has sent to.
    AddressAndPortDependent,
}

/// Everything an uplink says about translation.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Behaviour {
    /// When one inside socket has one outside port.
    pub mapping: Binding,
    /// Who outside may send to it.
    pub filtering: Filtering,
    /// Whether what comes from outside keeps a UDP mapping alive (RFC 4787 REQ-6 a, RFC 7857 7).
    pub inbound_refresh: bool,
    /// Whether global IPv6 addresses are translated, too.
    pub nat66: bool,
}

impl Default for Behaviour {
    fn default() -> Self {
        Self {
            mapping: Binding::default(),
            filtering: Filtering::default(),
            inbound_refresh: true,
            nat66: false,
        }
    }
}

const INDEPENDENT: &str = "endpoint-independent";
const BY_ADDRESS: &str = "address-dependent";
const BY_BOTH: &str = "address-and-port-dependent";

impl Binding {
    /// The name that people read and write.
    pub fn name(self) -> &'static str {
        match self {
            Self::EndpointIndependent => INDEPENDENT,
            Self::AddressAndPortDependent => BY_BOTH,
        }
    }
}

impl Filtering {
    /// The name that people read and write.
    pub fn name(self) -> &'static str {
        match self {
            Self::EndpointIndependent => INDEPENDENT,
            Self::AddressDependent => BY_ADDRESS,
            Self::AddressAndPortDependent => BY_BOTH,
        }
    }
}

impl FromStr for Binding {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let all = [Self::EndpointIndependent, Self::AddressAndPortDependent];
        let found = all.into_iter().find(|it| it.name() == text);
        found.ok_or_else(|| format!("a mapping is {INDEPENDENT} or {BY_BOTH}"))
    }
}

impl FromStr for Filtering {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let all =
            [Self::EndpointIndependent, Self::AddressDependent, Self::AddressAndPortDependent];
        let found = all.into_iter().find(|it| it.name() == text);
        found.ok_or_else(|| format!("filtering is {INDEPENDENT}, {BY_ADDRESS} or {BY_BOTH}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_are_written() {
        for name in [INDEPENDENT, BY_BOTH] {
            assert_eq!(name.parse::<Binding>().unwrap().name(), name);
        }
        for name in [INDEPENDENT, BY_ADDRESS, BY_BOTH] {
            let filtering: Filtering = name.parse().unwrap();
            assert_eq!(filtering.name(), name);
            assert_eq!(serde_json::to_value(filtering).unwrap(), name);
        }
        assert!("symmetric".parse::<Binding>().unwrap_err().contains(BY_BOTH));
        assert!("none".parse::<Filtering>().unwrap_err().contains(BY_ADDRESS));
    }
}
