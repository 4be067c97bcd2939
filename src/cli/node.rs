//! `wharf node`: ls, inspect, rm, key; and the endpoints of all nodes for `wharf ps --all-nodes`.

use std::path::PathBuf;

use clap::Subcommand;
use ipnet::IpNet;

use super::daemon::make_state_dir;
use super::human::{list, or_dash, seconds};
use super::options::{Format, Global};
use super::output::{Outcome, json, line, listing, table};
use crate::control::config::Paths;
use crate::control::model::{NodeEndpoint, NodeInfo, NodeRemoved, NodeState};
use crate::control::node_key;

/// What can be done with nodes.
#[derive(Subcommand, Debug)]
pub(crate) enum Command {
    /// List the nodes of the cluster
    #[command(visible_alias = "list")]
    Ls(Format),
    /// Show nodes in full, as JSON
    Inspect {
        /// Nodes
        #[arg(required = true, value_name = "NAME")]
        names: Vec<String>,
    },
    /// Print this node's public key, which other nodes' config files need
    ///
    /// It is made, with the private one (`wireguard-key` in the state directory), if there is none yet.
    Key {
        /// The daemon's state directory
        #[arg(long, value_name = "DIR", env = "WHARF_STATE_DIR", hide_env_values = true)]
        state_dir: Option<PathBuf>,
    },
    /// Remove nodes that are gone for good, or leave with the daemon's own
    ///
    /// A silent node keeps its subnet for ever: its containers may still run. A removed node's subnet is given
    /// to nobody for the time of the quarantine (`cluster.quarantine` in the config file), within which the
    /// node gets it back if it returns after all; then it is anybody's.
    #[command(visible_alias = "remove")]
    Rm {
        /// Nodes
        #[arg(required = true, value_name = "NAME")]
        names: Vec<String>,
    },
}

/// Runs `wharf node …`.
pub(crate) fn run(global: &Global, command: Command) -> Outcome {
    let client = global.client();
    match command {
        Command::Key { state_dir } => {
            let dir = state_dir.unwrap_or_else(|| Paths::of_this_user().state_dir);
            make_state_dir(&dir)?;
            line(&node_key::of(&dir)?.public().to_string())?;
        }
        Command::Ls(format) => {
            let nodes = client.nodes()?;
            return listing(format.json, &nodes, || nodes_table(&nodes));
        }
        Command::Inspect { names } => {
            let found =
                names.iter().map(|name| client.node(name)).collect::<Result<Vec<_>, _>>()?;
            json(&found)?;
        }
        Command::Rm { names } => {
            for name in names {
                let removed = client.remove_node(&name)?;
                if !global.quiet {
                    line(&removal(&removed))?;
                }
            }
        }
    }
    Ok(0)
}

fn removal(removed: &NodeRemoved) -> String {
    if removed.subnets.is_empty() {
        return format!("{} removed; it owned no subnet", removed.name);
    }
    let subnets = list(removed.subnets.iter());
    let quarantine = seconds(removed.quarantine_secs);
    format!("{} removed; {subnets} is given to nobody for {quarantine}", removed.name)
}

fn word(state: NodeState) -> &'static str {
    match state {
        NodeState::Alive => "alive",
        NodeState::Unsure => "unsure",
        NodeState::Silent => "silent",
        NodeState::Joining => "joining",
    }
}

fn nodes_table(nodes: &[NodeInfo]) -> String {
    let rows = nodes.iter().map(|node| {
        [
            if node.this { format!("{} (this)", node.name) } else { node.name.clone() },
            word(node.state).to_owned(),
            list(node.subnets.iter().map(IpNet::to_string)),
            list(node.addresses.iter()),
            node.endpoints.to_string(),
            or_dash(node.program.as_ref()),
            list(node.notes.iter()),
        ]
    });
    let heads = ["NODE", "STATE", "SUBNETS", "ADDRESSES", ">ENDPOINTS", "VERSION", "NOTES"];
    table(heads, rows.collect())
}

/// Runs `wharf ps --all-nodes`.
pub(super) fn ps(global: &Global, format: Format) -> Outcome {
    let endpoints = global.client().node_endpoints()?;
    listing(format.json, &endpoints, || endpoints_table(&endpoints))
}

fn endpoints_table(endpoints: &[NodeEndpoint]) -> String {
    let rows = endpoints.iter().map(|endpoint| {
        [
            endpoint.name.clone(),
            endpoint.node.clone(),
            word(endpoint.state).to_owned(),
            endpoint.network.clone(),
            list(endpoint.addresses.iter()),
            endpoint.mac.to_string(),
        ]
    });
    table(["NAME", "NODE", "NODE STATE", "NETWORK", "ADDRESSES", "MAC"], rows.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str, state: NodeState) -> NodeInfo {
        NodeInfo {
            name: name.to_owned(),
            this: name == "a",
            state,
            subnets: vec!["10.244.3.0/24".parse().unwrap(), "fd10:244:0:3::/64".parse().unwrap()],
            addresses: vec!["192.0.2.3".parse().unwrap()],
            endpoints: 2,
            program: Some("0.1.0".to_owned()),
            since_ms: Some(0),
            notes: Vec::new(),
        }
    }

    #[test]
    fn the_table_says_which_node_is_this_one_and_which_is_silent() {
        let silent = NodeInfo {
            addresses: Vec::new(),
            program: None,
            notes: vec!["its address is also that of a".to_owned()],
            ..node("b", NodeState::Silent)
        };
        insta::assert_snapshot!(nodes_table(&[node("a", NodeState::Alive), silent]));
    }

    #[test]
    fn the_fields_of_a_node_are_stable() {
        insta::assert_json_snapshot!(node("a", NodeState::Alive));
    }

    #[test]
    fn a_removal_says_how_long_the_subnet_rests() {
        let removed = NodeRemoved {
            name: "b".to_owned(),
            subnets: vec!["10.244.3.0/24".parse().unwrap()],
            quarantine_secs: 300,
        };
        assert_eq!(removal(&removed), "b removed; 10.244.3.0/24 is given to nobody for 5m00s");
    }
}
