//! `wharf uplink`: create, ls, inspect, rm.

use std::net::IpAddr;
use std::str::FromStr;

use clap::{Args, Subcommand};
use ipnet::IpNet;

use super::human::list;
use super::options::{Format, Global};
use super::output::{Failure, Outcome, json, line, listing, table};
use crate::control::model::{PacketSpec, PortRange, UplinkInfo, UplinkKind, UplinkSpec};
use crate::stage::flow::{Binding, Filtering};

/// What can be done with uplinks.
#[derive(Subcommand, Debug)]
pub(crate) enum Command {
    /// Make a way out of the switch
    Create(Create),
    /// List the uplinks
    #[command(visible_alias = "list")]
    Ls(Format),
    /// Show uplinks in full, as JSON
    Inspect {
        /// Uplinks
        #[arg(required = true, value_name = "NAME")]
        names: Vec<String>,
    },
    /// Remove uplinks
    #[command(visible_alias = "remove")]
    Rm {
        /// Uplinks
        #[arg(required = true, value_name = "NAME")]
        names: Vec<String>,
    },
}

/// `wharf uplink create`
#[derive(Args, Debug)]
#[allow(clippy::struct_excessive_bools, reason = "each is an option")]
#[command(group = clap::ArgGroup::new("kind").required(true).args(["sockets", "packet"]))]
pub(crate) struct Create {
    /// Its name
    name: String,
    /// Sockets of the host: needs no right
    #[arg(long, conflicts_with_all = [
        "addresses", "gateways", "ports", "mapping", "filtering", "outbound_refresh_only", "nat66",
        "share_host_address",
    ])]
    sockets: bool,
    /// A packet socket on this NIC: the switch is a router of that LAN (needs CAP_NET_RAW)
    #[arg(long, value_name = "IFACE")]
    packet: Option<String>,
    /// Share the host's own addresses there: a range of ports and the published ones are ours (needs
    /// CAP_NET_ADMIN, too)
    #[arg(long, requires = "packet", conflicts_with_all = ["addresses", "gateways"])]
    share_host_address: bool,
    /// Our address there, or `dhcp`; may be repeated
    #[arg(long = "address", value_name = "CIDR|dhcp")]
    addresses: Vec<UplinkAddress>,
    /// Router to everything else, at most one of each family
    #[arg(long = "gateway", value_name = "ADDR")]
    gateways: Vec<IpAddr>,
    /// Outside ports for masquerade; 61440-65535 of a shared address if not given
    #[arg(long, value_name = "FIRST-LAST")]
    ports: Option<PortRange>,
    /// When a container's socket has one outside port: endpoint-independent, or
    /// address-and-port-dependent, which lets many connections share one
    #[arg(long, value_name = "BEHAVIOUR", default_value = "endpoint-independent")]
    mapping: Binding,
    /// Who outside may send to it: endpoint-independent (everybody), address-dependent (hosts it has
    /// sent to) or address-and-port-dependent (sockets it has sent to)
    #[arg(long, value_name = "BEHAVIOUR", default_value = "address-dependent")]
    filtering: Filtering,
    /// What comes from outside does not keep a UDP mapping alive
    #[arg(long)]
    outbound_refresh_only: bool,
    /// Translate global IPv6 addresses, too
    #[arg(long)]
    nat66: bool,
}

/// A static address, or that one is asked for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum UplinkAddress {
    /// This one.
    Static(IpNet),
    /// Whatever the LAN gives.
    Dhcp,
}

impl FromStr for UplinkAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.eq_ignore_ascii_case("dhcp") {
            return Ok(Self::Dhcp);
        }
        let wrong = |_| "an address is written with its prefix length, 192.168.1.7/24, or `dhcp`";
        Ok(Self::Static(text.parse().map_err(wrong)?))
    }
}

impl Create {
    fn spec(self) -> Result<UplinkSpec, Failure> {
        let Some(interface) = self.packet else {
            return Ok(UplinkSpec { name: self.name, kind: UplinkKind::Sockets });
        };
        let dhcp = self.addresses.contains(&UplinkAddress::Dhcp);
        let addresses: Vec<IpNet> = self
            .addresses
            .into_iter()
            .filter_map(|address| match address {
                UplinkAddress::Static(net) => Some(net),
                UplinkAddress::Dhcp => None,
            })
            .collect();
        if !dhcp && addresses.is_empty() && !self.share_host_address {
            return Err(Failure::usage("a packet uplink needs an address on its LAN").hint(
                "give `--address CIDR`, `--address dhcp` to ask for one, or `--share-host-address`",
            ));
        }
        let packet = PacketSpec {
            interface,
            addresses,
            dhcp,
            gateways: self.gateways,
            share_host_address: self.share_host_address,
            ports: self.ports,
            mapping: self.mapping,
            filtering: self.filtering,
            outbound_refresh_only: self.outbound_refresh_only,
            nat66: self.nat66,
        };
        Ok(UplinkSpec { name: self.name, kind: UplinkKind::Packet(packet) })
    }
}

/// Runs `wharf uplink …`.
pub(crate) fn run(global: &Global, command: Command) -> Outcome {
    let client = global.client();
    match command {
        Command::Create(create) => {
            let uplink = client.create_uplink(&create.spec()?)?;
            let state =
                if uplink.addresses.is_empty() { uplink.state } else { list(&uplink.addresses) };
            global.note(format_args!("uplink {}: {state}", uplink.name));
            Ok(0)
        }
        Command::Ls(format) => {
            let uplinks = client.uplinks()?;
            listing(format.json, &uplinks, || uplinks_table(&uplinks))
        }
        Command::Inspect { names } => {
            let found: Result<Vec<_>, _> = names.iter().map(|name| client.uplink(name)).collect();
            json(&found?)?;
            Ok(0)
        }
        Command::Rm { names } => {
            for name in &names {
                client.remove_uplink(name)?;
                if names.len() > 1 {
                    line(name)?;
                }
            }
            Ok(0)
        }
    }
}

fn uplinks_table(uplinks: &[UplinkInfo]) -> String {
    let rows = uplinks.iter().map(|uplink| {
        [
            uplink.name.clone(),
            kind_text(&uplink.kind),
            list(&uplink.addresses),
            list(&uplink.gateways),
            uplink.state.clone(),
            list(&uplink.networks),
        ]
    });
    table(["NAME", "KIND", "ADDRESSES", "GATEWAYS", "STATE", "NETWORKS"], rows.collect())
}

/// As `--uplink` writes it.
fn kind_text(kind: &UplinkKind) -> String {
    match kind {
        UplinkKind::Sockets => "sockets".to_owned(),
        UplinkKind::Packet(packet) if packet.share_host_address => {
            format!("packet:{} (shared)", packet.interface)
        }
        UplinkKind::Packet(packet) => format!("packet:{}", packet.interface),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::ids::{PortId, UplinkId};

    fn create(addresses: &[&str]) -> Create {
        Create {
            name: "lan".to_owned(),
            sockets: false,
            packet: Some("eth0".to_owned()),
            addresses: addresses.iter().map(|a| a.parse().unwrap()).collect(),
            gateways: Vec::new(),
            share_host_address: false,
            ports: None,
            mapping: Binding::default(),
            filtering: Filtering::default(),
            outbound_refresh_only: false,
            nat66: false,
        }
    }

    #[test]
    fn an_uplink_without_any_address_is_a_usage_error() {
        assert_eq!(create(&[]).spec().unwrap_err().exit, 2);
    }

    #[test]
    fn who_shares_the_host_s_address_needs_none() {
        let spec = Create { share_host_address: true, ..create(&[]) }.spec().unwrap();
        assert_eq!(kind_text(&spec.kind), "packet:eth0 (shared)");
    }

    #[test]
    fn static_addresses_and_dhcp_go_together() {
        let spec = create(&["192.168.1.7/24", "dhcp", "fd00::7/64"]).spec().unwrap();
        let UplinkKind::Packet(packet) = spec.kind else { panic!("{spec:?}") };
        assert!(packet.dhcp);
        assert_eq!(list(packet.addresses), "192.168.1.7/24, fd00::7/64");
    }

    #[test]
    fn the_table_shows_the_kind_as_it_is_written() {
        let UplinkSpec { name, kind } = create(&["192.168.1.7/24"]).spec().unwrap();
        let uplink = UplinkInfo {
            id: UplinkId(1),
            name,
            kind,
            port: PortId(3),
            mac: None,
            addresses: vec!["192.168.1.7/24".parse().unwrap()],
            gateways: vec!["192.168.1.1".parse().unwrap()],
            dns: Vec::new(),
            mtu: 1500,
            shared: None,
            state: "up".to_owned(),
            networks: vec!["blue".to_owned()],
        };
        insta::assert_snapshot!(uplinks_table(&[uplink]), @r"
        NAME  KIND         ADDRESSES       GATEWAYS     STATE  NETWORKS
        lan   packet:eth0  192.168.1.7/24  192.168.1.1  up     blue
        ");
    }
}
