//! Identifiers as newtypes, so that a port can never be passed where a network is meant.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A plug of the switch. Sixteen bits keep a flow small; [`super::limits::PORTS_MAX`] is the bound.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct PortId(pub u16);

/// A network: one layer-2 domain with its gateway. Uplinks are domains too (see [`DomainId`]).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct NetworkId(pub u16);

/// A named way out of the switch.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct UplinkId(pub u16);

/// Another node.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct PeerId(pub u16);

/// One publication of a container's ports on the host's addresses.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct PublicationId(pub u32);

/// One service: a name and an address for several backends.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct ServiceId(pub u32);

/// A layer-2 domain, the scope in which a MAC or an address means something.
///
/// Networks and uplinks share one number space so that it fits a packed flow key: a network's
/// domain is its number, an uplink's is its number with the top bit set.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct DomainId(pub u16);

/// Counts configuration changes; a flow compiled under another generation is judged again.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Generation(pub u32);

impl DomainId {
    const UPLINK: u16 = 0x8000;
    /// Between nodes: what comes through tunnels. No network has this number (limits::NETWORKS_MAX).
    pub const TUNNEL: Self = Self(0x7fff);

    /// Whether this domain is an uplink's.
    pub fn is_uplink(self) -> bool {
        self.0 & Self::UPLINK != 0
    }
}

impl From<NetworkId> for DomainId {
    fn from(id: NetworkId) -> Self {
        debug_assert!(id.0 & Self::UPLINK == 0, "limits::NETWORKS_MAX keeps the top bit free");
        Self(id.0)
    }
}

impl From<UplinkId> for DomainId {
    fn from(id: UplinkId) -> Self {
        Self(id.0 | Self::UPLINK)
    }
}

impl Generation {
    /// The generation after this one. Wrapping is harmless: a flow idle for 2³² changes is long gone.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.wrapping_add(1))
    }
}

impl fmt::Display for PortId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "port{}", self.0)
    }
}

impl fmt::Display for NetworkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "net{}", self.0)
    }
}

impl fmt::Display for UplinkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "uplink{}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_and_an_uplink_of_one_number_are_different_domains() {
        let (network, uplink) = (DomainId::from(NetworkId(7)), DomainId::from(UplinkId(7)));
        assert_ne!(network, uplink);
        assert!(uplink.is_uplink() && !network.is_uplink());
    }
}
