//! `wharf ps`, `wharf inspect`: containers and their endpoints.

use clap::Args;

use super::human::{list, or_dash};
use super::options::{Format, Global};
use super::output::{Failure, Outcome, json, line, listing, table};
use crate::control::model::{EndpointInfo, EndpointState};

/// `wharf inspect`
#[derive(Args, Debug)]
pub(crate) struct Inspect {
    /// Containers
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
    /// Print only the first address, for use in other commands
    #[arg(long)]
    address: bool,
}

/// `wharf ps`
#[derive(Args, Clone, Copy, Debug)]
pub(crate) struct Ps {
    /// Those of all nodes of the cluster
    #[arg(long)]
    all_nodes: bool,
    #[command(flatten)]
    format: Format,
}

/// Runs `wharf ps`.
pub(crate) fn ps(global: &Global, args: Ps) -> Outcome {
    let format = args.format;
    if args.all_nodes {
        return super::node::ps(global, format);
    }
    let endpoints = global.client().endpoints()?;
    listing(format.json, &endpoints, || endpoints_table(&endpoints))
}

/// Runs `wharf inspect`.
pub(crate) fn inspect(global: &Global, args: &Inspect) -> Outcome {
    let client = global.client();
    let mut found = Vec::new();
    for name in &args.names {
        found.extend(client.endpoint(name)?);
    }
    if !args.address {
        json(&found)?;
        return Ok(0);
    }
    for endpoint in &found {
        let Some(net) = endpoint.addresses.first() else {
            return Err(Failure::new(format!("{} has no address", endpoint.name)));
        };
        line(&net.addr().to_string())?;
        if args.names.len() == 1 {
            break;
        }
    }
    Ok(0)
}

fn endpoints_table(endpoints: &[EndpointInfo]) -> String {
    let rows = endpoints.iter().map(|endpoint| {
        [
            endpoint.name.clone(),
            endpoint.network.clone(),
            list(endpoint.addresses.iter().map(ipnet::IpNet::addr)),
            endpoint.mac.to_string(),
            match endpoint.state {
                EndpointState::Up => "up".to_owned(),
                EndpointState::Down => "down".to_owned(),
            },
            or_dash(endpoint.pid),
            list(endpoint.published.iter().map(super::publish::arrow)),
        ]
    });
    table(["NAME", "NETWORK", "ADDRESSES", "MAC", "STATE", ">PID", "PORTS"], rows.collect())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::attach::protocol::RateLimits;
    use crate::base::ids::{PortId, PublicationId};
    use crate::control::model::{PortRange, Proto, PublicationInfo};

    fn endpoint() -> EndpointInfo {
        EndpointInfo {
            id: "00c0ffee00c0ffee".to_owned(),
            name: "web".to_owned(),
            network: "blue".to_owned(),
            ifname: "eth0".to_owned(),
            port: PortId(4),
            mac: "02:42:0a:14:00:02".parse().unwrap(),
            addresses: vec!["10.20.0.2/24".parse().unwrap(), "fd00:20::2/64".parse().unwrap()],
            gateways: vec!["10.20.0.1".parse().unwrap()],
            mtu: 1500,
            labels: BTreeMap::from([("tier".to_owned(), "front".to_owned())]),
            aliases: vec!["www".to_owned()],
            pid: Some(4711),
            netns: None,
            container_id: None,
            rate: RateLimits::default(),
            state: EndpointState::Up,
            published: vec![PublicationInfo {
                id: PublicationId(1),
                endpoint: "web".to_owned(),
                network: "blue".to_owned(),
                host_addr: None,
                host_ports: PortRange::single(1180),
                ports: PortRange::single(5000),
                proto: Proto::Tcp,
            }],
            since_ms: 0,
        }
    }

    #[test]
    fn the_table_has_one_line_an_endpoint() {
        let bare = EndpointInfo {
            name: "db".to_owned(),
            addresses: Vec::new(),
            pid: None,
            state: EndpointState::Down,
            published: Vec::new(),
            ..endpoint()
        };
        insta::assert_snapshot!(endpoints_table(&[endpoint(), bare]));
    }

    #[test]
    fn the_fields_of_an_endpoint_are_stable() {
        insta::assert_json_snapshot!(endpoint());
    }
}
