//! Uplinks: the named ways out of the switch.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::PortRange;
use crate::base::ids::{PortId, UplinkId};
use crate::stage::flow::{Binding, Filtering};
use crate::wire::mac::Mac;

/// An uplink as asked for (`wharf uplink create`, `[[uplink]]` in the config file).
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UplinkSpec {
    /// Its name.
    pub name: String,
    /// How frames leave: `"sockets"` or `{"packet": {"interface": "eth0", …}}`.
    pub kind: UplinkKind,
}

/// How frames leave.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum UplinkKind {
    /// Flows end in sockets of the host.
    Sockets,
    /// A packet socket on a NIC.
    Packet(PacketSpec),
}

/// A packet socket on a NIC: the switch is a router on that LAN.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(clippy::struct_excessive_bools, reason = "independent switches of the command line")]
pub struct PacketSpec {
    /// The NIC.
    pub interface: String,
    /// Our addresses on its LAN, with the LAN's prefix lengths.
    #[serde(default)]
    pub addresses: Vec<IpNet>,
    /// Ask for addresses by DHCP and router advertisements.
    #[serde(default)]
    pub dhcp: bool,
    /// Routers to everything beyond the LAN, at most one of each family.
    #[serde(default)]
    pub gateways: Vec<IpAddr>,
    /// Use the host's own address, with a port range that the kernel leaves alone.
    #[serde(default)]
    pub share_host_address: bool,
    /// Outside ports for masquerade; if not given, all, or 61440 to 65535 of the host's address.
    #[serde(default)]
    pub ports: Option<PortRange>,
    /// When one inside socket has one outside port: `endpoint-independent` if not given.
    #[serde(default)]
    pub mapping: Binding,
    /// Who outside may send to it: `address-dependent` if not given.
    #[serde(default)]
    pub filtering: Filtering,
    /// Let what comes from outside not keep a UDP mapping alive.
    #[serde(default)]
    pub outbound_refresh_only: bool,
    /// Translate global IPv6 addresses, too.
    #[serde(default)]
    pub nat66: bool,
}

/// How an uplink shares the host's address.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SharedInfo {
    /// Ports of the host's address that are the uplink's, published ones apart.
    pub ports: PortRange,
    /// Programs of the host that were found to use one of them since the uplink works.
    pub conflicts: u64,
}

/// An uplink as it is.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct UplinkInfo {
    /// Its number.
    pub id: UplinkId,
    /// Its name.
    pub name: String,
    /// How frames leave.
    pub kind: UplinkKind,
    /// Its port.
    pub port: PortId,
    /// Our MAC there, if it is a LAN.
    pub mac: Option<Mac>,
    /// Our addresses, static and leased.
    pub addresses: Vec<IpNet>,
    /// Routers to everything else.
    pub gateways: Vec<IpAddr>,
    /// Name servers that the LAN named.
    pub dns: Vec<IpAddr>,
    /// Largest IP packet.
    pub mtu: u16,
    /// What is ours of the host's address, if that is shared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shared: Option<SharedInfo>,
    /// Works, or why not.
    pub state: String,
    /// Networks that leave by it.
    pub networks: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_older_version_wrote_means_what_it_did() {
        let old = r#"{"interface":"eth0","addresses":["192.0.2.2/24"],"dhcp":false,"gateways":[],
                      "share_host_address":false,"ports":null}"#;
        let packet: PacketSpec = serde_json::from_str(old).unwrap();
        assert_eq!(packet.filtering, Filtering::AddressDependent);
        assert_eq!(packet.mapping, Binding::EndpointIndependent);
        assert!(!packet.nat66 && !packet.outbound_refresh_only);
        let again: PacketSpec =
            serde_json::from_str(&serde_json::to_string(&packet).unwrap()).unwrap();
        assert_eq!(again, packet);
    }
}
