//! `wharf network`: create, ls, inspect, update, rm.

use std::net::IpAddr;

use clap::{Args, Subcommand};
use ipnet::IpNet;

use super::human::{list, or_dash};
use super::options::{Format, Global};
use super::output::{Failure, Outcome, json, line, listing, table};
use crate::control::model::{NetworkInfo, NetworkSpec, NetworkUpdate};

/// What can be done with networks.
#[derive(Subcommand, Debug)]
pub(crate) enum Command {
    /// Make a network
    Create(Create),
    /// List the networks
    #[command(visible_alias = "list")]
    Ls(Format),
    /// Show networks in full, as JSON
    Inspect {
        /// Networks
        #[arg(required = true, value_name = "NAME")]
        names: Vec<String>,
    },
    /// Change a network that is in use
    Update(Update),
    /// Remove networks
    #[command(visible_alias = "remove")]
    Rm {
        /// Networks
        #[arg(required = true, value_name = "NAME")]
        names: Vec<String>,
        /// Detach their containers too
        #[arg(long, short)]
        force: bool,
    },
}

/// `wharf network create`
#[derive(Args, Debug)]
#[allow(clippy::struct_excessive_bools, reason = "each is an option")]
pub(crate) struct Create {
    /// Its name
    name: String,
    /// Address range, at most one of each family; chosen if none is given
    #[arg(long = "subnet", value_name = "CIDR", value_parser = subnet)]
    subnets: Vec<IpNet>,
    /// Gateway's address; the first of its subnet if none is given
    #[arg(long = "gateway", value_name = "ADDR")]
    gateways: Vec<IpAddr>,
    /// No way out at all
    #[arg(long, conflicts_with = "uplink")]
    internal: bool,
    /// Keep other networks away
    #[arg(long, value_name = "BOOL", default_value_t = true, num_args = 0..=1, default_missing_value = "true", require_equals = true, action = clap::ArgAction::Set)]
    isolated: bool,
    /// Let its containers talk to one another
    #[arg(long, value_name = "BOOL", default_value_t = true, num_args = 0..=1, default_missing_value = "true", require_equals = true, action = clap::ArgAction::Set)]
    icc: bool,
    /// Containers that `--icc=false` is not about, by their labels: role=server
    #[arg(long, value_name = "SELECTOR")]
    icc_except: Option<String>,
    /// Drop frames with forged addresses
    #[arg(long, value_name = "BOOL", default_value_t = true, num_args = 0..=1, default_missing_value = "true", require_equals = true, action = clap::ArgAction::Set)]
    guard: bool,
    /// Let the host take part, with an interface wharf0, wharf1, … (needs root)
    #[arg(long)]
    host: bool,
    /// Let containers reach the host's loopback at the gateway's address (with a `sockets` uplink)
    #[arg(long)]
    host_loopback: bool,
    /// Way out, by name; the daemon's default if none is given
    #[arg(long, value_name = "NAME")]
    uplink: Option<String>,
    /// Largest IP packet
    #[arg(long, value_name = "BYTES")]
    mtu: Option<u16>,
}

/// `wharf network update`
#[derive(Args, Debug)]
pub(crate) struct Update {
    /// The network
    name: String,
    /// No way out at all
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    internal: Option<bool>,
    /// Keep other networks away
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    isolated: Option<bool>,
    /// Let its containers talk to one another
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    icc: Option<bool>,
    /// Containers that `--icc=false` is not about, by their labels; an empty text for none
    #[arg(long, value_name = "SELECTOR")]
    icc_except: Option<String>,
    /// Drop frames with forged addresses
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    guard: Option<bool>,
    /// Let the host take part
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    host: Option<bool>,
    /// Way out, by name; `none` takes it away
    #[arg(long, value_name = "NAME")]
    uplink: Option<String>,
}

/// Host bits are a typing error more often than not, so they are named, not dropped.
fn subnet(text: &str) -> Result<IpNet, String> {
    let net: IpNet =
        text.parse().map_err(|_| "a subnet is written 10.20.0.0/24 or fd00:20::/64")?;
    if net.trunc() == net {
        Ok(net)
    } else {
        Err(format!("{text} is an address inside {}", net.trunc()))
    }
}

impl Create {
    fn spec(self) -> NetworkSpec {
        NetworkSpec {
            subnets: self.subnets,
            gateways: self.gateways,
            internal: self.internal,
            isolated: self.isolated,
            icc: self.icc,
            icc_except: self.icc_except,
            guard: self.guard,
            host: self.host,
            host_loopback: self.host_loopback,
            uplink: self.uplink,
            mtu: self.mtu,
            ..NetworkSpec::named(&self.name)
        }
    }
}

/// Runs `wharf network …`.
pub(crate) fn run(global: &Global, command: Command) -> Outcome {
    let client = global.client();
    match command {
        Command::Create(create) => {
            let network = client.create_network(&create.spec())?;
            let subnets = list(network.subnets.iter().map(|s| s.subnet));
            global.note(format_args!("network {} has {subnets}", network.name));
            Ok(0)
        }
        Command::Ls(format) => {
            let networks = client.networks()?;
            listing(format.json, &networks, || networks_table(&networks))
        }
        Command::Inspect { names } => {
            let found: Result<Vec<_>, _> = names.iter().map(|name| client.network(name)).collect();
            json(&found?)?;
            Ok(0)
        }
        Command::Update(update) => {
            let Update { name, internal, isolated, icc, icc_except, guard, host, uplink } = update;
            let change = NetworkUpdate { internal, isolated, icc, icc_except, guard, host, uplink };
            if change == NetworkUpdate::default() {
                return Err(Failure::usage("nothing to change").hint("name at least one option"));
            }
            client.update_network(&name, &change)?;
            Ok(0)
        }
        Command::Rm { names, force } => {
            for name in &names {
                client.remove_network(name, force)?;
                if names.len() > 1 {
                    line(name)?;
                }
            }
            Ok(0)
        }
    }
}

fn networks_table(networks: &[NetworkInfo]) -> String {
    let rows = networks.iter().map(|network| {
        [
            network.name.clone(),
            list(network.subnets.iter().map(|s| s.subnet)),
            list(network.subnets.iter().map(|s| s.gateway)),
            if network.internal { "internal".to_owned() } else { or_dash(network.uplink.as_ref()) },
            network.endpoints.len().to_string(),
            options(network),
        ]
    });
    let headings = ["NAME", "SUBNETS", "GATEWAYS", "UPLINK", ">ENDPOINTS", "OPTIONS"];
    table(headings, rows.collect())
}

/// What differs from the defaults.
fn options(network: &NetworkInfo) -> String {
    let mut options = Vec::new();
    for (set, text) in [
        (!network.isolated, "reachable"),
        (!network.icc, "no-icc"),
        (!network.guard, "no-guard"),
        (network.span, "span"),
        (network.host_loopback, "host-loopback"),
    ] {
        options.extend(set.then(|| text.to_owned()));
    }
    options.extend(network.icc_except.as_ref().map(|except| format!("icc-except={except}")));
    options.extend(network.host_interface.as_ref().map(|i| format!("host={i}")));
    if network.mtu != 1500 {
        options.push(format!("mtu={}", network.mtu));
    }
    list(options)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::ids::NetworkId;
    use crate::control::model::SubnetInfo;

    fn network(name: &str) -> NetworkInfo {
        let subnet = |subnet: &str, gateway: &str| SubnetInfo {
            subnet: subnet.parse().unwrap(),
            gateway: gateway.parse().unwrap(),
            used: 2,
            capacity: 253,
        };
        NetworkInfo {
            id: NetworkId(1),
            name: name.to_owned(),
            subnets: vec![
                subnet("10.20.0.0/24", "10.20.0.1"),
                subnet("fd00:20::/64", "fd00:20::1"),
            ],
            gateway_mac: "02:42:0a:14:00:01".parse().unwrap(),
            internal: false,
            isolated: true,
            icc: true,
            icc_except: None,
            guard: true,
            host: false,
            host_interface: None,
            uplink: Some("lan".to_owned()),
            mtu: 1500,
            span: false,
            host_loopback: false,
            endpoints: vec!["web".to_owned(), "db".to_owned()],
            created_ms: 0,
        }
    }

    #[test]
    fn the_table_names_only_what_differs_from_the_defaults() {
        let open = NetworkInfo {
            isolated: false,
            internal: true,
            mtu: 9000,
            host_interface: Some("wharf0".to_owned()),
            ..network("red")
        };
        insta::assert_snapshot!(networks_table(&[network("blue"), open]));
    }

    #[test]
    fn a_subnet_with_host_bits_is_a_typing_error() {
        assert!(subnet("10.20.0.0/24").is_ok() && subnet("fd00:20::/64").is_ok());
        assert_eq!(
            subnet("10.20.0.1/24").unwrap_err(),
            "10.20.0.1/24 is an address inside 10.20.0.0/24"
        );
        assert!(subnet("10.20.0.0").is_err());
    }
}
